//! What is held out of the training data.
//!
//! A row or a document is held out by a hash of the run's seed and its content. So what is held out depends neither on the
//! order of rows nor on that of files, and exact duplicates stand on the same side.

use std::ops::Range;

use sha2::{Digest, Sha256};

use crate::error::{DataError, Result};

#[cfg(test)]
mod tests;

/// The stretches that are held out of one document, if there are pieces for so many.
///
/// Few enough that the pieces inside of a stretch have no neighbour that is learned, many enough that all parts of a long
/// document are among them.
const STRETCHES: usize = 10;

/// A digest of what a row or a document says: 128 bits of SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(u128);

impl ContentHash {
    /// Digests the parts of a content; where one ends and the next begins counts.
    #[must_use]
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self::first_half(hasher)
    }

    /// Returns its bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    pub(crate) fn of_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_le_bytes(bytes))
    }

    /// The place in the order in which contents are held out with a seed.
    pub(crate) fn place(self, seed: u64) -> u128 {
        let hasher = Sha256::new()
            .chain_update(seed.to_le_bytes())
            .chain_update(self.0.to_le_bytes());
        Self::first_half(hasher).0
    }

    fn first_half(hasher: Sha256) -> Self {
        let digest = hasher.finalize();
        let (half, _) = digest.split_at(16);
        Self(
            half.iter()
                .fold(0, |hash, byte| hash << 8 | u128::from(*byte)),
        )
    }
}

/// How much is held out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Size {
    /// The part of the whole, at least 0 and less than 1. Something is held out even of 0.
    pub fraction: f64,
    /// The most that is held out, whatever the fraction says: rows, or tokens that are predicted.
    ///
    /// More is held out only where the least that can be is more: rows of one content, or a piece of a document. Pieces are
    /// counted, so their tokens may be some more or fewer.
    pub max: u64,
}

impl Size {
    /// The part of `total` to hold out.
    fn of(self, total: u64) -> Result<u64> {
        let Self { fraction, max } = self;
        if !(0.0..1.0).contains(&fraction) {
            return Err(DataError::EvalFraction { fraction });
        }
        Ok(((total as f64 * fraction).round() as u64).clamp(1, max.max(1)))
    }
}

/// A document that may be held out, or pieces of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// What it says.
    pub(crate) hash: ContentHash,
    /// What it counts for: its tokens that are predicted.
    pub(crate) weight: u64,
    /// The pieces that it is cut into.
    pub(crate) pieces: usize,
}

/// What is held out of some documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HeldOut {
    /// These documents, by number.
    Documents(Vec<bool>),
    /// Stretches of the pieces of each document, where whole ones do not come near the fraction.
    Pieces(Vec<Vec<Range<usize>>>),
}

/// Chooses which of some rows are held out: `true` for those.
///
/// Rows of the same content are one group; the groups are taken in the order of their hashes as long as each brings the
/// number nearer to that of `size`, and not above its maximum. At least one row is held out, and at least one is not.
///
/// # Errors
///
/// [`DataError::EvalFraction`] unless `0 <= fraction < 1`; [`DataError::TooFewToSplit`] for fewer than two rows.
pub fn hold_out(rows: &[ContentHash], size: Size, seed: u64) -> Result<Vec<bool>> {
    let target = size.of(rows.len() as u64)?;
    if rows.len() < 2 {
        return Err(DataError::TooFewToSplit { pieces: rows.len() });
    }
    let mut places = places(rows.iter().copied(), seed);
    let mut held_out = take(&places, |_| 1, target, size.max);
    if !held_out.contains(&true) {
        // No group is as small as the part to hold out. The smallest one comes nearest.
        let groups = places.chunk_by(|a, b| a.0 == b.0);
        let smallest = groups.min_by_key(|group| group.len());
        smallest
            .into_iter()
            .flatten()
            .for_each(|(_, row)| held_out[*row] = true);
    }
    if !held_out.contains(&false) {
        // All rows are the same, so that it does not matter which.
        places.truncate(target.min(rows.len() as u64 - 1) as usize);
        held_out.fill(false);
        places.iter().for_each(|(_, row)| held_out[*row] = true);
    }
    Ok(held_out)
}

/// Chooses what is held out of documents: whole ones where that comes within half of `size`, else every n-th stretch of the
/// pieces of each.
///
/// Whole ones are taken as by [`hold_out`], weighed by their tokens.
///
/// # Errors
///
/// [`DataError::EvalFraction`] unless `0 <= fraction < 1`; [`DataError::TooFewToSplit`] for fewer than two pieces.
pub(crate) fn hold_out_documents(
    documents: &[Candidate],
    size: Size,
    seed: u64,
) -> Result<HeldOut> {
    let total = documents.iter().map(|document| document.weight).sum();
    let target = size.of(total)?;
    let n_pieces: usize = documents.iter().map(|document| document.pieces).sum();
    if n_pieces < 2 {
        return Err(DataError::TooFewToSplit { pieces: n_pieces });
    }
    let mut places = places(documents.iter().map(|document| document.hash), seed);
    let weight = |document: usize| documents[document].weight;
    let held_out = take(&places, weight, target, size.max);
    let weight: u64 = documents
        .iter()
        .zip(&held_out)
        .filter_map(|(document, held_out)| held_out.then_some(document.weight))
        .sum();
    if weight > 0 && 2 * weight >= target && weight < total {
        return Ok(HeldOut::Documents(held_out));
    }
    let share = target as f64 / total as f64;
    let target = ((n_pieces as f64 * share).round() as usize).clamp(1, n_pieces - 1);
    if places.first().map(|first| first.0) == places.last().map(|last| last.0) {
        // All documents are the same: their duplicates cannot be on the same side.
        (0_u128..)
            .zip(&mut places)
            .for_each(|(n, place)| place.0 ^= n);
    }
    Ok(HeldOut::Pieces(stretches(
        documents, &places, target, n_pieces,
    )))
}

/// The places of contents in the order of `seed`, ascending, with their numbers.
fn places(hashes: impl Iterator<Item = ContentHash>, seed: u64) -> Vec<(u128, usize)> {
    let hashes = hashes.enumerate();
    let mut places: Vec<_> = hashes.map(|(row, hash)| (hash.place(seed), row)).collect();
    places.sort_unstable();
    places
}

/// Takes groups of the same place as long as each brings the weight nearer to `target`, and not above `max`.
fn take(
    places: &[(u128, usize)],
    weight: impl Fn(usize) -> u64,
    target: u64,
    max: u64,
) -> Vec<bool> {
    let mut held_out = vec![false; places.len()];
    let mut taken = 0;
    for group in places.chunk_by(|a, b| a.0 == b.0) {
        let of_group: u64 = group.iter().map(|(_, row)| weight(*row)).sum();
        let is_nearer = 2 * taken + of_group <= 2 * target;
        if of_group > 0 && is_nearer && taken + of_group <= max {
            taken += of_group;
            group.iter().for_each(|(_, row)| held_out[*row] = true);
        }
    }
    held_out
}

/// Parts `target` pieces among the documents, and each one's among as many stretches, evenly over the document.
fn stretches(
    documents: &[Candidate],
    places: &[(u128, usize)],
    target: usize,
    n_pieces: usize,
) -> Vec<Vec<Range<usize>>> {
    let mut held_out = vec![Vec::new(); documents.len()];
    // The pieces to hold out of the first so many, rounded.
    let share = |pieces: usize| (pieces * target + n_pieces / 2) / n_pieces;
    let mut before = 0;
    for group in places.chunk_by(|a, b| a.0 == b.0) {
        let (place, first) = group[0];
        let pieces = documents[first].pieces;
        let after = before + pieces * group.len();
        // A document that is there several times is divided in the same way each time.
        let of_each = (share(after) - share(before)).div_ceil(group.len());
        before = after;
        let n_stretches = of_each.min(STRETCHES);
        for number in 0..n_stretches {
            let part =
                |whole: usize| whole * number / n_stretches..whole * (number + 1) / n_stretches;
            let (slot, length) = (part(pieces), part(of_each).len());
            let length = length.min(slot.len());
            let free = (slot.len() - length) as u128 + 1;
            let begin = slot.start + (place % free) as usize;
            for (_, document) in group {
                held_out[*document].push(begin..begin + length);
            }
        }
    }
    held_out
}
