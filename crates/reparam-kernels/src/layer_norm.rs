//! Layer normalization, with and without the residual addition before it.
//!
//! Activations are `f32` or bf16; everything is computed in `f32` and rounded when it is stored.

use rayon::prelude::*;

use crate::KernelError;
use crate::error::check_len;
use crate::isa::{PairSimd, Token, simd_entry};
use crate::number::{Number, for_groups, read, read_or, sum_groups, write};
use crate::par::block_rows;
use crate::rms_norm::add_row;

mod backward;
pub(crate) use backward::{Saved, backward_on};

/// `y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias`, row by row; the variance is
/// `mean((x - mean(x))^2)`, and without `bias` nothing is added.
///
/// # Shapes
///
/// `x[N, d]`, `weight[d]`, `bias[d]`, `y[N, d]`; `mean[N]` and `inv_std[N]` receive the mean and
/// `1 / sqrt(var + eps)`, which the backward pass needs.
///
/// # Numerics
///
/// The mean is subtracted before the squares are summed, so a great mean does not spoil the variance.
/// A row with NaN or infinity gives NaN in that row alone.
///
/// # Errors
///
/// [`KernelError::Length`] for a slice of the wrong length; [`KernelError::Zero`] if `d` is zero.
pub fn layer_norm_forward<T: Number>(
    x: &[T],
    weight: &[f32],
    bias: Option<&[f32]>,
    eps: f32,
    y: &mut [T],
    mean: &mut [f32],
    inv_std: &mut [f32],
) -> Result<(), KernelError> {
    check_rows(x, weight, mean.len())?;
    if let Some(bias) = bias {
        check_len("bias", bias, &[weight.len()])?;
    }
    check_len("y", y, &[x.len()])?;
    check_len("inv_std", inv_std, &[mean.len()])?;
    let affine = Affine { weight, bias, eps };
    forward_on(Token::current(), x, affine, y, mean, inv_std);
    Ok(())
}

/// `sum = x + residual`, then [`layer_norm_forward`] of the sum, in one pass over memory.
///
/// # Shapes
///
/// `x[N, d]`, `residual[N, d]`, `weight[d]`, `bias[d]`, `sum[N, d]`, `y[N, d]`, `mean[N]`,
/// `inv_std[N]`. The backward pass is [`layer_norm_backward`] with `sum` as its `x`; both addends have
/// the gradient of the sum.
///
/// # Numerics
///
/// What is normalized is the sum as it is stored, so that the backward pass sees the same numbers.
///
/// # Errors
///
/// Those of [`layer_norm_forward`].
#[expect(clippy::too_many_arguments, reason = "five inputs, four outputs")]
pub fn add_layer_norm_forward<T: Number>(
    x: &[T],
    residual: &[T],
    weight: &[f32],
    bias: Option<&[f32]>,
    eps: f32,
    sum: &mut [T],
    y: &mut [T],
    mean: &mut [f32],
    inv_std: &mut [f32],
) -> Result<(), KernelError> {
    check_rows(x, weight, mean.len())?;
    check_len("residual", residual, &[x.len()])?;
    if let Some(bias) = bias {
        check_len("bias", bias, &[weight.len()])?;
    }
    check_len("sum", sum, &[x.len()])?;
    check_len("y", y, &[x.len()])?;
    check_len("inv_std", inv_std, &[mean.len()])?;
    let affine = Affine { weight, bias, eps };
    add_forward_on(Token::current(), x, residual, affine, sum, y, mean, inv_std);
    Ok(())
}

/// The gradients of [`layer_norm_forward`], with `i = inv_std`, `h = (x - mean) i` and
/// `g = dy * weight`:
///
/// ```text
/// dx      = i (g - mean(g) - h mean(g h))
/// dweight = sum over rows of dy h
/// dbias   = sum over rows of dy
/// ```
///
/// # Shapes
///
/// `dy[N, d]`, `x[N, d]`, `weight[d]`, `mean[N]` and `inv_std[N]` of the forward pass, `dx[N, d]`,
/// `dweight[d]`, `dbias[d]`. All outputs are overwritten.
///
/// # Errors
///
/// Those of [`layer_norm_forward`].
///
/// # Cost
///
/// With `dweight` or `dbias`, allocates two rows of `d` for each block of about `16384 / d` rows.
#[expect(clippy::too_many_arguments, reason = "five inputs, three outputs")]
pub fn layer_norm_backward<T: Number>(
    dy: &[T],
    x: &[T],
    weight: &[f32],
    mean: &[f32],
    inv_std: &[f32],
    dx: &mut [T],
    dweight: Option<&mut [f32]>,
    dbias: Option<&mut [f32]>,
) -> Result<(), KernelError> {
    let saved = Saved::new(dy, x, weight, mean, inv_std)?;
    check_len("dx", dx, &[x.len()])?;
    if let Some(dweight) = &dweight {
        check_len("dweight", dweight, &[weight.len()])?;
    }
    if let Some(dbias) = &dbias {
        check_len("dbias", dbias, &[weight.len()])?;
    }
    backward_on(Token::current(), saved, dx, false, dweight, dbias);
    Ok(())
}

/// [`layer_norm_backward`] that adds: `dx` holds the gradient of the residual and becomes that of
/// the sum, rounded once.
///
/// # Shapes
///
/// `dy[N, d]`, `x[N, d]`, `weight[d]`, `mean[N]` and `inv_std[N]` of the forward pass, `dx[N, d]`.
///
/// # Errors
///
/// Those of [`layer_norm_forward`].
pub fn layer_norm_backward_add<T: Number>(
    dy: &[T],
    x: &[T],
    weight: &[f32],
    mean: &[f32],
    inv_std: &[f32],
    dx: &mut [T],
) -> Result<(), KernelError> {
    let saved = Saved::new(dy, x, weight, mean, inv_std)?;
    check_len("dx", dx, &[x.len()])?;
    backward_on(Token::current(), saved, dx, true, None, None);
    Ok(())
}

fn check_rows<T>(x: &[T], weight: &[f32], rows: usize) -> Result<(), KernelError> {
    if weight.is_empty() {
        return Err(KernelError::Zero { name: "d" });
    }
    check_len("x", x, &[rows, weight.len()])
}

/// What is done to all rows alike.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Affine<'a> {
    pub(crate) weight: &'a [f32],
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) eps: f32,
}

pub(crate) fn forward_on<T: Number>(
    token: Token,
    x: &[T],
    affine: Affine<'_>,
    y: &mut [T],
    mean: &mut [f32],
    inv_std: &mut [f32],
) {
    let d = affine.weight.len();
    let rows = block_rows(d);
    y.par_chunks_mut(rows * d)
        .zip(x.par_chunks(rows * d))
        .zip(mean.par_chunks_mut(rows).zip(inv_std.par_chunks_mut(rows)))
        .for_each(|((y, x), (mean, inv_std))| forward_block(token, x, affine, y, mean, inv_std));
}

simd_entry!(fn forward_block<'a; T: Number>(
    x: &'a [T], affine: Affine<'a>, y: &'a mut [T], mean: &'a mut [f32], inv_std: &'a mut [f32]
) = forward_rows);

#[inline(always)]
fn forward_rows<S: PairSimd, T: Number>(
    simd: S,
    x: &[T],
    affine: Affine<'_>,
    y: &mut [T],
    mean: &mut [f32],
    inv_std: &mut [f32],
) {
    let d = affine.weight.len();
    let rows = x.chunks_exact(d).zip(y.chunks_exact_mut(d));
    for ((x, y), (mean, inv_std)) in rows.zip(mean.iter_mut().zip(inv_std)) {
        (*mean, *inv_std) = forward_row(simd, x, affine, y);
    }
}

/// Returns `mean` and `inv_std`.
#[inline(always)]
fn forward_row<S: PairSimd, T: Number>(
    simd: S,
    x: &[T],
    affine: Affine<'_>,
    y: &mut [T],
) -> (f32, f32) {
    let d = affine.weight.len();
    let sum = sum_groups!(simd, d, |at, sum| simd.add(read(simd, x, at), sum));
    let mean = sum / d as f32;
    let center = simd.splat(mean);
    let squares = sum_groups!(simd, d, |at, sum| {
        // Lanes beyond the end of the row differ by zero from the mean.
        let off = simd.sub(read_or(simd, x, at, mean), center);
        simd.mul_add_lanes(off, off, sum)
    });
    let inv_std = 1.0 / (squares / d as f32 + affine.eps).sqrt();
    let inv = simd.splat(inv_std);
    for_groups!(d, |at| {
        let normal = simd.mul(simd.sub(read(simd, x, at), center), inv);
        let weight = read(simd, affine.weight, at);
        let values = match affine.bias {
            Some(bias) => simd.mul_add_lanes(normal, weight, read(simd, bias, at)),
            None => simd.mul(normal, weight),
        };
        write(simd, values, y, at);
    });
    (mean, inv_std)
}

#[expect(
    clippy::too_many_arguments,
    reason = "the public function with its token"
)]
pub(crate) fn add_forward_on<T: Number>(
    token: Token,
    x: &[T],
    residual: &[T],
    affine: Affine<'_>,
    sum: &mut [T],
    y: &mut [T],
    mean: &mut [f32],
    inv_std: &mut [f32],
) {
    let d = affine.weight.len();
    let rows = block_rows(d);
    (y.par_chunks_mut(rows * d), sum.par_chunks_mut(rows * d))
        .into_par_iter()
        .zip(x.par_chunks(rows * d).zip(residual.par_chunks(rows * d)))
        .zip(mean.par_chunks_mut(rows).zip(inv_std.par_chunks_mut(rows)))
        .for_each(|(((y, sum), (x, residual)), (mean, inv_std))| {
            add_forward_block(token, x, residual, affine, sum, y, mean, inv_std);
        });
}

simd_entry!(fn add_forward_block<'a; T: Number>(
    x: &'a [T], residual: &'a [T], affine: Affine<'a>, sum: &'a mut [T], y: &'a mut [T],
    mean: &'a mut [f32], inv_std: &'a mut [f32]
) = add_forward_rows);

#[expect(clippy::too_many_arguments, reason = "the arguments of its entry")]
#[inline(always)]
fn add_forward_rows<S: PairSimd, T: Number>(
    simd: S,
    x: &[T],
    residual: &[T],
    affine: Affine<'_>,
    sum: &mut [T],
    y: &mut [T],
    mean: &mut [f32],
    inv_std: &mut [f32],
) {
    let d = affine.weight.len();
    let inputs = x.chunks_exact(d).zip(residual.chunks_exact(d));
    let outputs = sum.chunks_exact_mut(d).zip(y.chunks_exact_mut(d));
    let rows = inputs.zip(outputs).zip(mean.iter_mut().zip(inv_std));
    for (((x, residual), (sum, y)), (mean, inv_std)) in rows {
        add_row(simd, x, residual, sum);
        (*mean, *inv_std) = forward_row(simd, sum, affine, y);
    }
}
