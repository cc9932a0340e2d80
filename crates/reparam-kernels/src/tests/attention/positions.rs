//! Attention whose scores are of content and position.

use super::super::{assert_close, assert_threads_agree, numbers, reference, tokens, wide};
use super::bias::{Pair, definition};
use super::segments::{mixed_segments, segment};
use super::{BACKWARD, Case, FORWARD, shape};
use crate::KernelError;
use crate::attention::{
    AttentionPositions, AttentionShape, AttentionTerms, Segment, TermGradients,
    attention_backward_with, attention_forward_with,
};

/// The [`definition`] with positions, and their gradients too; those of which there are none are empty.
fn positioned(
    [q, k, v, keys, queries, dout]: [&[f64]; 6],
    shape: &AttentionShape,
    segments: &[Segment],
) -> (Vec<f64>, [Vec<f64>; 5]) {
    let (d, scale) = (shape.head_dim, f64::from(shape.scale));
    let width = shape.n_heads * d;
    let vector = |of: &[f64], pair: Pair| {
        let reach = (of.len() / width - 1) / 2;
        reach.wrapping_add_signed(pair.distance) * width + pair.head * d
    };
    let product = |of: &[f64], pair: Pair, x: &[f64]| match of {
        [] => 0.0,
        of => scale * reference::dot(&of[vector(of, pair)..][..d], x),
    };
    let mut gradients = [q, k, keys, queries].map(|x| vec![0.0; x.len()]);
    let (out, [dq, dk, dv]) = definition(
        [q, k, v, dout],
        shape,
        segments,
        |pair| product(keys, pair, &q[pair.q..][..d]) + product(queries, pair, &k[pair.k..][..d]),
        |pair, ds| {
            let [dq, dk, dkeys, dqueries] = &mut gradients;
            for (of, x, at, dx, dof) in [
                (keys, q, pair.q, dq, dkeys),
                (queries, k, pair.k, dk, dqueries),
            ] {
                if of.is_empty() {
                    continue;
                }
                for e in 0..d {
                    let place = vector(of, pair) + e;
                    dx[at + e] += scale * ds * of[place];
                    dof[place] += scale * ds * x[at + e];
                }
            }
        },
    );
    let [more_q, more_k, dkeys, dqueries] = gradients;
    let sum =
        |a: Vec<f64>, b: Vec<f64>| -> Vec<f64> { a.iter().zip(&b).map(|(a, b)| a + b).collect() };
    (out, [sum(dq, more_q), sum(dk, more_k), dv, dkeys, dqueries])
}

/// A case with positions that reach `beyond` further than they have to; those of which there are none are empty.
struct Positioned {
    case: Case,
    keys: Vec<f32>,
    queries: Vec<f32>,
    reach: usize,
}

impl Positioned {
    fn new(
        shape: AttentionShape,
        segments: &[Segment],
        beyond: usize,
        [keys, queries]: [bool; 2],
    ) -> Self {
        let longest = segments.iter().map(|segment| segment.k_len).max();
        let reach = longest.unwrap() - 1 + beyond;
        let len = (2 * reach + 1) * shape.n_heads * shape.head_dim;
        let some = |is_there: bool, seed| numbers(seed, if is_there { len } else { 0 });
        Self {
            case: Case::new(shape, segments),
            keys: some(keys, 5),
            queries: some(queries, 6),
            reach,
        }
    }

    fn terms(&self) -> AttentionTerms<'_> {
        fn some(of: &[f32]) -> Option<&[f32]> {
            (!of.is_empty()).then_some(of)
        }
        let positions = AttentionPositions {
            keys: some(&self.keys),
            queries: some(&self.queries),
            reach: self.reach,
        };
        AttentionTerms {
            bias: None,
            positions: Some(positions),
        }
    }

    /// The output and the gradients, of the positions only those that are wanted.
    fn run(&self, wanted: [bool; 2]) -> (Vec<f32>, [Vec<f32>; 5]) {
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
        let inputs = [q, k, v, &self.keys, &self.queries];
        let mut gradients = inputs.map(|x| vec![f32::NAN; x.len()]);
        let [dq, dk, dv, dkeys, dqueries] = &mut gradients;
        let dterms = TermGradients {
            bias: None,
            keys: wanted[0].then_some(dkeys),
            queries: wanted[1].then_some(dqueries),
        };
        let saved = self.case.saved(&out, &lse);
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
        let inputs = [q, k, v, &self.keys, &self.queries, dout].map(|x| wide(x));
        let inputs = inputs.each_ref().map(Vec::as_slice);
        let (expected, gradients) = positioned(inputs, shape, segments);
        for token in tokens() {
            let what = format!("{what} {}", token.isa());
            let (out, found) = self.run([true; 2]);
            assert_close(&format!("{what} out"), &out, &expected, FORWARD);
            let names = ["dq", "dk", "dv", "dkeys", "dqueries"];
            for (name, (found, expected)) in names.iter().zip(found.iter().zip(&gradients)) {
                assert_close(&format!("{what} {name}"), found, expected, BACKWARD);
            }
        }
    }
}

#[test]
fn agrees_with_the_definition() {
    let two = [Segment::document(0, 37), Segment::document(38, 21)];
    for (kinds, name) in [
        ([true, true], "both"),
        ([true, false], "keys"),
        ([false, true], "queries"),
    ] {
        let check = |shape, segments: &[Segment], beyond, what: &str| {
            Positioned::new(shape, segments, beyond, kinds).check(&format!("{name} {what}"));
        };
        for causal in [false, true] {
            let heads = shape(2, 2, 12, causal);
            check(heads, &two, 0, "two documents");
            check(heads, &two, 9, "further than they have to");
            check(shape(3, 3, 8, causal), &mixed_segments(), 0, "past keys");
        }
        // Several blocks of queries and of keys, and several ranges of keys.
        check(
            shape(2, 2, 8, false),
            &[Segment::document(1, 300)],
            0,
            "blocks",
        );
        check(
            shape(1, 1, 4, true),
            &[Segment::document(0, 700)],
            0,
            "ranges",
        );
        let other = AttentionShape {
            window: Some(5),
            soft_cap: Some(2.0),
            ..shape(2, 2, 6, false)
        };
        check(other, &[Segment::document(0, 30)], 1, "window");
    }
}

/// The formulas of the backward pass themselves, against differences of the forward definition.
#[test]
fn gradients_are_central_differences() {
    let segments = [segment((0, 3), (0, 5)), Segment::document(5, 3)];
    let shape = shape(2, 2, 5, false);
    let case = Positioned::new(shape, &segments, 1, [true; 2]);
    let Case { q, k, v, dout, .. } = &case.case;
    let inputs = [q, k, v, &case.keys, &case.queries].map(|x| wide(x));
    let dout = wide(dout);
    let all = |[q, k, v, keys, queries]: [&[f64]; 5]| {
        positioned([q, k, v, keys, queries, &dout], &shape, &segments)
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
fn gradients_that_nobody_wants_change_no_others() {
    let document = [Segment::document(0, 40)];
    let case = Positioned::new(shape(2, 2, 8, false), &document, 0, [true; 2]);
    let (_, all) = case.run([true; 2]);
    let (_, found) = case.run([false, true]);
    assert!(found[3].iter().all(|x| x.is_nan()), "it was not asked for");
    for place in [0, 1, 2, 4] {
        assert_eq!(found[place], all[place], "{place}");
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let document = [Segment::document(0, 500)];
    let case = Positioned::new(shape(2, 2, 16, false), &document, 0, [true; 2]);
    assert_threads_agree("positions", || {
        let (out, gradients) = case.run([true; 2]);
        std::iter::once(out).chain(gradients).collect()
    });
}

#[test]
fn refuses_positions_that_do_not_fit() {
    let nine = [Segment::document(0, 9)];
    let try_with = |shape: AttentionShape, segments: &[Segment], len: usize, reach: usize| {
        let Case { q, k, v, .. } = Case::new(shape, &nine);
        let values = vec![0.0; len];
        let positions = AttentionPositions {
            keys: None,
            queries: Some(&values),
            reach,
        };
        let terms = AttentionTerms {
            bias: None,
            positions: Some(positions),
        };
        let (mut out, mut lse) = (vec![0.0; q.len()], vec![0.0; q.len() / 4]);
        attention_forward_with(&q, &k, &v, terms, shape, segments, None, &mut out, &mut lse)
    };
    let heads = shape(2, 2, 4, false);
    assert_eq!(try_with(heads, &nine, 8 * 17, 8), Ok(()));
    for (len, reach) in [(8 * 17 + 1, 8), (8 * 15, 7), (0, 8)] {
        let refused = try_with(heads, &nine, len, reach);
        assert!(matches!(refused, Err(KernelError::Length { .. })), "{len}");
    }
    let endless = try_with(heads, &nine, 0, usize::MAX);
    assert!(matches!(endless, Err(KernelError::Overflow { .. })));
    let more_queries = try_with(heads, &[segment((0, 5), (0, 4))], 8 * 17, 8);
    assert!(matches!(
        more_queries,
        Err(KernelError::SegmentLengths { .. })
    ));
    let shared = try_with(shape(2, 1, 4, false), &nine, 8 * 17, 8);
    assert!(matches!(shared, Err(KernelError::Heads { .. })));
}
