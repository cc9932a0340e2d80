//! The loops that the kernels are made of.
//!
//! Reductions run in [`LANES`] lanes times a few accumulators, which are added up in a fixed order;
//! so the result does not depend on the width of the registers. The last, incomplete group of a
//! slice is filled up with numbers that change nothing.

use crate::exp::exp_one;
use crate::isa::{LANES, PairSimd, Simd};
use crate::number::{self, Number, for_groups};

/// Independent accumulators of a reduction. Zen 5 and Intel cores start two multiply-adds a cycle
/// that take four cycles, so eight would hide all of the latency; four do while the data come
/// from the second-level cache and leave registers to AVX2.
pub(crate) const ACCUMULATORS: usize = 4;

/// The last, incomplete group of a slice, filled up.
#[inline(always)]
fn filled(x: &[f32], fill: f32) -> [f32; LANES] {
    let mut group = [fill; LANES];
    group[..x.len()].copy_from_slice(x);
    group
}

/// Adds up the accumulators.
#[inline(always)]
pub(crate) fn total<S: Simd>(simd: S, acc: [S::V; ACCUMULATORS]) -> f32 {
    simd.sum(simd.add(simd.add(acc[0], acc[1]), simd.add(acc[2], acc[3])))
}

/// `sum_i a_i b_i`
#[inline(always)]
pub(crate) fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut acc = [simd.splat(0.0); ACCUMULATORS];
    let (a_fours, a) = a.as_chunks::<ACCUMULATORS>();
    let (b_fours, b) = b.as_chunks::<ACCUMULATORS>();
    for (a, b) in a_fours.iter().zip(b_fours) {
        for i in 0..ACCUMULATORS {
            acc[i] = simd.mul_add_lanes(simd.load(&a[i]), simd.load(&b[i]), acc[i]);
        }
    }
    for (a, b) in a.iter().zip(b) {
        acc[0] = simd.mul_add_lanes(simd.load(a), simd.load(b), acc[0]);
    }
    if !a_rest.is_empty() {
        let (a, b) = (filled(a_rest, 0.0), filled(b_rest, 0.0));
        acc[1] = simd.mul_add_lanes(simd.load(&a), simd.load(&b), acc[1]);
    }
    total(simd, acc)
}

/// The products of `a` with four vectors of its length.
#[inline(always)]
pub(crate) fn dot4<S: PairSimd, T: Number>(simd: S, a: &[f32], b: [&[T]; 4]) -> [f32; 4] {
    let b = b.map(|b| &b[..a.len()]);
    let mut acc = [simd.splat(0.0); 4];
    for_groups!(a.len(), |at| {
        let a = number::read(simd, a, at);
        for (acc, b) in acc.iter_mut().zip(b) {
            *acc = simd.mul_add_lanes(a, number::read(simd, b, at), *acc);
        }
    });
    // Not a closure, in which the instructions would not be inlined.
    let mut sums = [0.0; 4];
    for (sum, acc) in sums.iter_mut().zip(acc) {
        *sum = simd.sum(acc);
    }
    sums
}

/// The greatest element; `-inf` of nothing. NaN is passed over.
#[inline(always)]
pub(crate) fn max<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let (groups, rest) = x.as_chunks::<LANES>();
    let (fours, ones) = groups.as_chunks::<ACCUMULATORS>();
    let mut acc = [simd.splat(f32::NEG_INFINITY); ACCUMULATORS];
    for four in fours {
        for (acc, x) in acc.iter_mut().zip(four) {
            *acc = simd.max(simd.load(x), *acc);
        }
    }
    for x in ones {
        acc[0] = simd.max(simd.load(x), acc[0]);
    }
    if !rest.is_empty() {
        acc[1] = simd.max(simd.load(&filled(rest, f32::NEG_INFINITY)), acc[1]);
    }
    simd.greatest(simd.max(simd.max(acc[0], acc[1]), simd.max(acc[2], acc[3])))
}

/// `y += sum_k weights_k x_k`, where `x_k` is the vector of the length of `y` at `k * stride`.
#[inline(always)]
pub(crate) fn add_weighted<S: PairSimd, T: Number>(
    simd: S,
    weights: &[f32],
    x: &[T],
    stride: usize,
    y: &mut [f32],
) {
    // The sums stay in registers over all vectors.
    let (fours, rest) = y.as_chunks_mut::<{ ACCUMULATORS * LANES }>();
    let n_fours = fours.len();
    for (four, y) in fours.iter_mut().enumerate() {
        let first = four * ACCUMULATORS * LANES;
        let (groups, _) = y.as_chunks_mut::<LANES>();
        let mut acc = [simd.splat(0.0); ACCUMULATORS];
        for (acc, y) in acc.iter_mut().zip(&*groups) {
            *acc = simd.load(y);
        }
        for (k, &weight) in weights.iter().enumerate() {
            let weight = simd.splat(weight);
            let x = &x[k * stride + first..][..ACCUMULATORS * LANES];
            for (x, acc) in x.as_chunks::<LANES>().0.iter().zip(&mut acc) {
                *acc = simd.mul_add_lanes(weight, T::load(simd, x), *acc);
            }
        }
        for (acc, y) in acc.into_iter().zip(groups) {
            simd.store(acc, y);
        }
    }
    let first = n_fours * ACCUMULATORS * LANES;
    for_groups!(rest.len(), |at| {
        let mut acc = number::read(simd, rest, at);
        for (k, &weight) in weights.iter().enumerate() {
            let x = number::read(simd, &x[k * stride + first..], at);
            acc = simd.mul_add_lanes(simd.splat(weight), x, acc);
        }
        number::write(simd, acc, rest, at);
    });
}

/// `y *= alpha`
#[inline(always)]
pub(crate) fn scale(alpha: f32, y: &mut [f32]) {
    for y in y {
        *y *= alpha;
    }
}

/// `y += x`
#[inline(always)]
pub(crate) fn add(x: &[f32], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

/// Replaces `x_i` by `exp(x_i - shift)` and returns the sum of the new values.
#[inline(always)]
pub(crate) fn exp_shifted_sum<S: Simd>(simd: S, x: &mut [f32], shift: f32) -> f32 {
    // One accumulator is enough: an exponential takes longer than an addition.
    let mut acc = simd.splat(0.0);
    let (groups, rest) = x.as_chunks_mut::<LANES>();
    for x in groups {
        exp_shifted::<S>(x, shift);
        acc = simd.add(acc, simd.load(x));
    }
    if !rest.is_empty() {
        // exp(-inf) adds nothing.
        let mut last = filled(rest, f32::NEG_INFINITY);
        exp_shifted::<S>(&mut last, shift);
        rest.copy_from_slice(&last[..rest.len()]);
        acc = simd.add(acc, simd.load(&last));
    }
    simd.sum(acc)
}

#[inline(always)]
fn exp_shifted<S: Simd>(x: &mut [f32; LANES], shift: f32) {
    for x in x {
        *x = exp_one::<S>(*x - shift);
    }
}
