//! Language models on Burn, with the parameter names of their Hugging Face checkpoints.
//!
//! A model family is one file and one line in [`FAMILIES`]. All decoders share one interface,
//! [`CausalLm`]: a flat batch of tokens in, a loss or logits out, every weight through the
//! reparameterization that is attached to it.

mod cache;
mod decoder;
mod error;
mod generate;
mod layers;
mod llama;
mod loader;
mod precision;
mod rope;
mod sampling;
#[cfg(test)]
mod tests;

pub use cache::KvCache;
pub use decoder::{CausalLm, TokenBatch};
pub use error::ModelError;
pub use generate::{Generation, StopReason};
pub use llama::{FAMILIES, Family};
pub use precision::Precision;
pub use sampling::Sampling;
