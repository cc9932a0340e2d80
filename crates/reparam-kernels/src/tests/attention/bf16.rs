//! Attention over bf16 rows.

use proptest::prelude::*;

use super::masks::masked_shapes;
use super::segments::{
    any_segments, decode, few_keys, mixed_segments, scattered_segments, segment, sharing_segments,
};
use super::{assert_refused, reference, shape};
use crate::attention::{
    AttentionSavedBf16, AttentionShape, QkvGradient, Rows, Segment, attention_backward_bf16,
    attention_forward_bf16,
};
use crate::tests::{assert_close, assert_threads_agree, cases, numbers, tokens};
use crate::{Bf16, KernelError};

/// Probabilities rounded to bf16 and one rounding of the output, each 2^-8.
const FORWARD: f64 = 8e-3;

/// Sums in `f32`.
const LSE: f64 = 1e-5;

/// Factors and results rounded to bf16, with cancellation in `dp - delta`, where `out` is rounded too.
const BACKWARD: f64 = 2e-2;

struct Case {
    shape: AttentionShape,
    segments: Vec<Segment>,
    n_queries: usize,
    n_keys: usize,
    /// `[N, q | k | v]`
    qkv: Vec<Bf16>,
    dout: Vec<Bf16>,
}

fn rounded(x: &[f32]) -> Vec<Bf16> {
    x.iter().map(|x| Bf16::from_f32(*x)).collect()
}

fn floats(x: &[Bf16]) -> Vec<f32> {
    x.iter().map(|x| x.to_f32()).collect()
}

/// The columns `at..at + width` of `n` rows.
fn columns(x: &[Bf16], n: usize, stride: usize, at: usize, width: usize) -> Vec<f64> {
    (0..n)
        .flat_map(|i| x[i * stride + at..][..width].iter())
        .map(|x| f64::from(x.to_f32()))
        .collect()
}

impl Case {
    fn new(shape: AttentionShape, segments: &[Segment]) -> Self {
        let end = |f: fn(&Segment) -> usize| segments.iter().map(f).max().unwrap_or(0);
        // A token beyond all segments, too.
        let n_queries = end(|s| s.q_start + s.q_len) + 1;
        let n_keys = end(|s| s.k_start + s.k_len) + 1;
        let n = n_queries.max(n_keys);
        let stride = shape.q_width() + 2 * shape.kv_width() + 3;
        let mut qkv = numbers(1, n * stride);
        for row in qkv.chunks_exact_mut(stride) {
            // Scores of size three, so that the softmax is far from flat.
            row[..shape.q_width()].iter_mut().for_each(|q| *q *= 3.0);
        }
        Self {
            shape,
            segments: segments.to_vec(),
            n_queries,
            n_keys,
            qkv: rounded(&qkv),
            dout: rounded(&numbers(4, n_queries * shape.q_width())),
        }
    }

    fn stride(&self) -> usize {
        self.shape.q_width() + 2 * self.shape.kv_width() + 3
    }

    /// First columns of queries, keys and values.
    fn starts(&self) -> [usize; 3] {
        let (q, kv) = (self.shape.q_width(), self.shape.kv_width());
        [0, q + 1, q + kv + 3]
    }

    fn rows(&self) -> [Rows<'_>; 3] {
        let (q, kv) = (self.shape.q_width(), self.shape.kv_width());
        let stride = self.stride();
        let ends = [
            (self.n_queries - 1) * stride + q,
            (self.n_keys - 1) * stride + kv,
            (self.n_keys - 1) * stride + kv,
        ];
        std::array::from_fn(|i| Rows {
            values: &self.qkv[self.starts()[i]..][..ends[i]],
            row_stride: stride,
        })
    }

    fn forward(&self) -> (Vec<Bf16>, Vec<f32>) {
        let [q, k, v] = self.rows();
        let nan = Bf16::from_f32(f32::NAN);
        let mut out = vec![nan; self.n_queries * self.shape.q_width()];
        let mut lse = vec![f32::NAN; self.n_queries * self.shape.n_heads];
        attention_forward_bf16(q, k, v, self.shape, &self.segments, &mut out, &mut lse).unwrap();
        (out, lse)
    }

    /// The buffer of the gradients, whose other columns hold 7.
    fn backward(&self, out: &[Bf16], lse: &[f32]) -> Vec<Bf16> {
        self.try_backward_into(out, lse, |_| ()).unwrap()
    }

    fn try_backward(
        &self,
        out: &[Bf16],
        lse: &[f32],
        change: impl Fn(&mut QkvGradient<'_>),
    ) -> Result<(), KernelError> {
        self.try_backward_into(out, lse, change).map(|_| ())
    }

    fn try_backward_into(
        &self,
        out: &[Bf16],
        lse: &[f32],
        change: impl Fn(&mut QkvGradient<'_>),
    ) -> Result<Vec<Bf16>, KernelError> {
        let [q, k, v] = self.rows();
        let mut values = vec![Bf16::from_f32(7.0); self.qkv.len()];
        let saved = AttentionSavedBf16 {
            q,
            k,
            v,
            out,
            lse,
            dout: &self.dout,
        };
        let [q_at, k_at, v_at] = self.starts();
        let mut gradient = QkvGradient {
            values: &mut values,
            row_stride: self.stride(),
            q_at,
            k_at,
            v_at,
        };
        change(&mut gradient);
        attention_backward_bf16(saved, self.shape, &self.segments, gradient)?;
        Ok(values)
    }

    fn wide(&self) -> [Vec<f64>; 4] {
        let (q, kv) = (self.shape.q_width(), self.shape.kv_width());
        let [q_at, k_at, v_at] = self.starts();
        let stride = self.stride();
        [
            columns(&self.qkv, self.n_queries, stride, q_at, q),
            columns(&self.qkv, self.n_keys, stride, k_at, kv),
            columns(&self.qkv, self.n_keys, stride, v_at, kv),
            columns(&self.dout, self.n_queries, q, 0, q),
        ]
    }

    #[track_caller]
    fn check(&self, what: &str) {
        let [q, k, v, dout] = self.wide();
        let (out, lse) = reference::attention(&q, &k, &v, &self.shape, &self.segments);
        let gradients = reference::gradients([&q, &k, &v, &dout], &self.shape, &self.segments);
        for token in tokens() {
            let what = format!("{what} {}", token.isa());
            let (actual, actual_lse) = self.forward();
            assert_close(&format!("{what} out"), &floats(&actual), &out, FORWARD);
            let pick = |x: &[f64]| -> Vec<f64> { x.iter().map(|x| x.max(-1e3)).collect() };
            let actual_finite: Vec<f32> = actual_lse.iter().map(|x| x.max(-1e3)).collect();
            let magnitude =
                lse.iter().fold(
                    1.0_f64,
                    |max, x| if x.is_finite() { max.max(x.abs()) } else { max },
                );
            for (actual, expected) in actual_finite.iter().zip(pick(&lse)) {
                assert!(
                    (f64::from(*actual) - expected).abs() <= LSE * magnitude,
                    "{what} lse"
                );
            }

            let values = self.backward(&actual, &actual_lse);
            let widths = [
                self.shape.q_width(),
                self.shape.kv_width(),
                self.shape.kv_width(),
            ];
            let rows = [self.n_queries, self.n_keys, self.n_keys];
            let mut seven = values.clone();
            for i in 0..3 {
                let (at, width, stride) = (self.starts()[i], widths[i], self.stride());
                let actual: Vec<f32> = columns(&values, rows[i], stride, at, width)
                    .into_iter()
                    .map(|x| x as f32)
                    .collect();
                assert_close(
                    &format!("{what} gradient {i}"),
                    &actual,
                    &gradients[i],
                    BACKWARD,
                );
                for row in 0..rows[i] {
                    seven[row * stride + at..][..width].fill(Bf16::from_f32(7.0));
                }
            }
            assert!(
                seven.iter().all(|x| x.to_f32() == 7.0),
                "{what}: other columns"
            );
        }
    }
}

#[test]
fn agrees_with_the_definition_for_heads_of_all_kinds() {
    for head_dim in [1, 8, 12, 15, 16, 64, 80, 128, 256] {
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
    // Panels of 16 keys, blocks of 256 keys and of 96 rows, tasks of up to 768 rows.
    for len in [
        1, 2, 15, 16, 17, 31, 32, 33, 127, 128, 129, 200, 255, 256, 257, 600,
    ] {
        for causal in [true, false] {
            Case::new(shape(3, 1, 8, causal), &[Segment::document(0, len)])
                .check(&format!("{len}, {causal}"));
        }
    }
    Case::new(shape(1, 1, 4, true), &[Segment::document(0, 1100)]).check("four ranges of keys");
}

#[test]
fn many_heads_of_one_key_head() {
    Case::new(shape(40, 1, 8, true), &[Segment::document(0, 50)]).check("40 heads");
    Case::new(shape(34, 2, 8, false), &[Segment::document(0, 3)]).check("17 heads");
}

#[test]
fn windows_and_soft_caps_agree_with_the_definition() {
    for shape in masked_shapes(shape(4, 2, 12, true)) {
        Case::new(shape, &mixed_segments()).check(&format!("{shape:?}"));
    }
    for window in [1, 16, 100, 256, 400] {
        for causal in [true, false] {
            let shape = AttentionShape {
                window: Some(window),
                ..shape(3, 1, 16, causal)
            };
            Case::new(shape, &[Segment::document(1, 600)]).check(&format!("{shape:?}"));
        }
    }
}

#[test]
fn scales_of_any_sign_agree_with_the_definition() {
    for scale in [-0.3, 0.0, 1.0] {
        for soft_cap in [None, Some(4.0)] {
            let shape = AttentionShape {
                scale,
                soft_cap,
                ..shape(2, 1, 8, true)
            };
            Case::new(shape, &[Segment::document(0, 40)]).check(&format!("{shape:?}"));
        }
    }
}

#[test]
fn queries_fewer_than_keys_agree_with_the_definition() {
    for (q_len, k_len) in [
        (1, 1),
        (1, 5),
        (1, 700),
        (1, 1300),
        (3, 1100),
        (8, 513),
        (30, 400),
    ] {
        for causal in [true, false] {
            for window in [None, Some(600)] {
                let segment = segment((2, q_len), (3, k_len));
                let shape = AttentionShape {
                    window,
                    ..shape(6, 2, 16, causal)
                };
                Case::new(shape, &[segment]).check(&format!("{q_len} of {k_len}, {shape:?}"));
            }
        }
    }
}

/// Several blocks of keys in one task, the later ones seen from a row on that begins no tile.
#[test]
fn blocks_of_rows_may_begin_anywhere() {
    for (q_len, k_len) in [(320, 435), (317, 520)] {
        let segment = segment((0, q_len), (0, k_len));
        Case::new(shape(24, 8, 4, true), &[segment]).check(&format!("{q_len} of {k_len}"));
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
fn segments_share_keys_in_the_forward_pass_only() {
    let segments = sharing_segments();
    let case = Case::new(shape(4, 2, 8, true), &segments);
    let [q, k, v, _] = case.wide();
    let (expected, _) = reference::attention(&q, &k, &v, &case.shape, &segments);
    for _ in tokens() {
        let (out, lse) = case.forward();
        assert_close("shared keys", &floats(&out), &expected, FORWARD);
        assert_eq!(
            case.try_backward(&out, &lse, |_| ()),
            Err(KernelError::SegmentOverlap {
                first: 0,
                second: 2,
                what: "key",
                position: 2
            })
        );
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for segments in [
        vec![Segment::document(0, 1100)],
        vec![Segment::document(0, 100), Segment::document(100, 350)],
        vec![decode(1300)],
    ] {
        for window in [None, Some(300)] {
            let shape = AttentionShape {
                window,
                ..shape(6, 2, 16, true)
            };
            let case = Case::new(shape, &segments);
            for _ in tokens() {
                assert_threads_agree(&format!("{segments:?}"), || {
                    let (out, lse) = case.forward();
                    let gradient = case.backward(&out, &lse);
                    vec![floats(&out), lse, floats(&gradient)]
                });
            }
        }
    }
}

/// What an earlier call has left in the buffers must not show.
#[test]
fn buffers_are_used_again_for_other_shapes() {
    for _ in tokens() {
        let mut dirty = Case::new(shape(6, 2, 40, false), &[Segment::document(0, 300)]);
        dirty.qkv.fill(Bf16::from_f32(f32::NAN));
        let (out, lse) = dirty.forward();
        dirty.backward(&out, &lse);
        Case::new(shape(3, 1, 12, true), &[Segment::document(0, 33)]).check("after NaN");
    }
}

#[test]
fn nan_and_infinity_stay_in_their_query_and_head() {
    let d = 8;
    let mut case = Case::new(shape(2, 1, d, true), &[Segment::document(0, 40)]);
    let stride = case.stride();
    let nan = Bf16::from_f32(f32::NAN);
    // Head 0 of token 4; scores that are great, but not infinite, in token 5.
    case.qkv[4 * stride] = nan;
    case.qkv[5 * stride..][..d].fill(Bf16::from_f32(1e18));
    for token in tokens() {
        let (out, lse) = case.forward();
        for (row, out) in out.chunks_exact(d).enumerate() {
            let finite = out.iter().all(|x| x.to_f32().is_finite());
            assert_eq!(finite, row != 2 * 4, "{} row {row}", token.isa());
        }
        assert!(lse[8].is_nan());
    }
    // All scores of a row minus infinity: NaN, as an average of nothing.
    let mut case = Case::new(shape(1, 1, d, true), &[Segment::document(0, 3)]);
    let (stride, [_, k_at, _]) = (case.stride(), case.starts());
    case.qkv[0] = Bf16::from_f32(f32::NEG_INFINITY);
    case.qkv[k_at] = Bf16::ONE;
    let row = case.qkv[..d].to_vec();
    case.qkv[stride..][..d].copy_from_slice(&row);
    case.qkv[stride + k_at] = Bf16::from_f32(-1.0);
    for _ in tokens() {
        let (out, lse) = case.forward();
        assert!(out[..2 * d].iter().all(|x| x.to_f32().is_nan()));
        assert!(out[2 * d..3 * d].iter().all(|x| x.to_f32().is_finite()));
        // The second query has a score of plus infinity besides.
        assert_eq!(lse[0], f32::NEG_INFINITY);
        assert!(lse[1].is_nan());
    }
}

/// Values of keys that no row of a block sees may be anything.
#[test]
fn what_lies_outside_of_the_window_changes_nothing() {
    let shape = AttentionShape {
        window: Some(4),
        ..shape(2, 1, 8, true)
    };
    let segment = segment((0, 20), (0, 900));
    let mut case = Case::new(shape, &[segment]);
    let clean: Vec<_> = tokens()
        .map(|_| {
            let (out, lse) = case.forward();
            let gradient = case.backward(&out, &lse);
            (out, lse, gradient)
        })
        .collect();
    let (stride, [_, k_at, _]) = (case.stride(), case.starts());
    for row in case.qkv.chunks_exact_mut(stride).take(800) {
        row[k_at..].fill(Bf16::from_f32(f32::NAN));
    }
    for (token, clean) in tokens().zip(clean) {
        let (out, lse) = case.forward();
        let gradient = case.backward(&out, &lse);
        assert_eq!((out, lse, gradient), clean, "{}", token.isa());
    }
}

#[test]
fn refuses_what_does_not_fit() {
    let case = Case::new(shape(4, 2, 8, true), &[Segment::document(0, 10)]);
    let [q, k, v] = case.rows();
    let run = |q: Rows<'_>, k: Rows<'_>, out: usize, lse: usize| {
        let (mut out, mut lse) = (vec![Bf16::ZERO; out], vec![0.0; lse]);
        attention_forward_bf16(q, k, v, case.shape, &case.segments, &mut out, &mut lse)
    };
    assert_eq!(run(q, k, 11 * 32, 44), Ok(()));
    // Fewer queries than the rows hold.
    assert_eq!(run(q, k, 10 * 32, 40), Ok(()));
    assert_refused("lse", run(q, k, 11 * 32, 43));
    assert_refused("out", run(q, k, 11 * 32 - 1, 44));
    let short = Rows {
        values: &q.values[1..],
        ..q
    };
    assert!(matches!(
        run(short, k, 11 * 32, 44),
        Err(KernelError::View {
            rows: 11,
            cols: 32,
            ..
        })
    ));
    let still = Rows { row_stride: 0, ..k };
    assert_eq!(
        run(q, still, 11 * 32, 44),
        Err(KernelError::Zero { name: "row_stride" })
    );
    let few = Rows {
        values: &k.values[..8 * k.row_stride],
        ..k
    };
    assert!(matches!(
        run(q, few, 11 * 32, 44),
        Err(KernelError::SegmentBounds {
            k_end: 10,
            n_keys: 8,
            ..
        })
    ));

    let (out, lse) = case.forward();
    let columns = case.starts();
    let refused = |change: &dyn Fn(&mut [usize; 4])| {
        case.try_backward(&out, &lse, |gradient| {
            let mut numbers = [gradient.row_stride, columns[0], columns[1], columns[2]];
            change(&mut numbers);
            gradient.row_stride = numbers[0];
            (gradient.q_at, gradient.k_at, gradient.v_at) = (numbers[1], numbers[2], numbers[3]);
        })
    };
    assert_eq!(refused(&|_| ()), Ok(()));
    assert_eq!(
        refused(&|x| x[2] = 31),
        Err(KernelError::ColumnsOverlap {
            first: "dq",
            first_columns: (0, 32),
            second: "dk",
            second_columns: (31, 47),
        })
    );
    assert!(matches!(
        refused(&|x| x[3] = 33),
        Err(KernelError::ColumnsOverlap {
            first: "dk",
            second: "dv",
            ..
        })
    ));
    assert!(matches!(
        refused(&|x| x[3] = x[0] - 15),
        Err(KernelError::OverlappingView { .. })
    ));
    assert!(matches!(
        refused(&|x| x[0] += 1),
        Err(KernelError::View { .. })
    ));
    assert!(matches!(
        refused(&|x| x[1] = usize::MAX),
        Err(KernelError::Overflow { name: "dq" })
    ));
}

proptest! {
    #![proptest_config(cases(32))]
    #[test]
    fn agrees_with_the_definition(
        segments in any_segments(), n_kv in 1_usize..4, n_rep in 1_usize..5,
        head_dim in 1_usize..40, causal: bool, window in prop::option::of(1_usize..60),
        soft_cap in prop::option::of(0.5_f32..20.0),
    ) {
        let shape = AttentionShape {
            window,
            soft_cap,
            ..shape(n_kv * n_rep, n_kv, head_dim, causal)
        };
        Case::new(shape, &segments).check("any");
    }
}
