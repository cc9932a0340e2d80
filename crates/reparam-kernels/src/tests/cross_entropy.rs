use proptest::prelude::*;

use super::{
    assert_close, assert_refused, assert_threads_agree, cases, numbers, reference, tokens, wide,
};
use crate::KernelError;
use crate::cross_entropy::{CrossEntropy, IGNORE, chunk_rows, linear_cross_entropy};

/// Logits of size one in `f32`: their roundings are the absolute error of each loss, and the sum of
/// exponentials adds one more.
const LOSS: f64 = 1e-6;

/// Products of such probabilities with a weight, summed over some hundred tokens of the vocabulary.
const GRADIENT: f64 = 4e-6;

/// Gradients by their formulas.
pub(super) fn gradients(
    h: &[f64],
    w: &[f64],
    d: usize,
    labels: &[i32],
    scale: f64,
) -> [Vec<f64>; 2] {
    let mut grads = [vec![0.0; h.len()], vec![0.0; w.len()]];
    for (n, &label) in labels.iter().enumerate().filter(|(_, label)| **label >= 0) {
        let h = &h[n * d..][..d];
        let logits: Vec<f64> = w.chunks_exact(d).map(|w| reference::dot(w, h)).collect();
        let sum: f64 = logits.iter().map(|z| z.exp()).sum();
        for (v, z) in logits.iter().enumerate() {
            let onehot = if v == label as usize { 1.0 } else { 0.0 };
            let dz = scale * (z.exp() / sum - onehot);
            for i in 0..d {
                grads[0][n * d + i] += dz * w[v * d + i];
                grads[1][v * d + i] += dz * h[i];
            }
        }
    }
    grads
}

pub(super) fn labels(n: usize, vocabulary: usize) -> Vec<i32> {
    let random = numbers(9, n);
    let label = |x: &f32| ((x + 1.0) / 2.0 * vocabulary as f32) as i32;
    // A third of the tokens are not predicted.
    (0..n)
        .map(|i| {
            if i % 3 == 1 {
                IGNORE
            } else {
                label(&random[i])
            }
        })
        .collect()
}

fn check(n: usize, d: usize, vocabulary: usize) {
    let (h, w) = (numbers(1, n * d), numbers(2, vocabulary * d));
    let labels = labels(n, vocabulary);
    let scale = 0.25;
    let expected = reference::cross_entropy(&wide(&h), &wide(&w), d, &labels);
    let [dh_expected, dw_expected] = gradients(&wide(&h), &wide(&w), d, &labels, scale.into());
    for token in tokens() {
        let what = |name| format!("{} {n} x {d}, {vocabulary} {name}", token.isa());
        let run = |dh: Option<&mut [f32]>, dw: Option<&mut [f32]>| {
            linear_cross_entropy(&h, &w, d, &labels, scale, dh, dw)
        };
        let (mut dh, mut dw) = (vec![f32::NAN; n * d], vec![1.0; vocabulary * d]);
        let result = run(Some(&mut dh), Some(&mut dw)).unwrap();
        let labelled = labels.iter().filter(|label| **label != IGNORE);
        assert_eq!(result.tokens, labelled.count());
        let error = (result.sum - expected).abs();
        assert!(error <= LOSS * expected.abs().max(1.0), "{}", what("loss"));
        assert_close(&what("dh"), &dh, &dh_expected, GRADIENT);
        // It was added to ones.
        let expected: Vec<f64> = dw_expected.iter().map(|x| x + 1.0).collect();
        assert_close(&what("dw"), &dw, &expected, GRADIENT);
        // What is asked for does not change what comes out.
        assert_eq!(run(None, None), Ok(result));
        let mut alone = vec![f32::NAN; n * d];
        assert_eq!(run(Some(&mut alone), None), Ok(result));
        assert_eq!(alone, dh);
    }
}

#[test]
fn agrees_with_the_definition_at_sizes_around_blocks() {
    for (n, d, vocabulary) in [
        (0, 4, 5),
        (1, 1, 1),
        (2, 3, 2),
        (7, 16, 63),
        (7, 17, 64),
        (9, 8, 65),
    ] {
        check(n, d, vocabulary);
    }
    // Labelled rows around one and two chunks.
    let chunk = chunk_rows(50);
    for rows in [chunk - 1, chunk, chunk + 1, 2 * chunk + 1] {
        check(rows * 3 / 2, 8, 50);
    }
    // A vocabulary of several blocks of the sum.
    check(5, 6, 10_000);
}

proptest! {
    #![proptest_config(cases(48))]
    #[test]
    fn agrees_with_the_definition(n in 0_usize..50, d in 1_usize..40, vocabulary in 1_usize..200) {
        check(n, d, vocabulary);
    }
}

#[test]
fn chunks_bound_the_memory() {
    assert_eq!(chunk_rows(0), 512);
    assert_eq!(chunk_rows(10_000), 512);
    assert_eq!(chunk_rows(49_152), 320);
    assert_eq!(chunk_rows(128_256), 128);
    assert_eq!(chunk_rows(10_000_000), 64);
}

#[test]
fn gradients_are_central_differences() {
    let (n, d, vocabulary) = (4, 5, 6);
    let (h, w) = (numbers(1, n * d), numbers(2, vocabulary * d));
    let labels = [3, IGNORE, 0, 5];
    let (mut dh, mut dw) = (vec![0.0; n * d], vec![0.0; vocabulary * d]);
    linear_cross_entropy(&h, &w, d, &labels, 1.0, Some(&mut dh), Some(&mut dw)).unwrap();
    let (h, w) = (wide(&h), wide(&w));
    let loss = |h: &[f64], w: &[f64]| reference::cross_entropy(h, w, d, &labels);
    assert_close(
        "dh",
        &dh,
        &reference::gradient(&h, |h| loss(h, &w)),
        GRADIENT,
    );
    assert_close(
        "dw",
        &dw,
        &reference::gradient(&w, |w| loss(&h, w)),
        GRADIENT,
    );
    assert_eq!(dh[d..2 * d], [0.0; 5], "a token without a label");
}

#[test]
fn equal_logits_cost_the_logarithm_of_the_vocabulary() {
    let result = linear_cross_entropy(&[0.0; 8], &[1.0; 4 * 100], 4, &[3, 99], 1.0, None, None);
    let CrossEntropy { sum, tokens } = result.unwrap();
    assert_eq!(tokens, 2);
    assert!((sum - 2.0 * 100.0_f64.ln()).abs() < 1e-12);
}

#[test]
fn great_logits_do_not_overflow_and_nan_stays_in_its_row() {
    let h = [1e3, -1e3, f32::NAN];
    let w = [1.0, 2.0, -1e3];
    for _ in tokens() {
        let sum = |labels: &[i32], dh: &mut [f32]| {
            let result = linear_cross_entropy(&h, &w, 1, labels, 1.0, Some(dh), None);
            result.unwrap().sum
        };
        let mut dh = [7.0; 3];
        assert_eq!(sum(&[0, IGNORE, IGNORE], &mut dh), 1000.0);
        assert_eq!(dh, [1.0, 0.0, 0.0]);
        assert_eq!(sum(&[IGNORE, 2, IGNORE], &mut dh), 0.0);
        assert!(sum(&[0, 2, 1], &mut dh).is_nan());
        assert!(dh[..2].iter().all(|x| x.is_finite()) && dh[2].is_nan());
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (n, d, vocabulary) = (300, 64, 3000);
    let (h, w) = (numbers(1, n * d), numbers(2, vocabulary * d));
    let labels = labels(n, vocabulary);
    assert_threads_agree("cross-entropy", || {
        let (mut dh, mut dw) = (vec![0.0; n * d], vec![0.0; vocabulary * d]);
        let result =
            linear_cross_entropy(&h, &w, d, &labels, 0.1, Some(&mut dh), Some(&mut dw)).unwrap();
        let bits = result.sum.to_bits();
        let sum = vec![
            f32::from_bits(bits as u32),
            f32::from_bits((bits >> 32) as u32),
        ];
        vec![dh, dw, sum]
    });
}

#[test]
fn refuses_labels_beyond_the_vocabulary_and_writes_nothing() {
    let mut dh = [7.0; 6];
    for label in [5, -1, -99, i32::MIN, i32::MAX] {
        let result = linear_cross_entropy(
            &[0.0; 6],
            &[0.0; 15],
            3,
            &[0, label],
            1.0,
            Some(&mut dh),
            None,
        );
        assert_eq!(
            result,
            Err(KernelError::Label {
                position: 1,
                label,
                vocabulary: 5
            })
        );
        assert_eq!(dh, [7.0; 6]);
    }
    let short = linear_cross_entropy(&[0.0; 5], &[0.0; 15], 3, &[0, 1], 1.0, None, None);
    assert_refused("h", short);
    let none = linear_cross_entropy(&[], &[], 0, &[], 1.0, None, None);
    assert_eq!(none, Err(KernelError::Zero { name: "d" }));
}
