//! Attention as its formulas read, in `f64`, with dense rows of scores.

use super::super::reference::dot;
use crate::attention::{AttentionShape, Segment};

/// Whether query `i` of a segment sees its key `j`.
fn sees(shape: &AttentionShape, segment: &Segment, i: usize, j: usize) -> bool {
    let position = (segment.k_len + i) as i64 - segment.q_len as i64;
    let distance = position - j as i64;
    let window = shape.window.map(i64::try_from);
    let window = window.and_then(Result::ok).unwrap_or(i64::MAX);
    if shape.causal {
        (0..window).contains(&distance)
    } else {
        distance.abs() < window
    }
}

/// What the probability of a segment's head, query and key is multiplied by.
pub(super) type Factors<'a> = &'a dyn Fn(&Segment, [usize; 3]) -> f64;

/// Runs `work` for each query and head with the index of its row of `lse`, the offset of its
/// numbers, and its visible keys: the offsets of their numbers, their scores, the derivatives of
/// the scores by the product of query and key, and the factors of the probabilities.
fn each_row(
    q: &[f64],
    k: &[f64],
    shape: &AttentionShape,
    segments: &[Segment],
    factors: Factors<'_>,
    mut work: impl FnMut(usize, usize, &[(usize, f64, f64, f64)]),
) {
    let (heads, d) = (shape.n_heads, shape.head_dim);
    for segment in segments.iter().filter(|segment| segment.k_len > 0) {
        for i in 0..segment.q_len {
            for head in 0..heads {
                let row = (segment.q_start + i) * heads + head;
                let kv_head = head / (heads / shape.n_kv_heads);
                let keys: Vec<_> = (0..segment.k_len)
                    .filter(|&j| sees(shape, segment, i, j))
                    .map(|j| {
                        let at = ((segment.k_start + j) * shape.n_kv_heads + kv_head) * d;
                        let scale = f64::from(shape.scale);
                        let score = scale * dot(&q[row * d..][..d], &k[at..][..d]);
                        let factor = factors(segment, [head, i, j]);
                        match shape.soft_cap.map(f64::from) {
                            None => (at, score, scale, factor),
                            Some(cap) => {
                                let t = (score / cap).tanh();
                                (at, cap * t, scale * (1.0 - t * t), factor)
                            }
                        }
                    })
                    .collect();
                work(row, row * d, &keys);
            }
        }
    }
}

/// `out` and `lse`
pub(super) fn attention(
    q: &[f64],
    k: &[f64],
    v: &[f64],
    shape: &AttentionShape,
    segments: &[Segment],
) -> (Vec<f64>, Vec<f64>) {
    attention_with([q, k, v], shape, segments, &|_, _| 1.0)
}

/// `out` and `lse` with probabilities that are multiplied by factors.
pub(super) fn attention_with(
    [q, k, v]: [&[f64]; 3],
    shape: &AttentionShape,
    segments: &[Segment],
    factors: Factors<'_>,
) -> (Vec<f64>, Vec<f64>) {
    let d = shape.head_dim;
    let mut out = vec![0.0; q.len()];
    let mut lse = vec![f64::NEG_INFINITY; q.len() / d];
    each_row(q, k, shape, segments, factors, |row, at_q, keys| {
        let max = keys
            .iter()
            .fold(f64::NEG_INFINITY, |max, key| max.max(key.1));
        let sum: f64 = keys.iter().map(|key| (key.1 - max).exp()).sum();
        lse[row] = max + sum.ln();
        for &(at, score, _, factor) in keys {
            let p = (score - lse[row]).exp();
            for e in 0..d {
                out[at_q + e] += factor * p * v[at + e];
            }
        }
    });
    (out, lse)
}

/// The gradients of `sum(dout * out)` by `q`, `k` and `v`.
pub(super) fn gradients(
    inputs: [&[f64]; 4],
    shape: &AttentionShape,
    segments: &[Segment],
) -> [Vec<f64>; 3] {
    gradients_with(inputs, shape, segments, &|_, _| 1.0)
}

/// The same with probabilities that are multiplied by factors.
pub(super) fn gradients_with(
    [q, k, v, dout]: [&[f64]; 4],
    shape: &AttentionShape,
    segments: &[Segment],
    factors: Factors<'_>,
) -> [Vec<f64>; 3] {
    let d = shape.head_dim;
    let (out, lse) = attention_with([q, k, v], shape, segments, factors);
    let mut dq = vec![0.0; q.len()];
    let mut dk = vec![0.0; k.len()];
    let mut dv = vec![0.0; v.len()];
    each_row(q, k, shape, segments, factors, |row, at_q, keys| {
        let (dout, out) = (&dout[at_q..][..d], &out[at_q..][..d]);
        let delta = dot(dout, out);
        for &(at, score, slope, factor) in keys {
            let p = (score - lse[row]).exp();
            let ds = slope * p * (factor * dot(dout, &v[at..][..d]) - delta);
            for e in 0..d {
                dq[at_q + e] += ds * k[at + e];
                dk[at + e] += ds * q[at_q + e];
                dv[at + e] += factor * p * dout[e];
            }
        }
    });
    [dq, dk, dv]
}
