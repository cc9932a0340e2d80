//! Why a GGUF file cannot be written.

use std::path::PathBuf;

use super::GgufDtype;
use crate::config::ConfigError;
use crate::peft::PeftError;
use crate::{FormatError, shown};

/// Says why a model or an adapter cannot be written as GGUF.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FormatError),
    /// A file of JSON does not hold what it has to.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The adapter cannot be used.
    #[error(transparent)]
    Peft(#[from] PeftError),
    /// llama.cpp has no tokenizer that does what this one does.
    #[error("{} describes a tokenizer that llama.cpp does not have: {reason}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What of it.
        reason: String,
    },
    /// The tokenizer has a token without a vector.
    #[error("{} has a token with the id {id}, but the embedding has {rows} rows", path.display())]
    TokenBeyondTable {
        /// The file.
        path: PathBuf,
        /// The id.
        id: u64,
        /// The rows of the table of token vectors.
        rows: usize,
    },
    /// The type that was asked for cannot hold a number.
    #[error("'{tensor}' has the number {value:e}, which {dtype} cannot hold", tensor = shown(tensor))]
    BeyondRange {
        /// The tensor, as the file calls it.
        tensor: String,
        /// The number.
        value: f64,
        /// The type.
        dtype: GgufDtype,
    },
    /// A tensor has another shape than its family says.
    #[error("'{tensor}' has the shape {found:?}, which does not fit {expected}", tensor = shown(tensor))]
    Shape {
        /// The tensor.
        tensor: String,
        /// What was expected of it.
        expected: String,
        /// The shape.
        found: Vec<usize>,
    },
    /// The adapter has something for which llama.cpp's adapters have no place.
    #[error("llama.cpp's adapters have no place for '{name}': {reason}", name = shown(name))]
    NoPlace {
        /// The tensor or the kind of adapter.
        name: String,
        /// What it is.
        reason: String,
    },
    /// Adapters are not read in this type.
    #[error("llama.cpp reads no adapters of {dtype}")]
    AdapterDtype {
        /// The type.
        dtype: GgufDtype,
    },
}

impl GgufError {
    /// Returns what the user can do about the error, where that is known.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::File(error) => return error.hint(),
            Self::Config(error) => return error.hint(),
            Self::Peft(error) => return error.hint(),
            Self::BeyondRange { .. } => "use --dtype bf16 or --dtype f32",
            Self::NoPlace { .. } => {
                "merge the adapter into its base first, with --model BASE and --merge"
            }
            Self::AdapterDtype { .. } => "use --dtype f32, f16 or bf16",
            Self::TokenBeyondTable { .. } => {
                "the tokenizer is of another model, or tokens were added to it without giving them vectors"
            }
            Self::Tokenizer { .. } | Self::Shape { .. } => return None,
        };
        Some(text.to_owned())
    }
}
