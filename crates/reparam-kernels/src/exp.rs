//! The exponential function, of numbers and of the lanes of vectors.

use crate::isa::Simd;

/// The greatest error, in units in the last place of the exact result, over all `f32` and all
/// instruction sets. Results below `f32::MIN_POSITIVE` are rounded to the subnormal grid, where the
/// unit is fixed at 2^-149.
#[cfg(test)]
pub(crate) const MAX_ULP: f64 = 1.1;

// exp(89) is infinite and exp(-104) is zero in f32.
const GREATEST: f32 = 89.0;
const LEAST: f32 = -104.0;
/// Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the sum.
const ROUND: f32 = 12_582_912.0;
// ln 2 in two parts; the first has 15 bits, so that its product with n is exact.
const LN_2_HIGH: f32 = 0.693_145_75;
const LN_2_LOW: f32 = 1.428_606_8e-6;
/// Minimax coefficients of (exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 2, the highest power first,
/// found by Remez exchange with the weight r^2 / exp(r); the error of the polynomial is 3.1e-9, a
/// twentieth of a unit.
const COEFFICIENTS: [f32; 5] = [
    1.381_454e-3,
    8.368_745e-3,
    4.166_839e-2,
    1.666_652e-1,
    0.499_999_94,
];

/// `exp(x)` of one number, without a branch, so that loops over it become vectors.
///
/// With `n = round(x / ln 2)` and `r = x - n ln 2`, `exp(x) = 2^n exp(r)`, where `|r| <= ln(2) / 2`.
/// `exp(r)` is a polynomial of degree 6; 2^n is multiplied in two halves, since 2^128 and 2^-150
/// are not `f32`.
#[inline(always)]
pub(crate) fn exp_one<S: Simd>(x: f32) -> f32 {
    // A comparison with NaN is false, so that NaN passes through.
    let x = if x > GREATEST { GREATEST } else { x };
    let x = if x < LEAST { LEAST } else { x };
    let shifted = S::mul_add(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = S::mul_add(n, -LN_2_HIGH, x);
    let r = S::mul_add(n, -LN_2_LOW, r);

    let mut p = COEFFICIENTS[0];
    for coefficient in &COEFFICIENTS[1..] {
        p = S::mul_add(p, r, *coefficient);
    }
    // exp(r) = 1 + (r + r^2 p): the big terms last, so that their rounding errors are all.
    let p = S::mul_add(p * r, r, r) + 1.0;

    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    let rest = n.wrapping_sub(half);
    p * power_of_two(half) * power_of_two(rest)
}

/// [`exp_one`] of every lane; the same bits.
#[inline(always)]
pub(crate) fn exp_lanes<S: Simd>(simd: S, x: S::V) -> S::V {
    let x = simd.min(simd.splat(GREATEST), x);
    let x = simd.max(simd.splat(LEAST), x);
    let n = powers(simd, x);
    exp_reduced(simd, reduced(simd, x, n), n)
}

/// `exp(x + low)` for `x` in -104..=89 and `low` so small that `x + low` is nearly `x`.
///
/// With `low` the error of `x`, the result is as exact as if `x` had more digits.
#[inline(always)]
pub(crate) fn exp_with_low<S: Simd>(simd: S, x: S::V, low: S::V) -> S::V {
    let n = powers(simd, simd.add(x, low));
    exp_reduced(simd, simd.add(reduced(simd, x, n), low), n)
}

/// The greatest error of [`tanh_lanes`], in units in the last place of the exact result.
#[cfg(test)]
pub(crate) const TANH_MAX_ULP: f64 = 3.0;

/// The hyperbolic tangent of every lane, `e / (e + 2)` with `e = exp(2 x) - 1`.
///
/// `e` is `2^n (exp(r) - 1) + (2^n - 1)`, which has all its digits also near 0, where `n` is 0.
#[inline(always)]
pub(crate) fn tanh_lanes<S: Simd>(simd: S, x: S::V) -> S::V {
    // Beyond this the result is 1 in `f32`. NaN passes through.
    let x = simd.min(simd.splat(10.0), x);
    let x = simd.max(simd.splat(-10.0), x);
    let x = simd.add(x, x);
    let n = powers(simd, x);
    let p = exp_minus_one(simd, reduced(simd, x, n));
    let power = simd.times_power_of_two(simd.splat(1.0), n);
    let e = simd.mul_add_lanes(power, p, simd.sub(power, simd.splat(1.0)));
    simd.div(e, simd.add(e, simd.splat(2.0)))
}

/// The greatest error of [`softplus_lanes`], in units in the last place of the exact result.
#[cfg(test)]
pub(crate) const SOFTPLUS_MAX_ULP: f64 = 4.0;

/// `ln(1 + exp(x))` of every lane: `max(x, 0) + ln(1 + e)` with `e = exp(-|x|)`.
///
/// `ln(1 + e)` is `2 artanh(q)` with `q = e / (2 + e)`, which has all its digits also for small `e`; up
/// to `q = 1/3` eight terms of its series are exact to 2e-9.
#[inline(always)]
pub(crate) fn softplus_lanes<S: Simd>(simd: S, x: S::V) -> S::V {
    // 2 / 15, 2 / 13, ... 2 / 1
    const SERIES: [f32; 8] = [
        0.133_333_34,
        0.153_846_16,
        0.181_818_18,
        0.222_222_22,
        0.285_714_3,
        0.4,
        0.666_666_7,
        2.0,
    ];
    let minus = simd.mul(x, simd.splat(-1.0));
    let e = exp_lanes(simd, simd.min(x, minus));
    let q = simd.div(e, simd.add(e, simd.splat(2.0)));
    let square = simd.mul(q, q);
    let mut p = simd.splat(SERIES[0]);
    for coefficient in &SERIES[1..] {
        p = simd.mul_add_lanes(p, square, simd.splat(*coefficient));
    }
    simd.mul_add_lanes(p, q, simd.max(x, simd.splat(0.0)))
}

/// `n = round(x / ln 2)`
#[inline(always)]
fn powers<S: Simd>(simd: S, x: S::V) -> S::V {
    let shifted = simd.mul_add_lanes(x, simd.splat(std::f32::consts::LOG2_E), simd.splat(ROUND));
    simd.sub(shifted, simd.splat(ROUND))
}

/// `r = x - n ln 2`
#[inline(always)]
fn reduced<S: Simd>(simd: S, x: S::V, n: S::V) -> S::V {
    let r = simd.mul_add_lanes(n, simd.splat(-LN_2_HIGH), x);
    simd.mul_add_lanes(n, simd.splat(-LN_2_LOW), r)
}

/// `2^n exp(r)`
#[inline(always)]
fn exp_reduced<S: Simd>(simd: S, r: S::V, n: S::V) -> S::V {
    let p = exp_minus_one(simd, r);
    simd.times_power_of_two(simd.add(p, simd.splat(1.0)), n)
}

/// `exp(r) - 1` for `|r| <= ln(2) / 2`
#[inline(always)]
fn exp_minus_one<S: Simd>(simd: S, r: S::V) -> S::V {
    let mut p = simd.splat(COEFFICIENTS[0]);
    for coefficient in &COEFFICIENTS[1..] {
        p = simd.mul_add_lanes(p, r, simd.splat(*coefficient));
    }
    simd.mul_add_lanes(simd.mul(p, r), r, r)
}

/// 2^n for n in -126..=127; anything for other n.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}
