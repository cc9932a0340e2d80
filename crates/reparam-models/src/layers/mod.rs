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
use reparam::Weight;

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
