//! Dropout of attention's probabilities.

use super::{AttentionShape, Segment};
use crate::KernelError;

/// Which probabilities a dropout keeps, and what those are multiplied by.
#[derive(Debug, Clone, Copy)]
pub struct AttentionDropout<'a> {
    /// A bit for each probability, from the lowest bit of the first word on: the segments in the order of their queries, in
    /// a segment the query heads, in a head the queries, of a query the keys.
    pub kept: &'a [u64],
    /// What the probabilities that are kept are multiplied by, usually `1 / (1 - p)`.
    pub factor: f32,
}

impl AttentionDropout<'_> {
    /// The number of probabilities of segments, those that a mask hides included.
    #[must_use]
    pub fn len(shape: &AttentionShape, segments: &[Segment]) -> usize {
        segments
            .iter()
            .map(|segment| of_segment(shape, segment))
            .sum()
    }
}

fn of_segment(shape: &AttentionShape, segment: &Segment) -> usize {
    shape.n_heads * segment.q_len * segment.k_len
}

/// A dropout, and where its bits of each segment begin.
pub(super) struct Dropout<'a> {
    dropout: AttentionDropout<'a>,
    starts: Vec<usize>,
}

impl<'a> Dropout<'a> {
    /// `segments` are in the order of their queries.
    pub(super) fn new(
        dropout: AttentionDropout<'a>,
        shape: &AttentionShape,
        segments: &[Segment],
    ) -> Result<Self, KernelError> {
        let mut next = 0;
        let starts = segments.iter().map(|segment| {
            let start = next;
            next += of_segment(shape, segment);
            start
        });
        let starts = starts.collect();
        let expected = next.div_ceil(u64::BITS as usize);
        match dropout.kept.len() {
            found if found == expected => Ok(Self { dropout, starts }),
            found => Err(KernelError::Length {
                name: "kept",
                expected,
                found,
            }),
        }
    }

    /// Multiplies a block of probabilities, or of their gradients, by the mask.
    pub(super) fn apply(&self, shape: &AttentionShape, block: Block<'_>, values: &mut [f32]) {
        let n_rep = shape.n_rep();
        for (row, values) in values.chunks_exact_mut(block.keys).enumerate() {
            let (query, head) = (block.query + row / n_rep, block.head * n_rep + row % n_rep);
            let row = head * block.segment.q_len + query;
            let bit = self.starts[block.index] + row * block.segment.k_len + block.key;
            for (bit, value) in (bit..).zip(values) {
                let is_kept = self.dropout.kept[bit / 64] >> (bit % 64) & 1;
                *value *= is_kept as f32 * self.dropout.factor;
            }
        }
    }
}

/// A block of scores: rows are the heads of a key head for each of some queries, columns some keys.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub(super) segment: &'a Segment,
    /// Position of the segment in the sorted list.
    pub(super) index: usize,
    /// The key head.
    pub(super) head: usize,
    /// The first query.
    pub(super) query: usize,
    /// The first key.
    pub(super) key: usize,
    pub(super) keys: usize,
}
