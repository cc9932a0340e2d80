//! Attention of a single query over many keys, which is bound by reading them.

use rayon::prelude::*;

use super::{AttentionShape, Segment, SoftCap};
use crate::isa::{Simd, Token, simd_entry};
use crate::vector;

/// Keys of one task. Long enough to pay for a task, short enough that a layer with few key heads
/// still makes use of many threads.
const TASK_KEYS: usize = 512;

/// One query against the keys of its segment: each task takes a key head and a range of keys, and
/// the ranges are joined in their order.
#[expect(
    clippy::too_many_arguments,
    reason = "the inputs and outputs of attention"
)]
pub(super) fn decode_segment(
    token: Token,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    shape: &AttentionShape,
    segment: &Segment,
    out: &mut [f32],
    lse: &mut [f32],
) {
    let (d, n_rep) = (shape.head_dim, shape.n_rep());
    let seen = shape.visible(segment, 0);
    let cap = shape.soft_cap.map(SoftCap::new);
    let ranges = seen.len().div_ceil(TASK_KEYS);
    // Of each head: the weighted sum of the values, the greatest score, the sum of exponentials.
    let part_len = d + 2;
    let group = n_rep * part_len;
    let mut parts = vec![0.0; shape.n_kv_heads * ranges * group];
    let part = |(index, part): (usize, &mut [f32])| {
        let (head, range) = (index / ranges, index % ranges);
        let first = seen.start + range * TASK_KEYS;
        let keys = TASK_KEYS.min(seen.end - first);
        let at = (segment.k_start + first) * shape.kv_width() + head * d;
        let end = at + (keys - 1) * shape.kv_width() + d;
        let q_at = segment.q_start * shape.q_width() + head * n_rep * d;
        decode_keys(
            token,
            &q[q_at..][..n_rep * d],
            &k[at..end],
            &v[at..end],
            shape.scale,
            cap,
            d,
            shape.kv_width(),
            part,
        );
    };
    if parts.len() == group {
        part((0, &mut parts));
    } else {
        parts.par_chunks_exact_mut(group).enumerate().for_each(part);
    }

    for (column, (out, lse)) in out.chunks_exact_mut(d).zip(lse).enumerate() {
        let (head, rep) = (column / n_rep, column % n_rep);
        let parts = || {
            parts[head * ranges * group..][..ranges * group]
                .chunks_exact(group)
                .map(|group| &group[rep * part_len..][..part_len])
        };
        let max = parts().fold(f32::NEG_INFINITY, |max, part| max.max(part[d]));
        let mut sum = 0.0;
        for part in parts() {
            let factor = (part[d] - max).exp();
            sum += factor * part[d + 1];
            for (out, &part) in out.iter_mut().zip(&part[..d]) {
                *out += factor * part;
            }
        }
        vector::scale(1.0 / sum, out);
        *lse = max + sum.ln();
    }
}

simd_entry!(fn decode_keys<'a>(
    q: &'a [f32], k: &'a [f32], v: &'a [f32], scale: f32, cap: Option<SoftCap>, d: usize,
    stride: usize,
    parts: &'a mut [f32]
) = decode_keys_generic);

/// `k` and `v` begin with the first key of the head; `stride` lies between two keys.
#[expect(clippy::too_many_arguments, reason = "the arguments of its entry")]
#[inline(always)]
fn decode_keys_generic<S: Simd>(
    simd: S,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    scale: f32,
    cap: Option<SoftCap>,
    d: usize,
    stride: usize,
    parts: &mut [f32],
) {
    let mut scores = [0.0_f32; TASK_KEYS];
    for (q, part) in q.chunks_exact(d).zip(parts.chunks_exact_mut(d + 2)) {
        let keys = k.len().div_ceil(stride);
        let scores = &mut scores[..keys];
        let key = |key: usize| &k[key * stride..][..d];
        let (fours, rest) = scores.as_chunks_mut::<4>();
        let n_fours = fours.len();
        for (i, four) in fours.iter_mut().enumerate() {
            let keys = [key(4 * i), key(4 * i + 1), key(4 * i + 2), key(4 * i + 3)];
            *four = vector::dot4(simd, q, keys);
            vector::scale(scale, four);
        }
        for (i, score) in rest.iter_mut().enumerate() {
            *score = scale * vector::dot(simd, q, key(4 * n_fours + i));
        }
        if let Some(cap) = cap {
            for score in &mut *scores {
                *score = cap.value::<S>(*score);
            }
        }
        let max = vector::max(simd, scores);
        let sum = vector::exp_shifted_sum(simd, scores, max);
        let (out, stats) = part.split_at_mut(d);
        vector::add_weighted(simd, scores, v, stride, out);
        stats[0] = max;
        stats[1] = sum;
    }
}
