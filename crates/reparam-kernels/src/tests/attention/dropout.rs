//! Dropout of the probabilities, against the definition with a factor for each of them.

use super::reference::{attention_with, gradients_with};
use super::*;
use crate::attention::AttentionDropout;

const FACTOR: f32 = 1.25;

/// Bits of which about four in five are set, for segments in the order of their queries.
fn bits(shape: &AttentionShape, sorted: &[Segment]) -> Vec<u64> {
    let len = AttentionDropout::len(shape, sorted);
    let mut kept = vec![0; len.div_ceil(64)];
    for (bit, number) in numbers(5, len).into_iter().enumerate() {
        // The numbers are uniform between minus one and one.
        if number > -0.6 {
            kept[bit / 64] |= 1 << (bit % 64);
        }
    }
    kept
}

fn check(shape: AttentionShape, segments: &[Segment], what: &str) {
    let case = Case::new(shape, segments);
    let mut sorted = segments.to_vec();
    sorted.retain(|s| s.q_len > 0 && s.k_len > 0);
    sorted.sort_by_key(|s| s.q_start);
    let kept = bits(&shape, &sorted);
    let dropout = AttentionDropout {
        kept: &kept,
        factor: FACTOR,
    };
    let factor = |segment: &Segment, [head, i, j]: [usize; 3]| {
        let at = sorted.iter().position(|other| other == segment).unwrap();
        let start = AttentionDropout::len(&shape, &sorted[..at]);
        let bit = start + (head * segment.q_len + i) * segment.k_len + j;
        if kept[bit / 64] & (1 << (bit % 64)) == 0 {
            0.0
        } else {
            f64::from(FACTOR)
        }
    };
    let [q, k, v, dout] = [&case.q, &case.k, &case.v, &case.dout].map(|x| wide(x));
    let (expected, _) = attention_with([&q, &k, &v], &shape, &sorted, &factor);
    let gradients = gradients_with([&q, &k, &v, &dout], &shape, &sorted, &factor);
    for token in tokens() {
        let what = format!("{what} {}", token.isa());
        let mut out = vec![f32::NAN; q.len()];
        let mut lse = vec![f32::NAN; q.len() / shape.head_dim];
        let Case { q, k, v, .. } = &case;
        attention_forward(q, k, v, shape, segments, Some(dropout), &mut out, &mut lse).unwrap();
        assert_close(&format!("{what} out"), &out, &expected, FORWARD);
        let mut found = [q, k, v].map(|x| vec![f32::NAN; x.len()]);
        let saved = case.saved(&out, &lse);
        let [dq, dk, dv] = &mut found;
        attention_backward(saved, shape, segments, Some(dropout), dq, dk, dv).unwrap();
        for (found, (expected, name)) in found.iter().zip(gradients.iter().zip(["dq", "dk", "dv"]))
        {
            assert_close(&format!("{what} {name}"), found, expected, BACKWARD);
        }
    }
}

#[test]
fn agrees_with_the_definition() {
    for causal in [false, true] {
        let heads = shape(4, 2, 12, causal);
        check(
            heads,
            &[Segment::document(0, 37), Segment::document(38, 21)],
            "two documents",
        );
        // One query alone, and segments in another order than their queries.
        check(
            heads,
            &[Segment::document(30, 1), Segment::document(0, 29)],
            "one token",
        );
        // Several blocks of queries and of keys.
        check(
            shape(9, 1, 8, causal),
            &[Segment::document(0, 150)],
            "blocks",
        );
        let window = AttentionShape {
            window: Some(5),
            soft_cap: Some(2.0),
            ..heads
        };
        check(window, &[Segment::document(0, 30)], "window");
    }
}

/// The formulas of the backward pass themselves, against differences of the forward definition.
#[test]
fn gradients_are_central_differences() {
    let segments = [Segment::document(0, 5), Segment::document(5, 3)];
    let shape = shape(4, 2, 6, false);
    let case = Case::new(shape, &segments);
    let factor = |_: &Segment, [head, i, j]: [usize; 3]| {
        if (head + i * j) % 3 == 0 { 0.0 } else { 1.5 }
    };
    let [q, k, v, dout] = [&case.q, &case.k, &case.v, &case.dout].map(|x| wide(x));
    let loss = |q: &[f64], k: &[f64], v: &[f64]| {
        let (out, _) = attention_with([q, k, v], &shape, &segments, &factor);
        crate::tests::reference::dot(&dout, &out)
    };
    let found = gradients_with([&q, &k, &v, &dout], &shape, &segments, &factor);
    let differences = [
        crate::tests::reference::gradient(&q, |q| loss(q, &k, &v)),
        crate::tests::reference::gradient(&k, |k| loss(&q, k, &v)),
        crate::tests::reference::gradient(&v, |v| loss(&q, &k, v)),
    ];
    for (found, expected) in found.iter().zip(&differences) {
        let found: Vec<f32> = found.iter().map(|x| *x as f32).collect();
        assert_close("gradient", &found, expected, BACKWARD);
    }
}

#[test]
fn a_bit_too_few_is_refused() {
    let case = Case::new(shape(4, 2, 8, true), &[Segment::document(0, 10)]);
    let mut out = vec![0.0; case.q.len()];
    let mut lse = vec![0.0; case.q.len() / 8];
    let dropout = AttentionDropout {
        kept: &[0; 6],
        factor: FACTOR,
    };
    let Case {
        q, k, v, segments, ..
    } = &case;
    let refused = attention_forward(
        q,
        k,
        v,
        case.shape,
        segments,
        Some(dropout),
        &mut out,
        &mut lse,
    );
    // Four heads with a hundred pairs each are 400 bits.
    let error = KernelError::Length {
        name: "kept",
        expected: 7,
        found: 6,
    };
    assert_eq!(refused, Err(error));
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let shape = shape(6, 2, 16, false);
    let case = Case::new(
        shape,
        &[Segment::document(0, 300), Segment::document(300, 60)],
    );
    let kept = bits(&shape, &case.segments);
    let dropout = Some(AttentionDropout {
        kept: &kept,
        factor: FACTOR,
    });
    assert_threads_agree("dropout", || {
        let mut out = vec![0.0; case.q.len()];
        let mut lse = vec![0.0; case.q.len() / 16];
        let Case {
            q, k, v, segments, ..
        } = &case;
        attention_forward(q, k, v, shape, segments, dropout, &mut out, &mut lse).unwrap();
        let mut all = [q, k, v].map(|x| vec![0.0; x.len()]);
        let [dq, dk, dv] = &mut all;
        let saved = case.saved(&out, &lse);
        attention_backward(saved, shape, segments, dropout, dq, dk, dv).unwrap();
        let mut all = all.to_vec();
        all.push(out);
        all
    });
}
