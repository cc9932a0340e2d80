//! Root-mean-square normalization.
//!
//! Activations are `f32` or bf16; everything is computed in `f32` and rounded when it is stored.

use crate::KernelError;
use crate::error::check_len;
use crate::norm::{Affine, Rms, Saved, backward, check_rows, forward};
use crate::number::Number;

/// `y = x / rms(x) * weight`, `rms(x) = sqrt(mean(x^2) + eps)`, row by row.
///
/// # Shapes
///
/// `x[N, d]`, `weight[d]`, `y[N, d]`; `inv_rms[N]` receives `1 / rms`, which the backward pass needs.
///
/// # Numerics
///
/// A row with NaN, or whose squares overflow, gives NaN or zeros in that row alone.
///
/// # Errors
///
/// [`KernelError::Length`] for a slice of the wrong length; [`KernelError::Zero`] if `d` is zero.
pub fn rms_norm_forward<T: Number>(
    x: &[T],
    weight: &[f32],
    eps: f32,
    y: &mut [T],
    inv_rms: &mut [f32],
) -> Result<(), KernelError> {
    check_rows(x, weight, inv_rms.len())?;
    check_len("y", y, &[x.len()])?;
    let bias = None;
    forward(Rms, x, Affine { weight, bias, eps }, y, &mut [], inv_rms);
    Ok(())
}

/// The gradients of [`rms_norm_forward`], with `i = inv_rms` and `g = dy * weight`:
///
/// ```text
/// dx      = i (g - x i^2 mean(g x))
/// dweight = sum over rows of dy x i
/// ```
///
/// # Shapes
///
/// `dy[N, d]`, `x[N, d]`, `weight[d]`, `inv_rms[N]` of the forward pass, `dx[N, d]`, `dweight[d]`.
/// Both outputs are overwritten.
///
/// # Errors
///
/// Those of [`rms_norm_forward`].
///
/// # Cost
///
/// With `dweight`, allocates a row of `d` for each block of about `16384 / d` rows.
pub fn rms_norm_backward<T: Number>(
    dy: &[T],
    x: &[T],
    weight: &[f32],
    inv_rms: &[f32],
    dx: &mut [T],
    dweight: Option<&mut [f32]>,
) -> Result<(), KernelError> {
    let saved = Saved {
        dy,
        x,
        weight,
        mean: &[],
        inv: inv_rms,
    };
    saved.check(inv_rms.len(), dx)?;
    if let Some(dweight) = &dweight {
        check_len("dweight", dweight, &[weight.len()])?;
    }
    backward(Rms, saved, dx, false, [dweight, None]);
    Ok(())
}

/// [`rms_norm_backward`] that adds: `dx` holds the gradient of the residual and becomes that of
/// the sum, rounded once.
///
/// # Shapes
///
/// `dy[N, d]`, `x[N, d]`, `weight[d]`, `inv_rms[N]` of the forward pass, `dx[N, d]`.
///
/// # Errors
///
/// Those of [`rms_norm_forward`].
pub fn rms_norm_backward_add<T: Number>(
    dy: &[T],
    x: &[T],
    weight: &[f32],
    inv_rms: &[f32],
    dx: &mut [T],
) -> Result<(), KernelError> {
    let saved = Saved {
        dy,
        x,
        weight,
        mean: &[],
        inv: inv_rms,
    };
    saved.check(inv_rms.len(), dx)?;
    backward(Rms, saved, dx, true, [None, None]);
    Ok(())
}
