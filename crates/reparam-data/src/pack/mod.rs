//! Cutting documents into pieces and packing pieces into blocks.
//!
//! A *piece* is a stretch of one document of at most `sequence_length` tokens. A document longer than that is
//! cut into consecutive pieces of that length, each standing by itself: its positions restart at 0 and its first
//! token is not predicted. A *block* is a concatenation of whole pieces, at most `sequence_length` tokens, with
//! the bounds of its pieces; attention stays inside the bounds. Blocks are not padded. A [`Batch`] is a
//! concatenation of blocks.
//!
//! Instead, documents may be read as *streams* ([`DatasetOptions::streams`](crate::DatasetOptions::streams)): equal parts of
//! all texts, of which each step has the next `sequence_length` tokens. A piece then *continues* the one before.
//!
//! # Labels
//!
//! `labels[i]` is the id to be predicted *at* position `i`, the next token of the same piece, so they are already
//! shifted. At the last position of each piece it is [`IGNORE_INDEX`], in a stream the token behind the piece. It is
//! [`IGNORE_INDEX`] where the loss mask says that the next token is not to be learned.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::error::{DataError, Result};

mod batch;
mod corpus;
mod cut;
mod report;
mod streams;
#[cfg(test)]
mod tests;

pub use batch::{Batch, Block};
pub use corpus::{Corpus, EncodedDocument};
pub use cut::{Cut, Piece, cut};
pub use report::PackReport;
pub(crate) use streams::{joined, streams};

/// The label of a position that predicts nothing, as in PyTorch's cross-entropy.
pub const IGNORE_INDEX: i32 = -100;

/// Which tokens are predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Learned {
    /// Those that the loss masks say: of an example its response.
    #[default]
    Masked,
    /// All, whatever the loss masks say.
    All,
}

/// How pieces are put together into blocks.
///
/// The choice changes the shape of the batches and the order of the pieces, never a piece itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackingStrategy {
    /// The longest piece first, each into the fullest block that still has room for it. At most 11/9 of the
    /// fewest possible blocks, plus a constant; O(n log n).
    #[default]
    BestFitDecreasing,
    /// In order; a piece that does not fit begins a new block. Keeps neighbours together.
    Sequential,
    /// Every piece is a block of its own.
    None,
}

/// Packs `pieces` into blocks of at most `sequence_length` tokens without splitting one.
///
/// Every piece is in exactly one block. In a block the pieces keep their order, and the blocks are ordered by
/// their first piece, so that the result depends on nothing but the arguments.
///
/// # Errors
///
/// [`DataError::PieceTooLong`] if a piece does not fit a block.
pub fn pack(
    pieces: &[Piece],
    sequence_length: usize,
    strategy: PackingStrategy,
) -> Result<Vec<Block>> {
    if let Some(piece) = pieces
        .iter()
        .position(|piece| piece.len() > sequence_length)
    {
        let tokens = pieces[piece].len();
        return Err(DataError::PieceTooLong {
            piece,
            tokens,
            sequence_length,
        });
    }
    let groups = match strategy {
        PackingStrategy::BestFitDecreasing => best_fit_decreasing(pieces, sequence_length),
        PackingStrategy::Sequential => sequential(pieces, sequence_length),
        PackingStrategy::None => (0..pieces.len()).map(|piece| vec![piece]).collect(),
    };
    let block = |group: &Vec<usize>| Block::of(group.iter().map(|&index| pieces[index]));
    Ok(groups.iter().map(block).collect())
}

fn best_fit_decreasing(pieces: &[Piece], sequence_length: usize) -> Vec<Vec<usize>> {
    let mut by_length: Vec<usize> = (0..pieces.len()).collect();
    // Stable, so pieces of one length keep their order.
    by_length.sort_by_key(|&index| std::cmp::Reverse(pieces[index].len()));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    // (tokens left, group) of every block, so that the fullest with room is the first at or above the length.
    let mut room: BTreeSet<(usize, usize)> = BTreeSet::new();
    for index in by_length {
        let length = pieces[index].len();
        let fit = room.range((length, 0)..).next().copied();
        let (left, group) = if let Some(entry) = fit {
            room.remove(&entry);
            entry
        } else {
            groups.push(Vec::new());
            (sequence_length, groups.len() - 1)
        };
        groups[group].push(index);
        room.insert((left - length, group));
    }
    for group in &mut groups {
        group.sort_unstable();
    }
    groups.sort_unstable_by_key(|group| group[0]);
    groups
}

fn sequential(pieces: &[Piece], sequence_length: usize) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut left = 0;
    for (index, piece) in pieces.iter().enumerate() {
        match groups.last_mut() {
            Some(group) if piece.len() <= left => group.push(index),
            _ => {
                groups.push(vec![index]);
                left = sequence_length;
            }
        }
        left -= piece.len();
    }
    groups
}
