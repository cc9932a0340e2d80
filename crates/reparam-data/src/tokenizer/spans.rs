//! Encoding a row with the places of its tokens in its texts.

use std::ops::Range;

use super::guard::guarded;
use super::{EncodedRow, TextTokenizer, encode_error};
use crate::error::Result;

/// A row with the place of each token and of each word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedSpans {
    /// The tokens.
    pub row: EncodedRow,
    /// Of each token the number of its word; `None` of those of the template.
    pub words: Vec<Option<usize>>,
    /// The words, in order.
    pub spans: Vec<WordSpan>,
}

/// Where a word stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WordSpan {
    /// Whether it is in the second text.
    pub in_pair: bool,
    /// Its bytes in that text.
    pub bytes: Range<usize>,
}

impl TextTokenizer {
    /// Encodes a text, or a pair of texts, as [`encode_row`](Self::encode_row), and says which word each token is of.
    ///
    /// A word is what the tokenizer's pre-tokenizer splits off; where that leaves a text whole, what is between white space.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn encode_spans(
        &self,
        text: &str,
        text_pair: Option<&str>,
        max_length: usize,
    ) -> Result<EncodedSpans> {
        let texts = (text, text_pair);
        let (encoding, truncated, n_first) = self.row_encoding(texts, max_length, |text| {
            self.check_white_space(text)?;
            // The faster way to encode keeps no places.
            guarded(|| self.inner.encode(text, false)).map_err(encode_error)
        })?;
        let texts = [text, text_pair.unwrap_or_default()];
        // Which text a token is of, the encoding does not say reliably: each text was encoded as the first one.
        let mut n_before = 0;
        let sequences = encoding.get_special_tokens_mask().iter().map(|mask| {
            let is_of_text = *mask == 0;
            n_before += usize::from(is_of_text);
            is_of_text.then(|| usize::from(n_before > n_first))
        });
        let sequences: Vec<Option<usize>> = sequences.collect();
        let is_whole = [0, 1].map(|sequence| {
            let own = (0..encoding.len()).filter(|token| sequences[*token] == Some(sequence));
            let mut words = own.map(|token| encoding.get_word_ids()[token]);
            let first = words.next();
            words.all(|word| Some(word) == first)
        });
        let mut words: Vec<Option<usize>> = Vec::with_capacity(encoding.len());
        let mut spans: Vec<WordSpan> = Vec::new();
        let mut last = None;
        for (token, sequence) in sequences.iter().enumerate() {
            let Some(sequence) = *sequence else {
                words.push(None);
                last = None;
                continue;
            };
            let (start, end) = encoding.get_offsets()[token];
            let word = encoding.get_word_ids()[token];
            let text = texts[sequence];
            let goes_on = match is_whole[sequence] {
                false => word.is_some(),
                true => !begins_word(text, start),
            };
            match spans
                .last_mut()
                .filter(|_| goes_on && last == Some((sequence, word)))
            {
                Some(span) => span.bytes.end = span.bytes.end.max(end),
                None => spans.push(WordSpan {
                    in_pair: sequence == 1,
                    bytes: start..end,
                }),
            }
            last = Some((sequence, word));
            words.push(Some(spans.len() - 1));
        }
        Ok(EncodedSpans {
            row: EncodedRow {
                ids: encoding.get_ids().to_vec(),
                type_ids: encoding.get_type_ids().to_vec(),
                truncated,
            },
            words,
            spans,
        })
    }
}

/// Whether a token that begins at a byte is the first one behind white space, which may be a part of it.
fn begins_word(text: &str, start: usize) -> bool {
    let (Some(before), Some(own)) = (text.get(..start), text.get(start..)) else {
        return false;
    };
    before.is_empty()
        || before.ends_with(char::is_whitespace)
        || own.starts_with(char::is_whitespace)
}
