//! Where the documents of a data set stand, and what of them is learned.

use std::sync::Arc;

use super::Dataset;
use crate::order::ContentHash;
use crate::pack::{Learned, Piece};
use crate::source::{Document, DocumentSource, FileDigest};

/// Where a document stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Its file, by the place of its digest.
    pub(super) file: u32,
    line: u32,
    /// Zero if the file is no array.
    item: u32,
}

/// The place of each document; documents and digests both have the order of the paths.
pub(super) fn places(documents: &[Document], digests: &[FileDigest]) -> Vec<Place> {
    let short = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let mut file = 0;
    let place = |document: &Document| {
        let path = &*document.source.path;
        while digests.get(file).is_some_and(|digest| digest.path != path) {
            file += 1;
        }
        Place {
            file: short(file),
            line: short(document.source.line),
            item: short(document.source.item.unwrap_or(0)),
        }
    };
    documents.iter().map(place).collect()
}

impl Dataset {
    /// Sets where the documents stand, and what they say.
    pub(super) fn at(self, places: &Arc<[Place]>, hashes: &Arc<[ContentHash]>) -> Self {
        Self {
            places: Arc::clone(places),
            hashes: Arc::clone(hashes),
            ..self
        }
    }

    /// Returns how many documents the corpus has, of which this data set may have a part alone.
    #[must_use]
    pub fn n_documents(&self) -> usize {
        self.corpus.n_documents()
    }

    /// Returns whether two data sets are parts of one corpus.
    #[must_use]
    pub fn shares_corpus(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.corpus, &other.corpus)
    }

    /// Returns the token ids of a document.
    ///
    /// # Panics
    ///
    /// If there is no such document.
    #[must_use]
    pub fn document(&self, document: usize) -> &[u32] {
        self.corpus.ids(document)
    }

    /// Returns where a document stands, if it was read from a file.
    #[must_use]
    pub fn source(&self, document: usize) -> Option<DocumentSource> {
        let place = self.places.get(document)?;
        let digest = self.read.files.get(place.file as usize)?;
        Some(DocumentSource {
            path: digest.path.as_path().into(),
            line: place.line as usize,
            item: (place.item > 0).then_some(place.item as usize),
        })
    }

    /// Returns the file of a document, by its place among the digests of [`read`](Self::read).
    #[must_use]
    pub fn file_of(&self, document: usize) -> Option<usize> {
        Some(self.places.get(document)?.file as usize)
    }

    /// Returns the hash of what a document says, if it was read from a file.
    #[must_use]
    pub fn content(&self, document: usize) -> Option<ContentHash> {
        self.hashes.get(document).copied()
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

    /// Returns the token ids of a piece, and of each whether it is predicted by the tokens before it.
    ///
    /// # Panics
    ///
    /// If the piece is none of this data set.
    pub fn tokens<'a>(&'a self, piece: &Piece) -> impl Iterator<Item = (u32, bool)> + 'a {
        let first = piece.start();
        let ids = &self.corpus.ids(piece.document())[first..first + piece.len()];
        let mask = self.corpus.loss_mask(piece.document());
        let all = self.learned == Learned::All;
        // A stream goes on: the token before it predicts the first one, too.
        let continues = piece.continues();
        ids.iter().enumerate().map(move |(at, id)| {
            let is_masked = mask.is_some_and(|mask| !mask[first + at]);
            (*id, (at > 0 || continues) && (all || !is_masked))
        })
    }
}
