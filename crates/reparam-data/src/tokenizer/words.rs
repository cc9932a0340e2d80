//! Encoding a row that is parted into words.

use tokenizers::{
    InputSequence, PostProcessor, PreTokenizerWrapper, TruncationParams, TruncationStrategy,
    truncate_encodings,
};

use super::guard::guarded;
use super::row::EncodedRow;
use super::{TextTokenizer, encode_error};
use crate::error::{DataError, Result};
use crate::pack::IGNORE_INDEX;

/// A row of words as tokens, which are called pieces here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedWords {
    /// The pieces.
    pub row: EncodedRow,
    /// The index in the row of each word's first piece; `None` for a word that has none or was cut off.
    pub first: Vec<Option<usize>>,
}

impl EncodedWords {
    /// The label of each piece: the class of its word where it is the first one, else [`IGNORE_INDEX`], as is the label of a
    /// class that is larger than any label can be.
    #[must_use]
    pub fn labels(&self, classes: &[usize]) -> Vec<i32> {
        let mut labels = vec![IGNORE_INDEX; self.row.ids.len()];
        for (first, class) in self.first.iter().zip(classes) {
            if let Some(label) = first.and_then(|first| labels.get_mut(first)) {
                *label = i32::try_from(*class).unwrap_or(IGNORE_INDEX);
            }
        }
        labels
    }
}

impl TextTokenizer {
    /// Encodes words, each by itself, as one row of at most `max_length` tokens with those of the template.
    ///
    /// As transformers does with `is_split_into_words=True` and `truncation=True`. A byte-level tokenizer, for which a word
    /// inside of a text is another one than at its beginning, is given each with a space before it (`add_prefix_space=True`),
    /// unless it adds one itself or the word begins with one of its added tokens.
    ///
    /// # Errors
    ///
    /// [`DataError::NoRoom`] if the template alone fills `max_length`; else those of [`TextTokenizer::encode`].
    pub fn encode_words(&self, words: &[String], max_length: usize) -> Result<EncodedWords> {
        Ok(self.encode_tokens_of_words(words, max_length)?.0)
    }

    /// [`encode_words`](Self::encode_words) with the number of the word of each token; `None` of those of the template.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn encode_tokens_of_words(
        &self,
        words: &[String],
        max_length: usize,
    ) -> Result<(EncodedWords, Vec<Option<usize>>)> {
        let processor = self.inner.get_post_processor();
        let of_template = processor.map_or(0, |step| step.added_tokens(false));
        if max_length <= of_template {
            return Err(DataError::NoRoom {
                max_length,
                of_template,
            });
        }
        for word in words {
            self.check_white_space(word)?;
        }
        let spaced = self.spaced(words);
        let input = InputSequence::from(spaced.as_deref().unwrap_or(words));
        // The other way to encode keeps no words.
        let encoding = guarded(|| self.inner.encode(input, false)).map_err(encode_error)?;
        let params = TruncationParams {
            direction: self.truncation_side,
            max_length: max_length - of_template,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
        };
        let truncated = encoding.len() > params.max_length;
        let encoding = guarded(|| {
            let (mut encoding, _) = truncate_encodings(encoding, None, &params)?;
            // What was cut off would go through the template, too.
            encoding.set_overflowing(Vec::new());
            self.inner.post_process(encoding, None, true)
        });
        let encoding = encoding.map_err(encode_error)?;
        self.check_rows(encoding.get_ids())?;
        let of_tokens = encoding.get_word_ids().iter();
        let of_tokens = of_tokens.map(|word| word.map(|word| word as usize));
        let of_tokens: Vec<Option<usize>> = of_tokens.collect();
        let mut first = vec![None; words.len()];
        for (index, word) in of_tokens.iter().enumerate() {
            if let Some(first) = word.and_then(|word| first.get_mut(word)) {
                first.get_or_insert(index);
            }
        }
        let encoded = EncodedWords {
            row: EncodedRow {
                ids: encoding.get_ids().to_vec(),
                type_ids: encoding.get_type_ids().to_vec(),
                truncated,
            },
            first,
        };
        Ok((encoded, of_tokens))
    }

    /// The words with a space before each, if the tokenizer has to be given it.
    fn spaced(&self, words: &[String]) -> Option<Vec<String>> {
        let step = self.inner.get_pre_tokenizer()?;
        if !needs_space(step) {
            return None;
        }
        let added = self.inner.get_added_vocabulary();
        let added = added.get_added_tokens_decoder();
        let begins_added =
            |word: &str| added.values().any(|token| word.starts_with(&token.content));
        let spaced = words.iter().map(|word| {
            if word.is_empty() || word.starts_with(' ') || begins_added(word) {
                word.clone()
            } else {
                format!(" {word}")
            }
        });
        Some(spaced.collect())
    }
}

/// Whether a step is byte-level and puts no space before a word.
fn needs_space(step: &PreTokenizerWrapper) -> bool {
    match step {
        PreTokenizerWrapper::ByteLevel(step) => !step.add_prefix_space,
        PreTokenizerWrapper::Sequence(steps) => steps.as_ref().iter().any(needs_space),
        _ => false,
    }
}
