//! The arguments of `convert`.

use std::path::PathBuf;

use clap::Args;
use reparam_formats::gguf::GgufDtype;
use reparam_train::ModelRequest;
use reparam_train::config::Precision;

use super::{ModelArgs, word_of};
use crate::context::Context;

#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// Model directory in Hugging Face layout, run directory, or hub id; with --adapter, its base [default: what the adapter says, of --to gguf and --merge]
    #[arg(long, value_name = "DIR_OR_ID", required_unless_present = "adapter")]
    model: Option<String>,
    /// Adapter directory in PEFT layout, of --to peft in MLX's, or run directory
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: Option<PathBuf>,
    /// Merge the adapter into the model and write that
    #[arg(long, requires = "adapter")]
    pub(crate) merge: bool,
    /// The program that reads the result: llama.cpp, MLX, or PEFT
    #[arg(long, value_parser = word_of(Target::WORDS))]
    pub(crate) to: Target,
    /// The file or directory to write
    #[arg(long, value_name = "PATH")]
    pub(crate) output: PathBuf,
    /// Type of matrices; q8_0 for GGUF models; default: that of the model, of an adapter f32
    #[arg(long, value_parser = word_of(GgufDtype::WORDS))]
    pub(crate) dtype: Option<GgufDtype>,
}

/// Who reads the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Gguf,
    Mlx,
    Peft,
}

impl Target {
    const WORDS: [(&'static str, Self); 3] = [
        ("gguf", Self::Gguf),
        ("mlx", Self::Mlx),
        ("peft", Self::Peft),
    ];

    pub(crate) fn word(self) -> &'static str {
        let mut words = Self::WORDS.into_iter();
        words
            .find(|(_, target)| *target == self)
            .map_or("", |(word, _)| word)
    }
}

impl ConvertArgs {
    /// Returns the model, without its adapter, if one is given.
    pub(crate) fn model(&self, context: &Context) -> Option<ModelRequest> {
        let model = self.model.clone()?;
        Some(request(model, context))
    }
}

/// A request for a model that is only read.
pub(crate) fn request(model: String, context: &Context) -> ModelRequest {
    let args = ModelArgs {
        model,
        adapter: None,
        precision: Precision::F32,
    };
    args.request(context)
}
