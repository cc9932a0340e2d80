//! The normal distribution, of which GELU is made: its distribution function is the error function
//! in other units, `P(x) = (1 + erf(x / sqrt(2))) / 2`.

use crate::exp::exp_with_low;
use crate::isa::Simd;

/// The greatest error of `P(x)`, in units in the last place of the exact result, far into the tail
/// where `1 + erf` would have no digit left. Over all `f32` from 2^-12 to 16 in magnitude it is 6.27
/// without and 5.76 with a fused multiply-add, both near -1.16. Results below `f32::MIN_POSITIVE`
/// are rounded to the subnormal grid.
#[cfg(test)]
pub(crate) const MAX_ULP: f64 = 6.5;

/// The same of `exp(-x^2 / 2)`; found to be 1.18.
#[cfg(test)]
pub(crate) const MAX_ULP_EXP: f64 = 1.25;

/// `P(x)` and `exp(-x^2 / 2)`, lane by lane; the density is the latter over `sqrt(2 pi)`.
///
/// Up to `|x| = 1`, `P(x) = 1/2 + x S(x^2)` with a polynomial `S`. Beyond, with `t = |x|`,
/// `P(-t) = exp(-t^2 / 2) R(t)` and `P(t) = 1 - P(-t)`; `R` falls slowly and smoothly like `1 / t`, so
/// `(t + 3) R(t)` is a polynomial in `u = (t - 3) / (t + 3)`.
#[inline(always)]
pub(crate) fn distribution<S: Simd>(simd: S, x: S::V) -> (S::V, S::V) {
    // P(-14.2) is the least positive f32.
    const GREATEST: f32 = 16.0;
    // Adding 1.5 * 2^15 leaves multiples of 2^-8 below 16: 12 digits, whose square is exact.
    const COARSE: f32 = 49_152.0;
    const SHIFT: f32 = 3.0;
    // Minimax coefficients, the highest power first, found by Remez exchange of the relative error:
    // of S for 0 <= x^2 <= 1, 7e-10, and of (t + 3) R for 1 <= t <= 16, 1.4e-8, a quarter of a unit.
    const CENTER: [f32; 6] = [
        -7.654_207e-6,
        1.134_863_7e-4,
        -1.186_329_9e-3,
        9.973_323e-3,
        -6.649_036e-2,
        3.989_423e-1,
    ];
    const TAIL: [f32; 8] = [
        -1.023_283_3e-3,
        9.094_726_3e-4,
        6.983_836_6e-3,
        -1.044_434_2e-2,
        -4.726_523_5e-2,
        2.300_167_5e-1,
        -5.093_319e-1,
        7.290_837e-1,
    ];

    let (one, half) = (simd.splat(1.0), simd.splat(0.5));
    let t = simd.max(x, simd.mul(x, simd.splat(-1.0)));
    let t = simd.min(simd.splat(GREATEST), t);
    // t^2 / 2 in two parts: of a coarse t exactly, and the rest.
    let coarse = simd.sub(simd.add(t, simd.splat(COARSE)), simd.splat(COARSE));
    let minus_half = simd.splat(-0.5);
    let high = simd.mul(simd.mul(coarse, coarse), minus_half);
    let low = simd.mul(simd.sub(t, coarse), simd.add(t, coarse));
    let exp = exp_with_low(simd, high, simd.mul(low, minus_half));

    let inverse = simd.div(one, simd.add(t, simd.splat(SHIFT)));
    let u = simd.mul_add_lanes(inverse, simd.splat(-2.0 * SHIFT), one);
    let r = simd.mul(polynomial(simd, TAIL, u), inverse);
    let tail = simd.mul(exp, r);
    let outer = simd.by_sign(x, tail, simd.sub(one, tail));

    let inner = polynomial(simd, CENTER, simd.mul(t, t));
    let inner = simd.mul_add_lanes(
        simd.by_sign(x, simd.sub(simd.splat(0.0), t), t),
        inner,
        half,
    );
    (simd.by_sign(simd.sub(t, one), inner, outer), exp)
}

/// The polynomial with these coefficients, the highest power first.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(simd: S, coefficients: [f32; N], x: S::V) -> S::V {
    let mut p = simd.splat(coefficients[0]);
    for coefficient in &coefficients[1..] {
        p = simd.mul_add_lanes(p, x, simd.splat(*coefficient));
    }
    p
}
