use proptest::prelude::*;

use super::{assert_close, assert_refused, assert_threads_agree, cases, numbers, tokens, wide};
use crate::KernelError;
use crate::attention::{
    AttentionSaved, AttentionShape, Segment, attention_backward, attention_forward,
};

mod bf16;
mod bias;
mod decode;
mod dropout;
mod masks;
mod positions;
mod primitives;
mod reference;
mod segments;

use segments::{any_segments, decode, few_keys, scattered_segments, segment, sharing_segments};

/// Scores of size one with up to 256 terms, exponentials of them and averages of values: a few
/// dozen roundings of 6e-8 in sequence, and a good margin.
const FORWARD: f64 = 4e-6;

/// The gradients multiply two such results and sum over up to some hundred keys, with
/// cancellation in `dp - delta`.
const BACKWARD: f64 = 2e-5;

fn shape(n_heads: usize, n_kv_heads: usize, head_dim: usize, causal: bool) -> AttentionShape {
    AttentionShape {
        n_heads,
        n_kv_heads,
        head_dim,
        scale: 1.0 / (head_dim as f32).sqrt(),
        causal,
        window: None,
        soft_cap: None,
    }
}

struct Case {
    shape: AttentionShape,
    segments: Vec<Segment>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dout: Vec<f32>,
}

impl Case {
    fn new(shape: AttentionShape, segments: &[Segment]) -> Self {
        let end = |f: fn(&Segment) -> usize| segments.iter().map(f).max().unwrap_or(0);
        // A token beyond all segments, too.
        let n_queries = end(|s| s.q_start + s.q_len) + 1;
        let n_keys = end(|s| s.k_start + s.k_len) + 1;
        let (q_len, k_len) = (n_queries * shape.q_width(), n_keys * shape.kv_width());
        // Scores of size three, so that the softmax is far from flat.
        let q = numbers(1, q_len).iter().map(|x| 3.0 * x).collect();
        Self {
            shape,
            segments: segments.to_vec(),
            q,
            k: numbers(2, k_len),
            v: numbers(3, k_len),
            dout: numbers(4, q_len),
        }
    }

    fn forward(&self) -> [Vec<f32>; 2] {
        let mut out = vec![f32::NAN; self.q.len()];
        let mut lse = vec![f32::NAN; self.q.len() / self.shape.head_dim];
        let Self {
            q,
            k,
            v,
            shape,
            segments,
            ..
        } = self;
        attention_forward(q, k, v, *shape, segments, None, &mut out, &mut lse).unwrap();
        [out, lse]
    }

    fn backward(&self) -> [Vec<f32>; 3] {
        let [out, lse] = self.forward();
        let mut grads = [&self.q, &self.k, &self.v].map(|x| vec![f32::NAN; x.len()]);
        let [dq, dk, dv] = &mut grads;
        attention_backward(
            self.saved(&out, &lse),
            self.shape,
            &self.segments,
            None,
            dq,
            dk,
            dv,
        )
        .unwrap();
        grads
    }

    fn saved<'a>(&'a self, out: &'a [f32], lse: &'a [f32]) -> AttentionSaved<'a> {
        let Self { q, k, v, dout, .. } = self;
        AttentionSaved {
            q,
            k,
            v,
            out,
            lse,
            dout,
        }
    }

    fn reference(&self) -> (Vec<f64>, Vec<f64>) {
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|x| wide(x));
        reference::attention(&q, &k, &v, &self.shape, &self.segments)
    }

    fn reference_gradients(&self) -> [Vec<f64>; 3] {
        let [q, k, v, dout] = [&self.q, &self.k, &self.v, &self.dout].map(|x| wide(x));
        reference::gradients([&q, &k, &v, &dout], &self.shape, &self.segments)
    }

    #[track_caller]
    fn check(&self, what: &str) {
        let (out, lse) = self.reference();
        let expected_grads = self.reference_gradients();
        let covered: Vec<usize> = (0..lse.len()).filter(|&i| lse[i].is_finite()).collect();
        for token in tokens() {
            let what = format!("{what} {}", token.isa());
            let [actual, actual_lse] = self.forward();
            assert_close(&format!("{what} out"), &actual, &out, FORWARD);
            for i in 0..lse.len() {
                assert_eq!(
                    actual_lse[i].is_finite(),
                    lse[i].is_finite(),
                    "{what} lse[{i}]"
                );
            }
            let pick = |i: &usize| actual_lse[*i];
            let picked: Vec<f32> = covered.iter().map(pick).collect();
            let expected: Vec<f64> = covered.iter().map(|&i| lse[i]).collect();
            assert_close(&format!("{what} lse"), &picked, &expected, FORWARD);

            let grads = self.backward();
            for (name, (actual, expected)) in ["dq", "dk", "dv"]
                .iter()
                .zip(grads.iter().zip(&expected_grads))
            {
                assert_close(&format!("{what} {name}"), actual, expected, BACKWARD);
            }
        }
    }
}

#[test]
fn agrees_with_the_definition_for_heads_of_all_kinds() {
    for head_dim in [1, 8, 16, 20, 64, 80] {
        for (n_heads, n_kv_heads) in [(1, 1), (3, 1), (4, 2), (3, 3)] {
            for causal in [true, false] {
                let case = Case::new(
                    shape(n_heads, n_kv_heads, head_dim, causal),
                    &[Segment::document(0, 37), Segment::document(38, 21)],
                );
                case.check(&format!(
                    "{n_heads}/{n_kv_heads} heads of {head_dim}, {causal}"
                ));
            }
        }
    }
}

#[test]
fn agrees_with_the_definition_around_the_blocks() {
    // Nine heads of one key head make blocks of 21 queries; blocks of keys are 128.
    for len in [1, 2, 20, 21, 22, 42, 127, 128, 129, 257, 300] {
        Case::new(shape(9, 1, 8, true), &[Segment::document(0, len)])
            .check(&format!("9 heads, {len}"));
        Case::new(shape(2, 2, 8, true), &[Segment::document(0, len)])
            .check(&format!("2 heads, {len}"));
    }
}

#[test]
fn agrees_with_the_definition_where_keys_of_the_past_come_first() {
    for (q_len, k_len) in [
        (1, 1),
        (1, 5),
        (1, 700),
        (1, 1100),
        (2, 3),
        (5, 5),
        (30, 400),
        (150, 290),
    ] {
        for causal in [true, false] {
            let segment = segment((2, q_len), (3, k_len));
            Case::new(shape(6, 2, 16, causal), &[segment])
                .check(&format!("{q_len} of {k_len}, {causal}"));
        }
    }
}

#[test]
fn takes_segments_in_any_order_and_empty_ones() {
    Case::new(shape(4, 2, 12, true), &scattered_segments()).check("four segments");
    Case::new(shape(4, 2, 12, true), &[]).check("no segment");
    // Without a key, the output is zero.
    Case::new(shape(4, 2, 12, false), &few_keys()).check("more queries than keys");
}

#[test]
fn lets_segments_share_keys_in_the_forward_pass_only() {
    let segments = sharing_segments();
    let case = Case::new(shape(4, 2, 8, true), &segments);
    let [out, lse] = case.forward();
    assert_close("out", &out, &case.reference().0, FORWARD);
    let mut grads = [&case.q, &case.k, &case.v].map(|x| vec![0.0; x.len()]);
    let [dq, dk, dv] = &mut grads;
    assert_eq!(
        attention_backward(
            case.saved(&out, &lse),
            case.shape,
            &segments,
            None,
            dq,
            dk,
            dv
        ),
        Err(KernelError::SegmentOverlap {
            first: 0,
            second: 2,
            what: "key",
            position: 2
        })
    );
}

/// The formulas of the backward pass themselves, against differences of the forward definition.
#[test]
fn gradients_are_central_differences() {
    let segments = [segment((0, 5), (0, 7)), segment((5, 3), (7, 3))];
    for causal in [true, false] {
        let case = Case::new(shape(4, 2, 6, causal), &segments);
        let [q, k, v, dout] = [&case.q, &case.k, &case.v, &case.dout].map(|x| wide(x));
        let loss = |q: &[f64], k: &[f64], v: &[f64]| {
            super::reference::dot(
                &dout,
                &reference::attention(q, k, v, &case.shape, &segments).0,
            )
        };
        let [dq, dk, dv] = case.backward();
        assert_close(
            "dq",
            &dq,
            &super::reference::gradient(&q, |q| loss(q, &k, &v)),
            BACKWARD,
        );
        assert_close(
            "dk",
            &dk,
            &super::reference::gradient(&k, |k| loss(&q, k, &v)),
            BACKWARD,
        );
        assert_close(
            "dv",
            &dv,
            &super::reference::gradient(&v, |v| loss(&q, &k, v)),
            BACKWARD,
        );
    }
}

proptest! {
    #![proptest_config(cases(24))]
    #[test]
    fn agrees_with_the_definition(
        segments in any_segments(), n_kv in 1_usize..4, n_rep in 1_usize..5,
        head_dim in 1_usize..40, causal: bool,
    ) {
        Case::new(shape(n_kv * n_rep, n_kv, head_dim, causal), &segments).check("any");
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for segments in [
        vec![Segment::document(0, 700)],
        vec![Segment::document(0, 100), Segment::document(100, 150)],
        vec![decode(1300)],
    ] {
        let case = Case::new(shape(6, 2, 16, true), &segments);
        assert_threads_agree(&format!("{segments:?}"), || {
            let mut all = case.forward().to_vec();
            all.extend(case.backward());
            all
        });
    }
}

#[test]
fn nan_and_infinity_stay_in_their_query_and_head() {
    let d = 8;
    let mut case = Case::new(shape(2, 1, d, true), &[Segment::document(0, 10)]);
    // Head 0 of token 4; scores that are great, but not infinite, in token 5.
    case.q[8 * d] = f32::NAN;
    case.q[10 * d..11 * d].fill(1e18);
    // All scores of head 1 of token 6 are minus infinity.
    case.k
        .iter_mut()
        .step_by(d)
        .for_each(|k| *k = k.abs() + 0.1);
    case.q[13 * d] = f32::NEG_INFINITY;
    for token in tokens() {
        let [out, lse] = case.forward();
        for (row, out) in out.chunks_exact(d).enumerate() {
            let what = format!("{} row {row}", token.isa());
            if [8, 13].contains(&row) {
                assert!(out.iter().all(|x| x.is_nan()), "{what}");
            } else {
                assert!(out.iter().all(|x| x.is_finite()), "{what}");
            }
        }
        assert!(lse[8].is_nan() && !lse[13].is_finite());
        // A token of no segment.
        assert_eq!(lse[20..], [f32::NEG_INFINITY; 2]);
    }
}

#[test]
fn refuses_what_does_not_fit() {
    let case = Case::new(shape(4, 2, 8, true), &[Segment::document(0, 10)]);
    let run = |shape: AttentionShape, segments: &[Segment], lse: usize| {
        let (mut out, mut lse) = (vec![0.0; case.q.len()], vec![0.0; lse]);
        attention_forward(
            &case.q, &case.k, &case.v, shape, segments, None, &mut out, &mut lse,
        )
    };
    let good = case.shape;
    assert_eq!(run(good, &case.segments, 44), Ok(()));
    assert_refused("lse", run(good, &case.segments, 43));
    let uneven = AttentionShape { n_heads: 3, ..good };
    assert!(matches!(
        run(uneven, &[], 33),
        Err(KernelError::Heads {
            n_heads: 3,
            n_kv_heads: 2
        })
    ));
    let none = AttentionShape {
        head_dim: 0,
        ..good
    };
    assert_eq!(
        run(none, &[], 0),
        Err(KernelError::Zero { name: "head_dim" })
    );
    let far = Segment::document(5, 7);
    assert!(matches!(
        run(good, &[far], 44),
        Err(KernelError::SegmentBounds { q_end: 12, .. })
    ));
    let huge = Segment::document(usize::MAX, usize::MAX);
    assert!(matches!(
        run(good, &[huge], 44),
        Err(KernelError::SegmentBounds { .. })
    ));
    let blind = segment((0, 3), (0, 2));
    assert!(matches!(
        run(good, &[blind], 44),
        Err(KernelError::SegmentLengths { .. })
    ));
    let overlap = [Segment::document(4, 4), Segment::document(0, 5)];
    assert_eq!(
        run(good, &overlap, 44),
        Err(KernelError::SegmentOverlap {
            first: 1,
            second: 0,
            what: "query",
            position: 4
        })
    );
}
