//! What packing came to.

use serde::{Deserialize, Serialize};

use super::{Block, Cut, Piece};

/// The numbers of a packed data set, for the log and the provenance of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PackReport {
    /// Documents that the pieces come from, each once however often weights take it.
    pub documents: usize,
    /// Tokens in the blocks.
    pub tokens: usize,
    /// Pieces in the blocks.
    pub pieces: usize,
    /// Pieces left out because they predict nothing.
    pub dropped_pieces: usize,
    /// Tokens of the pieces left out.
    pub dropped_tokens: usize,
    /// Examples with a piece that begins behind their start: it is learned or scored without the prompt, or
    /// without a part of it.
    pub cut_examples: usize,
    /// Examples that were left out because they are longer than a piece may be.
    #[serde(default)]
    pub dropped_examples: usize,
    /// Examples of which what is behind their first piece was left out.
    #[serde(default)]
    pub truncated_examples: usize,
    /// Blocks.
    pub blocks: usize,
    /// Positions that predict something.
    pub labelled_tokens: usize,
    /// How full the blocks are, from 0 to 1: `tokens / (blocks * sequence_length)`.
    pub fill: f64,
}

impl PackReport {
    /// Counts the pieces of `cut` and the `blocks` they were packed into.
    pub(crate) fn count(cut: &Cut, blocks: &[Block], sequence_length: usize) -> Self {
        let Cut { pieces, dropped } = cut;
        let tokens = blocks.iter().map(Block::n_tokens).sum();
        let room = blocks.len() as f64 * sequence_length as f64;
        Self {
            documents: documents(pieces, |_| true),
            tokens,
            pieces: pieces.len(),
            dropped_pieces: dropped.len(),
            dropped_tokens: dropped.iter().map(Piece::len).sum(),
            cut_examples: documents(pieces, |piece| piece.of_example() && piece.start() > 0),
            dropped_examples: 0,
            truncated_examples: 0,
            blocks: blocks.len(),
            labelled_tokens: blocks.iter().map(Block::n_labelled).sum(),
            fill: if room > 0.0 {
                tokens as f64 / room
            } else {
                0.0
            },
        }
    }
}

/// Counts the documents of pieces that are so.
fn documents(pieces: &[Piece], is: impl Fn(&Piece) -> bool) -> usize {
    // Weights repeat pieces, and those that are measured on are in no order.
    let last = pieces.iter().map(Piece::document).max();
    let mut is_counted = vec![false; last.map_or(0, |last| last + 1)];
    let those = pieces.iter().filter(|piece| is(piece));
    those
        .filter(|piece| !std::mem::replace(&mut is_counted[piece.document()], true))
        .count()
}
