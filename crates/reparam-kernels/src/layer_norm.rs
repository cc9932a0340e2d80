//! Layer normalization.
//!
//! Activations are `f32` or bf16; everything is computed in `f32` and rounded when it is stored.

use crate::KernelError;
use crate::error::check_len;
use crate::norm::{Affine, Layer, Saved, backward, check_rows, forward};
use crate::number::Number;

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
    forward(Layer, x, affine, y, mean, inv_std);
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
    let saved = Saved {
        dy,
        x,
        weight,
        mean,
        inv: inv_std,
    };
    saved.check(mean.len(), dx)?;
    if let Some(dweight) = &dweight {
        check_len("dweight", dweight, &[weight.len()])?;
    }
    if let Some(dbias) = &dbias {
        check_len("dbias", dbias, &[weight.len()])?;
    }
    backward(Layer, saved, dx, false, [dweight, dbias]);
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
    let saved = Saved {
        dy,
        x,
        weight,
        mean,
        inv: inv_std,
    };
    saved.check(mean.len(), dx)?;
    backward(Layer, saved, dx, true, [None, None]);
    Ok(())
}
