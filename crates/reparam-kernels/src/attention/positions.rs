//! Scores of content and position: queries that look for distances, and keys that are looked for from a distance.

use super::bias::{BiasBlock, check_reach};
use super::transposed::transpose;
use super::{AttentionShape, Segment};
use crate::KernelError;
use crate::error::check_len;
use crate::matmul::{MatMut, MatRef, matmul_serial};
use crate::vector;

/// What positions add to the score of the query at position `p` and the key at position `j` of a segment, where the last query is
/// at the position of the last key:
///
/// ```text
/// scale * (q . keys[reach + j - p] + k . queries[reach + j - p])
/// ```
///
/// Each query head has a key head of its own. What is missing adds nothing.
///
/// # References
///
/// He et al., *DeBERTa: Decoding-enhanced BERT with Disentangled Attention* (arXiv 2006.03654), equation 4.
#[derive(Debug, Clone, Copy)]
pub struct AttentionPositions<'a> {
    /// What queries are multiplied with, `[2 reach + 1, n_heads * head_dim]`.
    pub keys: Option<&'a [f32]>,
    /// What keys are multiplied with, `[2 reach + 1, n_heads * head_dim]`.
    pub queries: Option<&'a [f32]>,
    /// The greatest distance, at least the keys of the longest segment less one.
    pub reach: usize,
}

/// Positions that are checked, with their keys turned, `[n_heads * head_dim, 2 reach + 1]`.
pub(super) struct Positions<'a> {
    of: AttentionPositions<'a>,
    turned: Option<Vec<f32>>,
}

/// The gradients of one task, `[2 k_len - 1, head_dim]` each; empty where nobody wants them.
pub(super) struct PositionGradients {
    pub(super) keys: Vec<f32>,
    pub(super) queries: Vec<f32>,
}

impl PositionGradients {
    pub(super) fn new(segment: &Segment, d: usize, wanted: [bool; 2]) -> Self {
        let len = (2 * segment.k_len - 1) * d;
        let [keys, queries] = wanted.map(|is_wanted| vec![0.0; usize::from(is_wanted) * len]);
        Self { keys, queries }
    }
}

impl<'a> Positions<'a> {
    pub(super) fn new(
        of: AttentionPositions<'a>,
        shape: &AttentionShape,
        segments: &[Segment],
    ) -> Result<Self, KernelError> {
        if shape.n_rep() != 1 {
            return Err(KernelError::Heads {
                n_heads: shape.n_heads,
                n_kv_heads: shape.n_kv_heads,
            });
        }
        let distances = of.reach.saturating_mul(2).saturating_add(1);
        let width = shape.kv_width();
        for (name, values) in [("keys", of.keys), ("queries", of.queries)] {
            if let Some(values) = values {
                check_len(name, values, &[distances, width])?;
            }
        }
        check_reach("positions", of.reach, width, segments)?;
        let turned = of.keys.map(|keys| {
            let mut turned = vec![0.0; keys.len()];
            transpose(keys, width, &mut turned, distances);
            turned
        });
        Ok(Self { of, turned })
    }

    pub(super) fn reach(&self) -> usize {
        self.of.reach
    }

    /// The place in `reach` of the first distance in a block: that of its last row and first key.
    fn first(block: &BiasBlock<'_>, shape: &AttentionShape, rows: usize, reach: usize) -> usize {
        block.distances(shape, rows - 1, reach).start
    }

    /// The vectors of the distances of a block, one a row.
    fn view<'v>(
        values: &'v [f32],
        (first, distances): (usize, usize),
        shape: &AttentionShape,
        head: usize,
    ) -> Result<MatRef<'v, f32>, KernelError> {
        let (d, width) = (shape.head_dim, shape.kv_width());
        let at = &values[first * width + head * d..];
        MatRef::with_strides(at, distances, d, width, 1)
    }

    /// Adds to a block of scores. `queries` are scaled, `keys` are turned.
    pub(super) fn apply(
        &self,
        block: &BiasBlock<'_>,
        shape: &AttentionShape,
        [queries, keys]: [MatRef<'_, f32>; 2],
        scratch: &mut [f32],
        scores: &mut [f32],
    ) -> Result<(), KernelError> {
        let (d, n_keys) = (shape.head_dim, block.keys);
        let rows = scores.len() / n_keys;
        let distances = rows + n_keys - 1;
        let reach = self.of.reach;
        let first = Self::first(block, shape, rows, reach);
        if let Some(turned) = &self.turned {
            let length = 2 * reach + 1;
            let at = &turned[block.head * d * length + first..];
            let positions = MatRef::with_strides(at, d, distances, length, 1)?;
            let found = &mut scratch[..rows * distances];
            let to = MatMut::new(found, rows, distances)?;
            matmul_serial(to, queries, positions, 1.0, 0.0)?;
            for (row, scores) in scores.chunks_exact_mut(n_keys).enumerate() {
                let start = row * distances + rows - 1 - row;
                vector::add(&found[start..][..n_keys], scores);
            }
        }
        if let Some(values) = self.of.queries {
            let positions = Self::view(values, (first, distances), shape, block.head)?;
            let found = &mut scratch[..distances * n_keys];
            let to = MatMut::new(found, distances, n_keys)?;
            matmul_serial(to, positions, keys, shape.scale, 0.0)?;
            for (row, scores) in scores.chunks_exact_mut(n_keys).enumerate() {
                // A distance further with each key.
                let found = found[(rows - 1 - row) * n_keys..].iter();
                for (score, found) in scores.iter_mut().zip(found.step_by(n_keys + 1)) {
                    *score += found;
                }
            }
        }
        Ok(())
    }

    /// Adds the gradients that a block of scores gives to queries, keys and positions. `queries` are scaled, `keys` are as they are.
    pub(super) fn collect(
        &self,
        block: &BiasBlock<'_>,
        shape: &AttentionShape,
        [queries, keys]: [MatRef<'_, f32>; 2],
        scratch: &mut [f32],
        dscores: &[f32],
        ([dq, dk], own): ([&mut [f32]; 2], &mut PositionGradients),
    ) -> Result<(), KernelError> {
        let (d, n_keys) = (shape.head_dim, block.keys);
        let rows = dscores.len() / n_keys;
        let distances = rows + n_keys - 1;
        let first = Self::first(block, shape, rows, self.of.reach);
        let in_own = Self::first(block, shape, rows, block.segment.k_len - 1) * d;
        let rows_of = in_own..in_own + distances * d;
        if let Some(values) = self.of.keys {
            let spread = &mut scratch[..rows * distances];
            spread.fill(0.0);
            for (row, dscores) in dscores.chunks_exact(n_keys).enumerate() {
                let start = row * distances + rows - 1 - row;
                spread[start..][..n_keys].copy_from_slice(dscores);
            }
            let spread = MatRef::new(&*spread, rows, distances)?;
            let positions = Self::view(values, (first, distances), shape, block.head)?;
            matmul_serial(
                MatMut::new(dq, rows, d)?,
                spread,
                positions,
                shape.scale,
                1.0,
            )?;
            if !own.keys.is_empty() {
                let to = MatMut::new(&mut own.keys[rows_of.clone()], distances, d)?;
                matmul_serial(to, spread.t(), queries, 1.0, 1.0)?;
            }
        }
        if let Some(values) = self.of.queries {
            let spread = &mut scratch[..distances * n_keys];
            spread.fill(0.0);
            for (row, dscores) in dscores.chunks_exact(n_keys).enumerate() {
                let spread = spread[(rows - 1 - row) * n_keys..].iter_mut();
                for (to, dscore) in spread.step_by(n_keys + 1).zip(dscores) {
                    *to = *dscore;
                }
            }
            let spread = MatRef::new(&*spread, distances, n_keys)?;
            let positions = Self::view(values, (first, distances), shape, block.head)?;
            let to = MatMut::new(dk, n_keys, d)?;
            matmul_serial(to, spread.t(), positions, shape.scale, 1.0)?;
            if !own.queries.is_empty() {
                let to = MatMut::new(&mut own.queries[rows_of], distances, d)?;
                matmul_serial(to, spread, keys, shape.scale, 1.0)?;
            }
        }
        Ok(())
    }
}
