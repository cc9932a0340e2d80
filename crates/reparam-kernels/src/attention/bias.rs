//! A bias of scores that depends on the head and on how far a key is from the query.

use std::ops::Range;

use super::{AttentionShape, Segment};
use crate::KernelError;
use crate::error::check_len;
use crate::vector;

/// What is added to the scores: `values[head, reach + j - p]` to that of the key at position `j` and the query at position `p` of a
/// segment, where the last query is at the position of the last key.
///
/// # References
///
/// Raffel et al., *Exploring the Limits of Transfer Learning* (arXiv 1910.10683), section 2.1.
#[derive(Debug, Clone, Copy)]
pub struct AttentionBias<'a> {
    /// `[n_heads, 2 reach + 1]`
    pub values: &'a [f32],
    /// The greatest distance, at least the keys of the longest segment less one.
    pub reach: usize,
}

/// Checks that a bias has a number for each distance in the segments.
pub(super) fn check_bias(
    bias: AttentionBias<'_>,
    shape: &AttentionShape,
    segments: &[Segment],
) -> Result<(), KernelError> {
    let distances = bias.reach.saturating_mul(2).saturating_add(1);
    check_len("bias", bias.values, &[shape.n_heads, distances])?;
    check_reach("bias", bias.reach, shape.n_heads, segments)
}

/// Checks that `width` numbers for each distance of up to `reach` are those of all distances in the segments.
pub(super) fn check_reach(
    name: &'static str,
    reach: usize,
    width: usize,
    segments: &[Segment],
) -> Result<(), KernelError> {
    for (index, segment) in segments.iter().enumerate() {
        if segment.q_len > segment.k_len {
            return Err(KernelError::SegmentLengths {
                index,
                q_len: segment.q_len,
                k_len: segment.k_len,
            });
        }
        if segment.k_len > reach + 1 {
            return Err(KernelError::Length {
                name,
                expected: width * (2 * segment.k_len - 1),
                found: width * (2 * reach + 1),
            });
        }
    }
    Ok(())
}

/// The rows of one block of scores: as [`super::dropout::Block`], without the segment's place in a list.
#[derive(Clone, Copy)]
pub(super) struct BiasBlock<'a> {
    pub(super) segment: &'a Segment,
    /// The key head.
    pub(super) head: usize,
    /// The first query.
    pub(super) query: usize,
    /// The first key.
    pub(super) key: usize,
    pub(super) keys: usize,
}

impl BiasBlock<'_> {
    /// Where the numbers of a row of scores are in a row of distances whose middle is at `reach`.
    pub(super) fn distances(
        &self,
        shape: &AttentionShape,
        row: usize,
        reach: usize,
    ) -> Range<usize> {
        let segment = self.segment;
        let position = segment.k_len - segment.q_len + self.query + row / shape.n_rep();
        let start = reach + self.key - position;
        start..start + self.keys
    }

    /// Adds the bias to a block of scores.
    pub(super) fn apply(
        &self,
        bias: AttentionBias<'_>,
        shape: &AttentionShape,
        scores: &mut [f32],
    ) {
        let width = 2 * bias.reach + 1;
        for (row, scores) in scores.chunks_exact_mut(self.keys).enumerate() {
            let head = self.head * shape.n_rep() + row % shape.n_rep();
            let values = &bias.values[head * width..][..width];
            vector::add(&values[self.distances(shape, row, bias.reach)], scores);
        }
    }

    /// Adds the gradients of a block of scores to those of the bias: `[n_rep, 2 k_len - 1]`, of the distances in the segment.
    pub(super) fn collect(&self, shape: &AttentionShape, dscores: &[f32], dbias: &mut [f32]) {
        let reach = self.segment.k_len - 1;
        let width = 2 * reach + 1;
        for (row, dscores) in dscores.chunks_exact(self.keys).enumerate() {
            let dbias = &mut dbias[row % shape.n_rep() * width..][..width];
            vector::add(dscores, &mut dbias[self.distances(shape, row, reach)]);
        }
    }
}

/// Adds the gradients that one segment and key head gave to those of the whole bias.
pub(super) fn scatter(
    shape: &AttentionShape,
    (segment, head): (&Segment, usize),
    part: &[f32],
    (reach, dbias): (usize, &mut [f32]),
) {
    let (own, width) = (2 * segment.k_len - 1, 2 * reach + 1);
    for (rep, part) in part.chunks_exact(own).enumerate() {
        let start = (head * shape.n_rep() + rep) * width + reach + 1 - segment.k_len;
        vector::add(part, &mut dbias[start..][..own]);
    }
}
