//! Encoding a text in pieces, each with the tokens of the template around it.

use tokenizers::{PostProcessor, TruncationDirection};

use super::guard::guarded;
use super::{EncodedRow, TextTokenizer, encode_error};
use crate::error::{DataError, Result};

/// A part of a text as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPiece {
    /// Its tokens, those of the template included.
    pub row: EncodedRow,
    /// Of each token the number of its word in the piece, ascending; `None` of those of the template.
    pub words: Vec<Option<u32>>,
}

impl TextTokenizer {
    /// Encodes a text in pieces of at most `max_length` tokens with those of the template, each as if it was a text of its own. None
    /// of a text without tokens.
    ///
    /// A word is what the tokenizer's pre-tokenizer splits off; without one every text is a word.
    ///
    /// # Errors
    ///
    /// [`DataError::NoRoom`] if the template alone fills `max_length`; else those of [`TextTokenizer::encode`].
    pub fn encode_pieces(&self, text: &str, max_length: usize) -> Result<Vec<EncodedPiece>> {
        let processor = self.inner.get_post_processor();
        let of_template = processor.map_or(0, |step| step.added_tokens(false));
        if max_length <= of_template {
            return Err(DataError::NoRoom {
                max_length,
                of_template,
            });
        }
        self.check_white_space(text)?;
        // The faster way to encode keeps no words.
        let encoding = guarded(|| self.inner.encode(text, false));
        let mut encoding = encoding.map_err(encode_error)?;
        if encoding.is_empty() {
            return Ok(Vec::new());
        }
        encoding.truncate(max_length - of_template, 0, TruncationDirection::Right);
        let rest = encoding.take_overflowing();
        let pieces = std::iter::once(encoding).chain(rest);
        pieces
            .map(|piece| {
                let encoded = guarded(|| self.inner.post_process(piece, None, true));
                let encoded = encoded.map_err(encode_error)?;
                self.check_rows(encoded.get_ids())?;
                Ok(EncodedPiece {
                    words: numbered(encoded.get_word_ids(), encoded.get_special_tokens_mask()),
                    row: EncodedRow {
                        ids: encoded.get_ids().to_vec(),
                        type_ids: encoded.get_type_ids().to_vec(),
                        truncated: false,
                    },
                })
            })
            .collect()
    }
}

/// Numbers the words of a piece from 0.
fn numbered(words: &[Option<u32>], of_template: &[u32]) -> Vec<Option<u32>> {
    let mut last = None;
    let mut number = 0;
    let tokens = words.iter().zip(of_template);
    tokens
        .map(|(word, of_template)| {
            if *of_template == 1 {
                return None;
            }
            // A token without a word is one.
            if last.is_some_and(|last| word.is_none() || last != *word) {
                number += 1;
            }
            last = Some(*word);
            Some(number)
        })
        .collect()
}
