use proptest::prelude::*;

use super::{assert_close, assert_threads_agree, cases, numbers, reference, tokens, wide};
use crate::swiglu::{swiglu_backward, swiglu_forward};

/// An exponential within about one unit, and five roundings.
const TOLERANCE: f64 = 1e-6;

fn check(len: usize) {
    let gate: Vec<f32> = numbers(1, len).iter().map(|x| 10.0 * x).collect();
    let (up, dy) = (numbers(2, len), numbers(3, len));
    let [g, u, t] = [&gate, &up, &dy].map(|x| wide(x));
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let dgate_expected: Vec<f64> = (0..len)
        .map(|i| {
            let s = sigmoid(g[i]);
            t[i] * u[i] * s * (1.0 + g[i] * (1.0 - s))
        })
        .collect();
    let dup_expected: Vec<f64> = (0..len).map(|i| t[i] * g[i] * sigmoid(g[i])).collect();
    for token in tokens() {
        let what = |name| format!("{} {len} {name}", token.isa());
        let mut y = vec![f32::NAN; len];
        swiglu_forward(&gate, &up, &mut y).unwrap();
        assert_close(&what("y"), &y, &reference::swiglu(&g, &u), TOLERANCE);
        let (mut dgate, mut dup) = (vec![f32::NAN; len], vec![f32::NAN; len]);
        swiglu_backward(&dy, &gate, &up, &mut dgate, &mut dup).unwrap();
        assert_close(&what("dgate"), &dgate, &dgate_expected, TOLERANCE);
        assert_close(&what("dup"), &dup, &dup_expected, TOLERANCE);
    }
}

#[test]
fn agrees_with_the_definition_at_sizes_around_blocks() {
    for len in [0, 1, 15, 16, 17, 63, 64, 65, 16_383, 16_384, 16_385, 40_000] {
        check(len);
    }
}

proptest! {
    #![proptest_config(cases(64))]
    #[test]
    fn agrees_with_the_definition(len in 0_usize..500) {
        check(len);
    }
}

#[test]
fn gradients_are_central_differences() {
    let (gate, up, dy) = (numbers(1, 20), numbers(2, 20), numbers(3, 20));
    let (mut dgate, mut dup) = (vec![0.0; 20], vec![0.0; 20]);
    swiglu_backward(&dy, &gate, &up, &mut dgate, &mut dup).unwrap();
    let [g, u, t] = [&gate, &up, &dy].map(|x| wide(x));
    let loss = |g: &[f64], u: &[f64]| reference::dot(&t, &reference::swiglu(g, u));
    assert_close(
        "dgate",
        &dgate,
        &reference::gradient(&g, |g| loss(g, &u)),
        TOLERANCE,
    );
    assert_close(
        "dup",
        &dup,
        &reference::gradient(&u, |u| loss(&g, u)),
        TOLERANCE,
    );
}

#[test]
fn great_gates_do_not_overflow() {
    for _ in tokens() {
        let gate = [-1e30, -1000.0, -89.5, 89.5, 1000.0, 1e30, f32::NAN];
        let mut y = [0.0; 7];
        swiglu_forward(&gate, &[1.0; 7], &mut y).unwrap();
        assert_eq!(y[..2], [0.0, 0.0]);
        assert!(y[2].abs() < 1e-30);
        assert_eq!(y[3..6], gate[3..6]);
        assert!(y[6].is_nan());
        let (mut dgate, mut dup) = ([0.0; 7], [0.0; 7]);
        swiglu_backward(&[1.0; 7], &gate, &[1.0; 7], &mut dgate, &mut dup).unwrap();
        assert!(dgate[..2].iter().all(|x| *x == 0.0));
        assert_eq!(dgate[3..6], [1.0; 3]);
        assert!(dgate[6].is_nan() && dup[6].is_nan());
        let mut y = [0.0; 2];
        swiglu_forward(&[f32::NEG_INFINITY, 1.0], &[1.0; 2], &mut y).unwrap();
        assert!(y[0].is_nan() && y[1] > 0.7);
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (gate, up, dy) = (numbers(1, 50_000), numbers(2, 50_000), numbers(3, 50_000));
    assert_threads_agree("swiglu", || {
        let mut out = vec![vec![0.0; 50_000]; 3];
        let [y, dgate, dup] = &mut out[..] else {
            unreachable!()
        };
        swiglu_forward(&gate, &up, y).unwrap();
        swiglu_backward(&dy, &gate, &up, dgate, dup).unwrap();
        out
    });
}

#[test]
fn refuses_slices_of_different_length() {
    assert!(swiglu_forward(&[0.0; 2], &[0.0; 3], &mut [0.0; 2]).is_err());
    assert!(swiglu_forward(&[0.0; 2], &[0.0; 2], &mut [0.0; 3]).is_err());
    let zeros = [0.0; 2];
    assert!(swiglu_backward(&zeros, &zeros, &zeros, &mut [0.0; 2], &mut [0.0; 1]).is_err());
}
