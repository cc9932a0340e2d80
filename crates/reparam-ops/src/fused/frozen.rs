//! Frozen weights as the bf16 products read them.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Tensor;
use reparam_kernels::packed::{Matrix, PackedView, PackedWeight, PackedWeightBuilder};

use super::stack::fits;
use crate::DropoutKey;

/// A frozen weight `[d_out, d_in]` in bf16, in the order of the kernels.
///
/// Layers with the same input (queries, keys and values; gate and up) share one stack of weights, so that one product
/// serves them all in the backward pass. A clone shares the numbers.
#[derive(Debug, Clone)]
pub struct FrozenWeight {
    pub(crate) stack: Arc<PackedWeight>,
    pub(crate) part: usize,
}

/// Numbers that are converted at a time: 1 MiB of `f32`.
const CHUNK: usize = 256 * 1024;

impl FrozenWeight {
    /// Packs weights of the shapes `[d_out, d_in]`, all of one `d_in`, as one stack.
    ///
    /// `read(i, range, to)` gives the row-major elements `range` of weight `i` as `f32`; they are rounded to the nearest
    /// bf16 number. They are asked for in order and a few at a time, so that there is never a second copy.
    ///
    /// # Panics
    ///
    /// Panics when the shapes do not make a stack.
    pub fn pack(
        shapes: &[[usize; 2]],
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
        let stack = Arc::new(fits(builder.build()));
        (0..shapes.len())
            .map(|part| Self {
                stack: stack.clone(),
                part,
            })
            .collect()
    }

    /// Returns `[d_out, d_in]`.
    pub fn dims(&self) -> [usize; 2] {
        let view = self.view();
        [view.rows(), view.cols()]
    }

    pub(super) fn view(&self) -> PackedView<'_> {
        self.stack.part(self.part).expect("made with the stack")
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
