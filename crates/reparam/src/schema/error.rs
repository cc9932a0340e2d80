//! What can be wrong with settings.

use thiserror::Error;

/// Why settings cannot be used.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SchemaError {
    /// There is no such kind in a catalog.
    #[error("there is no {what} `{kind}`")]
    UnknownKind {
        /// What the catalog holds, in a word.
        what: &'static str,
        /// The name.
        kind: String,
        /// The names in the catalog.
        known: Vec<&'static str>,
    },
    /// There is no such setting.
    #[error("`{kind}` has no setting `{setting}`")]
    Unknown {
        /// What has the settings.
        kind: String,
        /// The key.
        setting: String,
        /// The keys that there are.
        known: Vec<&'static str>,
    },
    /// A setting that has no default is missing.
    #[error("`{kind}` needs the setting `{setting}`")]
    Missing {
        /// What has the settings.
        kind: String,
        /// The key.
        setting: String,
        /// An example of a value.
        example: &'static str,
    },
    /// A value is of the wrong kind or out of its range.
    #[error("`{setting}` must be {expected}, got {found}")]
    Value {
        /// The key.
        setting: String,
        /// What it has to be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A pattern is not a regular expression.
    #[error("`{pattern}` for `{setting}` is not a regular expression: {message}")]
    Pattern {
        /// The key.
        setting: String,
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        message: String,
    },
    /// A setting would change nothing.
    #[error("`{setting}` has no effect: {reason}")]
    NoEffect {
        /// The key.
        setting: &'static str,
        /// Why it changes nothing.
        reason: &'static str,
        /// What to do.
        fix: &'static str,
    },
}

impl SchemaError {
    /// Returns the key of the setting that it is about, if it is about one.
    pub fn setting(&self) -> Option<&str> {
        match self {
            Self::UnknownKind { .. } => None,
            Self::Unknown { setting, .. }
            | Self::Missing { setting, .. }
            | Self::Value { setting, .. }
            | Self::Pattern { setting, .. } => Some(setting),
            Self::NoEffect { setting, .. } => Some(setting),
        }
    }

    /// Says what to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownKind { known, .. } => Some(format!("there are {}", known.join(", "))),
            Self::Unknown { known, .. } if known.is_empty() => Some("it has no settings".into()),
            Self::Unknown { known, .. } => Some(format!("its settings are: {}", known.join(", "))),
            Self::Missing {
                setting, example, ..
            } => Some(format!("give it, as in {setting} = {example}")),
            Self::Value { .. } => None,
            Self::Pattern { .. } => {
                Some("a pattern is matched against the whole name, as in `.*\\.q_proj`".into())
            }
            Self::NoEffect { fix, .. } => Some((*fix).to_owned()),
        }
    }
}
