//! What can go wrong with a model.

use reparam_formats::FormatError;
use thiserror::Error;

/// Why a model could not be loaded or run.
#[derive(Debug, Error)]
pub enum ModelError {
    /// A file is missing, damaged or does not fit.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The checkpoint is of a family that is not built in.
    #[error("the model type `{found}` is not supported")]
    UnsupportedFamily {
        /// What `config.json` says.
        found: String,
        /// What is built in.
        supported: Vec<&'static str>,
    },
    /// A setting of `config.json` is not supported.
    #[error("`{setting} = {found}` in config.json is not supported")]
    UnsupportedSetting {
        /// The key.
        setting: &'static str,
        /// Its value.
        found: String,
        /// What is.
        supported: &'static str,
    },
    /// A weight is finite, but the nearest bf16 number is not.
    #[error("element {index} of `{name}` is {value:e}, which bf16 cannot hold")]
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
    #[error("{setting} must be {expected}, got {found}")]
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
            Self::UnsupportedFamily { supported, .. } => {
                Some(format!("supported model types: {}", supported.join(", ")))
            }
            Self::UnsupportedSetting { supported, .. } => Some(format!("supported: {supported}")),
            Self::BeyondBf16 { .. } => Some("ask for the precision \"f32\"".into()),
            Self::EmptyPrompt => Some("give a prompt that is not empty".into()),
            Self::Sampling { .. } => None,
            Self::NonFinite { .. } => {
                Some("the weights or the adapter are damaged, or the adapter diverged".into())
            }
        }
    }
}
