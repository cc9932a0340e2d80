//! Safetensors, Hugging Face model directories and PEFT adapters, without a tensor library.
//!
//! Everything here maps between files and plain slices of numbers. Nothing prints, reads
//! environment variables or panics on what a file contains: every problem is a typed error with
//! the values in it and a `hint()` that says what to do.
//!
//! - [`mod@file`] opens what is read: regular files only, once, by position.
//! - [`checkpoint`] reads `model.safetensors`, single or sharded.
//! - [`safetensors`] writes such files.
//! - [`atomic`] writes files and directories that are never seen half written.
//! - [`chat_templates`] finds the chat templates of a checkpoint.
//! - [`config`] reads `config.json` and `generation_config.json`; what they mean is known by the model families.
//! - [`peft`] reads and writes LoRA adapter directories of PEFT, and matches `target_modules`.
//! - [`gguf`] writes models and adapters for llama.cpp, [`mlx`] adapters for MLX.
//! - [`weights`] is where conversions read numbers, [`rounding`] how they round them.
//! - [`identify`] says what a file or a directory is, whatever its name says.
//! - [`word_vectors`] reads and writes tables of word vectors.
//! - [`hub`] finds a model: a local directory, or a download into the Hugging Face cache.

pub mod atomic;
pub mod chat_templates;
pub mod checkpoint;
pub mod config;
mod error;
pub mod file;
pub mod gguf;
pub mod hub;
pub mod identify;
pub mod mlx;
mod nearest;
pub mod peft;
pub mod rounding;
pub mod safetensors;
mod shown;
pub mod tokenizer_files;
pub mod weights;
pub mod word_vectors;

pub use error::FormatError;
pub use nearest::nearest;
pub use shown::{Shown, is_unprintable, shown, shown_sentence};
