//! The exponential function over slices.

use rayon::prelude::*;

use crate::KernelError;
use crate::error::check_len;
use crate::isa::{Simd, Token, simd_entry};
use crate::par::block_rows;

/// The greatest error of [`exp`], in units in the last place of the exact result, over all `f32`
/// and all instruction sets. Results below `f32::MIN_POSITIVE` are rounded to the subnormal grid,
/// where the unit is fixed at 2^-149.
pub const MAX_ULP: f64 = 1.1;

/// `y_i = exp(x_i)`
///
/// # Numerics
///
/// The error is at most [`MAX_ULP`]. `exp(-inf)` is 0, `exp(inf)` is infinity, NaN stays NaN; what
/// is too great or too small for `f32` becomes infinity or 0, through the subnormal numbers.
///
/// # Errors
///
/// [`KernelError::Length`] if the slices differ in length.
pub fn exp(x: &[f32], y: &mut [f32]) -> Result<(), KernelError> {
    check_len("y", y, &[x.len()])?;
    exp_on(Token::current(), x, y);
    Ok(())
}

pub(crate) fn exp_on(token: Token, x: &[f32], y: &mut [f32]) {
    let block = block_rows(1);
    y.par_chunks_mut(block)
        .zip(x.par_chunks(block))
        .for_each(|(y, x)| exp_block(token, x, y));
}

simd_entry!(fn exp_block<'a>(x: &'a [f32], y: &'a mut [f32]) = exp_slice);

#[inline(always)]
fn exp_slice<S: Simd>(_: S, x: &[f32], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = exp_one::<S>(x);
    }
}

/// exp(89) is infinite and exp(-104) is zero in f32.
const GREATEST: f32 = 89.0;
const LEAST: f32 = -104.0;

/// Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the sum.
const ROUND: f32 = 12_582_912.0;

/// ln 2 in two parts; the first has 15 bits, so that its product with n is exact.
const LN_2_HIGH: f32 = 0.693_145_75;
const LN_2_LOW: f32 = 1.428_606_8e-6;

/// Minimax coefficients of (exp(r) - 1 - r) / r^2 over the interval, found by Remez exchange with
/// the weight r^2 / exp(r), from that of the highest power on; the error of the polynomial is 3.1e-9, a
/// twentieth of a unit.
const POLYNOMIAL: [f32; 5] = [
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

    let p = POLYNOMIAL[0];
    let p = S::mul_add(p, r, POLYNOMIAL[1]);
    let p = S::mul_add(p, r, POLYNOMIAL[2]);
    let p = S::mul_add(p, r, POLYNOMIAL[3]);
    let p = S::mul_add(p, r, POLYNOMIAL[4]);
    // exp(r) = 1 + (r + r^2 p): the big terms last, so that their rounding errors are all.
    let p = S::mul_add(p * r, r, r) + 1.0;

    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    let rest = n.wrapping_sub(half);
    p * power_of_two(half) * power_of_two(rest)
}

/// `exp(x)` of each lane for scores that are not above the greatest of their row: as accurate as
/// [`exp_one`] up to 88, above which the result may be anything. NaN stays NaN.
#[inline(always)]
pub(crate) fn exp_of_scores<S: Simd>(simd: S, x: S::V) -> S::V {
    // NaN is the second operand, which stays.
    let x = simd.max(simd.splat(LEAST), x);
    let shifted = simd.mul_add_lanes(x, simd.splat(std::f32::consts::LOG2_E), simd.splat(ROUND));
    let n = simd.add(shifted, simd.splat(-ROUND));
    let r = simd.mul_add_lanes(n, simd.splat(-LN_2_HIGH), x);
    let r = simd.mul_add_lanes(n, simd.splat(-LN_2_LOW), r);
    let mut p = simd.splat(POLYNOMIAL[0]);
    for coefficient in &POLYNOMIAL[1..] {
        p = simd.mul_add_lanes(p, r, simd.splat(*coefficient));
    }
    let p = simd.mul_add_lanes(simd.mul(p, r), r, r);
    simd.scale_by_power(simd.add(p, simd.splat(1.0)), n)
}

/// 2^n for n in -126..=127; anything for other n.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}
