//! The loops that the kernels are made of, written so that the compiler turns them into vectors.
//!
//! Reductions run in [`LANES`] independent lanes times a few accumulators, which are added up in a
//! fixed order; so the result does not depend on the width of the registers.

use crate::isa::Simd;

/// Numbers in one group: one AVX-512 register, two of AVX2, four of SSE or NEON.
pub(crate) const LANES: usize = 16;

/// Independent accumulators of a reduction. Zen 5 and Intel cores start two multiply-adds a cycle
/// that take four cycles, so eight would hide all of the latency; four do while the data come
/// from the second-level cache and leave registers to AVX2.
const ACCUMULATORS: usize = 4;

const CHUNK: usize = LANES * ACCUMULATORS;

/// Adds up the lanes as a tree.
#[inline(always)]
fn add_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

#[inline(always)]
fn add_accumulators(acc: [[f32; LANES]; ACCUMULATORS]) -> f32 {
    let mut sum = [0.0; LANES];
    for (j, sum) in sum.iter_mut().enumerate() {
        *sum = (acc[0][j] + acc[1][j]) + (acc[2][j] + acc[3][j]);
    }
    add_lanes(sum)
}

/// `sum_i a_i b_i`
#[inline(always)]
pub(crate) fn dot<S: Simd>(a: &[f32], b: &[f32]) -> f32 {
    let n = a.len().min(b.len());
    let (a, b) = (&a[..n], &b[..n]);
    let mut acc = [[0.0_f32; LANES]; ACCUMULATORS];
    let (mut a_chunks, mut b_chunks) = (a.chunks_exact(CHUNK), b.chunks_exact(CHUNK));
    for (a, b) in (&mut a_chunks).zip(&mut b_chunks) {
        for i in 0..ACCUMULATORS {
            for j in 0..LANES {
                acc[i][j] = S::mul_add(a[i * LANES + j], b[i * LANES + j], acc[i][j]);
            }
        }
    }
    let (mut a_lanes, mut b_lanes) = (
        a_chunks.remainder().chunks_exact(LANES),
        b_chunks.remainder().chunks_exact(LANES),
    );
    for (a, b) in (&mut a_lanes).zip(&mut b_lanes) {
        for j in 0..LANES {
            acc[0][j] = S::mul_add(a[j], b[j], acc[0][j]);
        }
    }
    let mut tail = 0.0;
    for (&a, &b) in a_lanes.remainder().iter().zip(b_lanes.remainder()) {
        tail = S::mul_add(a, b, tail);
    }
    add_accumulators(acc) + tail
}

/// `sum_i a_i b_i c_i`
#[inline(always)]
pub(crate) fn dot3<S: Simd>(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let n = a.len().min(b.len()).min(c.len());
    let (a, b, c) = (&a[..n], &b[..n], &c[..n]);
    let mut acc = [[0.0_f32; LANES]; ACCUMULATORS];
    let mut at = 0;
    while at + CHUNK <= n {
        let (a, b, c) = (&a[at..][..CHUNK], &b[at..][..CHUNK], &c[at..][..CHUNK]);
        for (((acc, &a), &b), &c) in acc.as_flattened_mut().iter_mut().zip(a).zip(b).zip(c) {
            *acc = S::mul_add(a * b, c, *acc);
        }
        at += CHUNK;
    }
    let mut tail = 0.0;
    for ((&a, &b), &c) in a[at..].iter().zip(&b[at..]).zip(&c[at..]) {
        tail = S::mul_add(a * b, c, tail);
    }
    add_accumulators(acc) + tail
}

/// The greatest element; `-inf` of nothing. NaN is passed over.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let mut acc = [[f32::NEG_INFINITY; LANES]; ACCUMULATORS];
    let mut chunks = x.chunks_exact(CHUNK);
    for x in &mut chunks {
        for (acc, &x) in acc.as_flattened_mut().iter_mut().zip(x) {
            *acc = if x > *acc { x } else { *acc };
        }
    }
    let mut greatest = f32::NEG_INFINITY;
    for x in acc.as_flattened().iter().chain(chunks.remainder()) {
        greatest = if *x > greatest { *x } else { greatest };
    }
    greatest
}

/// `y += alpha x`
#[inline(always)]
pub(crate) fn axpy<S: Simd>(alpha: f32, x: &[f32], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = S::mul_add(alpha, x, *y);
    }
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
pub(crate) fn exp_shifted_sum<S: Simd>(x: &mut [f32], shift: f32) -> f32 {
    let mut acc = [[0.0_f32; LANES]; ACCUMULATORS];
    let mut chunks = x.chunks_exact_mut(CHUNK);
    for x in &mut chunks {
        for i in 0..ACCUMULATORS {
            for j in 0..LANES {
                let x = &mut x[i * LANES + j];
                *x = crate::exp::exp_one::<S>(*x - shift);
                acc[i][j] += *x;
            }
        }
    }
    let mut tail = 0.0;
    for x in chunks.into_remainder() {
        *x = crate::exp::exp_one::<S>(*x - shift);
        tail += *x;
    }
    add_accumulators(acc) + tail
}
