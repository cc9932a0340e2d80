//! Windows and soft caps over `f32`, and the reference itself.

use proptest::prelude::*;

use super::segments::{any_segments, decode, mixed_segments, segment};
use super::{BACKWARD, Case, assert_close, reference, shape};
use crate::KernelError;
use crate::attention::{AttentionShape, Segment, attention_forward};
use crate::tests::{cases, numbers, wide};

/// Shapes with every kind of mask.
pub(super) fn masked_shapes(shape: AttentionShape) -> Vec<AttentionShape> {
    let mut shapes = Vec::new();
    for causal in [true, false] {
        for window in [
            None,
            Some(1),
            Some(2),
            Some(17),
            Some(130),
            Some(usize::MAX),
        ] {
            for soft_cap in [None, Some(2.5)] {
                shapes.push(AttentionShape {
                    causal,
                    window,
                    soft_cap,
                    ..shape
                });
            }
        }
    }
    shapes
}

#[test]
fn windows_and_soft_caps_agree_with_the_definition() {
    for shape in masked_shapes(shape(4, 2, 12, true)) {
        Case::new(shape, &mixed_segments()).check(&format!("{shape:?}"));
    }
}

#[test]
fn long_decoding_agrees_with_the_definition() {
    for window in [None, Some(600)] {
        for soft_cap in [None, Some(3.0)] {
            let shape = AttentionShape {
                window,
                soft_cap,
                ..shape(6, 2, 16, true)
            };
            Case::new(shape, &[decode(1300)]).check(&format!("{shape:?}"));
        }
    }
}

/// The formulas of the backward pass themselves, in `f64`: every mask, against central differences.
#[test]
fn gradients_of_the_reference_are_central_differences() {
    let segments = [segment((0, 5), (0, 7)), segment((5, 3), (7, 3))];
    for causal in [true, false] {
        for window in [None, Some(3)] {
            for soft_cap in [None, Some(1.5)] {
                let shape = AttentionShape {
                    window,
                    soft_cap,
                    ..shape(4, 2, 3, causal)
                };
                let [q, dout] = [1, 4].map(|seed| wide(&numbers(seed, 8 * 12)));
                let [k, v] = [2, 3].map(|seed| wide(&numbers(seed, 10 * 6)));
                let loss = |q: &[f64], k: &[f64], v: &[f64]| {
                    let (out, _) = reference::attention(q, k, v, &shape, &segments);
                    crate::tests::reference::dot(&dout, &out)
                };
                let gradients = reference::gradients([&q, &k, &v, &dout], &shape, &segments);
                let expected = [
                    crate::tests::reference::gradient(&q, |q| loss(q, &k, &v)),
                    crate::tests::reference::gradient(&k, |k| loss(&q, k, &v)),
                    crate::tests::reference::gradient(&v, |v| loss(&q, &k, v)),
                ];
                for (actual, expected) in gradients.iter().zip(&expected) {
                    for (actual, expected) in actual.iter().zip(expected) {
                        assert!((actual - expected).abs() < 1e-8, "{shape:?}");
                    }
                }
                // And the kernel agrees with them.
                let case = Case::new(shape, &segments);
                for (actual, expected) in case.backward().iter().zip(case.reference_gradients()) {
                    assert_close("gradient", actual, &expected, BACKWARD);
                }
            }
        }
    }
}

/// Keys that no query sees have a gradient of zero, whatever lies in them.
#[test]
fn what_lies_outside_of_the_window_changes_nothing() {
    let shape = AttentionShape {
        window: Some(4),
        ..shape(2, 1, 8, true)
    };
    let segment = segment((0, 20), (0, 900));
    let mut case = Case::new(shape, &[segment]);
    let expected = (case.forward(), case.backward());
    assert!(expected.1[1][..870 * 8].iter().all(|dk| *dk == 0.0));
    case.k[..700 * 8].fill(1e30);
    case.v[..700 * 8].fill(f32::NAN);
    assert_eq!((case.forward(), case.backward()), expected);
}

#[test]
fn refuses_masks_that_do_not_make_sense() {
    let run = |shape: AttentionShape, segment: Segment| {
        let n = 16;
        attention_forward(
            &vec![0.0; n * shape.q_width()],
            &vec![0.0; n * shape.kv_width()],
            &vec![0.0; n * shape.kv_width()],
            shape,
            &[segment],
            None,
            &mut vec![0.0; n * shape.q_width()],
            &mut vec![0.0; n * shape.n_heads],
        )
    };
    let good = shape(2, 1, 4, false);
    let document = Segment::document(0, 16);
    let window = |window| AttentionShape { window, ..good };
    assert_eq!(run(window(Some(16)), document), Ok(()));
    assert_eq!(
        run(window(Some(0)), document),
        Err(KernelError::Zero { name: "window" })
    );
    for cap in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let capped = AttentionShape {
            soft_cap: Some(cap),
            ..good
        };
        assert_eq!(
            run(capped, document),
            Err(KernelError::NotPositive { name: "soft_cap" })
        );
    }
    let more_queries = Segment {
        k_len: 9,
        ..document
    };
    assert_eq!(run(good, more_queries), Ok(()));
    assert_eq!(
        run(window(Some(3)), more_queries),
        Err(KernelError::SegmentLengths {
            index: 0,
            q_len: 16,
            k_len: 9
        })
    );
}

proptest! {
    #![proptest_config(cases(24))]
    #[test]
    fn any_mask_agrees_with_the_definition(
        segments in any_segments(), n_kv in 1_usize..3, n_rep in 1_usize..4,
        head_dim in 1_usize..20, causal: bool, window in prop::option::of(1_usize..60),
        soft_cap in prop::option::of(0.5_f32..20.0),
    ) {
        let shape = AttentionShape {
            window,
            soft_cap,
            ..shape(n_kv * n_rep, n_kv, head_dim, causal)
        };
        Case::new(shape, &segments).check("any");
    }

    /// What a query sees follows from its position and the key's alone, and so does who sees a key.
    #[test]
    fn visible_keys_and_seeing_queries_are_one_relation(
        q_len in 1_usize..30, past in 0_usize..30, causal: bool,
        window in prop::option::of(1_usize..40), start in 0_usize..60, len in 1_usize..60,
    ) {
        let shape = AttentionShape { window, ..shape(1, 1, 1, causal) };
        let segment = Segment { q_start: 0, q_len, k_start: 0, k_len: q_len + past };
        let sees = |i: usize, j: usize| {
            let distance = (past + i) as i64 - j as i64;
            let window = window.map_or(i64::MAX, |window| window as i64);
            distance < window && if causal { distance >= 0 } else { distance > -window }
        };
        for i in 0..q_len {
            let visible = shape.visible(&segment, i);
            for j in 0..segment.k_len {
                prop_assert_eq!(visible.contains(&j), sees(i, j));
            }
        }
        let start = start.min(segment.k_len - 1);
        let keys = start..segment.k_len.min(start + len);
        let seeing = shape.seeing(&segment, &keys);
        for i in 0..q_len {
            prop_assert_eq!(seeing.contains(&i), keys.clone().any(|j| sees(i, j)));
        }
    }
}
