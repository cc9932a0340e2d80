//! Why a tokenizer cannot be made.

use super::options::TokenizerKind;
use crate::error::DataError;
use reparam_formats::shown_sentence;

/// Says why a tokenizer cannot be made of texts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VocabularyError {
    /// The texts are empty.
    #[error("no word in {texts} texts")]
    NoWords {
        /// How many texts there are.
        texts: usize,
    },
    /// No word is frequent enough.
    #[error("none of {distinct} words occurs {min_count} times")]
    NoneFrequent {
        /// Different words.
        distinct: usize,
        /// How often a word has to occur.
        min_count: u64,
    },
    /// The vocabulary is too small for what has to be in it, or too large for ids.
    #[error("vocab_size is {found}, outside {least}..={}", i32::MAX)]
    VocabSize {
        /// The size asked for.
        found: usize,
        /// Special tokens and, with bytes, all of them.
        least: usize,
    },
    /// An option has no effect with this kind.
    #[error("{option} has no effect on a tokenizer of kind {kind:?}")]
    Unused {
        /// The option.
        option: &'static str,
        /// The kind.
        kind: TokenizerKind,
    },
    /// A text cannot be tokenized.
    #[error("text {index}: {error}")]
    Text {
        /// Its index, from 0.
        index: usize,
        /// Why.
        error: Box<DataError>,
    },
    /// The `tokenizers` library does not accept the steps that are written for it.
    #[error(
        "the tokenizers library refuses its own steps: {}",
        shown_sentence(message)
    )]
    Library {
        /// What it says.
        message: String,
    },
}

impl VocabularyError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoWords { .. } => Some(
                "give texts that are not empty; preprocessing may have emptied them".to_owned(),
            ),
            Self::NoneFrequent { .. } => Some("lower min_count, or give more texts".to_owned()),
            Self::VocabSize { found, least } if found < least => {
                Some(format!("set vocab_size to {least} or more"))
            }
            Self::VocabSize { .. } => Some("some 30000 tokens are usual".to_owned()),
            Self::Unused { option, .. } => Some(format!(
                "leave {option} out: [CLS] and [SEP] mark texts already"
            )),
            Self::Text { error, .. } => error.hint(),
            Self::Library { .. } => None,
        }
    }
}
