//! Attention of a single query over many keys, which is bound by reading them.

use std::cell::Cell;

use super::bf16::Rows;
use super::{AttentionShape, Segment, SoftCap};
use crate::isa::{LANES, Line, PairSimd, Token, simd_entry};
use crate::number::Number;
use crate::shared::Shared;
use crate::{par, vector};

/// Keys of one task at most. Enough to pay for a task, few enough that their keys and values stay in
/// the second cache while all heads use them.
const TASK_KEYS: usize = 256;

thread_local! {
    static BUFFER: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// One query against the keys of its segment: each task takes a range of keys, and the ranges are
/// joined in their order.
///
/// `out` and `lse` are the rows of the query alone. Allocates nothing if an earlier call on this
/// thread had as many keys.
pub(super) fn decode_segment<T: Number>(
    token: Token,
    [q, k, v]: [Rows<'_, T>; 3],
    shape: &AttentionShape,
    segment: &Segment,
    out: &mut [T],
    lse: &mut [f32],
) {
    let d = shape.head_dim;
    let seen = shape.visible(segment, 0);
    let ranges = seen.len().div_ceil(TASK_KEYS);
    let keys = seen.len().div_ceil(ranges).next_multiple_of(LANES);
    let result = result_len(shape);
    let part_len = result + shape.n_heads * keys;
    let mut buffer = BUFFER.take();
    buffer.clear();
    buffer.resize(shape.q_width() + ranges * part_len, 0.0);
    let (query, parts) = buffer.split_at_mut(shape.q_width());
    let from = &q.values[segment.q_start * q.row_stride..];
    for (to, x) in query.iter_mut().zip(from) {
        *to = x.to_f32();
    }

    let shared = Shared::new(&mut *parts);
    let part = |range: usize| {
        // SAFETY: each task has a range, and each range its own part.
        #[expect(unsafe_code, reason = "writing a part of a shared buffer")]
        let part = unsafe { shared.part(range * part_len, part_len) };
        let first = segment.k_start + seen.start + range * keys;
        let end = (first + keys).min(segment.k_start + seen.end);
        let rows = |stride: usize| first * stride..(end - 1) * stride + shape.kv_width();
        let keys = Keys {
            k: &k.values[rows(k.row_stride)],
            k_stride: k.row_stride,
            v: &v.values[rows(v.row_stride)],
            v_stride: v.row_stride,
        };
        decode_keys(token, query, keys, shape, part);
    };
    par::for_each_index(ranges, part);

    let (first, others) = parts.split_at_mut(part_len);
    for (head, (out, lse)) in out.chunks_exact_mut(d).zip(lse).enumerate() {
        let values = &mut first[head * (d + 2)..][..d + 2];
        let others = || {
            let parts = others.chunks_exact(part_len);
            parts.map(|part| &part[head * (d + 2)..][..d + 2])
        };
        let max = others().fold(values[d], |max, part| max.max(part[d]));
        let shift = shift_of(max);
        let factor = (values[d] - shift).exp();
        vector::scale(factor, values);
        for part in others() {
            let factor = (part[d] - shift).exp();
            for (value, part) in values.iter_mut().zip(part) {
                *value += factor * part;
            }
        }
        let sum = values[d + 1];
        let inverse = 1.0 / sum;
        for (out, value) in out.iter_mut().zip(values) {
            *out = T::from_f32(*value * inverse);
        }
        *lse = max + sum.ln();
    }
    BUFFER.set(buffer);
}

/// What a range of keys leaves: of each head the weighted sum of the values, the greatest score and
/// the sum of the exponentials.
fn result_len(shape: &AttentionShape) -> usize {
    shape.n_heads * (shape.head_dim + 2)
}

/// What is subtracted from scores: where all are minus infinity, their exponentials are zero, not
/// NaN, so that they add nothing to those of another range.
fn shift_of(max: f32) -> f32 {
    if max == f32::NEG_INFINITY { 0.0 } else { max }
}

/// Keys that are asked for before they are used.
const AHEAD: usize = 16;

/// Asks for a row.
#[inline(always)]
fn ask<S: PairSimd, T>(simd: S, row: &[T]) {
    for line in row.chunks(size_of::<Line>() / size_of::<T>()) {
        simd.prefetch(line.as_ptr().cast());
    }
}

/// The rows of some keys, of all heads.
#[derive(Debug, Clone, Copy)]
struct Keys<'a, T> {
    k: &'a [T],
    k_stride: usize,
    v: &'a [T],
    v_stride: usize,
}

simd_entry!(
    /// Writes the result of some keys to the beginning of `part`; what follows is room for the
    /// scores.
    fn decode_keys<'a; T: Number>(
        query: &'a [f32], keys: Keys<'a, T>, shape: &'a AttentionShape, part: &'a mut [f32]
    ) = decode_keys_generic
);

#[inline(always)]
fn decode_keys_generic<S: PairSimd, T: Number>(
    simd: S,
    query: &[f32],
    keys: Keys<'_, T>,
    shape: &AttentionShape,
    part: &mut [f32],
) {
    let (d, n_rep, width) = (shape.head_dim, shape.n_rep(), shape.kv_width());
    let (results, scores) = part.split_at_mut(result_len(shape));
    let n = keys.k.len().div_ceil(keys.k_stride);
    let room = scores.len() / shape.n_heads;
    for first in (0..n).step_by(4) {
        // The rows are read once, in their order; a last four of fewer keys repeats the last key.
        let row = |i: usize| &keys.k[(first + i).min(n - 1) * keys.k_stride..][..width];
        let rows = [row(0), row(1), row(2), row(3)];
        let end = (first + 4).min(n);
        for key in first..end {
            let ahead = (key + AHEAD).min(n - 1);
            ask(simd, &keys.k[ahead * keys.k_stride..][..width]);
            ask(simd, &keys.v[key * keys.v_stride..][..width]);
        }
        for (head, query) in query.chunks_exact(d).enumerate() {
            let at = head / n_rep * d;
            let keys = [
                &rows[0][at..],
                &rows[1][at..],
                &rows[2][at..],
                &rows[3][at..],
            ];
            let four = vector::dot4(simd, query, keys);
            scores[head * room + first..][..end - first].copy_from_slice(&four[..end - first]);
        }
    }
    let cap = shape.soft_cap.map(SoftCap::new);
    let scores = scores.chunks_exact_mut(room);
    for (head, (scores, result)) in scores.zip(results.chunks_exact_mut(d + 2)).enumerate() {
        let scores = &mut scores[..n];
        vector::scale(shape.scale, scores);
        if let Some(cap) = cap {
            for score in &mut *scores {
                *score = cap.value::<S>(*score);
            }
        }
        let max = vector::max(simd, scores);
        let sum = vector::exp_shifted_sum(simd, scores, shift_of(max));
        let (out, stats) = result.split_at_mut(d);
        let values = &keys.v[head / n_rep * d..];
        vector::add_weighted(simd, scores, values, keys.v_stride, out);
        stats[0] = max;
        stats[1] = sum;
    }
}
