//! Attention with a bias by head and distance.

use super::super::{assert_close, assert_threads_agree, numbers, reference, tokens, wide};
use super::segments::{mixed_segments, segment};
use super::{BACKWARD, Case, FORWARD, shape};
use crate::KernelError;
use crate::attention::{
    AttentionBias, AttentionShape, AttentionTerms, Segment, TermGradients, attention_backward_with,
    attention_forward_with,
};

/// A query and a key that it sees.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    pub(super) head: usize,
    /// Where the head of the query and that of the key begin.
    pub(super) q: usize,
    pub(super) k: usize,
    /// How far the key is after the query.
    pub(super) distance: isize,
}

/// `out` and the gradients of `sum(dout * out)` by `q`, `k` and `v`, as the formulas read, with what `added` gives added to the scaled
/// scores; `collect` is told the gradient of each score.
pub(super) fn definition(
    [q, k, v, dout]: [&[f64]; 4],
    shape: &AttentionShape,
    segments: &[Segment],
    added: impl Fn(Pair) -> f64,
    mut collect: impl FnMut(Pair, f64),
) -> (Vec<f64>, [Vec<f64>; 3]) {
    let (heads, d) = (shape.n_heads, shape.head_dim);
    let mut out = vec![0.0; q.len()];
    let mut gradients = [q, k, v].map(|x| vec![0.0; x.len()]);
    for segment in segments {
        for i in 0..segment.q_len {
            for head in 0..heads {
                let at_q = ((segment.q_start + i) * heads + head) * d;
                let at = |j: usize| {
                    let row = (segment.k_start + j) * shape.n_kv_heads;
                    (row + head / (heads / shape.n_kv_heads)) * d
                };
                let pair = |j: usize| Pair {
                    head,
                    q: at_q,
                    k: at(j),
                    distance: (j + segment.q_len) as isize - (segment.k_len + i) as isize,
                };
                // The scores, and their derivatives by what is capped.
                let score = |j: usize| {
                    let product = reference::dot(&q[at_q..][..d], &k[at(j)..][..d]);
                    let score = f64::from(shape.scale) * product + added(pair(j));
                    match shape.soft_cap.map(f64::from) {
                        None => (score, 1.0),
                        Some(cap) => {
                            let t = (score / cap).tanh();
                            (cap * t, 1.0 - t * t)
                        }
                    }
                };
                let keys = shape.visible(segment, i);
                let sum: f64 = keys.clone().map(|j| score(j).0.exp()).sum();
                let weight = |j: usize| score(j).0.exp() / sum;
                for j in keys.clone() {
                    for e in 0..d {
                        out[at_q + e] += weight(j) * v[at(j) + e];
                    }
                }
                let dout = &dout[at_q..][..d];
                let delta = reference::dot(dout, &out[at_q..][..d]);
                for j in keys {
                    let (p, slope) = (weight(j), score(j).1);
                    let ds = slope * p * (reference::dot(dout, &v[at(j)..][..d]) - delta);
                    let scaled = f64::from(shape.scale) * ds;
                    for e in 0..d {
                        gradients[0][at_q + e] += scaled * k[at(j) + e];
                        gradients[1][at(j) + e] += scaled * q[at_q + e];
                        gradients[2][at(j) + e] += p * dout[e];
                    }
                    collect(pair(j), ds);
                }
            }
        }
    }
    (out, gradients)
}

/// The [`definition`] with a bias, and its gradient too.
fn biased(
    [q, k, v, bias, dout]: [&[f64]; 5],
    shape: &AttentionShape,
    segments: &[Segment],
) -> (Vec<f64>, [Vec<f64>; 4]) {
    let width = bias.len() / shape.n_heads;
    let place = |pair: Pair| {
        let middle = pair.head * width + (width - 1) / 2;
        middle.wrapping_add_signed(pair.distance)
    };
    let mut dbias = vec![0.0; bias.len()];
    let (out, [dq, dk, dv]) = definition(
        [q, k, v, dout],
        shape,
        segments,
        |pair| bias[place(pair)],
        |pair, ds| dbias[place(pair)] += ds,
    );
    (out, [dq, dk, dv, dbias])
}

fn terms(values: &[f32], reach: usize) -> AttentionTerms<'_> {
    AttentionTerms {
        bias: Some(AttentionBias { values, reach }),
        positions: None,
    }
}

/// A case with a bias that reaches `beyond` further than it has to.
struct Biased {
    case: Case,
    bias: Vec<f32>,
    reach: usize,
}

impl Biased {
    fn new(shape: AttentionShape, segments: &[Segment], beyond: usize) -> Self {
        let longest = segments.iter().map(|segment| segment.k_len).max();
        let reach = longest.unwrap() - 1 + beyond;
        let bias = numbers(5, shape.n_heads * (2 * reach + 1));
        Self {
            case: Case::new(shape, segments),
            bias: bias.iter().map(|x| 2.0 * x).collect(),
            reach,
        }
    }

    fn terms(&self) -> AttentionTerms<'_> {
        terms(&self.bias, self.reach)
    }

    /// The output and the gradients.
    fn run(&self) -> (Vec<f32>, [Vec<f32>; 4]) {
        let Case {
            q,
            k,
            v,
            shape,
            segments,
            ..
        } = &self.case;
        let terms = self.terms();
        let mut out = vec![f32::NAN; q.len()];
        let mut lse = vec![f32::NAN; q.len() / shape.head_dim];
        attention_forward_with(q, k, v, terms, *shape, segments, None, &mut out, &mut lse).unwrap();
        let mut gradients = [q, k, v, &self.bias].map(|x| vec![f32::NAN; x.len()]);
        let [dq, dk, dv, dbias] = &mut gradients;
        let saved = self.case.saved(&out, &lse);
        let dterms = TermGradients {
            bias: Some(dbias),
            ..TermGradients::default()
        };
        let to = [dq, dk, dv].map(|gradient| &mut gradient[..]);
        attention_backward_with(saved, terms, *shape, segments, None, to, dterms).unwrap();
        (out, gradients)
    }

    #[track_caller]
    fn check(&self, what: &str) {
        let Case {
            q,
            k,
            v,
            dout,
            shape,
            segments,
        } = &self.case;
        let inputs = [q, k, v, &self.bias, dout].map(|x| wide(x));
        let inputs = inputs.each_ref().map(Vec::as_slice);
        let (expected, gradients) = biased(inputs, shape, segments);
        for token in tokens() {
            let what = format!("{what} {}", token.isa());
            let (out, found) = self.run();
            assert_close(&format!("{what} out"), &out, &expected, FORWARD);
            let names = ["dq", "dk", "dv", "dbias"];
            for (name, (found, expected)) in names.iter().zip(found.iter().zip(&gradients)) {
                assert_close(&format!("{what} {name}"), found, expected, BACKWARD);
            }
        }
    }
}

#[test]
fn agrees_with_the_definition() {
    for causal in [false, true] {
        let heads = shape(4, 2, 12, causal);
        let two = [Segment::document(0, 37), Segment::document(38, 21)];
        Biased::new(heads, &two, 0).check("two documents");
        Biased::new(heads, &two, 9).check("a bias that reaches further");
        Biased::new(shape(3, 3, 8, causal), &mixed_segments(), 0).check("past keys");
        // Several blocks of queries and of keys, and several ranges of keys.
        let long = [Segment::document(1, 300)];
        Biased::new(shape(9, 1, 8, causal), &long, 0).check("blocks");
        Biased::new(shape(1, 1, 8, causal), &[Segment::document(0, 700)], 0).check("ranges");
        let other = AttentionShape {
            window: Some(5),
            soft_cap: Some(2.0),
            ..heads
        };
        Biased::new(other, &[Segment::document(0, 30)], 1).check("window");
    }
}

/// The formulas of the backward pass themselves, against differences of the forward definition.
#[test]
fn gradients_are_central_differences() {
    let segments = [segment((0, 3), (0, 5)), Segment::document(5, 3)];
    let shape = shape(4, 2, 6, true);
    let with_bias = Biased::new(shape, &segments, 1);
    let case = &with_bias.case;
    let inputs = [&case.q, &case.k, &case.v, &with_bias.bias].map(|x| wide(x));
    let dout = wide(&case.dout);
    let all = |inputs: [&[f64]; 4]| {
        let [q, k, v, bias] = inputs;
        biased([q, k, v, bias, &dout], &shape, &segments)
    };
    let (_, found) = all(inputs.each_ref().map(Vec::as_slice));
    for (place, found) in found.iter().enumerate() {
        let differences = reference::gradient(&inputs[place], |x| {
            let mut changed = inputs.each_ref().map(Vec::as_slice);
            changed[place] = x;
            reference::dot(&dout, &all(changed).0)
        });
        for (found, expected) in found.iter().zip(&differences) {
            assert!((found - expected).abs() < 1e-7, "{place}");
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let biased = Biased::new(shape(4, 2, 16, true), &[Segment::document(0, 500)], 0);
    assert_threads_agree("bias", || {
        let (out, gradients) = biased.run();
        std::iter::once(out).chain(gradients).collect()
    });
}

#[test]
fn refuses_a_bias_that_does_not_fit() {
    let heads = shape(2, 2, 4, false);
    let try_with = |segments: &[Segment], len: usize, reach: usize| {
        let biased = Biased::new(heads, &[Segment::document(0, 9)], 0);
        let values = vec![0.0; len];
        let Case { q, k, v, .. } = &biased.case;
        let terms = terms(&values, reach);
        let (mut out, mut lse) = (vec![0.0; q.len()], vec![0.0; q.len() / 4]);
        attention_forward_with(q, k, v, terms, heads, segments, None, &mut out, &mut lse)
    };
    let nine = [Segment::document(0, 9)];
    assert_eq!(try_with(&nine, 2 * 17, 8), Ok(()));
    let refused = |len, reach| {
        matches!(
            try_with(&nine, len, reach),
            Err(KernelError::Length { name: "bias", .. })
        )
    };
    assert!(refused(2 * 17 + 1, 8) && refused(2 * 15, 7) && refused(0, 8));
    let endless = try_with(&nine, 0, usize::MAX);
    assert!(matches!(endless, Err(KernelError::Overflow { .. })));
    let more_queries = try_with(&[segment((0, 5), (0, 4))], 2 * 17, 8);
    assert!(matches!(
        more_queries,
        Err(KernelError::SegmentLengths { .. })
    ));
}
