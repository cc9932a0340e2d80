//! The normal distribution, of which GELU is made: its distribution function is the error function
//! in other units, `P(x) = (1 + erf(x / sqrt(2))) / 2`.

use crate::exp::exp_with_low;
use crate::isa::Simd;

/// The greatest error of `P` of [`distribution`], in units in the last place of the exact result,
/// over all `f32` and all instruction sets, far into the tail where `1 + erf` would have no digit
/// left. Results below `f32::MIN_POSITIVE` are rounded to the subnormal grid.
#[cfg(test)]
pub(crate) const MAX_ULP: f64 = 3.5;

/// `P(x)` and `exp(-x^2 / 2)`, lane by lane; the density is the latter over `sqrt(2 pi)`.
///
/// `P(-t) = exp(-t^2 / 2) R(t)` for `t >= 0`, and `P(t) = 1 - P(-t)`. `R` falls slowly and smoothly from
/// 1/2 to 0 like `1 / t`; so `(t + 3.5) R(t)` is a polynomial in `u = (t - 3.5) / (t + 3.5)`.
#[inline(always)]
pub(crate) fn distribution<S: Simd>(simd: S, x: S::V) -> (S::V, S::V) {
    // P(-14.2) is the least positive f32.
    const GREATEST: f32 = 16.0;
    // Adding 1.5 * 2^15 leaves multiples of 2^-8 below 16: 12 digits, whose square is exact.
    const COARSE: f32 = 49_152.0;
    const SHIFT: f32 = 3.5;
    // Minimax coefficients over 0 <= t <= 16, the highest power first, found by Remez exchange of the
    // relative error, which is 9.7e-9, a sixth of a unit.
    const COEFFICIENTS: [f32; 10] = [
        1.048_657_3e-4,
        4.117_147_3e-4,
        -4.947_399e-4,
        -3.167_938_5e-3,
        6.494_678_4e-3,
        1.740_465_3e-2,
        -1.160_534_06e-1,
        3.154_251_9e-1,
        -5.655_617_3e-1,
        7.444_160_7e-1,
    ];

    let t = simd.max(x, simd.mul(x, simd.splat(-1.0)));
    let t = simd.min(simd.splat(GREATEST), t);
    // t^2 / 2 in two parts: of a coarse t exactly, and the rest.
    let coarse = simd.sub(simd.add(t, simd.splat(COARSE)), simd.splat(COARSE));
    let half = simd.splat(-0.5);
    let high = simd.mul(simd.mul(coarse, coarse), half);
    let low = simd.mul(simd.mul(simd.sub(t, coarse), simd.add(t, coarse)), half);
    let exp = exp_with_low(simd, high, low);

    let inverse = simd.div(simd.splat(1.0), simd.add(t, simd.splat(SHIFT)));
    let u = simd.mul_add_lanes(inverse, simd.splat(-2.0 * SHIFT), simd.splat(1.0));
    let mut p = simd.splat(COEFFICIENTS[0]);
    for coefficient in &COEFFICIENTS[1..] {
        p = simd.mul_add_lanes(p, u, simd.splat(*coefficient));
    }
    let tail = simd.mul(exp, simd.mul(p, inverse));
    let rest = simd.sub(simd.splat(1.0), tail);
    (simd.by_sign(x, tail, rest), exp)
}
