//! Activations, alone and as gates: `act(gate) * up` of Llama-like models.
//!
//! Gate and up come from one product and lie side by side in the rows of one buffer, see
//! [`GatedRows`]. Activations are `f32` or bf16; everything is computed in `f32` and rounded once,
//! when it is stored.

use rayon::prelude::*;

use crate::KernelError;
use crate::error::{check_len, elements};
use crate::exp::exp_lanes;
use crate::isa::{PairSimd, Token, simd_entry};
use crate::normal::distribution;
use crate::number::{Number, for_groups, read, write};
use crate::par::block_rows;

/// An activation function; each is `x` times a share that goes from 0 to 1.
///
/// # Numerics
///
/// The share is exact to a few units in the last place of `f32`, also where it is nearly 0.
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
}

/// Where gate and up lie: in each row of `row_stride` numbers, `inner` numbers of gate from column 0
/// and `inner` numbers of up from column `up_at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatedRows {
    /// Numbers of gate and of up in a row.
    pub inner: usize,
    /// Numbers from one row to the next.
    pub row_stride: usize,
    /// The first column of up, at least `inner`.
    pub up_at: usize,
}

impl GatedRows {
    /// Rows that hold nothing else.
    pub fn new(inner: usize) -> Self {
        Self {
            inner,
            row_stride: 2 * inner,
            up_at: inner,
        }
    }

    /// Checks the rows of `len` numbers against those of an output of `out_len`.
    ///
    /// The result has a stride that cuts whole rows, even where there are too few for it to matter.
    fn check(self, len: usize, out_len: usize) -> Result<Self, KernelError> {
        let Self {
            inner,
            row_stride,
            up_at,
        } = self;
        if inner == 0 {
            return Err(KernelError::Zero { name: "inner" });
        }
        if up_at < inner {
            return Err(KernelError::OverlappingView {
                rows: 2,
                cols: inner,
                row_stride: up_at,
                col_stride: 1,
            });
        }
        let rows = out_len / inner;
        let overflow = KernelError::Overflow { name: "gate_up" };
        let cols = up_at.checked_add(inner).ok_or(overflow)?;
        check_strided("gate_up", len, rows, cols, row_stride)?;
        Ok(Self {
            row_stride: row_stride.max(cols),
            ..self
        })
    }
}

/// Checks that `rows` distinct rows of `cols` numbers, `row_stride` apart, lie within `len`.
pub(crate) fn check_strided(
    name: &'static str,
    len: usize,
    rows: usize,
    cols: usize,
    row_stride: usize,
) -> Result<(), KernelError> {
    if rows == 0 {
        return Ok(());
    }
    let before = elements(name, &[rows - 1, row_stride])?;
    if before.checked_add(cols).is_none_or(|end| end > len) {
        return Err(KernelError::View {
            rows,
            cols,
            row_stride,
            col_stride: 1,
            found: len,
        });
    }
    if rows > 1 && row_stride < cols {
        return Err(KernelError::OverlappingView {
            rows,
            cols,
            row_stride,
            col_stride: 1,
        });
    }
    Ok(())
}

/// `out = act(gate) * up`, row by row.
///
/// # Shapes
///
/// `gate_up`: `N` rows as `rows` says, the last one as long as it needs to be or longer;
/// `out[N, inner]`.
///
/// # Errors
///
/// [`KernelError::Length`] if `out` is not a number of whole rows, [`KernelError::View`] if
/// `gate_up` does not hold as many, [`KernelError::OverlappingView`] if rows, or gate and up, overlap,
/// [`KernelError::Zero`] if `inner` is zero.
pub fn gated_forward<T: Number>(
    activation: Activation,
    gate_up: &[T],
    rows: GatedRows,
    out: &mut [T],
) -> Result<(), KernelError> {
    let rows = rows.check(gate_up.len(), out.len())?;
    check_len("out", out, &[out.len() / rows.inner, rows.inner])?;
    forward_on(Token::current(), activation, gate_up, rows, out);
    Ok(())
}

/// The gradients of [`gated_forward`], the activation computed again:
///
/// ```text
/// dgate = dout up act'(gate)
/// dup   = dout act(gate)
/// ```
///
/// With `out`, also what [`gated_forward`] gave, to its bits: the next layer may need it for the
/// gradient of its factors, and here it costs one more product.
///
/// # Shapes
///
/// `gate_up` and `dgate_up`: `N` rows as `rows` says; what lies between gate, up and the next row
/// stays as it is. `dout[N, inner]`, `out[N, inner]`.
///
/// # Errors
///
/// Those of [`gated_forward`].
pub fn gated_backward<T: Number>(
    activation: Activation,
    gate_up: &[T],
    rows: GatedRows,
    dout: &[T],
    dgate_up: &mut [T],
    out: Option<&mut [T]>,
) -> Result<(), KernelError> {
    let rows = check_backward(rows, gate_up.len(), dout, out.as_deref())?;
    rows.check(dgate_up.len(), dout.len())?;
    backward_on(
        Token::current(),
        activation,
        gate_up,
        rows,
        dout,
        dgate_up,
        out,
    );
    Ok(())
}

/// [`gated_backward`] in place: the gradients replace gate and up.
///
/// # Errors
///
/// Those of [`gated_forward`].
pub fn gated_backward_in_place<T: Number>(
    activation: Activation,
    gate_up: &mut [T],
    rows: GatedRows,
    dout: &[T],
    out: Option<&mut [T]>,
) -> Result<(), KernelError> {
    let rows = check_backward(rows, gate_up.len(), dout, out.as_deref())?;
    backward_in_place_on(Token::current(), activation, gate_up, rows, dout, out);
    Ok(())
}

fn check_backward<T>(
    rows: GatedRows,
    len: usize,
    dout: &[T],
    out: Option<&[T]>,
) -> Result<GatedRows, KernelError> {
    let rows = rows.check(len, dout.len())?;
    check_len("dout", dout, &[dout.len() / rows.inner, rows.inner])?;
    if let Some(out) = out {
        check_len("out", out, &[dout.len()])?;
    }
    Ok(rows)
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
    activation_forward_on(Token::current(), activation, x, y);
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
    activation_backward_on(Token::current(), activation, dy, x, dx);
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
            Activation::Silu => {
                let $curve = Silu;
                $call
            }
            Activation::Gelu => {
                let $curve = Gelu;
                $call
            }
            Activation::GeluTanh => {
                let $curve = GeluTanh;
                $call
            }
        }
    };
}

/// [`Activation::Silu`]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Silu;

/// [`Activation::Gelu`]
#[derive(Debug, Clone, Copy)]
struct Gelu;

/// [`Activation::GeluTanh`]
#[derive(Debug, Clone, Copy)]
struct GeluTanh;

/// `1 / (1 + exp(-x))`
#[inline(always)]
fn sigmoid<S: PairSimd>(simd: S, x: S::V) -> S::V {
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
    const LINEAR: f32 = 1.595_769_1;
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

/// `x` within -16..=16, beyond which the shares of both GELU are 0 and 1 in `f32`. NaN stays NaN.
#[inline(always)]
fn clamped<S: PairSimd>(simd: S, x: S::V) -> S::V {
    simd.max(simd.splat(-16.0), simd.min(simd.splat(16.0), x))
}

pub(crate) fn forward_on<T: Number>(
    token: Token,
    activation: Activation,
    gate_up: &[T],
    rows: GatedRows,
    out: &mut [T],
) {
    let block = block_rows(rows.inner);
    out.par_chunks_mut(block * rows.inner)
        .zip(gate_up.par_chunks(block.saturating_mul(rows.row_stride)))
        .for_each(|(out, gate_up)| {
            with_curve!(activation, |curve| forward_block(
                token, curve, gate_up, rows, out
            ));
        });
}

simd_entry!(fn forward_block<'a; T: Number, C: Curve>(
    curve: C, gate_up: &'a [T], rows: GatedRows, out: &'a mut [T]
) = forward_rows);

#[inline(always)]
fn forward_rows<S: PairSimd, T: Number, C: Curve>(
    simd: S,
    curve: C,
    gate_up: &[T],
    rows: GatedRows,
    out: &mut [T],
) {
    let GatedRows {
        inner,
        row_stride,
        up_at,
    } = rows;
    for (row, out) in gate_up.chunks(row_stride).zip(out.chunks_exact_mut(inner)) {
        forward_row(simd, curve, &row[..inner], &row[up_at..][..inner], out);
    }
}

#[inline(always)]
pub(crate) fn forward_row<S: PairSimd, T: Number, C: Curve>(
    simd: S,
    curve: C,
    gate: &[T],
    up: &[T],
    out: &mut [T],
) {
    for_groups!(out.len(), |at| {
        let gate = read(simd, gate, at);
        let act = simd.mul(gate, curve.share(simd, gate));
        write(simd, simd.mul(act, read(simd, up, at)), out, at);
    });
}

pub(crate) fn backward_on<T: Number>(
    token: Token,
    activation: Activation,
    gate_up: &[T],
    rows: GatedRows,
    dout: &[T],
    dgate_up: &mut [T],
    out: Option<&mut [T]>,
) {
    let GatedRows {
        inner, row_stride, ..
    } = rows;
    let block = block_rows(inner);
    let blocks = dgate_up
        .par_chunks_mut(block.saturating_mul(row_stride))
        .zip(gate_up.par_chunks(block.saturating_mul(row_stride)))
        .zip(dout.par_chunks(block * inner));
    let run = |((dgate_up, gate_up), dout): ((&mut [T], &[T]), &[T]), out: &mut [T]| {
        with_curve!(activation, |curve| backward_block(
            token, curve, gate_up, rows, dout, dgate_up, out
        ));
    };
    match out {
        Some(out) => blocks
            .zip(out.par_chunks_mut(block * inner))
            .for_each(|(block, out)| run(block, out)),
        None => blocks.for_each(|block| run(block, &mut [])),
    }
}

pub(crate) fn backward_in_place_on<T: Number>(
    token: Token,
    activation: Activation,
    gate_up: &mut [T],
    rows: GatedRows,
    dout: &[T],
    out: Option<&mut [T]>,
) {
    let GatedRows {
        inner, row_stride, ..
    } = rows;
    let block = block_rows(inner);
    let blocks = gate_up
        .par_chunks_mut(block.saturating_mul(row_stride))
        .zip(dout.par_chunks(block * inner));
    let run = |(gate_up, dout): (&mut [T], &[T]), out: &mut [T]| {
        with_curve!(activation, |curve| backward_in_place_block(
            token, curve, gate_up, rows, dout, out
        ));
    };
    match out {
        Some(out) => blocks
            .zip(out.par_chunks_mut(block * inner))
            .for_each(|(block, out)| run(block, out)),
        None => blocks.for_each(|block| run(block, &mut [])),
    }
}

simd_entry!(fn backward_block<'a; T: Number, C: Curve>(
    curve: C, gate_up: &'a [T], rows: GatedRows, dout: &'a [T], dgate_up: &'a mut [T],
    out: &'a mut [T]
) = backward_rows);

simd_entry!(fn backward_in_place_block<'a; T: Number, C: Curve>(
    curve: C, gate_up: &'a mut [T], rows: GatedRows, dout: &'a [T], out: &'a mut [T]
) = backward_rows_in_place);

/// `out` is empty if it is not wanted.
#[inline(always)]
fn backward_rows<S: PairSimd, T: Number, C: Curve>(
    simd: S,
    curve: C,
    gate_up: &[T],
    rows: GatedRows,
    dout: &[T],
    dgate_up: &mut [T],
    out: &mut [T],
) {
    let GatedRows {
        inner,
        row_stride,
        up_at,
    } = rows;
    let both = gate_up
        .chunks(row_stride)
        .zip(dgate_up.chunks_mut(row_stride));
    for (n, ((row, drow), dout)) in both.zip(dout.chunks_exact(inner)).enumerate() {
        let (gate, up) = (&row[..inner], &row[up_at..][..inner]);
        let (dgate, dup) = drow.split_at_mut(up_at);
        let out = if out.is_empty() {
            &mut []
        } else {
            &mut out[n * inner..][..inner]
        };
        backward_row(
            simd,
            curve,
            gate,
            up,
            dout,
            &mut dgate[..inner],
            &mut dup[..inner],
            out,
        );
    }
}

/// `out` is empty if it is not wanted.
#[inline(always)]
fn backward_rows_in_place<S: PairSimd, T: Number, C: Curve>(
    simd: S,
    curve: C,
    gate_up: &mut [T],
    rows: GatedRows,
    dout: &[T],
    out: &mut [T],
) {
    let GatedRows {
        inner,
        row_stride,
        up_at,
    } = rows;
    let both = gate_up.chunks_mut(row_stride).zip(dout.chunks_exact(inner));
    for (n, (row, dout)) in both.enumerate() {
        let (gate, up) = row.split_at_mut(up_at);
        let (gate, up) = (&mut gate[..inner], &mut up[..inner]);
        let out: &mut [T] = if out.is_empty() {
            &mut []
        } else {
            &mut out[n * inner..][..inner]
        };
        for_groups!(inner, |at| {
            let values = [
                read(simd, gate, at),
                read(simd, up, at),
                read(simd, dout, at),
            ];
            let [dgate, dup, act] = backward_group(simd, curve, values);
            write(simd, dgate, gate, at);
            write(simd, dup, up, at);
            if !out.is_empty() {
                write(simd, act, out, at);
            }
        });
    }
}

/// `out` is empty if it is not wanted.
#[expect(clippy::too_many_arguments, reason = "three inputs, three outputs")]
#[inline(always)]
pub(crate) fn backward_row<S: PairSimd, T: Number, C: Curve>(
    simd: S,
    curve: C,
    gate: &[T],
    up: &[T],
    dout: &[T],
    dgate: &mut [T],
    dup: &mut [T],
    out: &mut [T],
) {
    for_groups!(dgate.len(), |at| {
        let values = [
            read(simd, gate, at),
            read(simd, up, at),
            read(simd, dout, at),
        ];
        let [to_gate, to_up, act] = backward_group(simd, curve, values);
        write(simd, to_gate, dgate, at);
        write(simd, to_up, dup, at);
        if !out.is_empty() {
            write(simd, act, out, at);
        }
    });
}

/// `dgate`, `dup` and the output again.
#[inline(always)]
fn backward_group<S: PairSimd, C: Curve>(
    simd: S,
    curve: C,
    [gate, up, dout]: [S::V; 3],
) -> [S::V; 3] {
    let (share, [first, second]) = curve.slope(simd, gate);
    let dgate = simd.mul(simd.mul(simd.mul(dout, up), first), second);
    let dup = simd.mul(simd.mul(dout, gate), share);
    let out = simd.mul(simd.mul(gate, share), up);
    [dgate, dup, out]
}

pub(crate) fn activation_forward_on<T: Number>(
    token: Token,
    activation: Activation,
    x: &[T],
    y: &mut [T],
) {
    let block = block_rows(1);
    y.par_chunks_mut(block)
        .zip(x.par_chunks(block))
        .for_each(|(y, x)| {
            with_curve!(activation, |curve| activation_block(token, curve, x, y));
        });
}

simd_entry!(fn activation_block<'a; T: Number, C: Curve>(curve: C, x: &'a [T], y: &'a mut [T])
    = activation_slice);

#[inline(always)]
fn activation_slice<S: PairSimd, T: Number, C: Curve>(simd: S, curve: C, x: &[T], y: &mut [T]) {
    for_groups!(y.len(), |at| {
        let x = read(simd, x, at);
        write(simd, simd.mul(x, curve.share(simd, x)), y, at);
    });
}

pub(crate) fn activation_backward_on<T: Number>(
    token: Token,
    activation: Activation,
    dy: &[T],
    x: &[T],
    dx: &mut [T],
) {
    let block = block_rows(1);
    dx.par_chunks_mut(block)
        .zip(dy.par_chunks(block))
        .zip(x.par_chunks(block))
        .for_each(|((dx, dy), x)| {
            with_curve!(activation, |curve| activation_backward_block(
                token, curve, dy, x, dx
            ));
        });
}

simd_entry!(fn activation_backward_block<'a; T: Number, C: Curve>(
    curve: C, dy: &'a [T], x: &'a [T], dx: &'a mut [T]
) = activation_backward_slice);

#[inline(always)]
fn activation_backward_slice<S: PairSimd, T: Number, C: Curve>(
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
