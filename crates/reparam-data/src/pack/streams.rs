//! Texts read as streams that go on from block to block.

use super::{Block, Cut, Piece};
use crate::error::{DataError, Result};

/// Puts pieces that follow one another in their document together, in the order of the corpus.
pub(crate) fn joined(cut: Cut) -> Vec<Piece> {
    let mut pieces = cut.pieces;
    // A last piece of one token predicts nothing by itself; behind others it is predicted.
    pieces.extend(cut.dropped);
    pieces.sort_by_key(|piece| piece.begin);
    let mut stretches: Vec<Piece> = Vec::new();
    for piece in pieces {
        match stretches.last_mut() {
            Some(last)
                if last.document == piece.document && last.range().end as u64 == piece.begin =>
            {
                last.len += piece.len;
            }
            _ => stretches.push(piece),
        }
    }
    stretches
}

/// Reads stretches of documents as `n_streams` streams that go on from block to block.
///
/// The tokens that have a next one in their stretch, in order, are divided into streams, of which none is more than a token
/// longer than another. So every token but the first of a stretch is predicted, and no token is left over. A block has the
/// next `length` tokens of a stream, as one piece of each stretch that it has a part of. The blocks come in the order of
/// steps: the first of each stream, the second of each, and so on; only those of the last step may be fewer.
///
/// The pieces are those of the blocks, in the order of the streams.
///
/// # Errors
///
/// [`DataError::ZeroBatchSize`], [`DataError::StreamsOfExamples`], [`DataError::TooFewForStreams`].
pub(crate) fn streams(
    stretches: &[Piece],
    n_streams: usize,
    length: usize,
) -> Result<(Cut, Vec<Block>)> {
    if n_streams == 0 {
        return Err(DataError::ZeroBatchSize);
    }
    let examples = stretches.iter().filter(|stretch| stretch.of_example);
    let examples = examples.count();
    if examples > 0 {
        return Err(DataError::StreamsOfExamples { examples });
    }
    let (stretches, dropped): (Vec<Piece>, Vec<Piece>) =
        stretches.iter().copied().partition(|one| one.len > 1);
    let tokens: usize = stretches.iter().map(|stretch| stretch.len() - 1).sum();
    if tokens < n_streams {
        return Err(DataError::TooFewForStreams { tokens, n_streams });
    }
    let mut reader = Reader {
        stretches: &stretches,
        offset: 0,
    };
    let streams = (0..n_streams).map(|stream| {
        // The longer ones come first, so that the streams with a block in the last step do.
        let mut left = tokens / n_streams + usize::from(stream < tokens % n_streams);
        let mut blocks = Vec::with_capacity(left.div_ceil(length));
        while left > 0 {
            let some = left.min(length);
            blocks.push(reader.take(some, blocks.is_empty()));
            left -= some;
        }
        blocks
    });
    let streams: Vec<Vec<Block>> = streams.collect();
    let pieces = streams.iter().flatten().flat_map(Block::pieces);
    let cut = Cut {
        pieces: pieces.copied().collect(),
        dropped,
    };
    let steps = streams.first().map_or(0, Vec::len);
    let blocks =
        (0..steps).flat_map(|step| streams.iter().filter_map(move |s| s.get(step).cloned()));
    Ok((cut, blocks.collect()))
}

/// Stretches of which some tokens were read.
struct Reader<'a> {
    stretches: &'a [Piece],
    /// How many tokens of the first one were.
    offset: usize,
}

impl Reader<'_> {
    /// Takes the next `n` tokens that have a next one; the first of them goes on from the block before unless that is of
    /// another stream.
    fn take(&mut self, n: usize, begins_stream: bool) -> Block {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut left = n;
        while let Some((stretch, rest)) = self.stretches.split_first()
            && left > 0
        {
            let len = left.min(stretch.len() - 1 - self.offset);
            pieces.push(Piece {
                // No more than those of the stretch.
                start: stretch.start + self.offset as u32,
                begin: stretch.begin + self.offset as u64,
                len: len as u32,
                n_labelled: len as u32,
                goes_on: true,
                continues: self.offset > 0 && !(begins_stream && pieces.is_empty()),
                ..*stretch
            });
            left -= len;
            self.offset += len;
            if self.offset + 1 == stretch.len() {
                self.stretches = rest;
                self.offset = 0;
            }
        }
        Block::of(pieces)
    }
}
