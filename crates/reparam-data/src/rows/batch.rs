//! Encoded rows one behind the other.

use rayon::prelude::*;

use super::error::{Result, RowError};
use super::read::Rows;
use super::text::{RowLabels, TextRow};
use crate::error::DataError;
use crate::order::ContentHash;
use crate::source::DocumentSource;
use crate::tokenizer::{EncodedRow, TextTokenizer};
use crate::watch::{Interrupted, Phase, Watch};

#[cfg(test)]
mod tests;

/// The rows that are encoded between two looks at the watch.
const AT_ONCE: usize = 512;

/// What a step is computed on: a flat list of tokens with the bounds of its rows.
///
/// # Shapes
///
/// With `N` tokens in `R` rows: the first three have `N` entries, `bounds` has `R + 1`, rising from 0 to `N`. There is no
/// padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowBatch {
    /// The token ids.
    pub input_ids: Vec<u32>,
    /// Which text of a pair a token belongs to, as the tokenizer's template says.
    pub token_type_ids: Vec<u32>,
    /// The position of each token in its row, from 0.
    pub position_ids: Vec<u32>,
    /// Where the rows begin and the last one ends.
    pub bounds: Vec<usize>,
}

impl RowBatch {
    /// Concatenates rows.
    #[must_use]
    pub fn concat<'a>(rows: impl IntoIterator<Item = &'a EncodedRow>) -> Self {
        let mut batch = Self {
            input_ids: Vec::new(),
            token_type_ids: Vec::new(),
            position_ids: Vec::new(),
            bounds: vec![0],
        };
        for row in rows {
            batch.input_ids.extend_from_slice(&row.ids);
            batch.token_type_ids.extend_from_slice(&row.type_ids);
            batch.position_ids.extend((0u32..).take(row.ids.len()));
            batch.bounds.push(batch.input_ids.len());
        }
        batch
    }

    /// Number of tokens, `N`.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.input_ids.len()
    }

    /// Number of rows, `R`.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.bounds.len() - 1
    }
}

/// Encodes rows in parallel, each cut to `max_length` tokens; see [`TextTokenizer::encode_row`]. `text` gives the text of a row.
///
/// A row that cannot be encoded becomes an error in its place.
///
/// # Errors
///
/// [`Interrupted`] when `watch` asks for it.
pub fn encode_rows<T: Send>(
    rows: Rows<T>,
    tokenizer: &TextTokenizer,
    max_length: usize,
    text: impl Fn(&T) -> &TextRow + Sync,
    watch: Watch<'_>,
) -> std::result::Result<Rows<(T, EncodedRow)>, Interrupted> {
    let encode = |row: T| {
        let TextRow {
            text,
            text_pair,
            place,
            ..
        } = text(&row);
        let encoded = tokenizer.encode_row(text, text_pair.as_deref(), max_length);
        let encoded = encoded.map_err(|error| located(place, error))?;
        Ok((row, encoded))
    };
    in_parallel(rows, encode, watch)
}

/// Encodes the texts of rows in parallel, each by itself and cut to `max_length` tokens. `texts` gives the texts of a row and
/// where it stands.
///
/// A row of which a text cannot be encoded becomes an error in its place.
///
/// # Errors
///
/// [`Interrupted`] when `watch` asks for it.
pub fn encode_texts<T: Send>(
    rows: Rows<T>,
    tokenizer: &TextTokenizer,
    max_length: usize,
    texts: impl Fn(&T) -> (Vec<&str>, &DocumentSource) + Sync,
    watch: Watch<'_>,
) -> std::result::Result<Rows<(T, Vec<EncodedRow>)>, Interrupted> {
    let encode = |row: T| {
        let (texts, place) = texts(&row);
        let encoded = texts.into_iter().map(|text| {
            let encoded = tokenizer.encode_row(text, None, max_length);
            encoded.map_err(|error| located(place, error))
        });
        let encoded = encoded.collect::<Result<Vec<_>>>()?;
        Ok((row, encoded))
    };
    in_parallel(rows, encode, watch)
}

/// Encodes rows in parallel, some at a time. A row that cannot be encoded becomes an error in its place.
pub(super) fn in_parallel<T: Send, U: Send>(
    rows: Rows<T>,
    encode: impl Fn(T) -> Result<U> + Sync,
    watch: Watch<'_>,
) -> std::result::Result<Rows<U>, Interrupted> {
    let total = rows.rows.len();
    let mut encoded = Vec::with_capacity(total);
    let mut left = rows.rows.into_iter();
    while encoded.len() < total {
        watch.check()?;
        watch.at(Phase::Tokenizing, encoded.len() as u64, total as u64);
        let some: Vec<_> = left.by_ref().take(AT_ONCE).collect();
        let some = some.into_par_iter();
        encoded.par_extend(some.map(|row| row.and_then(&encode)));
    }
    watch.at(Phase::Tokenizing, total as u64, total as u64);
    Ok(Rows {
        rows: encoded,
        files: rows.files,
        left_out: rows.left_out,
    })
}

/// Says of an error which row it is in.
pub(super) fn located(place: &DocumentSource, error: DataError) -> RowError {
    DataError::Document {
        place: place.clone(),
        error: Box::new(error),
    }
    .into()
}

impl TextRow {
    /// A digest of what the row says: its texts and its labels.
    #[must_use]
    pub fn content(&self) -> ContentHash {
        let pair = self.text_pair.as_deref().map(str::as_bytes);
        let labels = self.labels.as_ref().map_or(&[][..], RowLabels::values);
        let labels = labels.iter().map(|label| label.text().as_bytes());
        // Whether there is a second text counts, also if it is empty.
        let texts = [
            self.text.as_bytes(),
            &[u8::from(pair.is_some())],
            pair.unwrap_or_default(),
        ];
        ContentHash::of(texts.into_iter().chain(labels))
    }
}
