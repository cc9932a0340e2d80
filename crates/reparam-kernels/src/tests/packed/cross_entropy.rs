//! The cross-entropy with a packed weight.

use super::*;
use crate::cross_entropy::{CrossEntropy, IGNORE};
use crate::packed::{BLOCK, CHUNK_ROWS, linear_cross_entropy};
use crate::tests::cross_entropy::{gradients, labels};
use crate::tests::reference;

/// Logits of size one in `f32`: their roundings are the absolute error of each loss.
const LOSS: f64 = 1e-6;

/// Probabilities and the result are rounded to bf16.
const GRADIENT: f64 = 2.0 * BF16_UNIT;

const SCALE: f32 = 0.25;

fn pack(w: &[f32], vocabulary: usize, d: usize) -> PackedWeight {
    PackedWeight::new(Matrix::new(w, vocabulary, d).unwrap()).unwrap()
}

fn check(n: usize, d: usize, vocabulary: usize) {
    let (h, w) = (
        narrow(&numbers(1, n * d)),
        narrow(&numbers(2, vocabulary * d)),
    );
    let h_bf16: Vec<Bf16> = h.iter().map(|h| Bf16::from_f32(*h)).collect();
    let labels = labels(n, vocabulary);
    let expected = reference::cross_entropy(&wide(&h), &wide(&w), d, &labels);
    let [dh_expected, _] = gradients(&wide(&h), &wide(&w), d, &labels, SCALE.into());
    let packed = pack(&w, vocabulary, d);
    for token in tokens() {
        let what = |name| format!("{} {n} x {d}, {vocabulary} {name}", token.isa());
        let run = |h: Matrix<'_>, dh: Option<&mut [Bf16]>| {
            linear_cross_entropy(h, &packed, &labels, SCALE, dh).unwrap()
        };
        let mut dh = vec![Bf16::from_f32(f32::NAN); n * d];
        let result = run(view(&h_bf16, n, d), Some(&mut dh));
        let predicted = labels.iter().filter(|label| **label != IGNORE).count();
        assert_eq!(result.tokens, predicted);
        let error = (result.sum - expected).abs();
        assert!(error <= LOSS * expected.abs().max(1.0), "{}", what("loss"));
        assert_close(&what("dh"), &floats(&dh), &dh_expected, GRADIENT);
        for (dh, label) in dh.chunks(d).zip(&labels) {
            assert!(*label != IGNORE || dh.iter().all(|dh| *dh == Bf16::ZERO));
        }
        // What is asked for does not change what comes out, nor how the numbers are stored.
        assert_eq!(run(view(&h_bf16, n, d), None), result);
        let turned = transpose_floats(&h, n, d);
        let mut again = vec![Bf16::ONE; n * d];
        let h = Matrix::new(&turned[..], d, n).unwrap().t();
        assert_eq!(run(h, Some(&mut again)), result);
        assert_eq!(again, dh);
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
        (5, 6, BLOCK - 1),
        (5, 6, BLOCK),
        (5, 6, BLOCK + 1),
        (4, 33, 2 * BLOCK + 17),
        // Two thirds are labelled.
        (CHUNK_ROWS * 3 / 2 + 3, 2, 20),
    ] {
        check(n, d, vocabulary);
    }
}

proptest! {
    #![proptest_config(cases(32))]
    #[test]
    fn agrees_with_the_definition(n in 0_usize..50, d in 1_usize..40, vocabulary in 1_usize..200) {
        check(n, d, vocabulary);
    }
}

/// A label that is nearly certain keeps the precision of what is left to learn.
#[test]
fn a_nearly_certain_label_has_a_small_and_precise_loss_and_gradient() {
    let (d, vocabulary) = (2, BLOCK + 5);
    let mut w = vec![0.0; vocabulary * d];
    // The label last, so that all earlier sums are rescaled.
    w[(vocabulary - 1) * d] = 16.0;
    for v in 0..vocabulary {
        w[v * d + 1] = if v % 2 == 0 { 1.0 } else { -0.5 };
    }
    let packed = pack(&w, vocabulary, d);
    let h = [Bf16::from_f32(2.0), Bf16::ZERO];
    let label = vocabulary - 1;
    let others = (vocabulary - 1) as f64 * (-32.0_f64).exp();
    for _ in tokens() {
        let mut dh = [Bf16::ZERO; 2];
        let result =
            linear_cross_entropy(view(&h, 1, d), &packed, &[label as i32], 1.0, Some(&mut dh))
                .unwrap();
        let error = (result.sum - others.ln_1p()).abs();
        assert!(error <= 1e-6 * others, "{} {}", result.sum, others);
        let w = wide(&w);
        let expected: Vec<f64> = (0..d)
            .map(|i| {
                let of_others: f64 = (0..label).map(|v| w[v * d + i]).sum();
                let p = (-32.0_f64).exp() / (1.0 + others);
                p * of_others - others / (1.0 + others) * w[label * d + i]
            })
            .collect();
        for (actual, expected) in dh.iter().zip(expected) {
            let error = (f64::from(actual.to_f32()) - expected).abs();
            assert!(error <= GRADIENT * expected.abs(), "{actual:?} {expected}");
        }
    }
}

#[test]
fn equal_logits_cost_the_logarithm_of_the_vocabulary() {
    let packed = pack(&[1.0; 4 * 100], 100, 4);
    let h = [Bf16::ZERO; 8];
    let result = linear_cross_entropy(view(&h, 2, 4), &packed, &[3, 99], 1.0, None);
    let CrossEntropy { sum, tokens } = result.unwrap();
    assert_eq!(tokens, 2);
    assert!((sum - 2.0 * 100.0_f64.ln()).abs() < 1e-12);
}

#[test]
fn great_logits_do_not_overflow_and_not_a_number_stays_in_its_row() {
    let h = [1e3, -1e3, f32::NAN];
    let packed = pack(&[1.0, 2.0, -1e3], 3, 1);
    for _ in tokens() {
        let run = |labels: &[i32], dh: &mut [Bf16]| {
            let h = Matrix::new(&h[..], 3, 1).unwrap();
            let result = linear_cross_entropy(h, &packed, labels, 1.0, Some(dh));
            result.unwrap().sum
        };
        let mut dh = [Bf16::ONE; 3];
        assert_eq!(run(&[0, IGNORE, IGNORE], &mut dh), 1000.0);
        assert_eq!(floats(&dh), [1.0, 0.0, 0.0]);
        assert_eq!(run(&[IGNORE, 2, IGNORE], &mut dh), 0.0);
        assert!(run(&[0, 2, 1], &mut dh).is_nan());
        let dh = floats(&dh);
        assert!(dh[..2].iter().all(|x| x.is_finite()) && dh[2].is_nan());
    }
}

#[test]
fn a_part_of_a_stack_is_a_vocabulary() {
    let (d, vocabulary) = (6, 40);
    let w = numbers(2, vocabulary * d);
    let alone = pack(&w, vocabulary, d);
    let other = numbers(3, 5 * d);
    let stack = PackedWeight::stack(&[
        Matrix::new(&other[..], 5, d).unwrap(),
        Matrix::new(&w[..], vocabulary, d).unwrap(),
    ])
    .unwrap();
    let h = bf16(1, 3 * d);
    let labels = [39, 0, 16];
    let part = stack.part(1).unwrap();
    assert_eq!(
        linear_cross_entropy(view(&h, 3, d), part, &labels, 1.0, None),
        linear_cross_entropy(view(&h, 3, d), &alone, &labels, 1.0, None)
    );
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (n, d, vocabulary) = (200, 40, BLOCK + 300);
    let (h, w) = (bf16(1, n * d), numbers(2, vocabulary * d));
    let packed = pack(&w, vocabulary, d);
    let labels = labels(n, vocabulary);
    assert_threads_agree("cross-entropy", || {
        let mut dh = vec![Bf16::ZERO; n * d];
        let result =
            linear_cross_entropy(view(&h, n, d), &packed, &labels, 0.1, Some(&mut dh)).unwrap();
        let bits = result.sum.to_bits();
        let sum = [bits as u32, (bits >> 32) as u32].map(f32::from_bits);
        vec![floats(&dh), sum.to_vec()]
    });
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_written() {
    let packed = pack(&[0.0; 15], 5, 3);
    let h = [Bf16::ZERO; 6];
    let mut dh = [Bf16::ONE; 6];
    for label in [5, -1, -99, i32::MIN, i32::MAX] {
        let result = linear_cross_entropy(view(&h, 2, 3), &packed, &[0, label], 1.0, Some(&mut dh));
        let expected = KernelError::Label {
            position: 1,
            label,
            vocabulary: 5,
        };
        assert_eq!(result, Err(expected));
        assert_eq!(dh, [Bf16::ONE; 6]);
    }
    let too_narrow = linear_cross_entropy(view(&h, 3, 2), &packed, &[0; 3], 1.0, None);
    assert!(matches!(too_narrow, Err(KernelError::MatmulShapes { .. })));
    let few_labels = linear_cross_entropy(view(&h, 2, 3), &packed, &[0], 1.0, None);
    assert_refused("labels", few_labels);
    let short = linear_cross_entropy(view(&h, 2, 3), &packed, &[0, 0], 1.0, Some(&mut dh[..5]));
    assert_refused("dh", short);
    let none = linear_cross_entropy(view(&[], 0, 0), &pack(&[], 0, 0), &[], 1.0, None);
    assert_eq!(none, Err(KernelError::Zero { name: "d" }));
}
