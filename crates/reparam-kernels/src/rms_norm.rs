//! Root-mean-square normalization, with and without the residual addition before it.

use rayon::prelude::*;

use crate::KernelError;
use crate::error::check_len;
use crate::isa::{Simd, Token, simd_entry};
use crate::par::block_rows;
use crate::vector::{self, dot, dot3};

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
pub fn rms_norm_forward(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    y: &mut [f32],
    inv_rms: &mut [f32],
) -> Result<(), KernelError> {
    check_rows("x", x, weight, inv_rms.len())?;
    check_len("y", y, &[x.len()])?;
    forward_on(Token::current(), x, weight, eps, y, inv_rms);
    Ok(())
}

/// `sum = x + residual`, then [`rms_norm_forward`] of the sum, in one pass over memory.
///
/// # Shapes
///
/// `x[N, d]`, `residual[N, d]`, `weight[d]`, `sum[N, d]`, `y[N, d]`, `inv_rms[N]`. The backward pass
/// is [`rms_norm_backward`] with `sum` as its `x`; both addends have the gradient of the sum.
///
/// # Errors
///
/// Those of [`rms_norm_forward`].
pub fn add_rms_norm_forward(
    x: &[f32],
    residual: &[f32],
    weight: &[f32],
    eps: f32,
    sum: &mut [f32],
    y: &mut [f32],
    inv_rms: &mut [f32],
) -> Result<(), KernelError> {
    check_rows("x", x, weight, inv_rms.len())?;
    check_len("residual", residual, &[x.len()])?;
    check_len("sum", sum, &[x.len()])?;
    check_len("y", y, &[x.len()])?;
    add_forward_on(Token::current(), x, residual, weight, eps, sum, y, inv_rms);
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
pub fn rms_norm_backward(
    dy: &[f32],
    x: &[f32],
    weight: &[f32],
    inv_rms: &[f32],
    dx: &mut [f32],
    dweight: Option<&mut [f32]>,
) -> Result<(), KernelError> {
    check_rows("x", x, weight, inv_rms.len())?;
    check_len("dy", dy, &[x.len()])?;
    check_len("dx", dx, &[x.len()])?;
    if let Some(dweight) = &dweight {
        check_len("dweight", dweight, &[weight.len()])?;
    }
    backward_on(Token::current(), dy, x, weight, inv_rms, dx, dweight);
    Ok(())
}

fn check_rows(
    name: &'static str,
    x: &[f32],
    weight: &[f32],
    rows: usize,
) -> Result<(), KernelError> {
    if weight.is_empty() {
        return Err(KernelError::Zero { name: "d" });
    }
    check_len(name, x, &[rows, weight.len()])
}

pub(crate) fn forward_on(
    token: Token,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    y: &mut [f32],
    inv_rms: &mut [f32],
) {
    let d = weight.len();
    let rows = block_rows(d);
    y.par_chunks_mut(rows * d)
        .zip(x.par_chunks(rows * d))
        .zip(inv_rms.par_chunks_mut(rows))
        .for_each(|((y, x), inv_rms)| forward_block(token, x, weight, eps, y, inv_rms));
}

simd_entry!(fn forward_block<'a>(
    x: &'a [f32], weight: &'a [f32], eps: f32, y: &'a mut [f32], inv_rms: &'a mut [f32]
) = forward_rows);

#[inline(always)]
fn forward_rows<S: Simd>(
    simd: S,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    y: &mut [f32],
    inv_rms: &mut [f32],
) {
    let d = weight.len();
    for ((x, y), inv_rms) in x
        .chunks_exact(d)
        .zip(y.chunks_exact_mut(d))
        .zip(inv_rms.iter_mut())
    {
        *inv_rms = 1.0 / (dot(simd, x, x) / d as f32 + eps).sqrt();
        for ((y, &x), &weight) in y.iter_mut().zip(x).zip(weight) {
            *y = x * *inv_rms * weight;
        }
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "the public function with its token"
)]
pub(crate) fn add_forward_on(
    token: Token,
    x: &[f32],
    residual: &[f32],
    weight: &[f32],
    eps: f32,
    sum: &mut [f32],
    y: &mut [f32],
    inv_rms: &mut [f32],
) {
    let d = weight.len();
    let rows = block_rows(d);
    (y.par_chunks_mut(rows * d), sum.par_chunks_mut(rows * d))
        .into_par_iter()
        .zip(x.par_chunks(rows * d).zip(residual.par_chunks(rows * d)))
        .zip(inv_rms.par_chunks_mut(rows))
        .for_each(|(((y, sum), (x, residual)), inv_rms)| {
            add_forward_block(token, x, residual, weight, eps, sum, y, inv_rms);
        });
}

simd_entry!(fn add_forward_block<'a>(
    x: &'a [f32], residual: &'a [f32], weight: &'a [f32], eps: f32, sum: &'a mut [f32],
    y: &'a mut [f32], inv_rms: &'a mut [f32]
) = add_forward_rows);

#[expect(clippy::too_many_arguments, reason = "the arguments of its entry")]
#[inline(always)]
fn add_forward_rows<S: Simd>(
    simd: S,
    x: &[f32],
    residual: &[f32],
    weight: &[f32],
    eps: f32,
    sum: &mut [f32],
    y: &mut [f32],
    inv_rms: &mut [f32],
) {
    let d = weight.len();
    // Row by row, so that the sum is still in the first-level cache when it is normalized.
    for (row, inv_rms) in inv_rms.chunks_exact_mut(1).enumerate() {
        let at = row * d..(row + 1) * d;
        let sum = &mut sum[at.clone()];
        for ((sum, &x), &residual) in sum
            .iter_mut()
            .zip(&x[at.clone()])
            .zip(&residual[at.clone()])
        {
            *sum = x + residual;
        }
        forward_rows(simd, sum, weight, eps, &mut y[at], inv_rms);
    }
}

pub(crate) fn backward_on(
    token: Token,
    dy: &[f32],
    x: &[f32],
    weight: &[f32],
    inv_rms: &[f32],
    dx: &mut [f32],
    dweight: Option<&mut [f32]>,
) {
    let d = weight.len();
    let rows = block_rows(d);
    let blocks = dx
        .par_chunks_mut(rows * d)
        .zip(dy.par_chunks(rows * d))
        .zip(x.par_chunks(rows * d))
        .zip(inv_rms.par_chunks(rows));
    let Some(dweight) = dweight else {
        blocks.for_each(|(((dx, dy), x), inv_rms)| {
            backward_block(token, dy, x, weight, inv_rms, dx, &mut []);
        });
        return;
    };
    // Each block of rows has its own sum; the sums are added in the order of the blocks.
    let mut sums = vec![0.0; inv_rms.len().div_ceil(rows) * d];
    blocks
        .zip(sums.par_chunks_mut(d))
        .for_each(|((((dx, dy), x), inv_rms), sum)| {
            backward_block(token, dy, x, weight, inv_rms, dx, sum);
        });
    dweight.fill(0.0);
    for sum in sums.chunks_exact(d) {
        vector::add(sum, dweight);
    }
}

simd_entry!(fn backward_block<'a>(
    dy: &'a [f32], x: &'a [f32], weight: &'a [f32], inv_rms: &'a [f32], dx: &'a mut [f32],
    dweight: &'a mut [f32]
) = backward_rows);

/// `dweight` is empty if it is not wanted, else it is added to.
#[inline(always)]
fn backward_rows<S: Simd>(
    simd: S,
    dy: &[f32],
    x: &[f32],
    weight: &[f32],
    inv_rms: &[f32],
    dx: &mut [f32],
    dweight: &mut [f32],
) {
    let d = weight.len();
    for (((dy, x), &inv_rms), dx) in dy
        .chunks_exact(d)
        .zip(x.chunks_exact(d))
        .zip(inv_rms)
        .zip(dx.chunks_exact_mut(d))
    {
        let mean = dot3(simd, dy, weight, x) / d as f32;
        let along_x = -mean * inv_rms * inv_rms * inv_rms;
        for (((dx, &dy), &x), &weight) in dx.iter_mut().zip(dy).zip(x).zip(weight) {
            *dx = S::mul_add(along_x, x, dy * weight * inv_rms);
        }
        for ((dweight, &dy), &x) in dweight.iter_mut().zip(dy).zip(x) {
            *dweight = S::mul_add(dy * inv_rms, x, *dweight);
        }
    }
}
