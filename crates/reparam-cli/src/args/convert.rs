//! The arguments of `convert`.

use std::path::PathBuf;

use clap::Args;
use reparam_formats::gguf::GgufDtype;
use reparam_formats::peft::LORA;
use reparam_train::config::Precision;
use reparam_train::convert::GgufRequest;
use reparam_train::merge::{FactorSize, LoraRequest, LoraSource};
use reparam_train::{DEFAULT_LENGTH, DataRequest, ModelRequest};

use super::{ModelArgs, at_least, between, word_of};
use crate::context::Context;
use crate::error::Result;
use crate::wrong_use::conflict;

#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// Model directory in Hugging Face layout, run directory, or hub id; with --adapter, its base [default: what the adapter says, of --to gguf and --merge]
    #[arg(long, value_name = "DIR_OR_ID", required_unless_present = "adapter")]
    model: Option<String>,
    /// Adapter directory in PEFT layout, of --to peft in MLX's, or run directory
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: Option<PathBuf>,
    /// A model that was trained from --model, of whose difference a LoRA is made: of --to lora in place of --adapter
    #[arg(
        long,
        value_name = "DIR_OR_ID",
        requires = "model",
        conflicts_with = "adapter"
    )]
    from: Option<String>,
    /// Merge the adapter into the model and write that
    #[arg(long, requires = "adapter")]
    pub(crate) merge: bool,
    /// The program that reads the result: llama.cpp, MLX, or PEFT; lora: a LoRA of what an adapter of any method, or another model, changes
    #[arg(long, value_parser = word_of(Target::WORDS))]
    pub(crate) to: Target,
    /// The file or directory to write
    #[arg(long, value_name = "PATH")]
    pub(crate) output: PathBuf,
    /// Type of matrices; q8_0 for GGUF models; default: that of the model, of an adapter f32
    #[arg(long, value_parser = word_of(GgufDtype::WORDS))]
    pub(crate) dtype: Option<GgufDtype>,
    /// --to lora: rank of the factors of each layer [default: 16]
    #[arg(long, allow_negative_numbers = true, value_name = "R", value_parser = between(1, 65536), conflicts_with = "energy")]
    rank: Option<usize>,
    /// --to lora: for each layer the smallest rank that keeps this share of the squares of its change, above 0 and up to 1
    #[arg(long, allow_negative_numbers = true, value_name = "E", value_parser = share)]
    energy: Option<f64>,
    /// --to lora, and models --to gguf: texts on which the result is compared with what it was made of
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Maximum tokens per piece of these texts, at least 2 [default: 512]
    #[arg(long, allow_negative_numbers = true, value_name = "TOKENS", value_parser = at_least(2), requires = "data")]
    sequence_length: Option<usize>,
}

/// Who reads the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Gguf,
    Mlx,
    Peft,
    Lora,
}

impl Target {
    const WORDS: [(&'static str, Self); 4] = [
        ("gguf", Self::Gguf),
        ("mlx", Self::Mlx),
        ("peft", Self::Peft),
        (LORA, Self::Lora),
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

    /// Refuses what only a LoRA has elsewhere, and what a LoRA does not have.
    pub(crate) fn check(&self) -> Result<()> {
        let of_lora = [
            ("--from", self.from.is_some()),
            ("--rank", self.rank.is_some()),
            ("--energy", self.energy.is_some()),
            ("--data", self.data.is_some() && !self.writes_gguf_model()),
        ];
        let others = [("--merge", self.merge), ("--dtype", self.dtype.is_some())];
        let unused = match self.to {
            Target::Lora => others.into_iter().find(|(_, is_given)| *is_given),
            _ => of_lora.into_iter().find(|(_, is_given)| *is_given),
        };
        let word = self.to.word();
        match unused {
            Some((flag, _)) => {
                let problem = format!("{flag} has no effect with --to {word}");
                Err(conflict("convert", problem))
            }
            None if self.to == Target::Lora && self.adapter.is_none() && self.from.is_none() => {
                let problem = "--to lora needs --adapter, or --from with a model that was trained from --model";
                Err(conflict("convert", problem.to_owned()))
            }
            None => Ok(()),
        }
    }

    /// Whether the result is a whole model for llama.cpp.
    fn writes_gguf_model(&self) -> bool {
        self.to == Target::Gguf && (self.merge || self.adapter.is_none())
    }

    /// Returns what is written for llama.cpp of a model, with its adapter merged into it if there is one.
    pub(crate) fn gguf(&self, model: ModelRequest, context: &Context) -> GgufRequest {
        GgufRequest {
            data: self.data(context),
            sequence_length: self.sequence_length.unwrap_or(DEFAULT_LENGTH),
            ..GgufRequest::new(model, self.dtype)
        }
    }

    fn data(&self, context: &Context) -> Option<DataRequest> {
        let data = self.data.clone();
        data.map(|path| DataRequest::new(context.expand(path)))
    }

    /// Returns what a LoRA is made of on a base that was found.
    pub(crate) fn lora(
        &self,
        base: ModelRequest,
        adapter: Option<PathBuf>,
        task_type: Option<&str>,
        context: &Context,
    ) -> LoraRequest {
        let from = self.from.clone().map(|from| request(from, context));
        let source = match (adapter, from) {
            (Some(adapter), _) => LoraSource::Adapter(adapter),
            (None, from) => LoraSource::Model(from.unwrap_or_else(|| base.clone())),
        };
        LoraRequest {
            base,
            source,
            size: match self.energy {
                Some(energy) => FactorSize::Energy(energy),
                None => FactorSize::Rank(self.rank.unwrap_or(RANK)),
            },
            task_type: task_type.map(str::to_owned),
            data: self.data(context),
            sequence_length: self.sequence_length.unwrap_or(DEFAULT_LENGTH),
        }
    }
}

/// The rank where none is asked for, as in LoRA's runs.
const RANK: usize = 16;

fn share(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("must be greater than 0 and at most 1".to_owned()),
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
