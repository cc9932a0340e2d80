//! The backward pass over time, from the last step to the first.

use rayon::prelude::*;

use super::cell::{CellCode, MAX_KEPT, Saved, with_cell};
use super::panels::{Lanes, MAX_ROWS, MAX_SUMS, Panels};
use super::schedule::{Cost, Direction, Part, Sequence, even, run, units_of};
use super::{RecurrentSaved, StateMut};
use crate::KernelError;
use crate::isa::{PairSimd, Token, simd_entry};
use crate::matmul::{MatMut, MatRef, matmul};
use crate::number::{Group, read, write};
use crate::par::block_rows;
use crate::shared::Shared;
use crate::vector;

/// What all steps share.
struct Job<'a> {
    saved: RecurrentSaved<'a>,
    panels: Panels,
    dxw: Shared<'a, f32>,
    /// The gradients of the last gate's part from the state, for cells that split it; else empty.
    last: Shared<'a, f32>,
    /// The gradients of the states so far, by the sequences' positions in the batch.
    dh: Shared<'a, f32>,
    dc: Shared<'a, f32>,
}

/// Lengths are checked; `dstate` holds the gradients of the last states and receives those of the
/// first. Returns the gradients of the last gate's part from the state if the cell splits it.
pub(super) fn backward<'a>(
    saved: RecurrentSaved<'a>,
    dxw: &'a mut [f32],
    dstate: StateMut<'a>,
) -> Option<Vec<f32>> {
    let token = Token::current();
    let shape = saved.shape;
    let (gates, units) = (shape.cell.gates(), shape.hidden);
    let splits = with_cell!(shape.cell, |cell| splits(cell));
    let mut last = splits.then(|| vec![0.0; saved.h.len()]);
    let panels = Panels::plain(token, saved.w_hh, gates * units, units);
    let cost = Cost {
        blocks: panels.blocks(),
        bytes: panels.bytes(),
        tile_rows: panels.rows,
    };
    let job = Job {
        saved,
        panels,
        dxw: Shared::new(dxw),
        last: Shared::new(last.as_deref_mut().unwrap_or(&mut [])),
        dh: Shared::new(dstate.h),
        dc: Shared::new(dstate.c),
    };
    let sequences = Sequence::sorted(shape.bounds, shape.reverse);
    run(
        &sequences,
        Direction::Backward,
        cost,
        |rows, step, blocks| {
            // Those that end at this step have no gradient from a later one.
            let go_on = rows.partition_point(|sequence| sequence.len > step);
            let (go_on, end) = rows.split_at(go_on);
            for block in blocks {
                for rows in [go_on, end] {
                    for tile in even(rows.len(), rows.len().div_ceil(job.panels.rows)) {
                        run_tile(token, &job, &rows[tile], step, block);
                    }
                }
            }
        },
    );
    last
}

fn splits<C: CellCode>(_: C) -> bool {
    C::SPLITS
}

/// Computes the gradients of a block of units of some rows, of the state after step `step` and of
/// the gates of that step. Either all rows go on after it or none.
#[expect(unsafe_code, reason = "the gradients of the later step are only read")]
fn run_tile(token: Token, job: &Job<'_>, rows: &[Sequence], step: usize, block: usize) {
    let (shape, units) = (&job.saved.shape, job.saved.shape.hidden);
    let gates = shape.cell.gates();
    let mut sums = [Lanes::ZERO; MAX_SUMS];
    if rows[0].len > step {
        let splits = with_cell!(shape.cell, |cell| splits(cell));
        let own = if splits { gates - 1 } else { gates };
        let mut later: [&[f32]; MAX_ROWS] = [&[]; MAX_ROWS];
        let later = &mut later[..rows.len()];
        for (later, sequence) in later.iter_mut().zip(rows) {
            let at = sequence.token(step + 1) * gates * units;
            // SAFETY: the gradients of a step are written by the tasks of this step alone, which
            // have all ended before the step before of the same sequence.
            *later = unsafe { job.dxw.read(at, own * units) };
        }
        job.panels.add(token, block, 0, later, &mut sums);
        if splits {
            for (later, sequence) in later.iter_mut().zip(rows) {
                let at = sequence.token(step + 1) * units;
                // SAFETY: as above.
                *later = unsafe { job.last.read(at, units) };
            }
            job.panels.add(token, block, own * units, later, &mut sums);
        }
    }
    // SAFETY: `schedule::run` gives each step, sequence and block to one task alone, and the bounds
    // are in order, so that no two sequences have the same token.
    let part = unsafe { Part::new(rows, step, block) };
    with_cell!(shape.cell, |cell| run_cells(token, cell, job, part, &sums));
}

simd_entry!(fn run_cells<'a, 'b; C: CellCode>(
    cell: C, job: &'b Job<'a>, part: Part<'b>, sums: &'b [Lanes]
) = run_cells_generic);

#[inline(always)]
#[expect(unsafe_code, reason = "tasks write their own parts of the gradients")]
fn run_cells_generic<S: PairSimd, C: CellCode>(
    simd: S,
    cell: C,
    job: &Job<'_>,
    part: Part<'_>,
    sums: &[Lanes],
) {
    let Part {
        rows, step, block, ..
    } = part;
    let saved = &job.saved;
    let (units, groups) = (saved.shape.hidden, job.panels.groups());
    let zero = simd.splat(0.0);
    for (row, sequence) in rows.iter().enumerate() {
        for group in 0..groups {
            let range = units_of(block * groups + group, units);
            let (first, len) = (range.start, range.len());
            if len == 0 {
                continue;
            }
            let at = Group { start: 0, len };
            let own = |state: usize| state * units + first;
            // Not a closure that reads, in which the instructions would not be inlined.
            macro_rules! get {
                ($values:expr, $state:expr) => {
                    read(simd, &$values[own($state)..][..len], at)
                };
            }
            macro_rules! before {
                ($values:expr, $width:expr, $initial:ident) => {
                    if step > 1 {
                        let state = sequence.token(step - 1) * $width + $width - 1;
                        get!($values, state)
                    } else {
                        match saved.initial {
                            Some(initial) => get!(initial.$initial, sequence.index),
                            None => zero,
                        }
                    }
                };
            }
            let mut dh = simd.load(&sums[job.panels.sum(rows.len(), row, 0, group)].0);
            // SAFETY: see `Part::new`.
            let dh_so_far = unsafe { job.dh.part(own(sequence.index), len) };
            if C::USES_H || step == sequence.len {
                dh = simd.add(dh, read(simd, dh_so_far, at));
            }
            if step == 0 {
                write(simd, dh, dh_so_far, at);
                continue;
            }
            let token = sequence.token(step);
            let mut values = Saved {
                dh: simd.add(dh, get!(saved.dh, token)),
                dc: zero,
                h: zero,
                h_before: zero,
                c_before: zero,
                kept: [zero; MAX_KEPT],
            };
            if C::KEPT == 0 {
                values.h = get!(saved.h, token);
            }
            if C::USES_H {
                values.h_before = before!(saved.h, 1, h);
            }
            for i in 0..C::KEPT {
                values.kept[i] = get!(saved.kept, token * C::KEPT + i);
            }
            if C::HAS_C {
                values.c_before = before!(saved.kept, C::KEPT, c);
                // SAFETY: see `Part::new`.
                values.dc = read(simd, unsafe { job.dc.part(own(sequence.index), len) }, at);
            }
            let gradients = cell.backward(simd, values);
            for gate in 0..C::GATES {
                // SAFETY: see `Part::new`.
                let dxw = unsafe { job.dxw.part(own(token * C::GATES + gate), len) };
                write(simd, gradients.x[gate], dxw, at);
            }
            if C::SPLITS {
                // SAFETY: see `Part::new`.
                let last = unsafe { job.last.part(own(token), len) };
                write(simd, gradients.last, last, at);
            }
            if C::USES_H {
                write(simd, gradients.h, dh_so_far, at);
            }
            if C::HAS_C {
                // SAFETY: see `Part::new`.
                let dc = unsafe { job.dc.part(own(sequence.index), len) };
                write(simd, gradients.c, dc, at);
            }
        }
    }
}

/// `dW = sum over tokens of (gradient of the gates)' h`, `h` the state before, in one product.
pub(super) fn weight_gradient(
    saved: &RecurrentSaved<'_>,
    dxw: &[f32],
    last: Option<&[f32]>,
    dw_hh: &mut [f32],
) -> Result<(), KernelError> {
    let shape = &saved.shape;
    let (gates, units) = (shape.cell.gates(), shape.hidden);
    let tokens = shape.tokens();
    let before = states_before(saved);
    let before = MatRef::new(&before, tokens, units)?;
    let own = if last.is_some() { gates - 1 } else { gates };
    let (to, to_last) = dw_hh.split_at_mut(own * units * units);
    let dxw = MatRef::with_strides(dxw, tokens, own * units, gates * units, 1)?;
    let to = MatMut::new(to, own * units, units)?;
    matmul(to, dxw.t(), before, 1.0, 0.0)?;
    if let Some(last) = last {
        let last = MatRef::new(last, tokens, units)?;
        matmul(
            MatMut::new(to_last, units, units)?,
            last.t(),
            before,
            1.0,
            0.0,
        )?;
    }
    Ok(())
}

/// The state before each token, `[N, H]`.
fn states_before(saved: &RecurrentSaved<'_>) -> Vec<f32> {
    let (shape, units) = (&saved.shape, saved.shape.hidden);
    let mut before = vec![0.0; saved.h.len()];
    for sequence in Sequence::sorted(shape.bounds, shape.reverse) {
        if sequence.len == 0 {
            continue;
        }
        if let Some(initial) = &saved.initial {
            let h = &initial.h[sequence.index * units..][..units];
            before[sequence.token(1) * units..][..units].copy_from_slice(h);
        }
        let (from, to) = if shape.reverse { (1, 0) } else { (0, 1) };
        let len = (sequence.len - 1) * units;
        let h = &saved.h[(sequence.start + from) * units..][..len];
        before[(sequence.start + to) * units..][..len].copy_from_slice(h);
    }
    before
}

/// `db = sum over tokens of the gradient of the gates`
pub(super) fn bias_gradient(units: usize, dxw: &[f32], last: Option<&[f32]>, db_hh: &mut [f32]) {
    sum_rows(dxw, db_hh);
    if let Some(last) = last {
        let start = db_hh.len() - units;
        sum_rows(last, &mut db_hh[start..]);
    }
}

/// The sum of all rows, by blocks whose sums are added in their order.
fn sum_rows(rows: &[f32], sum: &mut [f32]) {
    let width = sum.len();
    let parts: Vec<_> = rows
        .par_chunks(block_rows(width) * width)
        .map(|rows| {
            let mut part = vec![0.0; width];
            for row in rows.chunks_exact(width) {
                vector::add(row, &mut part);
            }
            part
        })
        .collect();
    sum.fill(0.0);
    for part in parts {
        vector::add(&part, sum);
    }
}
