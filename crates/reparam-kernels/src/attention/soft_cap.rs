//! The soft cap of scores.

use crate::exp::exp_one;
use crate::isa::Simd;

/// `cap tanh(x / cap)` and its derivative, `1 - tanh^2`.
#[derive(Debug, Clone, Copy)]
pub(super) struct SoftCap {
    cap: f32,
    inverse: f32,
}

impl SoftCap {
    pub(super) fn new(cap: f32) -> Self {
        Self {
            cap,
            inverse: 1.0 / cap,
        }
    }

    /// The capped score.
    #[inline(always)]
    pub(super) fn value<S: Simd>(self, x: f32) -> f32 {
        self.cap * tanh::<S>(x * self.inverse)
    }

    /// The capped score and the derivative by `x`.
    #[inline(always)]
    pub(super) fn value_and_slope<S: Simd>(self, x: f32) -> (f32, f32) {
        let t = tanh::<S>(x * self.inverse);
        (self.cap * t, S::mul_add(-t, t, 1.0))
    }
}

/// `tanh(x)` without a branch, with a relative error of a few units: below 0.3 as its series, where
/// the first missing term is 2e-9, else as `(1 - e) / (1 + e)` with `e = exp(-2 |x|)`.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(x: f32) -> f32 {
    let square = x * x;
    let series = -1382.0 / 155_925.0;
    let series = S::mul_add(series, square, 62.0 / 2835.0);
    let series = S::mul_add(series, square, -17.0 / 315.0);
    let series = S::mul_add(series, square, 2.0 / 15.0);
    let series = S::mul_add(series, square, -1.0 / 3.0);
    let near = S::mul_add(series * square, x, x);
    let e = exp_one::<S>(-2.0 * x.abs());
    let far = ((1.0 - e) / (1.0 + e)).copysign(x);
    if x.abs() < 0.3 { near } else { far }
}
