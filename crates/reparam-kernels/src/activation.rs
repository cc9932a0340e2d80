//! Activation functions, element by element; [`crate::gated`] has them as gates.

use rayon::prelude::*;

use crate::KernelError;
use crate::error::check_len;
use crate::exp::exp_lanes;
use crate::isa::{PairSimd, Token, simd_entry};
use crate::normal::distribution;
use crate::number::{Number, for_groups, read, write};
use crate::par::block_rows;

/// An activation function; each is `x` times a share that goes from 0 to 1.
///
/// # Numerics
///
/// That of ReLU is exact. The share of SiLU and GELU is exact to a few units in the last place of `f32` (GELU: 6.5), also
/// where it is nearly 0. That of the tangent form has a small absolute error; towards 0 its relative
/// error grows with the argument of the exponential.
/// `act(-inf)` is NaN, the product of infinity and zero; NaN stays NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x s(x)`, `s(x) = 1 / (1 + exp(-x))`; also called swish.
    Silu,
    /// `x P(x)`, `P` the distribution function of the normal distribution, `(1 + erf(x / sqrt(2))) / 2`.
    Gelu,
    /// `x s(2 sqrt(2 / pi) (x + 0.044715 x^3))`, the approximation of [`Activation::Gelu`] that is
    /// written with the hyperbolic tangent: `s(2 z) = (1 + tanh(z)) / 2`.
    GeluTanh,
    /// `x` where it is positive, else 0; the derivative at 0 is 0.
    Relu,
}

/// `y = act(x)`, element by element.
///
/// # Errors
///
/// [`KernelError::Length`] if the slices differ in length.
pub fn activation_forward<T: Number>(
    activation: Activation,
    x: &[T],
    y: &mut [T],
) -> Result<(), KernelError> {
    check_len("y", y, &[x.len()])?;
    let token = Token::current();
    let block = block_rows(1);
    y.par_chunks_mut(block)
        .zip(x.par_chunks(block))
        .for_each(|(y, x)| {
            with_curve!(activation, |curve| forward_block(token, curve, x, y));
        });
    Ok(())
}

/// `dx = dy act'(x)`, element by element.
///
/// # Errors
///
/// [`KernelError::Length`] if the slices differ in length.
pub fn activation_backward<T: Number>(
    activation: Activation,
    dy: &[T],
    x: &[T],
    dx: &mut [T],
) -> Result<(), KernelError> {
    check_len("x", x, &[dy.len()])?;
    check_len("dx", dx, &[dy.len()])?;
    let token = Token::current();
    let block = block_rows(1);
    dx.par_chunks_mut(block)
        .zip(dy.par_chunks(block))
        .zip(x.par_chunks(block))
        .for_each(|((dx, dy), x)| {
            with_curve!(activation, |curve| backward_block(token, curve, dy, x, dx));
        });
    Ok(())
}

/// An activation function as code.
pub(crate) trait Curve: Copy + Send + Sync {
    /// `act(x) / x`
    fn share<S: PairSimd>(self, simd: S, x: S::V) -> S::V;

    /// `act(x) / x` and two factors of `act'(x)`.
    fn slope<S: PairSimd>(self, simd: S, x: S::V) -> (S::V, [S::V; 2]);
}

/// Calls a generic function with the [`Curve`] of an [`Activation`].
macro_rules! with_curve {
    ($activation:expr, |$curve:ident| $call:expr) => {
        match $activation {
            $crate::activation::Activation::Silu => {
                let $curve = $crate::activation::Silu;
                $call
            }
            $crate::activation::Activation::Gelu => {
                let $curve = $crate::activation::Gelu;
                $call
            }
            $crate::activation::Activation::GeluTanh => {
                let $curve = $crate::activation::GeluTanh;
                $call
            }
            $crate::activation::Activation::Relu => {
                let $curve = $crate::activation::Relu;
                $call
            }
        }
    };
}
pub(crate) use with_curve;

/// [`Activation::Silu`]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Silu;

/// [`Activation::Gelu`]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gelu;

/// [`Activation::GeluTanh`]
#[derive(Debug, Clone, Copy)]
pub(crate) struct GeluTanh;

/// [`Activation::Relu`]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Relu;

/// `1 / (1 + exp(-x))`
#[inline(always)]
pub(crate) fn sigmoid<S: PairSimd>(simd: S, x: S::V) -> S::V {
    let one = simd.splat(1.0);
    let exp = exp_lanes(simd, simd.mul(x, simd.splat(-1.0)));
    simd.div(one, simd.add(one, exp))
}

impl Curve for Silu {
    #[inline(always)]
    fn share<S: PairSimd>(self, simd: S, x: S::V) -> S::V {
        sigmoid(simd, x)
    }

    /// `s (1 + x (1 - s))`
    #[inline(always)]
    fn slope<S: PairSimd>(self, simd: S, x: S::V) -> (S::V, [S::V; 2]) {
        let one = simd.splat(1.0);
        let s = sigmoid(simd, x);
        (s, [s, simd.mul_add_lanes(x, simd.sub(one, s), one)])
    }
}

impl Curve for Gelu {
    #[inline(always)]
    fn share<S: PairSimd>(self, simd: S, x: S::V) -> S::V {
        distribution(simd, x).0
    }

    /// `P(x) + x p(x)`, `p` the density.
    #[inline(always)]
    fn slope<S: PairSimd>(self, simd: S, x: S::V) -> (S::V, [S::V; 2]) {
        // 1 / sqrt(2 pi)
        const SCALE: f32 = 0.398_942_3;
        let (share, exp) = distribution(simd, x);
        // Zero times infinity would be NaN, and beyond this the density is zero.
        let x = clamped(simd, x);
        let density = simd.mul(exp, simd.splat(SCALE));
        let slope = simd.mul_add_lanes(x, density, share);
        (share, [slope, simd.splat(1.0)])
    }
}

impl GeluTanh {
    // 2 sqrt(2 / pi), and 0.044715 times that.
    const LINEAR: f32 = 1.595_769;
    const CUBIC: f32 = 0.071_354_814;

    /// `v(x) = x (LINEAR + CUBIC x^2)`, for clamped `x`.
    #[inline(always)]
    fn argument<S: PairSimd>(simd: S, x: S::V) -> S::V {
        let square = simd.mul(x, x);
        let factor = simd.mul_add_lanes(square, simd.splat(Self::CUBIC), simd.splat(Self::LINEAR));
        simd.mul(x, factor)
    }
}

impl Curve for GeluTanh {
    #[inline(always)]
    fn share<S: PairSimd>(self, simd: S, x: S::V) -> S::V {
        sigmoid(simd, Self::argument(simd, clamped(simd, x)))
    }

    /// `s (1 + x v'(x) (1 - s))`
    #[inline(always)]
    fn slope<S: PairSimd>(self, simd: S, x: S::V) -> (S::V, [S::V; 2]) {
        let one = simd.splat(1.0);
        let x = clamped(simd, x);
        let s = sigmoid(simd, Self::argument(simd, x));
        let growth = simd.mul_add_lanes(
            simd.mul(x, x),
            simd.splat(3.0 * Self::CUBIC),
            simd.splat(Self::LINEAR),
        );
        let rest = simd.sub(one, s);
        let slope = simd.mul_add_lanes(simd.mul(x, growth), rest, one);
        (s, [s, slope])
    }
}

impl Curve for Relu {
    /// 1 where `x` is positive, else 0.
    #[inline(always)]
    fn share<S: PairSimd>(self, simd: S, x: S::V) -> S::V {
        // Twice 2^127 brings the smallest number beyond 1.
        let large = simd.splat(2f32.powi(127));
        let x = simd.mul(simd.mul(x, large), large);
        simd.max(simd.splat(0.0), simd.min(simd.splat(1.0), x))
    }

    #[inline(always)]
    fn slope<S: PairSimd>(self, simd: S, x: S::V) -> (S::V, [S::V; 2]) {
        let share = self.share(simd, x);
        (share, [share, simd.splat(1.0)])
    }
}

/// `x` within -16..=16, beyond which the shares of both GELU are 0 and 1 in `f32`. NaN stays NaN.
#[inline(always)]
fn clamped<S: PairSimd>(simd: S, x: S::V) -> S::V {
    simd.max(simd.splat(-16.0), simd.min(simd.splat(16.0), x))
}

simd_entry!(fn forward_block<'a; T: Number, C: Curve>(curve: C, x: &'a [T], y: &'a mut [T])
    = forward_slice);

#[inline(always)]
fn forward_slice<S: PairSimd, T: Number, C: Curve>(simd: S, curve: C, x: &[T], y: &mut [T]) {
    for_groups!(y.len(), |at| {
        let x = read(simd, x, at);
        write(simd, simd.mul(x, curve.share(simd, x)), y, at);
    });
}

simd_entry!(fn backward_block<'a; T: Number, C: Curve>(
    curve: C, dy: &'a [T], x: &'a [T], dx: &'a mut [T]
) = backward_slice);

#[inline(always)]
fn backward_slice<S: PairSimd, T: Number, C: Curve>(
    simd: S,
    curve: C,
    dy: &[T],
    x: &[T],
    dx: &mut [T],
) {
    for_groups!(dx.len(), |at| {
        let (_, [first, second]) = curve.slope(simd, read(simd, x, at));
        let dy = read(simd, dy, at);
        write(simd, simd.mul(simd.mul(dy, first), second), dx, at);
    });
}
