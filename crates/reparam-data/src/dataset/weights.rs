//! How often an epoch has the documents of each source.

use crate::dataset::texts::Texts;
use crate::error::{DataError, Result};
use crate::pack::{Cut, Piece};

/// How often an epoch has the documents of each path.
///
/// With weight `w` each document of the path is there `floor(w)` times, and of what is left of `w` a part of the documents once
/// more: those whose content comes first in an order that the seed draws, as many as have that part of the predicted tokens. The
/// same documents in every epoch; one document more or less than the part, at most, and at least one of each path.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// A weight for each path: greater than 0 and at most [`MAX`](Self::MAX).
    pub of: Vec<f64>,
    /// Draws the order.
    pub seed: u64,
}

impl Weights {
    /// The greatest weight.
    pub const MAX: f64 = 1000.0;

    /// Checks that there is one for each path, and all are in their range.
    ///
    /// # Errors
    ///
    /// [`DataError::Weights`], [`DataError::Weight`].
    pub fn check(&self, n_paths: usize) -> Result<()> {
        if self.of.len() != n_paths {
            return Err(DataError::Weights {
                weights: self.of.len(),
                paths: n_paths,
            });
        }
        let is_fit = |weight: &f64| *weight > 0.0 && *weight <= Self::MAX;
        match self.of.iter().find(|weight| !is_fit(weight)) {
            Some(weight) => Err(DataError::Weight { weight: *weight }),
            None => Ok(()),
        }
    }
}

impl Texts {
    /// Takes the pieces of each document as often as the weights say. A document's pieces stay in order; what is there again comes
    /// behind all that is there before.
    pub(super) fn weigh(&self, cut: Cut, weights: Option<&Weights>) -> Cut {
        let Some(Weights { of, seed }) = weights else {
            return cut;
        };
        let source = |document: usize| self.paths[self.origins.file(document)];
        let mut totals = vec![0u64; of.len()];
        let mut documents = Vec::new();
        for pieces in cut.pieces.chunk_by(|a, b| a.document() == b.document()) {
            let document = pieces[0].document();
            let learned: u64 = pieces.iter().map(|piece| piece.n_labelled() as u64).sum();
            totals[source(document)] += learned;
            let place = self.origins.hashes[document].place(*seed);
            documents.push((place, document, learned));
        }
        documents.sort_unstable();
        let mut copies = vec![0u32; self.corpus.n_documents()];
        let mut taken = vec![0u64; of.len()];
        let mut first: Vec<Option<usize>> = vec![None; of.len()];
        for (_, document, learned) in documents {
            let source = source(document);
            let whole = of[source].floor();
            let part = (of[source] - whole) * totals[source] as f64;
            // Half of it decides, so that the part is met as nearly as whole documents can.
            let middle = taken[source] as f64 + learned as f64 / 2.0;
            taken[source] += learned;
            copies[document] = whole as u32 + u32::from(middle < part);
            first[source].get_or_insert(document);
        }
        // A part of few documents may be nearer to none than to one; a path that was asked for is not lost for that.
        let mut has_one = vec![false; of.len()];
        for (document, copies) in copies.iter().enumerate() {
            has_one[source(document)] |= *copies > 0;
        }
        for (first, _) in first.into_iter().zip(has_one).filter(|(_, has)| !has) {
            first.into_iter().for_each(|document| copies[document] = 1);
        }
        let most = copies.iter().max().copied().unwrap_or(0);
        let is_there = |time: u32, piece: &Piece| copies[piece.document()] > time;
        let mut pieces = Vec::new();
        for time in 0..most {
            let again = cut.pieces.iter().filter(|piece| is_there(time, piece));
            pieces.extend(again.copied());
        }
        Cut {
            pieces,
            dropped: cut.dropped,
        }
    }
}
