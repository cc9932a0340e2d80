//! What can go wrong with a model.

use reparam_formats::FormatError;
use reparam_formats::checkpoint::LoadMismatch;
use reparam_formats::config::ConfigError;
use thiserror::Error;

use reparam_formats::shown;

/// Why a model could not be loaded or run.
#[derive(Debug, Error)]
pub enum ModelError {
    /// A file is missing, damaged or does not fit.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// `config.json` is missing, damaged or impossible.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The checkpoint is of a family that is not in the catalog.
    #[error("the model type `{found}` is not supported", found = shown(found))]
    UnsupportedFamily {
        /// What `config.json` says.
        found: String,
        /// What is in the catalog.
        supported: Vec<&'static str>,
    },
    /// The checkpoint has biases that `config.json` does not ask for.
    #[error("{mismatch}")]
    UnaskedBiases {
        /// The biases.
        mismatch: Box<LoadMismatch>,
        /// The keys that would take them.
        keys: Vec<&'static str>,
    },
    /// A setting of `config.json` is not supported.
    #[error("`{setting} = {found}` in config.json is not supported", found = shown(found))]
    UnsupportedSetting {
        /// The key.
        setting: &'static str,
        /// Its value.
        found: String,
        /// What is.
        supported: &'static str,
    },
    /// A description contradicts itself.
    #[error("the description of `{model_type}` does not fit together at block {block}: {reason}")]
    Description {
        /// The family.
        model_type: String,
        /// The block.
        block: usize,
        /// What does not fit.
        reason: String,
    },
    /// llama.cpp would compute another model, or has none of the family.
    #[error("this `{model_type}` model cannot be written as GGUF: {reason}")]
    NotInGguf {
        /// The family.
        model_type: String,
        /// What llama.cpp does not have, or does otherwise.
        reason: String,
    },
    /// A model whose tokens see what comes after them predicts no next token.
    #[error("this `{model_type}` model is an encoder and cannot predict the next token")]
    NotCausal {
        /// The family.
        model_type: String,
    },
    /// An encoder-decoder was opened as another model.
    #[error("this `{model_type}` model is an encoder-decoder")]
    IsSeq2Seq {
        /// The family.
        model_type: String,
    },
    /// Another model was opened as an encoder-decoder.
    #[error("this `{model_type}` model is no encoder-decoder")]
    NotSeq2Seq {
        /// The family.
        model_type: String,
    },
    /// A checkpoint has another table of token vectors for one of its stacks.
    #[error("`{name}` differs from `{table}`, and encoder and decoder have one table here", name = shown(name), table = shown(table))]
    OwnTable {
        /// The tensor.
        name: String,
        /// The table of both.
        table: String,
    },
    /// A generation was asked to stop.
    #[error("the generation was stopped")]
    Stopped,
    /// The family drops nothing out in training.
    #[error("`{model_type}` models have no dropout to set")]
    NoDropout {
        /// The family.
        model_type: String,
    },
    /// The family has no head of this kind.
    #[error("`{model_type}` models have no {head} head", model_type = shown(model_type))]
    NoSuchHead {
        /// The family.
        model_type: String,
        /// What the head is for.
        head: &'static str,
    },
    /// The checkpoint has no last layer for the task.
    #[error("the checkpoint has no head for this task (`{path}`)", path = shown(path))]
    NoHead {
        /// The path of the layer.
        path: String,
    },
    /// A sequence is longer than the table of positions.
    #[error("the model has positions for {limit} tokens, but {n_tokens} are needed")]
    TooLong {
        /// The length of the sequence.
        n_tokens: usize,
        /// The longest that is possible.
        limit: usize,
    },
    /// A weight is finite, but the nearest bf16 number is not.
    #[error("element {index} of `{name}` is {value:e}, which bf16 cannot hold", name = shown(name))]
    BeyondBf16 {
        /// The tensor.
        name: String,
        /// The flat (row-major) index of the element.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// A prompt encodes to nothing.
    #[error("there is no token to continue from")]
    EmptyPrompt,
    /// A sampling setting is out of range.
    #[error("{setting} must be {expected}, got {found}", found = shown(found))]
    Sampling {
        /// The setting.
        setting: &'static str,
        /// What it has to be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A number in the forward pass is not finite.
    #[error("the model's output is not finite at token {position}")]
    NonFinite {
        /// The position of the token whose logits are not finite.
        position: usize,
    },
}

impl ModelError {
    /// Says what to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Format(error) => error.hint(),
            Self::Config(error) => error.hint(),
            Self::UnsupportedFamily { supported, .. } => {
                Some(format!("supported model types: {}", supported.join(", ")))
            }
            Self::UnaskedBiases { keys, .. } => {
                let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
                Some(format!(
                    "set {} to true in config.json if the model was trained with these biases, else remove \
                     them from the checkpoint",
                    keys.join(" and ")
                ))
            }
            Self::UnsupportedSetting { supported, .. } => Some(format!("supported: {supported}")),
            Self::Description { .. } | Self::NotInGguf { .. } => None,
            Self::NotCausal { .. } => {
                Some("use it for an encoder task, such as sequence-classification".into())
            }
            Self::IsSeq2Seq { .. } => {
                Some("use it for a task from text to text, such as seq2seq".into())
            }
            Self::NotSeq2Seq { .. } => {
                Some("use an encoder-decoder, such as a t5, bart or marian model".into())
            }
            Self::OwnTable { .. } | Self::Stopped => None,
            Self::NoDropout { .. } => Some("remove model.dropout".into()),
            Self::NoSuchHead { .. } => {
                Some("use an encoder, such as a bert, roberta or modernbert model".into())
            }
            Self::NoHead { .. } => Some(
                "train it first, or give the adapter whose training made the head (--adapter)"
                    .into(),
            ),
            Self::TooLong { limit, .. } => Some(format!(
                "keep prompt and continuation within {limit} tokens"
            )),
            Self::BeyondBf16 { .. } => Some("use precision = \"f32\" (or --precision f32)".into()),
            Self::EmptyPrompt => Some("give a prompt that is not empty".into()),
            Self::Sampling {
                setting: "token ids",
                ..
            } => Some("correct the ids in generation_config.json or config.json".into()),
            Self::Sampling { setting, .. } => {
                Some(format!("leave {setting} out, or give it such a value"))
            }
            Self::NonFinite { .. } => {
                Some("the weights or the adapter are damaged, or the adapter diverged".into())
            }
        }
    }
}
