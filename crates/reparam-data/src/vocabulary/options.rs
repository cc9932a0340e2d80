//! What tokenizer is made.

use serde::{Deserialize, Serialize};

use super::error::VocabularyError;
use super::files::Special;

/// A kind of tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenizerKind {
    /// Whole words, as white space parts them, the most frequent first. Others are `<unk>`. For word vectors, and for small models
    /// of texts that were segmented.
    WordLevel,
    /// Pairs of bytes that occur most often, merged again and again (Sennrich, Haddow and Birch, arXiv 1508.07909), over
    /// bytes as GPT-2 does: every text has tokens.
    Bpe,
    /// Parts of words as BERT has them (`play ##ing`), with BERT's normalizer and template. Parts are found by merging the most
    /// frequent pairs, as the `tokenizers` library does, not by likelihood.
    WordPiece,
    /// The parts of words that make the texts most likely (Kudo, arXiv 1804.10959), as SentencePiece has them.
    Unigram,
}

/// How a tokenizer is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct TokenizerOptions {
    /// The kind.
    pub kind: TokenizerKind,
    /// The most tokens, special ones included. There are fewer if the texts have fewer.
    #[serde(default = "vocab_size")]
    pub vocab_size: usize,
    /// What occurs less often becomes no token: words (word level), pairs (BPE, WordPiece), parts of words (Unigram). Single
    /// characters do as long as there is room.
    #[serde(default = "min_count")]
    pub min_count: u64,
    /// Adds `<s>` and `</s>`, of which the first begins every text. Not for WordPiece, which has `[CLS]` and `[SEP]`.
    #[serde(default)]
    pub sentence_marks: bool,
    /// Makes texts lower case in the tokenizer; with WordPiece also takes accents off, as BERT's uncased models do.
    #[serde(default)]
    pub lowercase: bool,
}

fn vocab_size() -> usize {
    30_000
}

fn min_count() -> u64 {
    1
}

impl TokenizerOptions {
    /// At most 30,000 tokens, nothing too rare, no marks, letters as they are.
    #[must_use]
    pub fn new(kind: TokenizerKind) -> Self {
        Self {
            kind,
            vocab_size: vocab_size(),
            min_count: min_count(),
            sentence_marks: false,
            lowercase: false,
        }
    }

    /// Checks that every option has an effect.
    pub(super) fn check(&self) -> Result<(), VocabularyError> {
        if self.sentence_marks && self.kind == TokenizerKind::WordPiece {
            return Err(VocabularyError::Unused {
                option: "sentence_marks",
                kind: self.kind,
            });
        }
        Ok(())
    }

    /// How many tokens there may be beside the special ones.
    pub(super) fn room(&self, special: &Special) -> Result<usize, VocabularyError> {
        let least = match self.kind {
            // All bytes, so that every text has tokens.
            TokenizerKind::Bpe => 256,
            _ => 1,
        };
        let needed = special.tokens.len() + least;
        if self.vocab_size < needed || self.vocab_size > i32::MAX as usize {
            return Err(VocabularyError::VocabSize {
                found: self.vocab_size,
                least: needed,
            });
        }
        Ok(self.vocab_size - special.tokens.len())
    }
}
