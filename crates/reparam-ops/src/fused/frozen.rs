//! Frozen weights as the bf16 products read them.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Tensor;
use reparam_kernels::embedding::embedding_packed;
use reparam_kernels::packed::{
    Direction, Epilogue, Int8View, Int8Weight, Matrix, MatrixMut, PackedView, PackedWeight,
    PackedWeightBuilder, matmul, matmul_int8,
};
use reparam_kernels::{Bf16, KernelError};

use super::stack::fits;
use crate::DropoutKey;

/// What the numbers of a frozen weight are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightNumbers {
    /// bf16.
    Bf16,
    /// 8-bit integers with a scale for each row, half as long. For inference: what needs more than four rows at a time, and
    /// every backward pass, works on a copy in bf16 that is made for each call.
    Int8,
}

/// A frozen weight `[d_out, d_in]` in the order of the kernels.
///
/// Layers with the same input (queries, keys and values; gate and up) share one stack of weights, so that one product
/// serves them all in the backward pass. A clone shares the numbers.
#[derive(Debug, Clone)]
pub struct FrozenWeight {
    pub(crate) stack: Arc<Numbers>,
    pub(crate) part: usize,
}

/// Numbers that are converted at a time: 1 MiB of `f32`.
const CHUNK: usize = 256 * 1024;

impl FrozenWeight {
    /// Packs weights of the shapes `[d_out, d_in]`, all of one `d_in`, as one stack.
    ///
    /// `read(i, range, to)` gives the row-major elements `range` of weight `i` as `f32`; they are rounded to the nearest
    /// bf16 number, then to `numbers`. They are asked for in order and a few at a time, so that there is never a second copy
    /// of more than the stack.
    ///
    /// # Panics
    ///
    /// Panics when the shapes do not make a stack.
    pub fn pack(
        shapes: &[[usize; 2]],
        numbers: WeightNumbers,
        mut read: impl FnMut(usize, Range<usize>, &mut [f32]),
    ) -> Vec<Self> {
        let rows: Vec<usize> = shapes.iter().map(|&[rows, _]| rows).collect();
        let cols = shapes.first().map_or(0, |&[_, cols]| cols);
        assert!(
            shapes.iter().all(|shape| shape[1] == cols),
            "the weights of a stack have one width"
        );
        let mut builder = fits(PackedWeightBuilder::new(&rows, cols));
        let mut chunk = Vec::new();
        for (part, &rows) in rows.iter().enumerate() {
            // Whole panels, which are packed without touching a line twice.
            let at_once = (CHUNK / cols.max(1)).max(1).next_multiple_of(16);
            for first in (0..rows).step_by(at_once) {
                let n_rows = at_once.min(rows - first);
                chunk.resize(n_rows * cols, 0.0);
                read(part, first * cols..(first + n_rows) * cols, &mut chunk);
                let rows = fits(Matrix::new(&chunk[..], n_rows, cols));
                fits(builder.rows(part, first, rows));
            }
        }
        let packed = fits(builder.build());
        let stack = Arc::new(match numbers {
            WeightNumbers::Bf16 => Numbers::Bf16(packed),
            WeightNumbers::Int8 => Numbers::Int8(Int8Weight::new(&packed)),
        });
        (0..shapes.len())
            .map(|part| Self {
                stack: stack.clone(),
                part,
            })
            .collect()
    }

    /// Returns `[d_out, d_in]`.
    pub fn dims(&self) -> [usize; 2] {
        [self.stack.part_rows()[self.part].len(), self.stack.cols()]
    }

    /// `out = x W'`
    pub(super) fn product(&self, x: Matrix<'_>, out: MatrixMut<'_>) -> Result<(), KernelError> {
        self.stack
            .product(Some(self.part), x, Epilogue::default(), out)
    }
}

/// The numbers of a stack of weights.
#[derive(Debug)]
pub(crate) enum Numbers {
    Bf16(PackedWeight),
    Int8(Int8Weight),
}

impl Numbers {
    pub(crate) fn rows(&self) -> usize {
        match self {
            Self::Bf16(weight) => weight.rows(),
            Self::Int8(weight) => weight.rows(),
        }
    }

    pub(crate) fn cols(&self) -> usize {
        match self {
            Self::Bf16(weight) => weight.cols(),
            Self::Int8(weight) => weight.cols(),
        }
    }

    pub(crate) fn part_rows(&self) -> &[Range<usize>] {
        match self {
            Self::Bf16(weight) => weight.part_rows(),
            Self::Int8(weight) => weight.part_rows(),
        }
    }

    /// The numbers in bf16, made for this call if they are something else.
    pub(crate) fn packed(&self) -> Cow<'_, PackedWeight> {
        match self {
            Self::Bf16(weight) => Cow::Borrowed(weight),
            Self::Int8(weight) => Cow::Owned(weight.to_packed()),
        }
    }

    /// The forward product with one part, or with all.
    pub(super) fn product(
        &self,
        part: Option<usize>,
        x: Matrix<'_>,
        epilogue: Epilogue<'_>,
        out: MatrixMut<'_>,
    ) -> Result<(), KernelError> {
        match self {
            Self::Bf16(weight) => {
                let weight = match part {
                    None => PackedView::from(weight),
                    Some(part) => weight.part(part).expect("made with the stack"),
                };
                matmul(x, weight, Direction::Forward, epilogue, out)
            }
            Self::Int8(weight) => {
                let weight = match part {
                    None => Int8View::from(weight),
                    Some(part) => weight.part(part).expect("made with the stack"),
                };
                matmul_int8(x, weight, epilogue, out)
            }
        }
    }

    /// Rows of a table, one after another.
    pub(super) fn rows_of(&self, ids: &[u32], out: &mut [Bf16]) -> Result<(), KernelError> {
        match self {
            Self::Bf16(weight) => embedding_packed(ids, weight, out),
            Self::Int8(weight) => {
                let rows = out.chunks_exact_mut(weight.cols());
                ids.iter()
                    .zip(rows)
                    .try_for_each(|(id, row)| weight.read_row(*id as usize, row))
            }
        }
    }
}

/// A linear layer over a [`FrozenWeight`]: `y = x W' + b + s (z A') B'`, where `z` is `x` or what dropout leaves of it.
#[derive(Debug, Clone)]
pub struct FusedLinear {
    /// `W`.
    pub weight: FrozenWeight,
    /// `b`, `[d_out]`, frozen.
    pub bias: Option<Tensor<1>>,
    /// The trainable part.
    pub low_rank: Option<FusedLowRank>,
}

/// The trainable part of a [`FusedLinear`].
#[derive(Debug, Clone)]
pub struct FusedLowRank {
    /// `A`, `[rank, d_in]`, `f32`.
    pub a: Tensor<2>,
    /// `B`, `[d_out, rank]`, `f32`.
    pub b: Tensor<2>,
    /// The effective multiplier `s`.
    pub scaling: f64,
    /// Probability and key of the dropout on the input of `A`.
    pub dropout: Option<(f32, DropoutKey)>,
}
