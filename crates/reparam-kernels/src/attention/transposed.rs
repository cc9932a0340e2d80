//! Keys or values with their two indices exchanged.
//!
//! The products of scores read keys along the tokens, which is the slow direction: `gemm` would
//! turn each block again for each block of queries, at a fifth of the time of the whole.

use rayon::prelude::*;

use super::{AttentionShape, BLOCK_KEYS, Segment};
use crate::KernelError;
use crate::matmul::MatRef;

/// For each segment and block of [`BLOCK_KEYS`] of its tokens, a matrix `[kv_width, tokens]`.
pub(super) struct Transposed {
    data: Vec<f32>,
    /// Where each segment begins, in tokens.
    starts: Vec<usize>,
    head_dim: usize,
    kv_width: usize,
}

impl Transposed {
    /// Turns the tokens of the segments for which `wanted` holds; the others are left out.
    pub(super) fn new(
        source: &[f32],
        shape: &AttentionShape,
        segments: &[Segment],
        wanted: impl Fn(&Segment) -> bool,
    ) -> Self {
        let width = shape.kv_width();
        let mut starts = Vec::with_capacity(segments.len());
        let mut blocks = Vec::new();
        let mut total = 0;
        for segment in segments {
            starts.push(total);
            if !wanted(segment) {
                continue;
            }
            for first in (0..segment.k_len).step_by(BLOCK_KEYS) {
                let len = BLOCK_KEYS.min(segment.k_len - first);
                blocks.push((segment.k_start + first, len));
            }
            total += segment.k_len;
        }
        let mut data = vec![0.0; total * width];
        let mut rest = data.as_mut_slice();
        let tasks: Vec<_> = blocks
            .into_iter()
            .map(|(first, len)| {
                let (block, later) = std::mem::take(&mut rest).split_at_mut(len * width);
                rest = later;
                (&source[first * width..][..len * width], block, len)
            })
            .collect();
        tasks
            .into_par_iter()
            .for_each(|(source, block, len)| transpose(source, width, block, len));
        Self {
            data,
            starts,
            head_dim: shape.head_dim,
            kv_width: width,
        }
    }

    /// `[head_dim, tokens]` of one head: the first `tokens` of the block that begins at token
    /// `first` of a segment of `k_len`, where `first` is a multiple of [`BLOCK_KEYS`].
    pub(super) fn block(
        &self,
        segment_index: usize,
        k_len: usize,
        first: usize,
        tokens: usize,
        head: usize,
    ) -> Result<MatRef<'_, f32>, KernelError> {
        let len = BLOCK_KEYS.min(k_len - first);
        let at = (self.starts[segment_index] + first) * self.kv_width + head * self.head_dim * len;
        MatRef::with_strides(&self.data[at..], self.head_dim, tokens, len, 1)
    }
}

/// `target[width, len] = source[len, width]'`, in squares that stay in the first-level cache.
pub(super) fn transpose(source: &[f32], width: usize, target: &mut [f32], len: usize) {
    const SQUARE: usize = 16;
    for column in (0..width).step_by(SQUARE) {
        let columns = SQUARE.min(width - column);
        for row in (0..len).step_by(SQUARE) {
            let rows = SQUARE.min(len - row);
            for i in 0..columns {
                let target = &mut target[(column + i) * len + row..][..rows];
                for (j, target) in target.iter_mut().enumerate() {
                    *target = source[(row + j) * width + column + i];
                }
            }
        }
    }
}
