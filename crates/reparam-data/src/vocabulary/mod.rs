//! Tokenizers made of the texts that are learned from.
//!
//! A model that begins with nothing needs a vocabulary of its own. [`train_tokenizer`] makes one of four kinds and writes it
//! as the `tokenizer.json` and `tokenizer_config.json` that [`TextTokenizer`] and transformers'
//! `PreTrainedTokenizerFast` open.
//!
//! The same texts make the same bytes, in any order of the texts and with any number of threads: words are counted in whole
//! numbers and sorted, ties are broken by id or code point, and sums of numbers with a fraction run in a fixed order. That is why
//! the trainers are ours: those of the `tokenizers` library walk over hash tables whose order is another one in every
//! run, add in an order that depends on the number of threads, and count pairs in 32 bits. What the texts are split
//! into is the library's, so training sees what encoding will see.
//!
//! ```
//! use reparam_data::vocabulary::{TokenizerKind, TokenizerOptions, train_tokenizer};
//!
//! let options = TokenizerOptions {
//!     vocab_size: 300,
//!     ..TokenizerOptions::new(TokenizerKind::Bpe)
//! };
//! let trained = train_tokenizer(&["low lower lowest", "new newer newest"], &options)?;
//! let tokenizer = trained.open()?;
//! assert_eq!(tokenizer.decode(&tokenizer.encode("lowest", false)?, true)?, "lowest");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::path::Path;

use reparam_formats::atomic::write_file_atomic;

use crate::error::DataError;
use crate::tokenizer::{SpecialIds, TextTokenizer};

mod error;
mod files;
mod merges;
mod options;
mod symbols;
#[cfg(test)]
mod tests;
mod unigram;
mod words;

pub use error::VocabularyError;
pub use options::{TokenizerKind, TokenizerOptions};

use files::{Model, Special};

/// The names of the two files.
const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";

/// A tokenizer as files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainedTokenizer {
    /// `tokenizer.json`.
    pub tokenizer: Vec<u8>,
    /// `tokenizer_config.json`.
    pub config: Vec<u8>,
    /// Tokens, special ones included; ids are 0 to this.
    pub vocab_size: usize,
    /// How often words occur in the texts, repetitions counted.
    pub words: u64,
    /// How many different words there are.
    pub distinct_words: usize,
    /// Words or characters that occur and have no token: too rare, or no room.
    pub left_out: usize,
}

impl TrainedTokenizer {
    /// Opens the tokenizer.
    ///
    /// # Errors
    ///
    /// Those of [`TextTokenizer::from_bytes`].
    pub fn open(&self) -> Result<TextTokenizer, DataError> {
        TextTokenizer::from_bytes(Path::new(""), &SpecialIds::default(), |name| match name {
            TOKENIZER => Some(&self.tokenizer),
            CONFIG => Some(&self.config),
            _ => None,
        })
    }

    /// Writes both files into a directory.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn write(&self, directory: &Path) -> Result<(), DataError> {
        write_file_atomic(&directory.join(TOKENIZER), &self.tokenizer).map_err(DataError::File)?;
        write_file_atomic(&directory.join(CONFIG), &self.config).map_err(DataError::File)
    }
}

/// Trains a tokenizer on texts.
///
/// # Errors
///
/// [`VocabularyError::NoWords`], [`VocabularyError::VocabSize`], [`VocabularyError::Unused`], [`VocabularyError::NoneFrequent`],
/// [`VocabularyError::Text`] for a text that the tokenizer could not encode either, and [`VocabularyError::Library`].
///
/// # Cost
///
/// Texts are split in parallel. Of the rest, merges (BPE, WordPiece) take about the length of all different words times the
/// merges that each takes part in; Unigram goes through all different words some twenty times.
pub fn train_tokenizer<S: AsRef<str> + Sync>(
    texts: &[S],
    options: &TokenizerOptions,
) -> Result<TrainedTokenizer, VocabularyError> {
    options.check()?;
    let special = Special::of(options);
    let room = options.room(&special)?;
    let counts = words::count(texts, options, &special)?;
    let (model, left_out) = match options.kind {
        TokenizerKind::WordLevel => words::vocabulary(&counts, room, options.min_count),
        TokenizerKind::Bpe | TokenizerKind::WordPiece => merges::train(&counts, room, options),
        TokenizerKind::Unigram => unigram::train(&counts, room, options.min_count, &special),
    };
    if let Model::Words(words) = &model
        && words.is_empty()
    {
        return Err(VocabularyError::NoneFrequent {
            distinct: counts.len(),
            min_count: options.min_count,
        });
    }
    let (tokenizer, config, vocab_size) = files::write(&model, options, &special);
    Ok(TrainedTokenizer {
        tokenizer,
        config,
        vocab_size,
        words: counts.values().sum(),
        distinct_words: counts.len(),
        left_out,
    })
}
