//! What a data set says of single documents and pieces.

use std::sync::Arc;

use super::Dataset;
use crate::error::Result;
use crate::order::ContentHash;
use crate::pack::{Learned, Piece};
use crate::source::DocumentSource;

impl Dataset {
    /// Returns how many documents the corpus has, of which this data set may have a part alone.
    #[must_use]
    pub fn n_documents(&self) -> usize {
        self.corpus.n_documents()
    }

    /// Returns how many tokens a document has, all of it.
    ///
    /// # Panics
    ///
    /// If there is no such document.
    #[must_use]
    pub fn n_tokens_of(&self, document: usize) -> usize {
        self.corpus.n_tokens_of(document)
    }

    /// Returns whether blocks may have a piece several times, because documents have [`Weights`](super::Weights).
    #[must_use]
    pub fn is_weighted(&self) -> bool {
        self.is_weighted
    }

    /// Returns whether two data sets are parts of one corpus.
    #[must_use]
    pub fn shares_corpus(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.corpus, &other.corpus)
    }

    /// Returns the first token ids of a document, at most so many.
    ///
    /// # Errors
    ///
    /// Those of [`batch`](Self::batch).
    ///
    /// # Panics
    ///
    /// If there is no such document.
    pub fn start_of(&self, document: usize, most: usize) -> Result<Vec<u32>> {
        let len = self.corpus.n_tokens_of(document).min(most);
        self.corpus.ids_of(document, 0..len)
    }

    /// Returns where a document stands, if it was read from a file.
    #[must_use]
    pub fn source(&self, document: usize) -> Option<DocumentSource> {
        let is_read = document < self.origins.positions.len();
        is_read.then(|| self.origins.source(document, &self.read))
    }

    /// Returns the file of a document, by its place among the digests of [`read`](Self::read).
    #[must_use]
    pub fn file_of(&self, document: usize) -> Option<usize> {
        let file = self.origins.file(document);
        (file < self.read.files.len()).then_some(file)
    }

    /// Returns the hash of what a document says, if it was read from a file.
    #[must_use]
    pub fn content(&self, document: usize) -> Option<ContentHash> {
        self.origins.hashes.get(document).copied()
    }

    /// Returns whether a document has a loss mask, as an example of a prompt and a response does.
    ///
    /// # Panics
    ///
    /// If there is no such document.
    #[must_use]
    pub fn is_example(&self, document: usize) -> bool {
        self.corpus.has_mask(document)
    }

    /// Returns the pieces that no block has, because nothing of them is predicted.
    #[must_use]
    pub fn dropped(&self) -> &[Piece] {
        &self.dropped
    }

    /// Returns the first examples that are left out as a whole or in part because they are too long.
    #[must_use]
    pub fn too_long(&self) -> &[usize] {
        &self.too_long
    }

    /// Returns the token ids of a piece, and of each whether it is predicted by the tokens before it.
    ///
    /// # Errors
    ///
    /// Those of [`batch`](Self::batch).
    ///
    /// # Panics
    ///
    /// If the piece is none of this data set.
    pub fn tokens(&self, piece: &Piece) -> Result<Vec<(u32, bool)>> {
        let first = piece.start();
        let range = first..first + piece.len();
        let ids = self.corpus.ids_of(piece.document(), range)?;
        let mask = self.corpus.loss_mask(piece.document());
        let all = self.learned == Learned::All;
        // A stream goes on: the token before it predicts the first one, too.
        let continues = piece.continues();
        let tokens = ids.into_iter().enumerate().map(|(at, id)| {
            let is_masked = mask.as_ref().is_some_and(|mask| !mask[first + at]);
            (id, (at > 0 || continues) && (all || !is_masked))
        });
        Ok(tokens.collect())
    }
}
