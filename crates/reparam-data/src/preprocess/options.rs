//! What is done to texts.

use serde::{Deserialize, Serialize};

use super::error::PreprocessError;

/// What is done to texts before they become tokens; nothing unless it is said. The order of the steps is that of the
/// [module](super).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct TextOptions {
    /// The normal form of Unicode.
    pub normalize: Normalize,
    /// Removes tags, comments, scripts and styles, and decodes entities; see [`strip_html`](super::strip_html).
    pub strip_html: bool,
    /// Removes characters that are not shown; see [`strip_control`](super::strip_control).
    pub strip_control: bool,
    /// Makes letters lower case, as Unicode says for no language in particular.
    pub lowercase: bool,
    /// Splits texts into words.
    pub segment: Segment,
    /// Removes words that say little. Texts have to be split into words for it.
    pub stop_words: StopWords,
    /// Rows of training whose texts are shorter are left out, in characters (code points) of what the other steps have made,
    /// without the white space around it; 0 keeps all.
    pub min_length: usize,
}

impl TextOptions {
    /// Returns whether texts and rows stay as they are.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Checks that every option has an effect.
    ///
    /// # Errors
    ///
    /// [`PreprocessError::StopWordsUnsegmented`].
    pub fn check(&self) -> Result<(), PreprocessError> {
        let Self {
            segment,
            stop_words,
            ..
        } = *self;
        let is_found = match stop_words {
            StopWords::None => true,
            StopWords::En => segment != Segment::None,
            StopWords::Zh | StopWords::Both => {
                matches!(segment, Segment::Chinese | Segment::Auto)
            }
        };
        if is_found {
            return Ok(());
        }
        Err(PreprocessError::StopWordsUnsegmented {
            stop_words,
            segment,
        })
    }
}

/// A normal form of Unicode (Standard Annex 15).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    /// None: texts stay as they are written.
    #[default]
    None,
    /// Letters and accents are composed; what is read alike is written alike.
    Nfc,
    /// Also compatible forms become one: full-width letters, ligatures, circled and raised digits.
    Nfkc,
}

/// How texts are split into words. Words are joined by one space, and nothing but white space goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Segment {
    /// Not at all.
    #[default]
    None,
    /// At the word boundaries of Unicode (Standard Annex 29): right for writing with spaces; each Chinese character is a word
    /// of its own, and so is each cluster of Thai, Lao, Khmer and Burmese.
    Words,
    /// By a Chinese dictionary and, for what it lacks, a hidden Markov model over characters (jieba).
    Chinese,
    /// Runs of Chinese characters as [`Segment::Chinese`] does, everything else as [`Segment::Words`].
    Auto,
}

impl Segment {
    /// The word for it in options.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Words => "words",
            Self::Chinese => "chinese",
            Self::Auto => "auto",
        }
    }
}

/// Whose stop words go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopWords {
    /// No words go.
    #[default]
    None,
    /// English function words.
    En,
    /// Chinese function words.
    Zh,
    /// Both.
    Both,
}

impl StopWords {
    /// The word for it in options.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::En => "en",
            Self::Zh => "zh",
            Self::Both => "both",
        }
    }
}
