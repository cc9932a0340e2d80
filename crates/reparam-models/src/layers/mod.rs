//! The modules that models are made of: blocks read what they are from their part of the description.

mod attention;
mod block;
mod experts;
mod feed_forward;
mod head_norm;
mod norm;
mod recurrent;
mod recurrent_cross;
mod state_space;

use burn::module::Module;
use burn::tensor::Tensor;
use reparam::Weight;
use reparam_ops::embedding;
use reparam_ops::fused::frozen_embedding;

use crate::precision::widened;

pub use attention::Attention;
pub use block::{Block, CrossAttention, Norms};
pub(crate) use block::{Distances, Sequences, Source, dropped, drops};
pub use experts::{Experts, SharedExpert};
pub use feed_forward::FeedForward;
pub use head_norm::{HeadNorm, HeadRows};
pub use norm::Norm;
pub use recurrent::{Direction, Recurrent};
pub use recurrent_cross::{GlobalAttention, RecurrentCross, Start};
pub(crate) use state_space::MixerState;
pub use state_space::{Conv, Mixer, Scan, StateSpace};

/// A table of vectors.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[rows, d]`.
    pub weight: Weight,
}

impl Embedding {
    /// Looks up rows with what is attached to the table, `[N, d]` in no less than `f32`; `None` if nothing is, or its effective
    /// weight has to be formed.
    pub(crate) fn adapted_rows(&self, ids: &[u32]) -> Option<Tensor<2>> {
        let attached = self.weight.attached()?;
        let rows = match self.weight.as_packed() {
            Some(numbers) => {
                let device = self.weight.device();
                widened(frozen_embedding(&[(numbers, ids, None)], &device))
            }
            None => embedding(self.weight.param().base(), ids),
        };
        attached.rows(rows, ids)
    }
}
