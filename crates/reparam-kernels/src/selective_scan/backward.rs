//! The backward pass over time, from the last chunk of a sequence to its first.

use rayon::prelude::*;

use super::{BLOCK, CHUNK, ScanGrads, ScanInputs, ScanShape};
use crate::activation::sigmoid;
use crate::exp::{exp_lanes, softplus_lanes};
use crate::isa::{LANES, PairSimd, Token, simd_entry};
use crate::number::{Group, read, write};
use crate::par::block_rows;
use crate::shared::Shared;
use crate::vector;

/// Groups of a block.
const GROUPS: usize = BLOCK / LANES;

type Lanes = [f32; LANES];

/// What all tasks share.
struct Job<'a> {
    shape: ScanShape<'a>,
    inputs: ScanInputs<'a>,
    /// `A` as `[n, d]`.
    a: Vec<f32>,
    dy: &'a [f32],
    kept: &'a [f32],
    du: Shared<'a, f32>,
    ddt: Shared<'a, f32>,
    /// The gradients of `B` and `C` from each block of channels, `[blocks, N, 2 n]`.
    coefficients: Shared<'a, f32>,
}

/// Lengths are checked.
pub(super) fn backward(
    shape: ScanShape<'_>,
    inputs: ScanInputs<'_>,
    dy: &[f32],
    kept: &[f32],
    grads: ScanGrads<'_>,
) {
    let token = Token::current();
    let (tokens, channels, states) = (shape.tokens(), shape.channels, shape.states);
    let blocks = shape.blocks();
    let mut coefficients = vec![0.0; blocks * tokens * 2 * states];
    // The gradients of `A` and `D` from each sequence: for each block `[n + 1, BLOCK]`.
    let of_task = (states + 1) * BLOCK;
    let mut own = vec![0.0; shape.sequences() * blocks * of_task];
    let job = Job {
        shape,
        inputs,
        a: shape.turned(inputs.a),
        dy,
        kept,
        du: Shared::new(grads.du),
        ddt: Shared::new(grads.ddt),
        coefficients: Shared::new(&mut coefficients),
    };
    own.par_chunks_mut(of_task)
        .with_max_len(1)
        .enumerate()
        .for_each(|(task, own)| run(token, &job, task / blocks, task % blocks, own));
    for channel in 0..channels {
        let (block, lane) = (channel / BLOCK, channel % BLOCK);
        let sum = |row: usize| {
            let parts = own.chunks_exact(of_task).skip(block).step_by(blocks);
            parts.map(|part| part[row * BLOCK + lane]).sum::<f32>()
        };
        for state in 0..states {
            grads.da[channel * states + state] = sum(state);
        }
        grads.dd[channel] = sum(states);
    }
    let rows = block_rows(states);
    grads
        .db
        .par_chunks_mut(rows * states)
        .zip(grads.dc.par_chunks_mut(rows * states))
        .enumerate()
        .for_each(|(part, (db, dc))| {
            db.fill(0.0);
            dc.fill(0.0);
            for of_block in coefficients.chunks_exact((tokens * 2 * states).max(1)) {
                let of_part = &of_block[part * rows * 2 * states..];
                let to = db.chunks_exact_mut(states).zip(dc.chunks_exact_mut(states));
                for ((db, dc), row) in to.zip(of_part.chunks_exact(2 * states)) {
                    vector::add(&row[..states], db);
                    vector::add(&row[states..], dc);
                }
            }
        });
}

simd_entry!(fn run<'a, 'b>(
    job: &'b Job<'a>, sequence: usize, block: usize, own: &'b mut [f32]
) = run_generic);

/// What a task computes with, of vectors.
struct Scratch {
    a: Vec<Lanes>,
    /// The states before each token of a chunk and after its last one, `[CHUNK + 1, n]`.
    h: Vec<Lanes>,
    /// What the state before each is multiplied by, `[CHUNK, n]`.
    decay: Vec<Lanes>,
    /// The gradients of `B` and `C` by lane, `[CHUNK, n]`.
    db: Vec<Lanes>,
    dc: Vec<Lanes>,
    /// `e g` of the token behind the chunk, `[GROUPS, n]`.
    carried: Vec<Lanes>,
    /// The gradient of `A`, `[GROUPS, n]`.
    da: Vec<Lanes>,
}

impl Scratch {
    fn new(states: usize) -> Self {
        let zeros = |rows: usize| vec![[0.0; LANES]; rows * states];
        Self {
            a: zeros(1),
            h: zeros(CHUNK + 1),
            decay: zeros(CHUNK),
            db: zeros(CHUNK),
            dc: zeros(CHUNK),
            carried: zeros(GROUPS),
            da: zeros(GROUPS),
        }
    }
}

#[inline(always)]
#[expect(unsafe_code, reason = "tasks write their own parts of the gradients")]
fn run_generic<S: PairSimd>(
    simd: S,
    job: &Job<'_>,
    sequence: usize,
    block: usize,
    own: &mut [f32],
) {
    let ScanShape {
        channels,
        states,
        bounds,
    } = job.shape;
    let (first, end) = (bounds[sequence], bounds[sequence + 1]);
    let chunks = job.shape.chunks_before(sequence);
    let of_block = block * BLOCK..channels.min((block + 1) * BLOCK);
    let mut scratch = Scratch::new(states);
    let mut dskip = [[0.0; LANES]; GROUPS];
    for chunk in (0..(end - first).div_ceil(CHUNK)).rev() {
        let start = first + chunk * CHUNK;
        let tokens = start..end.min(start + CHUNK);
        scratch.db.fill([0.0; LANES]);
        scratch.dc.fill([0.0; LANES]);
        for (group, channel) in of_block.clone().step_by(LANES).enumerate() {
            let at = Group {
                start: channel,
                len: LANES.min(of_block.end - channel),
            };
            run_group(
                simd,
                job,
                (tokens.start, tokens.len(), chunks + chunk),
                (group, at),
                &mut scratch,
                &mut dskip[group],
            );
        }
        let place = (block * job.shape.tokens() + start) * 2 * states;
        // SAFETY: a task alone has this sequence and this block, and the bounds are in order, so that
        // no two sequences have the same token.
        let to = unsafe { job.coefficients.part(place, tokens.len() * 2 * states) };
        let sums = scratch
            .db
            .chunks_exact(states)
            .zip(scratch.dc.chunks_exact(states));
        for (row, (db, dc)) in to.chunks_exact_mut(2 * states).zip(sums) {
            for (to, lanes) in row.iter_mut().zip(db.iter().chain(dc)) {
                *to = simd.sum(simd.load(lanes));
            }
        }
    }
    for (group, dskip) in dskip.iter().enumerate() {
        for state in 0..states {
            let to = &mut own[state * BLOCK + group * LANES..][..LANES];
            to.copy_from_slice(&scratch.da[group * states + state]);
        }
        own[states * BLOCK + group * LANES..][..LANES].copy_from_slice(dskip);
    }
}

/// A chunk, `(first token, tokens, number)`, of a group of channels, `(number in the block, channels)`.
#[inline(always)]
#[expect(unsafe_code, reason = "tasks write their own parts of the gradients")]
fn run_group<S: PairSimd>(
    simd: S,
    job: &Job<'_>,
    (first, len, chunk): (usize, usize, usize),
    (group, at): (usize, Group),
    scratch: &mut Scratch,
    dskip: &mut Lanes,
) {
    let (channels, states) = (job.shape.channels, job.shape.states);
    let inputs = &job.inputs;
    let own = Group {
        start: 0,
        len: at.len,
    };
    for state in 0..states {
        let a = read(simd, &job.a[state * channels..], at);
        simd.store(a, &mut scratch.a[state]);
        let kept = &job.kept[(chunk * states + state) * channels..];
        simd.store(read(simd, kept, at), &mut scratch.h[state]);
    }
    // The states of the chunk again.
    for step in 0..len {
        let token = first + step;
        let s = softplus_lanes(simd, read(simd, &inputs.dt[token * channels..], at));
        let su = simd.mul(s, read(simd, &inputs.u[token * channels..], at));
        let b = &inputs.b[token * states..][..states];
        let (before, after) = scratch.h[step * states..].split_at_mut(states);
        let decays = &mut scratch.decay[step * states..][..states];
        for state in 0..states {
            let decay = exp_lanes(simd, simd.mul(s, simd.load(&scratch.a[state])));
            let entered = simd.mul(su, simd.splat(b[state]));
            let next = simd.mul_add_lanes(decay, simd.load(&before[state]), entered);
            simd.store(decay, &mut decays[state]);
            simd.store(next, &mut after[state]);
        }
    }
    let skip = read(simd, inputs.d, at);
    let mut to_skip = simd.load(dskip);
    let carried = &mut scratch.carried[group * states..][..states];
    let da = &mut scratch.da[group * states..][..states];
    for step in (0..len).rev() {
        let token = first + step;
        let row = token * channels;
        let raw = read(simd, &inputs.dt[row..], at);
        let s = softplus_lanes(simd, raw);
        let u = read(simd, &inputs.u[row..], at);
        let dy = read(simd, &job.dy[row..], at);
        to_skip = simd.mul_add_lanes(dy, u, to_skip);
        let mut du = simd.mul(dy, skip);
        let mut ds = simd.splat(0.0);
        let b = &inputs.b[token * states..][..states];
        let c = &inputs.c[token * states..][..states];
        let (before, after) = scratch.h[step * states..].split_at(states);
        let decays = &scratch.decay[step * states..][..states];
        let db = &mut scratch.db[step * states..][..states];
        let dc = &mut scratch.dc[step * states..][..states];
        for state in 0..states {
            let g = simd.mul_add_lanes(dy, simd.splat(c[state]), simd.load(&carried[state]));
            let to_c = simd.mul_add_lanes(dy, simd.load(&after[state]), simd.load(&dc[state]));
            simd.store(to_c, &mut dc[state]);
            let ge = simd.mul(g, simd.load(&decays[state]));
            simd.store(ge, &mut carried[state]);
            // The gradient of the exponent.
            let to_exponent = simd.mul(ge, simd.load(&before[state]));
            let to_a = simd.mul_add_lanes(to_exponent, s, simd.load(&da[state]));
            simd.store(to_a, &mut da[state]);
            let gb = simd.mul(g, simd.splat(b[state]));
            ds = simd.mul_add_lanes(to_exponent, simd.load(&scratch.a[state]), ds);
            ds = simd.mul_add_lanes(gb, u, ds);
            du = simd.mul_add_lanes(gb, s, du);
            let gs = simd.mul(g, s);
            let to_b = simd.mul_add_lanes(gs, u, simd.load(&db[state]));
            simd.store(to_b, &mut db[state]);
        }
        let ddt = simd.mul(ds, sigmoid(simd, raw));
        // SAFETY: a task alone has this sequence and these channels, and no two sequences have the same
        // token.
        let (to_u, to_dt) = unsafe {
            let place = row + at.start;
            (job.du.part(place, at.len), job.ddt.part(place, at.len))
        };
        write(simd, du, to_u, own);
        write(simd, ddt, to_dt, own);
    }
    simd.store(to_skip, dskip);
}
