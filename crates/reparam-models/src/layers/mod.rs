//! The modules that models are made of: blocks read what they are from their part of the description.

mod attention;
mod block;
mod feed_forward;
mod norm;

use burn::module::Module;
use burn::tensor::Tensor;
use reparam::Weight;
use reparam_ops::embedding;
use reparam_ops::fused::frozen_embedding;

pub use attention::Attention;
pub use block::{Block, Norms};
pub(crate) use block::{Sequences, dropped};
pub use feed_forward::FeedForward;
pub use norm::Norm;

/// A table of vectors.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[rows, d]`.
    pub weight: Weight,
}

impl Embedding {
    /// Looks up rows, `[N, d]`.
    pub(crate) fn forward(&self, ids: &[u32]) -> Tensor<2> {
        match &self.weight {
            Weight::Dense(table) => embedding(table.val(), ids),
            Weight::Packed(packed) => frozen_embedding(packed.weight(), ids, &packed.device()),
        }
    }
}
