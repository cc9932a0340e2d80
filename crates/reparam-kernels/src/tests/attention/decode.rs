//! Attention of one query, as in decoding.

use super::{reference, shape};
use crate::attention::{AttentionShape, Rows, Segment, attention_forward, attention_forward_bf16};
use crate::tests::{assert_close, floats, halves, numbers, tokens, wide};
use crate::{Bf16, KernelError};

/// Sums of `f32`, and one rounding of the output to bf16.
const OUT: f64 = 5e-3;
const LSE: f64 = 1e-5;

/// Numbers between two rows, more than a row has.
const STRIDE: usize = 100;

fn decode(
    shape: AttentionShape,
    segment: Segment,
    [q, k, v]: [&[Bf16]; 3],
) -> Result<(Vec<Bf16>, Vec<f32>), KernelError> {
    let view = |values| Rows {
        values,
        row_stride: STRIDE,
    };
    let mut out = vec![Bf16::ZERO; shape.n_heads * shape.head_dim];
    let mut lse = vec![0.0; shape.n_heads];
    let [q, k, v] = [q, k, v].map(view);
    attention_forward_bf16(q, k, v, shape, &[segment], &mut out, &mut lse)?;
    Ok((out, lse))
}

/// The first `width` numbers of every row.
fn dense(x: &[Bf16], width: usize) -> Vec<f32> {
    let rows = x.chunks(STRIDE).filter(|row| row.len() >= width);
    rows.flat_map(|row| row[..width].iter().map(|x| x.to_f32()))
        .collect()
}

fn rows(seed: u64, rows: usize) -> Vec<Bf16> {
    halves(&numbers(seed, rows * STRIDE))
}

#[test]
fn any_number_of_keys_agrees_with_the_definition() {
    let borders = [1, 2, 3, 4, 5, 15, 17, 255, 256, 257, 300, 511, 513, 800];
    for (at, k_len) in borders.into_iter().enumerate() {
        let head_dim = [1, 7, 16, 24, 33][at % 5];
        for (n_heads, n_kv_heads) in [(2, 2), (3, 1), (6, 2)] {
            let shape = AttentionShape {
                soft_cap: (at % 3 == 1).then_some(2.0),
                window: (at % 4 == 2).then_some(290),
                ..shape(n_heads, n_kv_heads, head_dim, true)
            };
            if n_heads * head_dim > STRIDE {
                continue;
            }
            let (q, k, v) = (rows(1, 1), rows(2, k_len + 2), rows(3, k_len + 2));
            let segment = Segment {
                q_start: 0,
                q_len: 1,
                k_start: 2,
                k_len,
            };
            let kv_width = n_kv_heads * head_dim;
            let (out, lse) = reference::attention(
                &wide(&dense(&q, n_heads * head_dim)),
                &wide(&dense(&k, kv_width)),
                &wide(&dense(&v, kv_width)),
                &shape,
                &[segment],
            );
            for token in tokens() {
                let found = decode(shape, segment, [&q, &k, &v]).unwrap();
                let what = format!("{shape:?} {k_len} {}", token.isa());
                assert_close(&what, &floats(&found.0), &out, OUT);
                assert_close(&what, &found.1, &lse, LSE);
            }
        }
    }
}

/// Keys whose scores are minus infinity count nothing, also where they fill a range of their own;
/// if all are, there is no output.
#[test]
fn scores_of_minus_infinity_count_nothing() {
    let shape = shape(2, 1, 16, true);
    let (mut q, mut k, v) = (rows(1, 1), rows(2, 700), rows(3, 700));
    q.fill(Bf16::from_f32(1e10));
    for key in k.iter_mut() {
        *key = Bf16::from_f32(key.to_f32() * 1e-10);
    }
    k[..400 * STRIDE].fill(Bf16::from_f32(-3e38));
    let segment = |k_start, k_len| Segment {
        q_start: 0,
        q_len: 1,
        k_start,
        k_len,
    };
    for _ in tokens() {
        let all = decode(shape, segment(0, 700), [&q, &k, &v]).unwrap();
        let few = decode(shape, segment(400, 300), [&q, &k, &v]).unwrap();
        assert_close("out", &floats(&all.0), &wide(&floats(&few.0)), OUT);
        assert_close("lse", &all.1, &wide(&few.1), LSE);
        let none = decode(shape, segment(0, 400), [&q, &k, &v]).unwrap();
        assert!(none.0.iter().all(|x| x.to_f32().is_nan()));
    }
}

/// With `f32` rows nothing is rounded, and rows of bf16 numbers have the same sums.
#[test]
fn both_precisions_have_the_same_sums() {
    let shape = shape(4, 2, 20, true);
    let (q, k, v) = (rows(1, 1), rows(2, 600), rows(3, 600));
    let segment = Segment {
        q_start: 0,
        q_len: 1,
        k_start: 0,
        k_len: 600,
    };
    for token in tokens() {
        let (expected, expected_lse) = decode(shape, segment, [&q, &k, &v]).unwrap();
        let (mut out, mut lse) = (vec![0.0; 80], vec![0.0; 4]);
        let inputs = [dense(&q, 80), dense(&k, 40), dense(&v, 40)];
        let [q, k, v] = &inputs;
        attention_forward(q, k, v, shape, &[segment], None, &mut out, &mut lse).unwrap();
        let out: Vec<Bf16> = out.into_iter().map(Bf16::from_f32).collect();
        assert_eq!(out, expected, "{}", token.isa());
        assert_eq!(lse, expected_lse);
    }
}
