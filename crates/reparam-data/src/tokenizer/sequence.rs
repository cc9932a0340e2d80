//! Encoding a source and its target for a model with an encoder and a decoder.

use tokenizers::TruncationDirection;

use super::guard::guarded;
use super::row::EncodedRow;
use super::{TextTokenizer, encode_error};
use crate::error::{DataError, Result};

/// A target as the tokens that a decoder has to predict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedTarget {
    /// The token ids: the first token that the model forces, if there is one, the text, EOS.
    pub labels: Vec<u32>,
    /// Whether tokens of the text were cut off.
    pub truncated: bool,
}

impl TextTokenizer {
    /// Encodes a source as the tokenizer's template says, with EOS behind it where the template has none, to at most `max_length`
    /// tokens. A tokenizer without EOS adds none.
    ///
    /// # Errors
    ///
    /// Those of [`TextTokenizer::encode_row`].
    pub fn encode_source(&self, text: &str, max_length: usize) -> Result<EncodedRow> {
        let eos = match self.special.eos {
            Some(eos) if !self.template_ends_with(eos)? => eos,
            _ => return self.encode_row(text, None, max_length),
        };
        let row = self.row(text, None, max_length.saturating_sub(1));
        let mut row = row.map_err(|error| match error {
            DataError::NoRoom { of_template, .. } => DataError::NoRoom {
                max_length,
                of_template: of_template + 1,
            },
            error => error,
        })?;
        row.type_ids.push(row.type_ids.last().copied().unwrap_or(0));
        row.ids.push(eos);
        Ok(row)
    }

    /// Encodes a target to at most `max_length` tokens: `first` if there is one, the text without the template, EOS.
    ///
    /// `first` is the model's `forced_bos_token_id`: BART's BOS, the language of NLLB and mBART-50. What a template puts in front
    /// of a text is of the source's side, a BOS or the source's language, and no model that forces nothing has learned to
    /// predict it. Longer texts are cut on the tokenizer's `truncation_side`.
    ///
    /// # Errors
    ///
    /// [`DataError::NoEos`]; [`DataError::NoRoom`] if `max_length` leaves no room for a token of the text; else those of
    /// [`TextTokenizer::encode`].
    pub fn encode_target(
        &self,
        text: &str,
        max_length: usize,
        first: Option<u32>,
    ) -> Result<EncodedTarget> {
        let eos = self.eos()?;
        let around = 1 + usize::from(first.is_some());
        if max_length <= around {
            return Err(DataError::NoRoom {
                max_length,
                of_template: around,
            });
        }
        let encoding = self.encoding(text, false)?;
        let ids = encoding.get_ids();
        let room = ids.len().min(max_length - around);
        let kept = match self.truncation_side {
            TruncationDirection::Right => &ids[..room],
            TruncationDirection::Left => &ids[ids.len() - room..],
        };
        let labels = first.into_iter().chain(kept.iter().copied()).chain([eos]);
        let labels: Vec<u32> = labels.collect();
        self.check_rows(&labels)?;
        Ok(EncodedTarget {
            truncated: room < ids.len(),
            labels,
        })
    }

    /// Whether the template puts a token behind every text.
    fn template_ends_with(&self, id: u32) -> Result<bool> {
        let probe = guarded(|| self.inner.encode_fast("a", true)).map_err(encode_error)?;
        let of_template = probe.get_special_tokens_mask().last() == Some(&1);
        Ok(of_template && probe.get_ids().last() == Some(&id))
    }
}
