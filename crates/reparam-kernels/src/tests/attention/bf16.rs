//! Attention over bf16 rows.

use super::super::{assert_close, numbers, tokens};
use super::{reference, shape};
use crate::Bf16;
use crate::attention::{
    AttentionSavedBf16, AttentionShape, QkvGradient, Rows, Segment, backward_bf16_on,
    forward_bf16_on,
};
use crate::isa::Token;

/// Probabilities rounded to bf16 and one rounding of the output, each 2^-9.
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

    fn forward(&self, token: Token) -> (Vec<Bf16>, Vec<f32>) {
        let [q, k, v] = self.rows();
        let nan = Bf16::from_f32(f32::NAN);
        let mut out = vec![nan; self.n_queries * self.shape.q_width()];
        let mut lse = vec![f32::NAN; self.n_queries * self.shape.n_heads];
        forward_bf16_on(
            token,
            q,
            k,
            v,
            self.shape,
            &self.segments,
            &mut out,
            &mut lse,
        )
        .unwrap();
        (out, lse)
    }

    /// The buffer of the gradients, whose other columns hold 7.
    fn backward(&self, token: Token, out: &[Bf16], lse: &[f32]) -> Vec<Bf16> {
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
        let gradient = QkvGradient {
            values: &mut values,
            row_stride: self.stride(),
            q_at,
            k_at,
            v_at,
        };
        backward_bf16_on(token, saved, self.shape, &self.segments, gradient).unwrap();
        values
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
            let (actual, actual_lse) = self.forward(token);
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

            let values = self.backward(token, &actual, &actual_lse);
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
    for len in [1, 2, 15, 16, 17, 127, 128, 129, 200, 255, 256, 257, 600] {
        for causal in [true, false] {
            Case::new(shape(3, 1, 8, causal), &[Segment::document(0, len)])
                .check(&format!("{len}, {causal}"));
        }
    }
}
