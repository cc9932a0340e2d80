//! Language models on Burn, with the parameter names of their Hugging Face checkpoints.
//!
//! A model family is one file and one line in [`Families::builtin`]: it reads its `config.json` into an [`Architecture`], a
//! description that all families share the blocks for. A model is a [`Transformer`] and a head; all decoders share one
//! interface, [`CausalLm`]: a flat batch of tokens in, a loss or logits out, every weight through the
//! reparameterization that is attached to it. [`SequenceClassifier`] is the same body with another head.

pub mod architecture;
mod cache;
mod causal_lm;
mod classifier;
mod error;
mod families;
mod generate;
pub mod layers;
mod loader;
mod named;
mod precision;
mod rope;
mod sampling;
#[cfg(test)]
mod tests;
mod transformer;

pub use architecture::Architecture;
pub use cache::KvCache;
pub use causal_lm::{CausalLm, TokenBatch};
pub use classifier::{ClassTargets, NewHead, RowTokens, SequenceClassifier};
pub use error::ModelError;
pub use families::{Families, Family};
pub use generate::{Generation, StopReason};
pub use named::{List, Named};
pub use precision::Precision;
pub use rope::inverse_frequencies;
pub use sampling::Sampling;
pub use transformer::Transformer;
