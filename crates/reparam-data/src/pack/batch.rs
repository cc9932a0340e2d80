//! Blocks and batches.

use super::{IGNORE_INDEX, Piece};

/// Whole pieces one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    input_ids: Vec<u32>,
    labels: Vec<i32>,
    bounds: Vec<usize>,
}

impl Block {
    /// Concatenates pieces.
    pub(super) fn of<'a>(pieces: impl IntoIterator<Item = &'a Piece>) -> Self {
        let mut block = Self {
            input_ids: Vec::new(),
            labels: Vec::new(),
            bounds: vec![0],
        };
        for piece in pieces {
            block.input_ids.extend_from_slice(piece.ids());
            block.labels.extend_from_slice(piece.labels());
            block.bounds.push(block.input_ids.len());
        }
        block
    }

    /// The token ids.
    #[must_use]
    pub fn input_ids(&self) -> &[u32] {
        &self.input_ids
    }

    /// What each position predicts, or [`IGNORE_INDEX`].
    #[must_use]
    pub fn labels(&self) -> &[i32] {
        &self.labels
    }

    /// Where the pieces begin and the last one ends: `[0, len_1, len_1 + len_2, ...]`.
    #[must_use]
    pub fn bounds(&self) -> &[usize] {
        &self.bounds
    }

    /// Number of tokens.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.input_ids.len()
    }

    /// Number of pieces.
    #[must_use]
    pub fn n_sequences(&self) -> usize {
        self.bounds.len() - 1
    }

    /// Number of positions that predict something.
    #[must_use]
    pub fn n_labelled(&self) -> usize {
        n_labelled(&self.labels)
    }
}

/// What a step is computed on: a flat list of tokens with the bounds of its sequences.
///
/// # Shapes
///
/// With `T` tokens in `N` sequences: `input_ids`, `position_ids` and `labels` have `T` entries, `bounds` has
/// `N + 1`, rising from 0 to `T`. There is no padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The token ids.
    pub input_ids: Vec<u32>,
    /// The position of each token in its sequence, from 0.
    pub position_ids: Vec<u32>,
    /// What each position predicts, or [`IGNORE_INDEX`].
    pub labels: Vec<i32>,
    /// Where the sequences begin and the last one ends.
    pub bounds: Vec<usize>,
}

impl Batch {
    /// Concatenates blocks.
    #[must_use]
    pub fn concat<'a>(blocks: impl IntoIterator<Item = &'a Block>) -> Self {
        let mut batch = Self {
            input_ids: Vec::new(),
            position_ids: Vec::new(),
            labels: Vec::new(),
            bounds: vec![0],
        };
        for block in blocks {
            let offset = batch.input_ids.len();
            batch.input_ids.extend_from_slice(&block.input_ids);
            batch.labels.extend_from_slice(&block.labels);
            for bound in block.bounds.windows(2) {
                batch
                    .position_ids
                    .extend((0u32..).take(bound[1] - bound[0]));
                batch.bounds.push(offset + bound[1]);
            }
        }
        batch
    }

    /// Number of tokens, `T`.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.input_ids.len()
    }

    /// Number of sequences, `N`.
    #[must_use]
    pub fn n_sequences(&self) -> usize {
        self.bounds.len() - 1
    }

    /// Number of positions that predict something: what a mean loss divides by.
    #[must_use]
    pub fn n_labelled(&self) -> usize {
        n_labelled(&self.labels)
    }
}

fn n_labelled(labels: &[i32]) -> usize {
    labels
        .iter()
        .filter(|label| **label != IGNORE_INDEX)
        .count()
}
