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
mod documents;
mod ids;
mod report;
mod streams;
#[cfg(test)]
mod tests;

pub use batch::{Batch, Block};
pub(crate) use corpus::CorpusBuilder;
pub use corpus::{Corpus, EncodedDocument};
pub use cut::{Cut, Piece, cut};
pub(crate) use documents::{Documents, Masks};
pub(crate) use ids::{FileSink, Sink, WIDTH};
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

/// What is done with an example that is longer than a piece may be. A document is cut, for each of its pieces is a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TooLong {
    /// It is cut as a document is: what is behind its first piece is learned without what comes before.
    #[default]
    Cut,
    /// Its first piece is kept, and what is behind is left out and counted.
    Truncate,
    /// It is left out and counted.
    Drop,
    /// It is an error.
    Refuse,
}

impl TooLong {
    /// What can be done, with the words that run files use.
    pub const WORDS: [(&'static str, Self); 4] = [
        ("cut", Self::Cut),
        ("truncate", Self::Truncate),
        ("drop", Self::Drop),
        ("error", Self::Refuse),
    ];
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
    let blocks = match strategy {
        PackingStrategy::BestFitDecreasing => best_fit_decreasing(pieces, sequence_length),
        PackingStrategy::Sequential => sequential(pieces, sequence_length),
        PackingStrategy::None => (0..pieces.len()).collect(),
    };
    Ok(grouped(pieces, &blocks))
}

/// Puts pieces with the same number of a block together, in their order; the blocks come in that of their first pieces.
fn grouped(pieces: &[Piece], block_of: &[usize]) -> Vec<Block> {
    const NONE: usize = usize::MAX;
    let n = block_of.iter().max().map_or(0, |last| last + 1);
    let mut sizes = vec![0; n];
    block_of.iter().for_each(|block| sizes[*block] += 1);
    let mut places = vec![NONE; n];
    let mut blocks: Vec<Vec<Piece>> = Vec::new();
    for (piece, block) in pieces.iter().zip(block_of) {
        if places[*block] == NONE {
            places[*block] = blocks.len();
            blocks.push(Vec::with_capacity(sizes[*block]));
        }
        blocks[places[*block]].push(*piece);
    }
    blocks.into_iter().map(Block::of).collect()
}

/// The block of each piece, by a number.
fn best_fit_decreasing(pieces: &[Piece], sequence_length: usize) -> Vec<usize> {
    let mut by_length: Vec<usize> = (0..pieces.len()).collect();
    // Stable, so pieces of one length keep their order.
    by_length.sort_by_key(|&index| std::cmp::Reverse(pieces[index].len()));
    let mut block_of = vec![0; pieces.len()];
    let mut n_blocks = 0;
    // (tokens left, block) of every block with room, so that the fullest with enough is the first at or above the length.
    let mut room: BTreeSet<(usize, usize)> = BTreeSet::new();
    for index in by_length {
        let length = pieces[index].len();
        let fit = room.range((length, 0)..).next().copied();
        let (left, block) = if let Some(entry) = fit {
            room.remove(&entry);
            entry
        } else {
            n_blocks += 1;
            (sequence_length, n_blocks - 1)
        };
        block_of[index] = block;
        if left > length {
            room.insert((left - length, block));
        }
    }
    block_of
}

/// The block of each piece, by a number.
fn sequential(pieces: &[Piece], sequence_length: usize) -> Vec<usize> {
    let (mut n_blocks, mut left) = (0, 0);
    let block_of = pieces.iter().map(|piece| {
        if piece.len() > left || n_blocks == 0 {
            n_blocks += 1;
            left = sequence_length;
        }
        left -= piece.len();
        n_blocks - 1
    });
    block_of.collect()
}
