//! Language models on Burn, with the parameter names of their Hugging Face checkpoints.
//!
//! A model family is one file and one line in [`Families::builtin`]: it reads its `config.json` into an [`Architecture`], a
//! description that all families share the blocks for. A model is a [`Transformer`] and a head; all decoders share one
//! interface, [`CausalLm`]: a flat batch of tokens in, a loss or logits out, every weight through the
//! reparameterization that is attached to it. [`Predictor`] and [`MaskedLm`] are the same body with other heads.

pub mod architecture;
mod cache;
mod causal_lm;
mod error;
mod explain;
mod families;
mod generate;
pub mod layers;
mod loader;
mod masked_lm;
mod named;
mod precision;
mod predictor;
mod rope;
mod sampling;
#[cfg(test)]
mod tests;
mod transformer;

pub use architecture::Architecture;
pub use cache::KvCache;
pub use causal_lm::{CausalLm, TokenBatch};
pub use error::ModelError;
pub use families::{Families, Family};
pub use generate::{Generation, StopReason};
pub use masked_lm::MaskedLm;
pub use named::{List, Named};
pub use precision::Precision;
pub use predictor::{
    ClassTargets, NewHead, Predictor, RowTokens, class_loss, normalized, span_loss,
};
pub use rope::inverse_frequencies;
pub use sampling::Sampling;
pub use transformer::Transformer;
