//! Root-mean-square normalization, with and without the residual addition before it.
//!
//! Activations are `f32` or bf16; everything is computed in `f32` and rounded when it is stored.

use rayon::prelude::*;

use crate::KernelError;
use crate::error::check_len;
use crate::isa::{PairSimd, Token, simd_entry};
use crate::number::{Number, for_groups, read, sum_groups, write};
use crate::par::block_rows;
use crate::vector;

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
/// # Numerics
///
/// What is normalized is the sum as it is stored, so that the backward pass sees the same numbers.
///
/// # Errors
///
/// Those of [`rms_norm_forward`].
pub fn add_rms_norm_forward<T: Number>(
    x: &[T],
    residual: &[T],
    weight: &[f32],
    eps: f32,
    sum: &mut [T],
    y: &mut [T],
    inv_rms: &mut [f32],
) -> Result<(), KernelError> {
    check_rows(x, weight, inv_rms.len())?;
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
pub fn rms_norm_backward<T: Number>(
    dy: &[T],
    x: &[T],
    weight: &[f32],
    inv_rms: &[f32],
    dx: &mut [T],
    dweight: Option<&mut [f32]>,
) -> Result<(), KernelError> {
    let saved = Saved::new(dy, x, weight, inv_rms)?;
    check_len("dx", dx, &[x.len()])?;
    if let Some(dweight) = &dweight {
        check_len("dweight", dweight, &[weight.len()])?;
    }
    backward_on(Token::current(), saved, dx, false, dweight);
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
    let saved = Saved::new(dy, x, weight, inv_rms)?;
    check_len("dx", dx, &[x.len()])?;
    backward_on(Token::current(), saved, dx, true, None);
    Ok(())
}

fn check_rows<T>(x: &[T], weight: &[f32], rows: usize) -> Result<(), KernelError> {
    if weight.is_empty() {
        return Err(KernelError::Zero { name: "d" });
    }
    check_len("x", x, &[rows, weight.len()])
}

/// What the backward pass reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Saved<'a, T> {
    dy: &'a [T],
    x: &'a [T],
    weight: &'a [f32],
    inv_rms: &'a [f32],
}

impl<'a, T: Number> Saved<'a, T> {
    pub(crate) fn new(
        dy: &'a [T],
        x: &'a [T],
        weight: &'a [f32],
        inv_rms: &'a [f32],
    ) -> Result<Self, KernelError> {
        check_rows(x, weight, inv_rms.len())?;
        check_len("dy", dy, &[x.len()])?;
        Ok(Self {
            dy,
            x,
            weight,
            inv_rms,
        })
    }

    /// The rows of each task, in order.
    fn blocks(self, rows: usize) -> impl IndexedParallelIterator<Item = Self> {
        let d = self.weight.len();
        self.dy
            .par_chunks(rows * d)
            .zip(self.x.par_chunks(rows * d))
            .zip(self.inv_rms.par_chunks(rows))
            .map(move |((dy, x), inv_rms)| Self {
                dy,
                x,
                weight: self.weight,
                inv_rms,
            })
    }
}

pub(crate) fn forward_on<T: Number>(
    token: Token,
    x: &[T],
    weight: &[f32],
    eps: f32,
    y: &mut [T],
    inv_rms: &mut [f32],
) {
    let d = weight.len();
    let rows = block_rows(d);
    y.par_chunks_mut(rows * d)
        .zip(x.par_chunks(rows * d))
        .zip(inv_rms.par_chunks_mut(rows))
        .for_each(|((y, x), inv_rms)| forward_block(token, x, weight, eps, y, inv_rms));
}

simd_entry!(fn forward_block<'a; T: Number>(
    x: &'a [T], weight: &'a [f32], eps: f32, y: &'a mut [T], inv_rms: &'a mut [f32]
) = forward_rows);

#[inline(always)]
fn forward_rows<S: PairSimd, T: Number>(
    simd: S,
    x: &[T],
    weight: &[f32],
    eps: f32,
    y: &mut [T],
    inv_rms: &mut [f32],
) {
    let d = weight.len();
    for ((x, y), inv_rms) in x
        .chunks_exact(d)
        .zip(y.chunks_exact_mut(d))
        .zip(inv_rms.iter_mut())
    {
        let squares = sum_groups!(simd, d, |at, sum| {
            let x = read(simd, x, at);
            simd.mul_add_lanes(x, x, sum)
        });
        *inv_rms = 1.0 / (squares / d as f32 + eps).sqrt();
        let inv = simd.splat(*inv_rms);
        for_groups!(d, |at| {
            let scaled = simd.mul(read(simd, x, at), inv);
            write(simd, simd.mul(scaled, read(simd, weight, at)), y, at);
        });
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "the public function with its token"
)]
pub(crate) fn add_forward_on<T: Number>(
    token: Token,
    x: &[T],
    residual: &[T],
    weight: &[f32],
    eps: f32,
    sum: &mut [T],
    y: &mut [T],
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

simd_entry!(fn add_forward_block<'a; T: Number>(
    x: &'a [T], residual: &'a [T], weight: &'a [f32], eps: f32, sum: &'a mut [T],
    y: &'a mut [T], inv_rms: &'a mut [f32]
) = add_forward_rows);

#[expect(clippy::too_many_arguments, reason = "the arguments of its entry")]
#[inline(always)]
fn add_forward_rows<S: PairSimd, T: Number>(
    simd: S,
    x: &[T],
    residual: &[T],
    weight: &[f32],
    eps: f32,
    sum: &mut [T],
    y: &mut [T],
    inv_rms: &mut [f32],
) {
    let d = weight.len();
    // Row by row, so that the sum is still in the first-level cache when it is normalized.
    for (row, inv_rms) in inv_rms.chunks_exact_mut(1).enumerate() {
        let at = row * d..(row + 1) * d;
        let sum = &mut sum[at.clone()];
        add_row(simd, &x[at.clone()], &residual[at.clone()], sum);
        forward_rows(simd, sum, weight, eps, &mut y[at], inv_rms);
    }
}

/// `sum = x + residual`
#[inline(always)]
pub(crate) fn add_row<S: PairSimd, T: Number>(simd: S, x: &[T], residual: &[T], sum: &mut [T]) {
    for_groups!(sum.len(), |at| {
        let both = simd.add(read(simd, x, at), read(simd, residual, at));
        write(simd, both, sum, at);
    });
}

/// With `adds` the gradient is added to what is in `dx`.
pub(crate) fn backward_on<T: Number>(
    token: Token,
    saved: Saved<'_, T>,
    dx: &mut [T],
    adds: bool,
    dweight: Option<&mut [f32]>,
) {
    let d = saved.weight.len();
    let rows = block_rows(d);
    let blocks = dx.par_chunks_mut(rows * d).zip(saved.blocks(rows));
    let Some(dweight) = dweight else {
        blocks.for_each(|(dx, saved)| backward_block(token, saved, dx, adds, &mut []));
        return;
    };
    // Each block of rows has its own sum; the sums are added in the order of the blocks.
    let mut sums = vec![0.0; saved.inv_rms.len().div_ceil(rows) * d];
    blocks
        .zip(sums.par_chunks_mut(d))
        .for_each(|((dx, saved), sum)| backward_block(token, saved, dx, adds, sum));
    dweight.fill(0.0);
    for sum in sums.chunks_exact(d) {
        vector::add(sum, dweight);
    }
}

simd_entry!(fn backward_block<'a; T: Number>(
    saved: Saved<'a, T>, dx: &'a mut [T], adds: bool, dweight: &'a mut [f32]
) = backward_rows);

/// `dweight` is empty if it is not wanted, else it is added to.
#[inline(always)]
fn backward_rows<S: PairSimd, T: Number>(
    simd: S,
    saved: Saved<'_, T>,
    dx: &mut [T],
    adds: bool,
    dweight: &mut [f32],
) {
    let (weight, d) = (saved.weight, saved.weight.len());
    let inputs = saved.dy.chunks_exact(d).zip(saved.x.chunks_exact(d));
    let rows = inputs.zip(saved.inv_rms).zip(dx.chunks_exact_mut(d));
    for (((dy, x), &inv_rms), dx) in rows {
        let along_x = simd.splat(along_x(simd, dy, x, weight, inv_rms));
        let inv_rms = simd.splat(inv_rms);
        for_groups!(d, |at| {
            let (dy, x) = (read(simd, dy, at), read(simd, x, at));
            let direct = simd.mul(simd.mul(dy, read(simd, weight, at)), inv_rms);
            let mut gradient = simd.mul_add_lanes(along_x, x, direct);
            if adds {
                gradient = simd.add(read(simd, dx, at), gradient);
            }
            write(simd, gradient, dx, at);
        });
        for_groups!(dweight.len(), |at| {
            let (dy, x) = (read(simd, dy, at), read(simd, x, at));
            let sum = simd.mul_add_lanes(simd.mul(dy, inv_rms), x, read(simd, dweight, at));
            write(simd, sum, dweight, at);
        });
    }
}

/// The factor of `x` in its gradient, `-i^3 mean(g x)`.
#[inline(always)]
fn along_x<S: PairSimd, T: Number>(
    simd: S,
    dy: &[T],
    x: &[T],
    weight: &[f32],
    inv_rms: f32,
) -> f32 {
    let d = weight.len();
    let products = sum_groups!(simd, d, |at, sum| {
        let g = simd.mul(read(simd, dy, at), read(simd, weight, at));
        simd.mul_add_lanes(g, read(simd, x, at), sum)
    });
    let mean = products / d as f32;
    -mean * inv_rms * inv_rms * inv_rms
}
