//! Encoded rows one behind the other, and which of them are held out.

use rayon::prelude::*;

use super::read::Rows;
use super::text::TextRow;
use crate::error::{DataError, Result};
use crate::order::{permutation, split};
use crate::tokenizer::{EncodedRow, TextTokenizer};

#[cfg(test)]
mod tests;

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
#[must_use]
pub fn encode_rows<T: Send>(
    rows: Rows<T>,
    tokenizer: &TextTokenizer,
    max_length: usize,
    text: impl Fn(&T) -> &TextRow + Sync,
) -> Rows<(T, EncodedRow)> {
    let encode = |row: super::Result<T>| {
        let row = row?;
        let TextRow {
            text,
            text_pair,
            place,
            ..
        } = text(&row);
        match tokenizer.encode_row(text, text_pair.as_deref(), max_length) {
            Ok(encoded) => Ok((row, encoded)),
            Err(error) => Err(DataError::Document {
                place: place.clone(),
                error: Box::new(error),
            }
            .into()),
        }
    };
    Rows {
        rows: rows.rows.into_par_iter().map(encode).collect(),
        files: rows.files,
    }
}

/// Parts the rows `0..n` into those to learn from and those held out, each ascending.
///
/// The number held out is that of [`split`]; which ones is drawn at random from `seed`, for rows are often sorted by class, and
/// a tail would then have one class only.
///
/// # Errors
///
/// Those of [`split`].
pub fn hold_out(n: usize, eval_fraction: f64, seed: u64) -> Result<(Vec<usize>, Vec<usize>)> {
    let n_train = split(n, eval_fraction)?;
    let mut train = permutation(n, seed, 0);
    let mut held_out = train.split_off(n_train);
    train.sort_unstable();
    held_out.sort_unstable();
    Ok((train, held_out))
}
