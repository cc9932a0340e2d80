//! The pieces that documents are cut into.

use std::ops::Range;

use super::{Corpus, Learned};
use crate::error::{DataError, Result};

/// A stretch of one document of a [`Corpus`]. There may be millions, so it is small: a corpus has no more documents, and a
/// document no more tokens, than 32 bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins in the corpus.
    pub(super) begin: u64,
    pub(super) document: u32,
    pub(super) start: u32,
    pub(super) len: u32,
    pub(super) n_labelled: u32,
    pub(super) of_example: bool,
    /// Whether its last token predicts the one behind it, as in a stream.
    pub(super) goes_on: bool,
    pub(super) continues: bool,
}

impl Piece {
    /// Index of the document that it comes from.
    #[must_use]
    pub fn document(&self) -> usize {
        self.document as usize
    }

    /// Where in the document it begins, in tokens.
    #[must_use]
    pub fn start(&self) -> usize {
        self.start as usize
    }

    /// Whether its document has a loss mask, as an example of a prompt and a response does.
    #[must_use]
    pub fn of_example(&self) -> bool {
        self.of_example
    }

    /// Whether it goes on where the block of the same stream one step before ended, so that a state can be carried over.
    #[must_use]
    pub fn continues(&self) -> bool {
        self.continues
    }

    /// Number of tokens.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "a piece has at least one token"
    )]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Number of positions that predict something; at least 1, but for a piece that is left out.
    #[must_use]
    pub fn n_labelled(&self) -> usize {
        self.n_labelled as usize
    }

    /// Its tokens in the corpus.
    pub(super) fn range(&self) -> Range<usize> {
        let begin = self.begin as usize;
        begin..begin + self.len as usize
    }
}

/// The pieces of some documents, and what was left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cut {
    /// The pieces, in the order of the documents.
    pub pieces: Vec<Piece>,
    /// Pieces left out because no position of them predicts anything: those of one token, and those whose
    /// loss mask is empty; in the order of the documents.
    pub dropped: Vec<Piece>,
}

impl Cut {
    /// Parts it into the pieces for which `is_first` holds, and the others.
    pub(crate) fn partition(self, mut is_first: impl FnMut(&Piece) -> bool) -> (Self, Self) {
        let mut part = |pieces: Vec<Piece>| pieces.into_iter().partition(|piece| is_first(piece));
        let (pieces, other_pieces) = part(self.pieces);
        let (dropped, other_dropped) = part(self.dropped);
        let of = |pieces, dropped| Self { pieces, dropped };
        (of(pieces, dropped), of(other_pieces, other_dropped))
    }

    /// Checks that something is left to be predicted.
    pub(crate) fn check(&self, corpus: &Corpus) -> Result<()> {
        if !self.pieces.is_empty() {
            return Ok(());
        }
        let n_documents = corpus.n_documents();
        Err(DataError::NothingToLearn {
            documents: n_documents,
            tokens: self.dropped.iter().map(Piece::len).sum(),
            masked: (0..n_documents).any(|document| corpus.has_mask(document)),
        })
    }
}

/// Cuts documents into pieces of at most `sequence_length` tokens.
///
/// # Errors
///
/// [`DataError::SequenceTooShort`] for `sequence_length < 2`, and [`DataError::NothingToLearn`] if no token is left to be
/// predicted.
pub fn cut(corpus: &Corpus, sequence_length: usize, learned: Learned) -> Result<Cut> {
    if sequence_length < 2 {
        return Err(DataError::SequenceTooShort { sequence_length });
    }
    let mut cut = Cut::default();
    for document in 0..corpus.n_documents() {
        let all = corpus.range(document);
        let of_example = corpus.has_mask(document);
        for begin in all.clone().step_by(sequence_length) {
            let end = all.end.min(begin.saturating_add(sequence_length));
            let (start, len) = (begin - all.start, end - begin);
            let predicted = corpus.predicted(document, start + 1..start + len);
            let n_labelled = match predicted.filter(|_| learned == Learned::Masked) {
                None => len - 1,
                Some(stretches) => stretches.map(|stretch| stretch.len()).sum(),
            };
            let piece = Piece {
                begin: begin as u64,
                // The corpus has seen that they fit.
                document: document as u32,
                start: start as u32,
                len: len as u32,
                n_labelled: n_labelled as u32,
                of_example,
                goes_on: false,
                continues: false,
            };
            if piece.n_labelled == 0 {
                cut.dropped.push(piece);
            } else {
                cut.pieces.push(piece);
            }
        }
    }
    cut.check(corpus)?;
    Ok(cut)
}
