//! Errors of reading model configurations.

use std::path::PathBuf;

use crate::FormatError;
use crate::error::first_names;
use crate::{shown, shown_sentence};

/// Says why a configuration could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] FormatError),
    /// The file is not JSON.
    #[error("{} is not valid JSON", path.display())]
    InvalidJson {
        /// The file.
        path: PathBuf,
        /// What the parser says, with line and column.
        source: serde_json::Error,
    },
    /// The file is JSON, but not an object.
    #[error("{} is not a JSON object", path.display())]
    NotAnObject {
        /// The file.
        path: PathBuf,
    },
    /// A key that has no default is missing.
    #[error("{} lacks the key '{key}'", path.display(), key = shown(key))]
    MissingKey {
        /// The file.
        path: PathBuf,
        /// The key, with dots for nested objects.
        key: String,
    },
    /// A value has the wrong JSON type.
    #[error("'{key}' in {} has to be {expected}, found {found}", path.display(), key = shown(key), found = shown(found))]
    WrongType {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What it has to be.
        expected: &'static str,
        /// The value found.
        found: String,
    },
    /// A value is of the right type and impossible.
    #[error("'{key}' in {} cannot be {found}: {reason}", path.display(), key = shown(key), found = shown(found), reason = shown_sentence(reason))]
    InvalidValue {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The value found.
        found: String,
        /// Why it is impossible.
        reason: String,
    },
    /// The rotary embedding is of a kind that is not implemented.
    #[error("{} asks for the rope type '{rope_type}', which is not supported", path.display(), rope_type = shown(rope_type))]
    UnsupportedRope {
        /// The file.
        path: PathBuf,
        /// The type's name.
        rope_type: String,
    },
}

impl ConfigError {
    /// Returns what the user can do about the error, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::MissingKey { .. } => {
                Some("the file is incomplete, or it is not a model's config.json".to_owned())
            }
            Self::UnsupportedRope { .. } => Some(format!(
                "supported are {}",
                first_names(&super::RopeScaling::TYPES)
            )),
            _ => None,
        }
    }
}
