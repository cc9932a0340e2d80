use super::{assert_close, assert_threads_agree, floats, halves, numbers, reference, tokens};
use crate::Bf16;
use crate::activation::{Activation, activation_backward, activation_forward};

pub(super) const ALL: [Activation; 3] = [Activation::Silu, Activation::Gelu, Activation::GeluTanh];

/// A share within a few units, and a few roundings; the slope of the tangent form is a product of
/// terms that grow with the cube of its argument.
pub(super) const TOLERANCE: f64 = 2e-6;

/// `act(x)` and `act'(x)`
pub(super) fn reference(activation: Activation, x: f64) -> (f64, f64) {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Silu => {
            let s = sigmoid(x);
            (x * s, s * (1.0 + x * (1.0 - s)))
        }
        Activation::Gelu => {
            let share = reference::normal(x);
            let density = (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
            (x * share, share + x * density)
        }
        Activation::GeluTanh => {
            let factor = (2.0 / std::f64::consts::PI).sqrt();
            let tanh = (factor * (x + 0.044_715 * x.powi(3))).tanh();
            let inner = factor * (1.0 + 3.0 * 0.044_715 * x * x);
            let slope = 0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * inner;
            (0.5 * x * (1.0 + tanh), slope)
        }
        Activation::Relu => (x.max(0.0), f64::from(u8::from(x > 0.0))),
    }
}

#[test]
fn agrees_with_the_definition_at_sizes_around_blocks() {
    for len in [0, 1, 16, 33, 16_385] {
        let x: Vec<f32> = numbers(1, len).iter().map(|x| 10.0 * x).collect();
        let dy = numbers(2, len);
        for activation in ALL {
            let at = |i: usize| reference(activation, f64::from(x[i]));
            let expected: Vec<f64> = (0..len).map(|i| at(i).0).collect();
            let slope: Vec<f64> = (0..len).map(|i| f64::from(dy[i]) * at(i).1).collect();
            for token in tokens() {
                let what = format!("{} {activation:?} {len}", token.isa());
                let (mut y, mut dx) = (vec![f32::NAN; len], vec![f32::NAN; len]);
                activation_forward(activation, &x, &mut y).unwrap();
                assert_close(&what, &y, &expected, TOLERANCE);
                activation_backward(activation, &dy, &x, &mut dx).unwrap();
                assert_close(&what, &dx, &slope, TOLERANCE);

                let (x, dy) = (halves(&x), halves(&dy));
                let (mut y, mut dx) = (x.clone(), x.clone());
                activation_forward(activation, &x, &mut y).unwrap();
                activation_backward(activation, &dy, &x, &mut dx).unwrap();
                let (x, dy) = (floats(&x), floats(&dy));
                let (mut y_wide, mut dx_wide) = (vec![0.0; len], vec![0.0; len]);
                activation_forward(activation, &x, &mut y_wide).unwrap();
                activation_backward(activation, &dy, &x, &mut dx_wide).unwrap();
                assert_eq!((y, dx), (halves(&y_wide), halves(&dx_wide)), "{what}");
            }
        }
    }
}

/// The formulas of the reference themselves.
#[test]
fn slopes_are_central_differences() {
    for activation in ALL {
        for x in [-9.0, -2.5, -0.7, 0.0, 0.3, 1.0, 4.0] {
            let slope = reference::gradient(&[x], |x| reference(activation, x[0]).0)[0];
            let expected = reference(activation, x).1;
            assert!((slope - expected).abs() < 1e-9, "{activation:?} {x}");
        }
    }
}

#[test]
fn the_tail_keeps_its_digits() {
    // There `1 + erf` and `1 + tanh` would be zero in f32.
    for token in tokens() {
        let x = [-6.0, -8.0, -11.0];
        for activation in [Activation::Gelu, Activation::Silu] {
            let mut y = [0.0; 3];
            activation_forward(activation, &x, &mut y).unwrap();
            for (x, y) in x.into_iter().zip(y) {
                let expected = reference(activation, f64::from(x)).0;
                let error = (f64::from(y) / expected - 1.0).abs();
                assert!(error < 5e-7, "{} {activation:?}({x}) = {y}", token.isa());
            }
        }
    }
}

#[test]
fn relu_is_exact() {
    let smallest = f32::from_bits(1);
    let mut x = vec![0.0, -0.0, smallest, -smallest, 1e-38, -1e-38, 1e38, -1e38];
    x.extend(numbers(1, 50));
    let dy = numbers(2, x.len());
    let expected: Vec<f32> = x.iter().map(|x| x.max(0.0)).collect();
    let seen = x.iter().map(|x| f32::from(u8::from(*x > 0.0)));
    let slope: Vec<f32> = seen.zip(&dy).map(|(seen, dy)| seen * dy).collect();
    for token in tokens() {
        let (mut y, mut dx) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
        activation_forward(Activation::Relu, &x, &mut y).unwrap();
        activation_backward(Activation::Relu, &dy, &x, &mut dx).unwrap();
        assert_eq!((&y, &dx), (&expected, &slope), "{}", token.isa());
        activation_forward(Activation::Relu, &[f32::NAN], &mut y[..1]).unwrap();
        assert!(y[0].is_nan());
    }
}

#[test]
fn great_numbers_do_not_overflow_and_nan_stays_alone() {
    let x = [-1e30, -1000.0, 1000.0, 1e30, f32::NAN, 0.0, 1.0];
    for _ in tokens() {
        for activation in ALL {
            let (mut y, mut dx) = ([7.0; 7], [7.0; 7]);
            activation_forward(activation, &x, &mut y).unwrap();
            activation_backward(activation, &[1.0; 7], &x, &mut dx).unwrap();
            assert_eq!(y[..4], [0.0, 0.0, 1000.0, 1e30], "{activation:?}");
            assert_eq!(dx[..4], [0.0, 0.0, 1.0, 1.0], "{activation:?}");
            assert!(y[4].is_nan() && dx[4].is_nan());
            assert_eq!((y[5], dx[5]), (0.0, 0.5));
            assert!(y[6] > 0.7 && y[6] < 0.9);
            let mut y = [7.0; 3];
            let ends = [f32::NEG_INFINITY, 1.0, f32::INFINITY];
            activation_forward(activation, &ends, &mut y).unwrap();
            assert!(y[0].is_nan() && y[1] < 1.0 && y[2] == f32::INFINITY);
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let [x, dy] = [1, 2].map(|seed| halves(&numbers(seed, 50_000)));
    for activation in ALL {
        assert_threads_agree("activation", || {
            let [mut y, mut dx] = [0, 1].map(|_| vec![Bf16::ZERO; x.len()]);
            activation_forward(activation, &x, &mut y).unwrap();
            activation_backward(activation, &dy, &x, &mut dx).unwrap();
            vec![floats(&y), floats(&dx)]
        });
    }
}

#[test]
fn refuses_slices_of_different_length() {
    let (two, three) = ([0.0; 2], [0.0; 3]);
    for activation in ALL {
        assert!(activation_forward(activation, &two, &mut [0.0; 3]).is_err());
        assert!(activation_backward(activation, &two, &three, &mut [0.0; 2]).is_err());
        assert!(activation_backward(activation, &two, &two, &mut [0.0; 3]).is_err());
    }
}
