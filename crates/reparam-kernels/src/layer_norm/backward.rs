//! The gradients of the rows.

use rayon::prelude::*;

use super::check_rows;
use crate::KernelError;
use crate::error::check_len;
use crate::isa::{PairSimd, Token, simd_entry};
use crate::number::{Group, Number, for_groups, read, sum_groups, write};
use crate::par::block_rows;
use crate::vector;

/// What the backward pass reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Saved<'a, T> {
    dy: &'a [T],
    x: &'a [T],
    weight: &'a [f32],
    mean: &'a [f32],
    inv_std: &'a [f32],
}

impl<'a, T: Number> Saved<'a, T> {
    pub(crate) fn new(
        dy: &'a [T],
        x: &'a [T],
        weight: &'a [f32],
        mean: &'a [f32],
        inv_std: &'a [f32],
    ) -> Result<Self, KernelError> {
        check_rows(x, weight, mean.len())?;
        check_len("dy", dy, &[x.len()])?;
        check_len("inv_std", inv_std, &[mean.len()])?;
        Ok(Self {
            dy,
            x,
            weight,
            mean,
            inv_std,
        })
    }

    /// The rows of each task, in order.
    fn blocks(self, rows: usize) -> impl IndexedParallelIterator<Item = Self> {
        let d = self.weight.len();
        self.dy
            .par_chunks(rows * d)
            .zip(self.x.par_chunks(rows * d))
            .zip(self.mean.par_chunks(rows))
            .zip(self.inv_std.par_chunks(rows))
            .map(move |(((dy, x), mean), inv_std)| Self {
                dy,
                x,
                weight: self.weight,
                mean,
                inv_std,
            })
    }
}

/// With `adds` the gradient is added to what is in `dx`.
pub(crate) fn backward_on<T: Number>(
    token: Token,
    saved: Saved<'_, T>,
    dx: &mut [T],
    adds: bool,
    dweight: Option<&mut [f32]>,
    dbias: Option<&mut [f32]>,
) {
    let d = saved.weight.len();
    let rows = block_rows(d);
    let blocks = dx.par_chunks_mut(rows * d).zip(saved.blocks(rows));
    if dweight.is_none() && dbias.is_none() {
        blocks.for_each(|(dx, saved)| backward_block(token, saved, dx, adds, &mut []));
        return;
    }
    // Each block of rows has its own sums; they are added in the order of the blocks.
    let mut sums = vec![0.0; saved.mean.len().div_ceil(rows) * 2 * d];
    blocks
        .zip(sums.par_chunks_mut(2 * d))
        .for_each(|((dx, saved), sums)| backward_block(token, saved, dx, adds, sums));
    for (total, at) in [(dweight, 0), (dbias, d)] {
        if let Some(total) = total {
            total.fill(0.0);
            for sums in sums.chunks_exact(2 * d) {
                vector::add(&sums[at..][..d], total);
            }
        }
    }
}

simd_entry!(fn backward_block<'a; T: Number>(
    saved: Saved<'a, T>, dx: &'a mut [T], adds: bool, sums: &'a mut [f32]
) = backward_rows);

/// `sums` is empty if it is not wanted, else `dweight` and then `dbias` are added to it.
#[inline(always)]
fn backward_rows<S: PairSimd, T: Number>(
    simd: S,
    saved: Saved<'_, T>,
    dx: &mut [T],
    adds: bool,
    sums: &mut [f32],
) {
    let d = saved.weight.len();
    let (dweight, dbias) = sums.split_at_mut(sums.len() / 2);
    for (n, dx) in dx.chunks_exact_mut(d).enumerate() {
        let row = Row::new(simd, saved, n);
        for_groups!(d, |at| {
            let mut gradient = row.gradient(simd, at);
            if adds {
                gradient = simd.add(read(simd, dx, at), gradient);
            }
            write(simd, gradient, dx, at);
        });
        for_groups!(dweight.len(), |at| {
            let dy = read(simd, row.dy, at);
            let to_weight = simd.mul_add_lanes(dy, row.normal(simd, at), read(simd, dweight, at));
            write(simd, to_weight, dweight, at);
            write(simd, simd.add(read(simd, dbias, at), dy), dbias, at);
        });
    }
}

/// One row of the backward pass and its two means.
struct Row<'a, V, T> {
    dy: &'a [T],
    x: &'a [T],
    weight: &'a [f32],
    mean: V,
    inv_std: V,
    /// `mean(g)`
    mean_g: V,
    /// `mean(g h)`
    mean_gh: V,
}

impl<'a, V: Copy, T: Number> Row<'a, V, T> {
    #[inline(always)]
    fn new<S: PairSimd<V = V>>(simd: S, saved: Saved<'a, T>, n: usize) -> Self {
        let d = saved.weight.len();
        let mut row = Self {
            dy: &saved.dy[n * d..][..d],
            x: &saved.x[n * d..][..d],
            weight: saved.weight,
            mean: simd.splat(saved.mean[n]),
            inv_std: simd.splat(saved.inv_std[n]),
            mean_g: simd.splat(0.0),
            mean_gh: simd.splat(0.0),
        };
        let sum_g = sum_groups!(simd, d, |at, sum| {
            simd.mul_add_lanes(read(simd, row.dy, at), read(simd, row.weight, at), sum)
        });
        let sum_gh = sum_groups!(simd, d, |at, sum| {
            let g = simd.mul(read(simd, row.dy, at), read(simd, row.weight, at));
            simd.mul_add_lanes(g, row.normal(simd, at), sum)
        });
        row.mean_g = simd.splat(sum_g / d as f32);
        row.mean_gh = simd.splat(sum_gh / d as f32);
        row
    }

    /// `h = (x - mean) i`
    #[inline(always)]
    fn normal<S: PairSimd<V = V>>(&self, simd: S, at: Group) -> V {
        let off = simd.sub(read(simd, self.x, at), self.mean);
        simd.mul(off, self.inv_std)
    }

    /// `dx`
    #[inline(always)]
    fn gradient<S: PairSimd<V = V>>(&self, simd: S, at: Group) -> V {
        let g = simd.mul(read(simd, self.dy, at), read(simd, self.weight, at));
        let along = simd.mul(self.normal(simd, at), self.mean_gh);
        simd.mul(simd.sub(simd.sub(g, self.mean_g), along), self.inv_std)
    }
}
