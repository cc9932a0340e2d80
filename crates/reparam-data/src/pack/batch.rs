//! Blocks and batches.

use super::{Corpus, IGNORE_INDEX, Learned, Piece};
use crate::error::Result;

/// Whole pieces one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pieces: Box<[Piece]>,
}

impl Block {
    pub(super) fn of(pieces: impl IntoIterator<Item = Piece>) -> Self {
        Self {
            pieces: pieces.into_iter().collect(),
        }
    }

    /// The pieces.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Number of tokens.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.pieces.iter().map(Piece::len).sum()
    }

    /// Number of pieces.
    #[must_use]
    pub fn n_sequences(&self) -> usize {
        self.pieces.len()
    }

    /// Number of positions that predict something.
    #[must_use]
    pub fn n_labelled(&self) -> usize {
        self.pieces.iter().map(Piece::n_labelled).sum()
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
    /// Concatenates blocks of a corpus.
    ///
    /// # Errors
    ///
    /// [`DataError::File`](crate::DataError::File) if the corpus is in a file that can no longer be read.
    ///
    /// # Panics
    ///
    /// If a block is not of this corpus and points beyond its end.
    pub fn concat<'a>(
        corpus: &Corpus,
        learned: Learned,
        blocks: impl IntoIterator<Item = &'a Block>,
    ) -> Result<Self> {
        let mut batch = Self {
            input_ids: Vec::new(),
            position_ids: Vec::new(),
            labels: Vec::new(),
            bounds: vec![0],
        };
        // The corpus has no label that is too large.
        let label = |id: u32| i32::try_from(id).unwrap_or(IGNORE_INDEX);
        let mut ids = Vec::new();
        for piece in blocks.into_iter().flat_map(Block::pieces) {
            let range = piece.range();
            ids.clear();
            corpus.read(
                range.start..range.end + usize::from(piece.goes_on),
                &mut ids,
            )?;
            batch.input_ids.extend_from_slice(&ids[..piece.len()]);
            batch.position_ids.extend((0u32..).take(piece.len()));
            let first = batch.labels.len();
            batch.labels.resize(first + piece.len(), IGNORE_INDEX);
            let labels = &mut batch.labels[first..];
            let next = piece.start() + 1..piece.start() + piece.len();
            match corpus
                .predicted(piece.document(), next)
                .filter(|_| learned == Learned::Masked)
            {
                None => {
                    for (to, id) in labels.iter_mut().zip(ids.iter().skip(1)) {
                        *to = label(*id);
                    }
                }
                Some(stretches) => {
                    for token in stretches.flatten() {
                        let place = token - piece.start();
                        labels[place - 1] = label(ids[place]);
                    }
                }
            }
            if let Some(id) = ids.get(piece.len()) {
                labels[piece.len() - 1] = label(*id);
            }
            batch.bounds.push(batch.input_ids.len());
        }
        Ok(batch)
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
        let labels = self.labels.iter();
        labels.filter(|label| **label != IGNORE_INDEX).count()
    }
}
