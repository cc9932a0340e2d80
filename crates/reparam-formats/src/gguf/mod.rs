//! GGUF, the format of llama.cpp: whole models, and LoRA adapters by themselves.
//!
//! A file is written in one pass: its header says where each tensor is, then the numbers follow. What the tensors of a model are
//! called and how llama.cpp computes with them is data that a model family hands over as a [`GgufModel`]; the tokenizer is made of
//! `tokenizer.json`. Only what llama.cpp computes in the same way is written, everything else is refused by name.
//!
//! # References
//!
//! The specification is `docs/gguf.md` of <https://github.com/ggml-org/ggml>.

mod adapter;
mod dtype;
mod error;
mod model;
mod q8_0;
mod rounding;
mod tokenizer;
mod value;
mod write;

#[cfg(test)]
mod tests;

pub use adapter::{AdapterOptions, write_adapter};
pub use dtype::GgufDtype;
pub use error::GgufError;
pub use model::{GgufModel, GgufWeight, Layout, ModelOptions, Source, write_model};
pub use rounding::{RoundedWeights, WrittenTensor};
pub use tokenizer::{GgufTokenizer, TokenizerFiles};
pub use value::GgufValue;
