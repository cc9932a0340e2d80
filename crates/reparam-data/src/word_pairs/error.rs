//! What can be wrong with pairs of words, and with lists of their similarity.

use std::path::PathBuf;

use reparam_formats::{FormatError, shown};

/// Says why examples cannot be made, or vectors cannot be evaluated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WordPairError {
    /// The corpus has no words.
    #[error("the corpus has no word of the vocabulary")]
    Empty,
    /// Only one word occurs, so that no other can be drawn.
    #[error("only one word of the vocabulary occurs, so no other can be drawn for it")]
    OneWord,
    /// The window has no words.
    #[error("a window of 0 words has nothing to predict")]
    Window,
    /// The threshold is no share.
    #[error("subsample is {found}, outside 0..=1")]
    Subsample {
        /// The threshold.
        found: f64,
    },
    /// An id has no word.
    #[error("the corpus has the id {id}, the vocabulary has {n_words} words")]
    UnknownId {
        /// The id.
        id: u32,
        /// Words.
        n_words: usize,
    },
    /// A list of similarities cannot be read.
    #[error(transparent)]
    File(#[from] FormatError),
    /// A line is no pair with a score.
    #[error("{}:{line}: expected two words and a number, found \"{}\"", path.display(), shown(found))]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is there.
        found: String,
    },
    /// A list has no pairs.
    #[error("{} has no pairs of words", path.display())]
    NoPairs {
        /// The file.
        path: PathBuf,
    },
}

impl WordPairError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Empty => "give more texts, or lower min_count",
            Self::OneWord => "give more texts, or lower min_count",
            Self::Window => "set window to 1 or more; 5 is usual",
            Self::Subsample { .. } => {
                "use 1e-5 for large corpora, 1e-3 for small ones, or 0 to keep every word"
            }
            Self::UnknownId { .. } => return None,
            Self::File(error) => return error.hint(),
            Self::Line { .. } | Self::NoPairs { .. } => {
                "write a line a pair: word, word and score, with tabs or commas between them"
            }
        };
        Some(hint.to_owned())
    }
}
