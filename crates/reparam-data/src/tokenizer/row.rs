//! Encoding a row: a text or a pair of texts, cut to a length.

use tokenizers::{
    Encoding, PostProcessor, TruncationParams, TruncationStrategy, truncate_encodings,
};

use super::guard::guarded;
use super::{TextTokenizer, encode_error};
use crate::error::{DataError, Result};

/// A text or a pair of texts as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedRow {
    /// The token ids, those of the template included.
    pub ids: Vec<u32>,
    /// Which text a token belongs to, as the template says.
    pub type_ids: Vec<u32>,
    /// Whether tokens were cut off.
    pub truncated: bool,
}

impl TextTokenizer {
    /// Encodes a text, or a pair of texts, as the tokenizer's template says, to at most `max_length` tokens with those of the
    /// template.
    ///
    /// Longer ones are cut as by transformers' fast tokenizers with `truncation="longest_first"`, on the side that
    /// `truncation_side` of `tokenizer_config.json` names: a single text is cut; of a pair the longer text loses tokens down to
    /// the length of the shorter one, then both are halves of what there is room for, the longer one the larger half.
    ///
    /// # Errors
    ///
    /// [`DataError::NoRoom`] if the template alone fills `max_length`, [`DataError::NoTokens`] if text and template have none;
    /// else those of [`TextTokenizer::encode`].
    pub fn encode_row(
        &self,
        text: &str,
        text_pair: Option<&str>,
        max_length: usize,
    ) -> Result<EncodedRow> {
        let row = self.row(text, text_pair, max_length)?;
        if row.ids.is_empty() {
            return Err(DataError::NoTokens);
        }
        Ok(row)
    }

    /// [`encode_row`](Self::encode_row), of which there may be no token.
    pub(super) fn row(
        &self,
        text: &str,
        text_pair: Option<&str>,
        max_length: usize,
    ) -> Result<EncodedRow> {
        let encode = |text: &str| self.encoding(text, false);
        let (encoding, truncated, _) = self.row_encoding((text, text_pair), max_length, encode)?;
        Ok(EncodedRow {
            ids: encoding.get_ids().to_vec(),
            type_ids: encoding.get_type_ids().to_vec(),
            truncated,
        })
    }

    /// [`encode_row`](Self::encode_row) with texts encoded as the caller says: the tokens, whether some were cut off, and how many are of the first text.
    pub(super) fn row_encoding(
        &self,
        (text, text_pair): (&str, Option<&str>),
        max_length: usize,
        encode: impl Fn(&str) -> Result<Encoding>,
    ) -> Result<(Encoding, bool, usize)> {
        let processor = self.inner.get_post_processor();
        let of_template = processor.map_or(0, |step| step.added_tokens(text_pair.is_some()));
        if max_length <= of_template {
            return Err(DataError::NoRoom {
                max_length,
                of_template,
            });
        }
        let first = encode(text)?;
        let second = match text_pair {
            None => None,
            Some(text) => {
                let mut encoding = encode(text)?;
                // The processors that have no template of their own take the type from here.
                encoding.set_type_ids(vec![1; encoding.len()]);
                Some(encoding)
            }
        };
        let length = first.len() + second.as_ref().map_or(0, |second| second.len());
        let params = TruncationParams {
            direction: self.truncation_side,
            max_length: max_length - of_template,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
        };
        let truncated = length > params.max_length;
        let (mut first, mut second) =
            guarded(|| truncate_encodings(first, second, &params)).map_err(encode_error)?;
        // What was cut off would go through the template, too, every part with every part of the other text.
        first.set_overflowing(Vec::new());
        if let Some(second) = &mut second {
            second.set_overflowing(Vec::new());
        }
        let n_first = first.len();
        let encoding =
            guarded(|| self.inner.post_process(first, second, true)).map_err(encode_error)?;
        self.check_rows(encoding.get_ids())?;
        Ok((encoding, truncated, n_first))
    }
}
