//! The forward pass of attention for blocks of queries.

use super::bf16::Rows;
use super::bias::BiasBlock;
use super::decode::decode_segment;
use super::dropout::{Block, Dropout};
use super::transposed::Transposed;
use super::{
    AttentionDropout, AttentionShape, BLOCK_KEYS, Mask, Segment, Terms, block_queries, gather_heads,
};
use crate::KernelError;
use crate::exp::exp_one;
use crate::isa::{Simd, Token, simd_entry};
use crate::matmul::{MatMut, MatRef, matmul_serial};
use crate::par;
use crate::vector;

/// A block of queries of one segment, with the rows of the outputs that are its own.
struct Task<'a> {
    segment: Segment,
    /// Position of the segment in the sorted list.
    index: usize,
    /// First query of the block, counted from the start of the segment.
    first: usize,
    out: &'a mut [f32],
    lse: &'a mut [f32],
}

/// `segments` are checked, not empty, and in the order of their queries.
#[expect(
    clippy::too_many_arguments,
    reason = "the public function after its checks"
)]
pub(super) fn forward(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    shape: AttentionShape,
    segments: &[Segment],
    terms: &Terms<'_>,
    dropout: Option<AttentionDropout<'_>>,
    out: &mut [f32],
    lse: &mut [f32],
) -> Result<(), KernelError> {
    let token = Token::current();
    let dropout = dropout.map(|dropout| Dropout::new(dropout, &shape, segments));
    let dropout = dropout.transpose()?;
    // The path of a single query knows neither dropout nor what is added to scores.
    let is_plain = dropout.is_none() && terms.is_empty();
    let decodes = |segment: &Segment| segment.q_len == 1 && is_plain;
    out.fill(0.0);
    lse.fill(f32::NEG_INFINITY);
    let block = block_queries(&shape);
    let mut tasks = Vec::new();
    let (mut out, mut lse, mut at) = (out, lse, 0);
    for (index, &segment) in segments.iter().enumerate() {
        let (_, rest) = out.split_at_mut((segment.q_start - at) * shape.q_width());
        let (mut own_out, rest_out) = rest.split_at_mut(segment.q_len * shape.q_width());
        let (_, rest) = lse.split_at_mut((segment.q_start - at) * shape.n_heads);
        let (mut own_lse, rest_lse) = rest.split_at_mut(segment.q_len * shape.n_heads);
        (out, lse, at) = (rest_out, rest_lse, segment.q_start + segment.q_len);
        if decodes(&segment) {
            let rows = |values, row_stride| Rows { values, row_stride };
            let inputs = [
                rows(q, shape.q_width()),
                rows(k, shape.kv_width()),
                rows(v, shape.kv_width()),
            ];
            decode_segment(token, inputs, &shape, &segment, own_out, own_lse);
            continue;
        }
        for first in (0..segment.q_len).step_by(block) {
            let len = block.min(segment.q_len - first);
            let (out, rest) = own_out.split_at_mut(len * shape.q_width());
            let (lse, rest_lse) = own_lse.split_at_mut(len * shape.n_heads);
            (own_out, own_lse) = (rest, rest_lse);
            tasks.push(Task {
                segment,
                index,
                first,
                out,
                lse,
            });
        }
    }
    let keys = Transposed::new(k, &shape, segments, |segment| !decodes(segment));
    // Later blocks see more keys: starting with them keeps the threads busy to the end.
    tasks.sort_by_key(|task| std::cmp::Reverse(shape.visible(&task.segment, task.first).end));
    par::try_for_each(tasks, |task| {
        forward_block(token, q, &keys, v, &shape, (terms, dropout.as_ref()), task)
    })
}

fn forward_block(
    token: Token,
    q: &[f32],
    transposed_keys: &Transposed,
    v: &[f32],
    shape: &AttentionShape,
    (terms, dropout): (&Terms<'_>, Option<&Dropout<'_>>),
    task: Task<'_>,
) -> Result<(), KernelError> {
    let (d, n_rep) = (shape.head_dim, shape.n_rep());
    let tokens = task.lse.len() / shape.n_heads;
    let rows = tokens * n_rep;
    let segment = &task.segment;
    let q_start = segment.q_start + task.first;
    let k_start = shape.visible(segment, task.first).start / BLOCK_KEYS * BLOCK_KEYS;
    let k_end = shape.visible(segment, task.first + tokens - 1).end;

    let mut queries = vec![0.0; rows * d];
    let mut scores = vec![0.0; rows * BLOCK_KEYS];
    let mut acc = vec![0.0; rows * d];
    let mut max = vec![0.0; rows];
    let mut sum = vec![0.0; rows];
    let mut scratch = vec![0.0; terms.scratch(rows)];
    for head in 0..shape.n_kv_heads {
        let range = q_start..q_start + tokens;
        gather_heads(token, q, shape, range, head, shape.scale, &mut queries);
        acc.fill(0.0);
        max.fill(f32::NEG_INFINITY);
        sum.fill(0.0);
        for k_block in (k_start..k_end).step_by(BLOCK_KEYS) {
            let keys = BLOCK_KEYS.min(k_end - k_block);
            let at = (segment.k_start + k_block) * shape.kv_width() + head * d;
            let key_view = transposed_keys.block(task.index, segment.k_len, k_block, keys, head)?;
            let value_view = MatRef::with_strides(&v[at..], keys, d, shape.kv_width(), 1)?;
            let scores = &mut scores[..rows * keys];
            let query_view = MatRef::new(&queries, rows, d)?;
            let to = MatMut::new(scores, rows, keys)?;
            matmul_serial(to, query_view, key_view, 1.0, 0.0)?;
            let block = BiasBlock {
                segment,
                head,
                query: task.first,
                key: k_block,
                keys,
            };
            if let Some(bias) = terms.bias {
                block.apply(bias, shape, scores);
            }
            if let Some(positions) = &terms.positions {
                let views = [query_view, key_view];
                positions.apply(&block, shape, views, &mut scratch, scores)?;
            }
            let mask = Mask {
                shape: *shape,
                segment: *segment,
                first_query: task.first,
                k_block,
            };
            softmax_block(token, scores, &mut acc, &mut max, &mut sum, mask);
            if let Some(dropout) = dropout {
                let block = Block {
                    segment,
                    index: task.index,
                    head,
                    query: task.first,
                    key: k_block,
                    keys,
                };
                dropout.apply(shape, block, scores);
            }
            matmul_serial(
                MatMut::new(&mut acc, rows, d)?,
                MatRef::new(scores, rows, keys)?,
                value_view,
                1.0,
                1.0,
            )?;
        }
        for i in 0..tokens {
            for rep in 0..n_rep {
                let row = i * n_rep + rep;
                let column = head * n_rep + rep;
                let inverse = 1.0 / sum[row];
                let out = &mut task.out[i * shape.q_width() + column * d..][..d];
                for (out, &acc) in out.iter_mut().zip(&acc[row * d..][..d]) {
                    *out = acc * inverse;
                }
                task.lse[i * shape.n_heads + column] = max[row] + sum[row].ln();
            }
        }
    }
    Ok(())
}

simd_entry!(fn softmax_block<'a>(
    scores: &'a mut [f32], acc: &'a mut [f32], max: &'a mut [f32], sum: &'a mut [f32],
    mask: Mask
) = softmax_block_generic);

/// Turns a block of scores into probabilities that are relative to the running maximum of their row,
/// and scales what was summed before to the new maximum.
/// Masked columns become 0.
#[inline(always)]
fn softmax_block_generic<S: Simd>(
    simd: S,
    scores: &mut [f32],
    acc: &mut [f32],
    max: &mut [f32],
    sum: &mut [f32],
    mask: Mask,
) {
    let rows = max.len();
    let (keys, d) = (scores.len() / rows, acc.len() / rows);
    let cap = mask.soft_cap();
    for (row, (scores, acc)) in scores
        .chunks_exact_mut(keys)
        .zip(acc.chunks_exact_mut(d))
        .enumerate()
    {
        let visible = mask.visible(row, keys);
        scores[..visible.start].fill(0.0);
        scores[visible.end..].fill(0.0);
        let scores = &mut scores[visible];
        if scores.is_empty() {
            continue;
        }
        if let Some(cap) = cap {
            for score in &mut *scores {
                *score = cap.value::<S>(*score);
            }
        }
        let block_max = vector::max(simd, scores);
        if block_max > max[row] {
            let factor = exp_one::<S>(max[row] - block_max);
            vector::scale(factor, acc);
            sum[row] *= factor;
            max[row] = block_max;
        }
        sum[row] += vector::exp_shifted_sum(simd, scores, max[row]);
    }
}
