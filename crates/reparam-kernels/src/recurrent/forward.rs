//! The forward pass over time.

use super::cell::{CellCode, Inputs, MAX_GATES, with_cell};
use super::panels::{Lanes, MAX_ROWS, MAX_SUMS, Panels};
use super::schedule::{Cost, Direction, Part, Sequence, even, run, units_of};
use super::{RecurrentShape, StateMut, Weights};
use crate::isa::{PairSimd, Token, simd_entry};
use crate::number::{Group, read, write};
use crate::shared::Shared;

/// What all steps share.
pub(super) struct Job<'a> {
    shape: RecurrentShape<'a>,
    xw: &'a [f32],
    panels: Panels,
    /// The bias for each group of columns of each block.
    bias: Vec<Lanes>,
    /// The states before the first step, by the sequences' positions in the batch.
    h_first: Option<&'a [f32]>,
    h: Shared<'a, f32>,
    h_last: Shared<'a, f32>,
    /// The cell states so far, by the sequences' positions.
    c: Shared<'a, f32>,
    /// Empty if nothing is kept.
    kept: Shared<'a, f32>,
    keeps: bool,
}

/// Lengths are checked; `last` holds the states before the first step.
pub(super) fn forward<'a>(
    shape: RecurrentShape<'a>,
    xw: &'a [f32],
    weights: Weights<'a>,
    h_first: Option<&'a [f32]>,
    h: &'a mut [f32],
    last: StateMut<'a>,
    kept: Option<&'a mut [f32]>,
) {
    let token = Token::current();
    let (gates, units) = (shape.cell.gates(), shape.hidden);
    let panels = Panels::transposed(token, weights.w_hh, gates, units);
    let bias = match weights.b_hh {
        Some(bias) => panels.row(bias, units),
        None => vec![Lanes::ZERO; panels.blocks() * gates * panels.groups()],
    };
    let cost = Cost {
        blocks: panels.blocks(),
        bytes: panels.bytes(),
        tile_rows: panels.rows,
    };
    let job = Job {
        shape,
        xw,
        panels,
        bias,
        h_first,
        h: Shared::new(h),
        h_last: Shared::new(last.h),
        c: Shared::new(last.c),
        keeps: kept.is_some(),
        kept: Shared::new(kept.unwrap_or(&mut [])),
    };
    let sequences = Sequence::sorted(shape.bounds, shape.reverse);
    run(
        &sequences,
        Direction::Forward,
        cost,
        |rows, step, blocks| {
            for block in blocks {
                for tile in even(rows.len(), rows.len().div_ceil(job.panels.rows)) {
                    run_tile(token, &job, &rows[tile], step, block);
                }
            }
        },
    );
}

/// Computes a block of units of some rows at a step.
#[expect(unsafe_code, reason = "the states of the step before are only read")]
fn run_tile(token: Token, job: &Job<'_>, rows: &[Sequence], step: usize, block: usize) {
    let units = job.shape.hidden;
    let mut sums = [Lanes::ZERO; MAX_SUMS];
    let (gates, groups) = (job.shape.cell.gates(), job.panels.groups());
    let bias = &job.bias[block * gates * groups..][..gates * groups];
    for row in 0..rows.len() {
        for (i, bias) in bias.iter().enumerate() {
            sums[job.panels.sum(rows.len(), row, i / groups, i % groups)] = *bias;
        }
    }
    let mut before: [&[f32]; MAX_ROWS] = [&[]; MAX_ROWS];
    let before = &mut before[..rows.len()];
    for (before, sequence) in before.iter_mut().zip(rows) {
        *before = match (step, job.h_first) {
            (1, Some(first)) => &first[sequence.index * units..][..units],
            (1, None) => &[],
            // SAFETY: the states of a step are written by the tasks of this step alone, which have
            // all ended before the next step of the same sequence.
            _ => unsafe { job.h.read(sequence.token(step - 1) * units, units) },
        };
    }
    if !before[0].is_empty() {
        job.panels.add(token, block, 0, before, &mut sums);
    }
    // SAFETY: `schedule::run` gives each step, sequence and block to one task alone, and the bounds
    // are in order, so that no two sequences have the same token.
    let part = unsafe { Part::new(rows, step, block) };
    with_cell!(job.shape.cell, |cell| run_cells(
        token, cell, job, part, before, &sums
    ));
}

simd_entry!(fn run_cells<'a, 'b; C: CellCode>(
    cell: C, job: &'b Job<'a>, part: Part<'b>, before: &'b [&'b [f32]], sums: &'b [Lanes]
) = run_cells_generic);

#[inline(always)]
#[expect(unsafe_code, reason = "tasks write their own parts of the outputs")]
fn run_cells_generic<S: PairSimd, C: CellCode>(
    simd: S,
    cell: C,
    job: &Job<'_>,
    part: Part<'_>,
    before: &[&[f32]],
    sums: &[Lanes],
) {
    let Part {
        rows, step, block, ..
    } = part;
    let (units, groups) = (job.shape.hidden, job.panels.groups());
    let zero = simd.splat(0.0);
    for (row, sequence) in rows.iter().enumerate() {
        let token = sequence.token(step);
        let xw = &job.xw[token * C::GATES * units..][..C::GATES * units];
        for group in 0..groups {
            let range = units_of(block * groups + group, units);
            let (first, len) = (range.start, range.len());
            if len == 0 {
                continue;
            }
            let at = Group { start: 0, len };
            let own = |state: usize| state * units + first;
            let mut inputs = Inputs {
                x: [zero; MAX_GATES],
                a: [zero; MAX_GATES],
                h: zero,
                c: zero,
            };
            for gate in 0..C::GATES {
                inputs.x[gate] = read(simd, &xw[gate * units + first..][..len], at);
                let sum = job.panels.sum(rows.len(), row, gate, group);
                inputs.a[gate] = simd.load(&sums[sum].0);
            }
            if C::USES_H && !before[row].is_empty() {
                inputs.h = read(simd, &before[row][first..][..len], at);
            }
            if C::HAS_C {
                // SAFETY: see `Part::new`.
                let c = unsafe { job.c.part(own(sequence.index), len) };
                inputs.c = read(simd, c, at);
            }
            let outputs = cell.forward(simd, inputs);
            if C::HAS_C {
                // SAFETY: see `Part::new`.
                let c = unsafe { job.c.part(own(sequence.index), len) };
                write(simd, outputs.c, c, at);
            }
            // SAFETY: see `Part::new`.
            write(simd, outputs.h, unsafe { job.h.part(own(token), len) }, at);
            if step == sequence.len {
                // SAFETY: see `Part::new`.
                let last = unsafe { job.h_last.part(own(sequence.index), len) };
                write(simd, outputs.h, last, at);
            }
            if job.keeps {
                for i in 0..C::KEPT {
                    // SAFETY: see `Part::new`.
                    let kept = unsafe { job.kept.part(own(token * C::KEPT + i), len) };
                    write(simd, outputs.kept[i], kept, at);
                }
            }
        }
    }
}
