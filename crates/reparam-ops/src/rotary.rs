//! Rotary position embedding.

use std::sync::Arc;

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use reparam_kernels::rotary as kernels;

use crate::native::{self, Operation};
use crate::profile::{self, Work};
use crate::reference;

/// The cosines and sines of a batch's positions, shared by all layers.
#[derive(Debug, Clone)]
pub struct RotaryTable {
    /// `cos(position * frequency)`, `[N, turned / 2]` row-major.
    pub cos: Arc<[f32]>,
    /// `sin(position * frequency)`, `[N, turned / 2]` row-major.
    pub sin: Arc<[f32]>,
    /// The size of a head.
    pub head_dim: usize,
    /// How many elements of a head are rotated, the first ones; the others stay as they are.
    pub turned: usize,
    /// Whether the pairs that are rotated are neighbours, `x[2 i]` and `x[2 i + 1]`, as in GPT-J; else they are half of the rotated
    /// part apart.
    pub interleaved: bool,
}

impl RotaryTable {
    /// Computes the table for a list of positions and heads of `head_dim` elements.
    ///
    /// `inverse_frequencies` holds one number for each pair of rotated elements, in radians a token: at most `head_dim / 2`.
    /// Cosines and sines are multiplied by `attention_factor`; 1 turns and does not stretch.
    /// The angles are computed in `f32`, as the reference implementation does.
    pub fn new(
        position_ids: &[u32],
        inverse_frequencies: &[f32],
        attention_factor: f32,
        head_dim: usize,
    ) -> Self {
        let (cos, sin) =
            kernels::rotary_tables(position_ids, inverse_frequencies, attention_factor)
                .expect("a list of frequencies has one element a pair");
        Self {
            cos: cos.into(),
            sin: sin.into(),
            head_dim,
            turned: inverse_frequencies.len() * 2,
            interleaved: false,
        }
    }

    /// Rotates neighbours.
    #[must_use]
    pub fn interleaved(self) -> Self {
        Self {
            interleaved: true,
            ..self
        }
    }

    /// Joins the tables of sequences that follow one another, of the same heads.
    ///
    /// # Panics
    ///
    /// Panics without a table.
    pub fn join(tables: impl IntoIterator<Item = Self>) -> Self {
        let mut tables = tables.into_iter();
        let first = tables.next().expect("there is a sequence");
        let (mut cos, mut sin) = (first.cos.to_vec(), first.sin.to_vec());
        for table in tables {
            cos.extend_from_slice(&table.cos);
            sin.extend_from_slice(&table.sin);
        }
        Self {
            cos: cos.into(),
            sin: sin.into(),
            ..first
        }
    }

    /// Returns the number of tokens.
    pub fn len(&self) -> usize {
        self.cos.len() / (self.turned / 2)
    }

    /// Returns whether the table holds no token.
    pub fn is_empty(&self) -> bool {
        self.cos.is_empty()
    }

    /// `n_heads` heads at the beginning of rows of `row_stride` numbers, as the kernels take them.
    pub(crate) fn heads(&self, n_heads: usize, row_stride: usize) -> kernels::Heads {
        kernels::Heads {
            row_stride,
            n_heads,
            head_dim: self.head_dim,
            turned: self.turned,
            interleaved: self.interleaved,
        }
    }
}

/// Rotates every head of every token by the angles of its position.
///
/// With the halves `x1 = x[..h]`, `x2 = x[h..2 h]` of the rotated part of a head, `h = turned / 2`:
///
/// ```text
/// y1 = x1 cos - x2 sin
/// y2 = x2 cos + x1 sin
/// ```
///
/// The pairing of element `i` with `i + h` is that of most of Hugging Face's checkpoints. An [interleaved](RotaryTable::interleaved)
/// table pairs neighbours, as the original code does: `x1 = x[0], x[2], ..` and `x2 = x[1], x[3], ..`.
///
/// # Shapes
///
/// - x, output: `[N, n_heads * head_dim]`
///
/// # Cost
///
/// Rotates in place when nothing else holds `x`. The backward pass is the inverse rotation and
/// keeps nothing but the table.
///
/// # References
///
/// Su et al., *RoFormer* (arXiv 2104.09864), equation 34.
pub fn rotary(x: Tensor<2>, table: &RotaryTable) -> Tensor<2> {
    if !native::is_native(&x) {
        return reference::rotary(x, table);
    }
    let mut operation = Operation::default();
    let x = operation.input(x);
    let y = rotate(x, table, false);
    let table = table.clone();
    operation.output(y, move |dy, [_]| [Some(rotate(dy, &table, true))])
}

fn rotate(mut x: FlexTensor, table: &RotaryTable, inverse: bool) -> FlexTensor {
    let width = x.layout().shape()[1];
    let heads = table.heads(width / table.head_dim, width);
    profile::measure(Work::Rotary, 0.0, || {
        native::run(kernels::rotary_rows(
            x.storage_mut::<f32>(),
            heads,
            &table.cos,
            &table.sin,
            inverse,
        ));
    });
    x
}
