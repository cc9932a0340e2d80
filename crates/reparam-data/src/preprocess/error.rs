//! What can be wrong with options of texts.

use super::options::{Segment, StopWords};

/// Says why texts cannot be prepared as they were asked to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PreprocessError {
    /// Stop words would not be found, for the texts are not split into words of their language.
    #[error(
        "stop_words = \"{}\" has no effect on texts with segment = \"{}\"",
        stop_words.name(), segment.name()
    )]
    StopWordsUnsegmented {
        /// Whose stop words.
        stop_words: StopWords,
        /// How texts are split.
        segment: Segment,
    },
}

impl PreprocessError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::StopWordsUnsegmented {
                stop_words: StopWords::En,
                ..
            } => Some("set segment = \"words\", or leave stop_words out".to_owned()),
            Self::StopWordsUnsegmented { .. } => {
                Some("set segment = \"auto\", or leave stop_words out".to_owned())
            }
        }
    }
}
