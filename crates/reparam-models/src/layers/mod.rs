//! The modules that models are made of: blocks read what they are from their part of the description.

mod attention;
mod block;
mod feed_forward;
mod norm;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use reparam_ops::embedding;
use reparam_ops::fused::FrozenWeight;

pub use attention::Attention;
pub(crate) use block::Sequences;
pub use block::{Block, Norms};
pub use feed_forward::FeedForward;
pub use norm::Norm;

/// A table of vectors.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[rows, d]`; NaN without memory if the table is packed.
    pub weight: Param<Tensor<2>>,
    /// The table in bf16, if that is where it is.
    #[module(skip)]
    pub frozen: Option<FrozenWeight>,
}

impl Embedding {
    /// Looks up rows, `[N, d]`.
    pub(crate) fn forward(&self, ids: &[u32]) -> Tensor<2> {
        match &self.frozen {
            Some(frozen) => {
                let device = self.weight.base().device();
                reparam_ops::fused::frozen_embedding(frozen, ids, &device)
            }
            None => embedding(self.weight.val(), ids),
        }
    }
}
