//! The forward pass over time.

use super::{BLOCK, CHUNK, ScanInputs, ScanShape};
use crate::exp::{exp_lanes, softplus_lanes};
use crate::isa::{LANES, PairSimd, Token, simd_entry};
use crate::number::{Group, read, write};
use crate::par;
use crate::shared::Shared;

/// What all tasks share.
pub(super) struct Job<'a> {
    shape: ScanShape<'a>,
    inputs: ScanInputs<'a>,
    /// `A` as `[n, d]`.
    a: Vec<f32>,
    initial: Option<&'a [f32]>,
    y: Shared<'a, f32>,
    last: Shared<'a, f32>,
    /// Empty if nothing is kept.
    kept: Shared<'a, f32>,
    keeps: bool,
}

/// Lengths are checked.
pub(super) fn forward<'a>(
    shape: ScanShape<'a>,
    inputs: ScanInputs<'a>,
    initial: Option<&'a [f32]>,
    y: &'a mut [f32],
    last: &'a mut [f32],
    kept: Option<&'a mut [f32]>,
) {
    let token = Token::current();
    let job = Job {
        shape,
        inputs,
        a: shape.turned(inputs.a),
        initial,
        y: Shared::new(y),
        last: Shared::new(last),
        keeps: kept.is_some(),
        kept: Shared::new(kept.unwrap_or(&mut [])),
    };
    let blocks = shape.blocks();
    par::for_each_index(shape.sequences() * blocks, |task| {
        run(token, &job, task / blocks, task % blocks);
    });
}

simd_entry!(fn run<'a, 'b>(job: &'b Job<'a>, sequence: usize, block: usize) = run_generic);

#[inline(always)]
#[expect(unsafe_code, reason = "tasks write their own parts of the outputs")]
fn run_generic<S: PairSimd>(simd: S, job: &Job<'_>, sequence: usize, block: usize) {
    let ScanShape {
        channels,
        states,
        bounds,
    } = job.shape;
    let (first, end) = (bounds[sequence], bounds[sequence + 1]);
    let chunks = job.shape.chunks_before(sequence);
    let mut a = vec![[0.0; LANES]; states];
    let mut h = vec![[0.0; LANES]; states];
    let of_block = block * BLOCK..channels.min((block + 1) * BLOCK);
    for start in of_block.clone().step_by(LANES) {
        let len = LANES.min(of_block.end - start);
        let (at, own) = (Group { start, len }, Group { start: 0, len });
        for (state, (a, h)) in a.iter_mut().zip(&mut h).enumerate() {
            simd.store(read(simd, &job.a[state * channels..], at), a);
            let before = match job.initial {
                Some(initial) => read(simd, &initial[(sequence * states + state) * channels..], at),
                None => simd.splat(0.0),
            };
            simd.store(before, h);
        }
        let skip = read(simd, job.inputs.d, at);
        for token in first..end {
            let step = token - first;
            if job.keeps && step % CHUNK == 0 {
                let chunk = chunks + step / CHUNK;
                for (state, h) in h.iter().enumerate() {
                    let place = (chunk * states + state) * channels + start;
                    // SAFETY: a task alone has this sequence and these channels, and chunks are
                    // numbered through all sequences.
                    let kept = unsafe { job.kept.part(place, len) };
                    write(simd, simd.load(h), kept, own);
                }
            }
            let row = token * channels;
            let s = softplus_lanes(simd, read(simd, &job.inputs.dt[row..], at));
            let u = read(simd, &job.inputs.u[row..], at);
            let su = simd.mul(s, u);
            let mut y = simd.mul(skip, u);
            let b = &job.inputs.b[token * states..][..states];
            let c = &job.inputs.c[token * states..][..states];
            for (((h, a), b), c) in h.iter_mut().zip(&a).zip(b).zip(c) {
                let decay = exp_lanes(simd, simd.mul(s, simd.load(a)));
                let entered = simd.mul(su, simd.splat(*b));
                let next = simd.mul_add_lanes(decay, simd.load(h), entered);
                simd.store(next, h);
                y = simd.mul_add_lanes(next, simd.splat(*c), y);
            }
            // SAFETY: as above; bounds are in order, so that no two sequences have the same token.
            write(simd, y, unsafe { job.y.part(row + start, len) }, own);
        }
        for (state, h) in h.iter().enumerate() {
            let place = (sequence * states + state) * channels + start;
            // SAFETY: as above.
            let last = unsafe { job.last.part(place, len) };
            write(simd, simd.load(h), last, own);
        }
    }
}
