//! What the two norms share: the blocks of rows, and the rows themselves but for the mean.

use rayon::prelude::*;

use crate::KernelError;
use crate::error::check_len;
use crate::isa::{PairSimd, Token, simd_entry};
use crate::number::{Group, Number, for_groups, read, read_or, sum_groups, write};
use crate::par::block_rows;
use crate::vector;

/// One of the two norms.
pub(crate) trait Norm: Copy + Send + Sync {
    /// Whether the mean of a row is taken off.
    const IS_CENTERED: bool;
}

/// [`crate::rms_norm`]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rms;

/// [`crate::layer_norm`]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layer;

impl Norm for Rms {
    const IS_CENTERED: bool = false;
}

impl Norm for Layer {
    const IS_CENTERED: bool = true;
}

pub(crate) fn check_rows<T>(x: &[T], weight: &[f32], rows: usize) -> Result<(), KernelError> {
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

/// Lengths are checked; `mean` is empty for a norm without.
pub(crate) fn forward<N: Norm, T: Number>(
    norm: N,
    x: &[T],
    affine: Affine<'_>,
    y: &mut [T],
    mean: &mut [f32],
    inv: &mut [f32],
) {
    let (token, d) = (Token::current(), affine.weight.len());
    let rows = block_rows(d);
    let blocks = y.par_chunks_mut(rows * d).zip(x.par_chunks(rows * d));
    let blocks = blocks.zip(inv.par_chunks_mut(rows));
    if N::IS_CENTERED {
        blocks
            .zip(mean.par_chunks_mut(rows))
            .for_each(|(((y, x), inv), mean)| forward_block(token, norm, x, affine, y, mean, inv));
    } else {
        blocks.for_each(|((y, x), inv)| forward_block(token, norm, x, affine, y, &mut [], inv));
    }
}

simd_entry!(fn forward_block<'a; N: Norm, T: Number>(
    norm: N, x: &'a [T], affine: Affine<'a>, y: &'a mut [T], mean: &'a mut [f32], inv: &'a mut [f32]
) = forward_rows);

#[inline(always)]
fn forward_rows<S: PairSimd, N: Norm, T: Number>(
    simd: S,
    _: N,
    x: &[T],
    affine: Affine<'_>,
    y: &mut [T],
    means: &mut [f32],
    inv: &mut [f32],
) {
    let d = affine.weight.len();
    let rows = x.chunks_exact(d).zip(y.chunks_exact_mut(d)).zip(inv);
    for (n, ((x, y), inv)) in rows.enumerate() {
        let mut mean = 0.0;
        if N::IS_CENTERED {
            mean = sum_groups!(simd, d, |at, sum| simd.add(read(simd, x, at), sum)) / d as f32;
            means[n] = mean;
        }
        let center = simd.splat(mean);
        let squares = sum_groups!(simd, d, |at, sum| {
            // Lanes beyond the end of the row differ by zero from the mean.
            let off = off::<S, N>(simd, read_or(simd, x, at, mean), center);
            simd.mul_add_lanes(off, off, sum)
        });
        let square = squares / d as f32;
        // Of a sum that overflows the root would be infinite and the row zeros, as if it were a number: a zero times it is NaN.
        *inv = 1.0 / (square + affine.eps).sqrt() + 0.0 * square;
        let inv = simd.splat(*inv);
        for_groups!(d, |at| {
            let normal = simd.mul(off::<S, N>(simd, read(simd, x, at), center), inv);
            let weight = read(simd, affine.weight, at);
            let values = match affine.bias {
                Some(bias) => simd.mul_add_lanes(normal, weight, read(simd, bias, at)),
                None => simd.mul(normal, weight),
            };
            write(simd, values, y, at);
        });
    }
}

/// `x - mean`, or `x`
#[inline(always)]
fn off<S: PairSimd, N: Norm>(simd: S, x: S::V, mean: S::V) -> S::V {
    if N::IS_CENTERED { simd.sub(x, mean) } else { x }
}

/// What the backward pass reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Saved<'a, T> {
    pub(crate) dy: &'a [T],
    pub(crate) x: &'a [T],
    pub(crate) weight: &'a [f32],
    /// Empty for a norm without.
    pub(crate) mean: &'a [f32],
    pub(crate) inv: &'a [f32],
}

impl<T: Number> Saved<'_, T> {
    /// Checks what every backward pass has.
    pub(crate) fn check(&self, rows: usize, dx: &[T]) -> Result<(), KernelError> {
        check_rows(self.x, self.weight, rows)?;
        check_len("dy", self.dy, &[self.x.len()])?;
        check_len("inv_std", self.inv, &[rows])?;
        check_len("dx", dx, &[self.x.len()])
    }

    /// Some rows.
    fn rows(self, first: usize, len: usize) -> Self {
        let d = self.weight.len();
        Self {
            dy: &self.dy[first * d..][..len * d],
            x: &self.x[first * d..][..len * d],
            mean: self.mean.get(first..first + len).unwrap_or(&[]),
            inv: &self.inv[first..][..len],
            ..self
        }
    }
}

/// With `adds` the gradient is added to what is in `dx`. `sums` are the gradients of weight and bias;
/// lengths are checked.
pub(crate) fn backward<N: Norm, T: Number>(
    norm: N,
    saved: Saved<'_, T>,
    dx: &mut [T],
    adds: bool,
    sums: [Option<&mut [f32]>; 2],
) {
    let (token, d) = (Token::current(), saved.weight.len());
    let rows = block_rows(d);
    let run = |(block, dx): (usize, &mut [T]), sums: &mut [f32]| {
        let saved = saved.rows(block * rows, dx.len() / d);
        backward_block(token, norm, saved, dx, adds, sums);
    };
    let blocks = dx.par_chunks_mut(rows * d).enumerate();
    if sums.iter().all(Option::is_none) {
        blocks.for_each(|block| run(block, &mut []));
        return;
    }
    // Each block of rows has its own sums; they are added in the order of the blocks.
    let width = if N::IS_CENTERED { 2 * d } else { d };
    let mut own = vec![0.0; saved.inv.len().div_ceil(rows) * width];
    blocks
        .zip(own.par_chunks_mut(width))
        .for_each(|(block, sums)| run(block, sums));
    for (at, total) in sums.into_iter().enumerate() {
        let Some(total) = total else { continue };
        total.fill(0.0);
        for sums in own.chunks_exact(width) {
            vector::add(&sums[at * d..][..d], total);
        }
    }
}

simd_entry!(fn backward_block<'a; N: Norm, T: Number>(
    norm: N, saved: Saved<'a, T>, dx: &'a mut [T], adds: bool, sums: &'a mut [f32]
) = backward_rows);

/// `sums` is empty if it is not wanted, else the gradients of the weight and then of the bias are
/// added to it.
#[inline(always)]
fn backward_rows<S: PairSimd, N: Norm, T: Number>(
    simd: S,
    _: N,
    saved: Saved<'_, T>,
    dx: &mut [T],
    adds: bool,
    sums: &mut [f32],
) {
    let d = saved.weight.len();
    let (dweight, dbias) = sums.split_at_mut(sums.len().min(d));
    for (n, dx) in dx.chunks_exact_mut(d).enumerate() {
        let row = Row::new::<S, N>(simd, saved, n);
        for_groups!(d, |at| {
            let mut gradient = row.gradient::<S, N>(simd, at);
            if adds {
                gradient = simd.add(read(simd, dx, at), gradient);
            }
            write(simd, gradient, dx, at);
        });
        for_groups!(dweight.len(), |at| {
            let (dy, sum) = (read(simd, row.dy, at), read(simd, dweight, at));
            let to_weight = if N::IS_CENTERED {
                simd.mul_add_lanes(dy, row.normal(simd, at), sum)
            } else {
                simd.mul_add_lanes(simd.mul(dy, row.inv), read(simd, row.x, at), sum)
            };
            write(simd, to_weight, dweight, at);
            if N::IS_CENTERED {
                write(simd, simd.add(read(simd, dbias, at), dy), dbias, at);
            }
        });
    }
}

/// One row of the backward pass and its means, with `g = dy * weight`.
struct Row<'a, V, T> {
    dy: &'a [T],
    x: &'a [T],
    weight: &'a [f32],
    mean: V,
    inv: V,
    /// `mean(g)` of a centered norm.
    mean_g: V,
    /// `mean(g h)` of a centered norm, of the other the factor of `x` in its gradient,
    /// `-i^3 mean(g x)`.
    along: V,
}

impl<'a, V: Copy, T: Number> Row<'a, V, T> {
    #[inline(always)]
    fn new<S: PairSimd<V = V>, N: Norm>(simd: S, saved: Saved<'a, T>, n: usize) -> Self {
        let (d, inv) = (saved.weight.len(), saved.inv[n]);
        let zero = simd.splat(0.0);
        let mut row = Self {
            dy: &saved.dy[n * d..][..d],
            x: &saved.x[n * d..][..d],
            weight: saved.weight,
            mean: zero,
            inv: simd.splat(inv),
            mean_g: zero,
            along: zero,
        };
        if N::IS_CENTERED {
            row.mean = simd.splat(saved.mean[n]);
            let sum_g = sum_groups!(simd, d, |at, sum| {
                simd.mul_add_lanes(read(simd, row.dy, at), read(simd, row.weight, at), sum)
            });
            row.mean_g = simd.splat(sum_g / d as f32);
        }
        let sum = sum_groups!(simd, d, |at, sum| {
            let other = if N::IS_CENTERED {
                row.normal(simd, at)
            } else {
                read(simd, row.x, at)
            };
            simd.mul_add_lanes(row.g(simd, at), other, sum)
        });
        let mean = sum / d as f32;
        row.along = simd.splat(if N::IS_CENTERED {
            mean
        } else {
            -mean * inv * inv * inv
        });
        row
    }

    #[inline(always)]
    fn g<S: PairSimd<V = V>>(&self, simd: S, at: Group) -> V {
        simd.mul(read(simd, self.dy, at), read(simd, self.weight, at))
    }

    /// `h = (x - mean) i`
    #[inline(always)]
    fn normal<S: PairSimd<V = V>>(&self, simd: S, at: Group) -> V {
        let off = simd.sub(read(simd, self.x, at), self.mean);
        simd.mul(off, self.inv)
    }

    /// `dx`
    #[inline(always)]
    fn gradient<S: PairSimd<V = V>, N: Norm>(&self, simd: S, at: Group) -> V {
        let g = self.g(simd, at);
        if N::IS_CENTERED {
            let along = simd.mul(self.normal(simd, at), self.along);
            simd.mul(simd.sub(simd.sub(g, self.mean_g), along), self.inv)
        } else {
            let x = read(simd, self.x, at);
            simd.mul_add_lanes(self.along, x, simd.mul(g, self.inv))
        }
    }
}
