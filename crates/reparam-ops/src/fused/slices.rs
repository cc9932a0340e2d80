//! Slices as matrices, and loops over all of a slice.

use std::ops::Range;

use rayon::prelude::*;
use reparam_kernels::Bf16;
use reparam_kernels::packed::{Matrix, MatrixMut};

use super::buffer::Buffer;
use crate::native::run;

pub(super) fn add(sum: &mut [f32], values: impl Iterator<Item = f32>) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += value;
    }
}

/// A buffer of `f(i, x_i)`.
pub(super) fn map_from(x: &[Bf16], f: impl Fn(usize, f32) -> f32 + Sync) -> Buffer<Bf16> {
    let mut out = Buffer::dirty(x.len());
    out.par_chunks_mut(CHUNK)
        .zip(x.par_chunks(CHUNK))
        .enumerate()
        .for_each(|(chunk, (out, x))| {
            for (i, (out, x)) in out.iter_mut().zip(x).enumerate() {
                *out = Bf16::from_f32(f(chunk * CHUNK + i, x.to_f32()));
            }
        });
    out
}

/// The nearest bf16 numbers.
pub(super) fn rounded(x: &[f32]) -> Buffer<Bf16> {
    let mut out = Buffer::dirty(x.len());
    out.par_chunks_mut(CHUNK)
        .zip(x.par_chunks(CHUNK))
        .for_each(|(out, x)| {
            for (out, x) in out.iter_mut().zip(x) {
                *out = Bf16::from_f32(*x);
            }
        });
    out
}

/// The same numbers in `f32`.
pub(super) fn widened(x: &[Bf16]) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(CHUNK)
        .zip(x.par_chunks(CHUNK))
        .for_each(|(out, x)| {
            for (out, x) in out.iter_mut().zip(x) {
                *out = x.to_f32();
            }
        });
    out
}

/// The sums over all rows of `f(x, its index)` in some columns of a matrix, each in the order of the rows.
pub(super) fn column_sums(
    x: &[Bf16],
    width: usize,
    columns: &Range<usize>,
    f: impl Fn(f32, usize) -> f32 + Sync,
) -> Vec<f32> {
    /// Columns of one task: a few lines of a row.
    const COLUMNS: usize = 64;
    let mut sums = vec![0.0; columns.len()];
    sums.par_chunks_mut(COLUMNS)
        .enumerate()
        .for_each(|(task, sums)| {
            let first = columns.start + task * COLUMNS;
            let mut totals = [0.0_f64; COLUMNS];
            for row in (0..x.len()).step_by(width) {
                for (offset, total) in totals[..sums.len()].iter_mut().enumerate() {
                    let at = row + first + offset;
                    *total += f64::from(f(x[at].to_f32(), at));
                }
            }
            for (sum, total) in sums.iter_mut().zip(totals) {
                *sum = total as f32;
            }
        });
    sums
}

/// Numbers of one task of the loops above.
pub(super) const CHUNK: usize = 1 << 14;

pub(super) fn view(x: &[Bf16], rows: usize, cols: usize) -> Matrix<'_> {
    run(Matrix::new(x, rows, cols))
}

pub(super) fn matrix(x: &[f32], rows: usize, cols: usize) -> Matrix<'_> {
    run(Matrix::new(x, rows, cols))
}

pub(super) fn matrix_mut(x: &mut [Bf16], rows: usize, cols: usize) -> MatrixMut<'_> {
    run(MatrixMut::new(x, rows, cols))
}

pub(super) fn matrix_mut_f32(x: &mut [f32], rows: usize, cols: usize) -> MatrixMut<'_> {
    run(MatrixMut::new(x, rows, cols))
}

/// Some columns of a row-major matrix of `n` rows.
pub(super) fn columns_of<'a>(
    x: &'a [Bf16],
    n: usize,
    width: usize,
    columns: &Range<usize>,
) -> Matrix<'a> {
    let first = columns.start.min(x.len());
    run(Matrix::with_row_stride(
        &x[first..],
        n,
        columns.len(),
        width,
    ))
}

pub(super) fn columns_of_mut<'a>(
    x: &'a mut [Bf16],
    n: usize,
    width: usize,
    columns: &Range<usize>,
) -> MatrixMut<'a> {
    let first = columns.start.min(x.len());
    run(MatrixMut::with_row_stride(
        &mut x[first..],
        n,
        columns.len(),
        width,
    ))
}
