//! Frozen weights as the bf16 products read them.

use std::borrow::Cow;
use std::ops::{Deref, Range};
use std::sync::{Arc, OnceLock};

use burn::tensor::Tensor;
use rayon::prelude::*;
use reparam_kernels::embedding::embedding_packed;
use reparam_kernels::packed as kernels;
use reparam_kernels::packed::{
    Direction, Epilogue, Int8View, Int8Weight, Matrix, MatrixMut, PackedView, PackedWeightBuilder,
    matmul, matmul_int8,
};
use reparam_kernels::{Bf16, KernelError};

use crate::LinearPlan;
use crate::native::run;

/// What the numbers of a frozen weight are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PackedDType {
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
pub struct PackedWeight {
    pub(crate) stack: Arc<WeightStack>,
    /// The weights of the stack that it is, one below the other: one, or those of several experts.
    pub(crate) parts: Range<usize>,
}

/// Numbers that are converted at a time: 1 MiB of `f32`.
const CHUNK: usize = 256 * 1024;

impl PackedWeight {
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
        numbers: PackedDType,
        mut read: impl FnMut(usize, Range<usize>, &mut [f32]),
    ) -> Vec<Self> {
        let rows: Vec<usize> = shapes.iter().map(|&[rows, _]| rows).collect();
        let cols = shapes.first().map_or(0, |&[_, cols]| cols);
        assert!(
            shapes.iter().all(|shape| shape[1] == cols),
            "the weights of a stack have one width"
        );
        let mut builder = run(PackedWeightBuilder::new(&rows, cols));
        let mut chunk = Vec::new();
        for (part, &rows) in rows.iter().enumerate() {
            // Whole panels, which are packed without touching a line twice.
            let at_once = (CHUNK / cols.max(1)).max(1).next_multiple_of(16);
            for first in (0..rows).step_by(at_once) {
                let n_rows = at_once.min(rows - first);
                chunk.resize(n_rows * cols, 0.0);
                read(part, first * cols..(first + n_rows) * cols, &mut chunk);
                let rows = run(Matrix::new(&chunk[..], n_rows, cols));
                run(builder.rows(part, first, rows));
            }
        }
        let packed = run(builder.build());
        let numbers = match numbers {
            PackedDType::Bf16 => Numbers::Bf16(packed),
            PackedDType::Int8 => Numbers::Int8(Int8Weight::new(&packed)),
        };
        let stack = Arc::new(WeightStack {
            numbers,
            square_norms: shapes.iter().map(|_| OnceLock::new()).collect(),
        });
        (0..shapes.len())
            .map(|part| Self {
                stack: stack.clone(),
                parts: part..part + 1,
            })
            .collect()
    }

    /// Packs the weights of several experts, all of one shape, as one weight, `[E d_out, d_in]`; `read` is that of
    /// [`pack`](Self::pack).
    ///
    /// # Panics
    ///
    /// Panics when there is no expert.
    pub fn pack_experts(
        n_experts: usize,
        shape: [usize; 2],
        numbers: PackedDType,
        read: impl FnMut(usize, Range<usize>, &mut [f32]),
    ) -> Self {
        let mut experts = Self::pack(&vec![shape; n_experts], numbers, read);
        Self {
            parts: 0..n_experts,
            ..experts.swap_remove(0)
        }
    }

    /// Returns the number of experts that it is the weights of: 1 for an ordinary weight.
    pub fn n_experts(&self) -> usize {
        self.parts.len()
    }

    /// Returns the weight of one expert.
    pub(super) fn expert(&self, expert: usize) -> Self {
        let part = self.parts.start + expert;
        assert!(part < self.parts.end, "there is no such expert");
        Self {
            stack: self.stack.clone(),
            parts: part..part + 1,
        }
    }

    /// Returns the place in the stack of an ordinary weight.
    pub(super) fn part(&self) -> usize {
        assert_eq!(self.parts.len(), 1, "experts are multiplied one by one");
        self.parts.start
    }

    /// Returns the rows `range` as `f32`, row-major: for what needs the numbers themselves, such as norms, a start from singular
    /// vectors, or a merge. A forward pass never does.
    ///
    /// # Panics
    ///
    /// Panics when the range is beyond the rows.
    pub fn rows_f32(&self, range: Range<usize>) -> Vec<f32> {
        let [rows, cols] = self.dims();
        assert!(range.end <= rows, "the weight has {rows} rows");
        // Parts begin at whole panels, so that rows of nothing may be between two of them.
        let parts = self.stack.part_rows();
        let per_part = rows / self.parts.len().max(1);
        let place = |row: usize| parts[self.parts.start + row / per_part].start + row % per_part;
        let ids: Vec<u32> = range.map(|row| place(row) as u32).collect();
        let mut values = vec![Bf16::ZERO; ids.len() * cols];
        run(self.stack.rows_of(&ids, &mut values));
        values.into_iter().map(Bf16::to_f32).collect()
    }

    /// Returns the squared Euclidean norm of each row, computed once.
    pub fn row_square_norms(&self) -> &[f32] {
        self.stack.square_norms[self.part()].get_or_init(|| {
            let [rows, cols] = self.dims();
            (0..rows)
                .into_par_iter()
                .map(|row| {
                    let row = self.rows_f32(row..row + 1);
                    debug_assert_eq!(row.len(), cols);
                    row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() as f32
                })
                .collect()
        })
    }

    /// Returns `x W'`, `[n, d_out]`, for `x` of `n` rows in `f32`, outside of any graph.
    ///
    /// # Panics
    ///
    /// Panics when `x` does not have whole rows of `d_in` numbers.
    pub fn product_f32(&self, x: &[f32]) -> Vec<f32> {
        let [d_out, d_in] = self.dims();
        let n = x.len() / d_in.max(1);
        let mut out = vec![0.0; n * d_out];
        let result = Matrix::new(x, n, d_in)
            .and_then(|x| Ok((x, MatrixMut::new(&mut out[..], n, d_out)?)))
            .and_then(|(x, out)| self.product(x, out));
        run(result);
        out
    }

    /// Returns `[d_out, d_in]`.
    pub fn dims(&self) -> [usize; 2] {
        let parts = &self.stack.part_rows()[self.parts.clone()];
        let rows = parts.iter().map(Range::len).sum();
        [rows, self.stack.cols()]
    }

    /// `out = x W'`
    pub(super) fn product(&self, x: Matrix<'_>, out: MatrixMut<'_>) -> Result<(), KernelError> {
        self.stack
            .product(Some(self.part()), x, Epilogue::default(), out)
    }
}

/// Weights of layers with one input, one below the other.
#[derive(Debug)]
pub(crate) struct WeightStack {
    numbers: Numbers,
    /// The squared norms of the rows of each part.
    square_norms: Vec<OnceLock<Vec<f32>>>,
}

impl Deref for WeightStack {
    type Target = Numbers;

    fn deref(&self) -> &Numbers {
        &self.numbers
    }
}

/// The numbers of a stack of weights.
#[derive(Debug)]
pub(crate) enum Numbers {
    Bf16(kernels::PackedWeight),
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
    pub(crate) fn packed(&self) -> Cow<'_, kernels::PackedWeight> {
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

/// A linear layer over a [`PackedWeight`]: its [plan](crate::linear()) and its bias, `[d_out]`, which is added last.
#[derive(Debug, Clone)]
pub struct FusedLinear {
    /// `W`.
    pub weight: PackedWeight,
    /// `b`, as the method that is attached leaves it.
    pub bias: Option<Tensor<1>>,
    /// What the method makes of the layer.
    pub plan: LinearPlan,
}
