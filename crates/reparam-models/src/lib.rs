//! Language models on Burn, with the parameter names of their Hugging Face checkpoints.
//!
//! A model family is one file and one line in [`Families::builtin`]: it reads its `config.json` into an [`Architecture`], a
//! description that all families share the blocks for. A model is a [`Transformer`] and a head; all decoders share one
//! interface, [`CausalLm`]: a flat batch of tokens in, a loss or logits out, every weight through the
//! reparameterization that is attached to it. [`Predictor`] and [`MaskedLm`] are the same body with other heads; [`Seq2SeqLm`] has two
//! stacks of blocks, of which one reads a source and the other writes.

pub mod architecture;
mod cache;
mod causal_lm;
mod decoding;
mod error;
mod explain;
mod families;
mod generate;
pub mod gguf;
mod initial;
pub mod layers;
mod loader;
mod masked_lm;
mod named;
mod precision;
mod predictor;
mod rope;
mod sampling;
mod seq2seq_lm;
#[cfg(test)]
mod tests;
mod transformer;
mod word_vectors;

pub use architecture::Architecture;
pub use cache::KvCache;
pub use causal_lm::{CausalLm, TokenBatch};
pub use decoding::{DecodingConfig, EarlyStopping, Hypothesis};
pub use error::ModelError;
pub use families::{Families, Family};
pub use generate::{Generation, StopReason, TextRead};
pub use initial::{NewModel, NewTensor};
pub use masked_lm::MaskedLm;
pub use named::{List, Named};
pub use precision::Precision;
pub use predictor::{
    ClassTargets, NewHead, Predictor, RowTokens, class_loss, normalized, span_loss,
};
pub use sampling::Sampling;
pub use seq2seq_lm::Seq2SeqLm;
pub use transformer::{Stack, Transformer};
pub use word_vectors::{WordExamples, WordVectorModel};
