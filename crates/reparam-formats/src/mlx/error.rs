//! Why an adapter cannot be one of MLX, or of PEFT.

use std::path::PathBuf;

use crate::config::ConfigError;
use crate::peft::PeftError;
use crate::{FormatError, shown};

/// Says why an adapter cannot be converted between PEFT and MLX.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MlxError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FormatError),
    /// The configuration does not hold what it has to.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The adapter is none that PEFT would have.
    #[error(transparent)]
    Peft(#[from] PeftError),
    /// The directory has no `adapters.safetensors`.
    #[error("{} is not an adapter of MLX: it has no adapters.safetensors", path.display())]
    NotAnAdapter {
        /// The directory.
        path: PathBuf,
    },
    /// The other format has no place for a part of the adapter.
    #[error("'{name}' has no place in an adapter of {format}: {reason}", name = shown(name))]
    NoPlace {
        /// The part.
        name: String,
        /// The other format.
        format: &'static str,
        /// What it is.
        reason: &'static str,
    },
}

impl MlxError {
    /// Returns what the user can do about the error, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::Config(error) => error.hint(),
            Self::Peft(error) => error.hint(),
            Self::NotAnAdapter { .. } => {
                Some("give the directory that mlx_lm.lora wrote (--adapter-path)".to_owned())
            }
            Self::NoPlace { format: "MLX", .. } => Some(
                "merge the adapter into its base with `reparam merge`, whose result MLX reads"
                    .to_owned(),
            ),
            Self::NoPlace { .. } => None,
        }
    }
}
