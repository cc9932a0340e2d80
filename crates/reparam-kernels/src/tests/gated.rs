use proptest::prelude::*;

use super::{assert_close, assert_threads_agree, floats, halves, numbers, reference, tokens, wide};
use crate::gated::{
    Activation, GatedRows, activation_backward, activation_backward_on, activation_forward,
    activation_forward_on, backward_in_place_on, backward_on, forward_on, gated_backward,
    gated_backward_in_place, gated_forward,
};
use crate::{Bf16, KernelError};

const ALL: [Activation; 3] = [Activation::Silu, Activation::Gelu, Activation::GeluTanh];

/// A share within a few units, and a few roundings; the slope of the tangent form is a product of
/// terms that grow with the cube of its argument.
const TOLERANCE: f64 = 2e-6;

/// What columns hold that must stay as they are.
const UNTOUCHED: f32 = 7.0;

/// `act(x)` and `act'(x)`
fn reference(activation: Activation, x: f64) -> (f64, f64) {
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
    }
}

/// Puts gate and up into rows, the last one no longer than it needs to be.
fn side_by_side(rows: GatedRows, gate: &[f32], up: &[f32]) -> Vec<f32> {
    let GatedRows {
        inner,
        row_stride,
        up_at,
    } = rows;
    let n = gate.len() / inner;
    let len = if n == 0 {
        0
    } else {
        (n - 1) * row_stride + up_at + inner
    };
    let mut both = vec![UNTOUCHED; len];
    for (n, row) in both.chunks_mut(row_stride).enumerate() {
        row[..inner].copy_from_slice(&gate[n * inner..][..inner]);
        row[up_at..][..inner].copy_from_slice(&up[n * inner..][..inner]);
    }
    both
}

fn check(n: usize, rows: GatedRows) {
    let len = n * rows.inner;
    let ten_times = |seed| -> Vec<f32> { numbers(seed, len).iter().map(|x| 10.0 * x).collect() };
    let gate = floats(&halves(&ten_times(1)));
    let [up, dout] = [2, 3].map(|seed| floats(&halves(&numbers(seed, len))));
    let gate_up = side_by_side(rows, &gate, &up);
    for activation in ALL {
        let at = |i: usize| reference(activation, f64::from(gate[i]));
        let [u, t] = [&up, &dout].map(|x| wide(x));
        let expected: Vec<f64> = (0..len).map(|i| at(i).0 * u[i]).collect();
        let dgate: Vec<f64> = (0..len).map(|i| t[i] * u[i] * at(i).1).collect();
        let dup: Vec<f64> = (0..len).map(|i| t[i] * at(i).0).collect();
        for token in tokens() {
            let what = |name| format!("{} {activation:?} {n} x {rows:?} {name}", token.isa());
            let mut out = vec![f32::NAN; len];
            forward_on(token, activation, &gate_up, rows, &mut out);
            assert_close(&what("out"), &out, &expected, TOLERANCE);

            let mut grads = vec![UNTOUCHED; gate_up.len()];
            let mut again = vec![f32::NAN; len];
            let both = (&mut grads, &mut again);
            backward_on(
                token,
                activation,
                &gate_up,
                rows,
                &dout,
                both.0,
                Some(both.1),
            );
            assert_eq!(again, out);
            let mut parts = [Vec::new(), Vec::new()];
            for row in grads.chunks(rows.row_stride) {
                parts[0].extend(&row[..rows.inner]);
                parts[1].extend(&row[rows.up_at..][..rows.inner]);
            }
            assert_close(&what("dgate"), &parts[0], &dgate, TOLERANCE);
            assert_close(&what("dup"), &parts[1], &dup, TOLERANCE);
            // Nothing beside gate and up was written.
            assert_eq!(grads, side_by_side(rows, &parts[0], &parts[1]));

            let mut alone = vec![UNTOUCHED; gate_up.len()];
            backward_on(token, activation, &gate_up, rows, &dout, &mut alone, None);
            assert_eq!(alone, grads);
            for wanted in [false, true] {
                let mut in_place = gate_up.clone();
                let mut again = vec![f32::NAN; len];
                let again = wanted.then_some(&mut again[..]);
                backward_in_place_on(token, activation, &mut in_place, rows, &dout, again);
                assert_eq!(in_place, grads);
            }

            // Over bf16 every result is that over `f32`, rounded once.
            let (gate_up_half, dout_half) = (halves(&gate_up), halves(&dout));
            let mut out_half = vec![Bf16::ONE; len];
            forward_on(token, activation, &gate_up_half, rows, &mut out_half);
            assert_eq!(out_half, halves(&out), "{}", what("bf16 out"));
            let mut grads_half = halves(&vec![UNTOUCHED; gate_up.len()]);
            backward_on(
                token,
                activation,
                &gate_up_half,
                rows,
                &dout_half,
                &mut grads_half,
                None,
            );
            assert_eq!(grads_half, halves(&grads), "{}", what("bf16 grads"));
            let mut in_place = gate_up_half;
            let mut again = vec![Bf16::ONE; len];
            let to = Some(&mut again[..]);
            backward_in_place_on(token, activation, &mut in_place, rows, &dout_half, to);
            assert_eq!((in_place, again), (grads_half, out_half));
        }
    }
}

fn gap(inner: usize, between: usize, behind: usize) -> GatedRows {
    GatedRows {
        inner,
        row_stride: 2 * inner + between + behind,
        up_at: inner + between,
    }
}

#[test]
fn agrees_with_the_definition_at_sizes_around_blocks() {
    for inner in [1, 15, 16, 17, 64, 100, 1536] {
        for n in [0, 1, 11] {
            check(n, GatedRows::new(inner));
            check(n, gap(inner, 3, 0));
            check(n, gap(inner, 0, 5));
        }
    }
    // Several blocks of rows, and rows that are a block each.
    check(330, gap(100, 4, 4));
    check(2, gap(20_000, 1, 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn agrees_with_the_definition(
        n in 0_usize..20, inner in 1_usize..70, between in 0_usize..20, behind in 0_usize..20,
    ) {
        check(n, gap(inner, between, behind));
    }
}

#[test]
fn activations_alone_are_gates_with_an_up_of_one() {
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
                activation_forward_on(token, activation, &x, &mut y);
                assert_close(&what, &y, &expected, TOLERANCE);
                activation_backward_on(token, activation, &dy, &x, &mut dx);
                assert_close(&what, &dx, &slope, TOLERANCE);

                let (x, dy) = (halves(&x), halves(&dy));
                let (mut y, mut dx) = (x.clone(), x.clone());
                activation_forward_on(token, activation, &x, &mut y);
                activation_backward_on(token, activation, &dy, &x, &mut dx);
                let (x, dy) = (floats(&x), floats(&dy));
                let (mut y_wide, mut dx_wide) = (vec![0.0; len], vec![0.0; len]);
                activation_forward_on(token, activation, &x, &mut y_wide);
                activation_backward_on(token, activation, &dy, &x, &mut dx_wide);
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
            activation_forward_on(token, activation, &x, &mut y);
            for (x, y) in x.into_iter().zip(y) {
                let expected = reference(activation, f64::from(x)).0;
                let error = (f64::from(y) / expected - 1.0).abs();
                assert!(error < 5e-7, "{} {activation:?}({x}) = {y}", token.isa());
            }
        }
    }
}

#[test]
fn great_numbers_do_not_overflow_and_nan_stays_alone() {
    let x = [-1e30, -1000.0, 1000.0, 1e30, f32::NAN, 0.0, 1.0];
    for token in tokens() {
        for activation in ALL {
            let (mut y, mut dx) = ([7.0; 7], [7.0; 7]);
            activation_forward_on(token, activation, &x, &mut y);
            activation_backward_on(token, activation, &[1.0; 7], &x, &mut dx);
            assert_eq!(y[..4], [0.0, 0.0, 1000.0, 1e30], "{activation:?}");
            assert_eq!(dx[..4], [0.0, 0.0, 1.0, 1.0], "{activation:?}");
            assert!(y[4].is_nan() && dx[4].is_nan());
            assert_eq!((y[5], dx[5]), (0.0, 0.5));
            assert!(y[6] > 0.7 && y[6] < 0.9);
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (n, rows) = (300, gap(200, 8, 16));
    let len = n * rows.row_stride;
    let (gate_up, dout) = (
        halves(&numbers(1, len)),
        halves(&numbers(2, n * rows.inner)),
    );
    for activation in ALL {
        assert_threads_agree("gated", || {
            let [mut out, mut again] = [0, 1].map(|_| vec![Bf16::ZERO; n * rows.inner]);
            gated_forward(activation, &gate_up, rows, &mut out).unwrap();
            let mut grads = vec![Bf16::ZERO; len];
            gated_backward(activation, &gate_up, rows, &dout, &mut grads, None).unwrap();
            let mut in_place = gate_up.clone();
            let to = Some(&mut again[..]);
            gated_backward_in_place(activation, &mut in_place, rows, &dout, to).unwrap();
            let [mut y, mut dx] = [0, 1].map(|_| vec![Bf16::ZERO; len]);
            activation_forward(activation, &gate_up, &mut y).unwrap();
            activation_backward(activation, &in_place, &gate_up, &mut dx).unwrap();
            [out, again, grads, in_place, y, dx]
                .map(|x| floats(&x))
                .to_vec()
        });
    }
}

#[test]
fn refuses_what_does_not_fit() {
    let run = |len: usize, rows: GatedRows, out: usize| {
        gated_forward(Activation::Silu, &vec![0.0; len], rows, &mut vec![0.0; out])
    };
    let rows = gap(3, 1, 2);
    assert_eq!(run(16, rows, 6), Ok(()));
    assert_eq!(run(0, rows, 0), Ok(()));
    assert_eq!(
        run(0, gap(0, 1, 1), 0),
        Err(KernelError::Zero { name: "inner" })
    );
    assert!(matches!(
        run(16, rows, 7),
        Err(KernelError::Length { name: "out", .. })
    ));
    assert_eq!(
        run(15, rows, 6),
        Err(KernelError::View {
            rows: 2,
            cols: 7,
            row_stride: 9,
            col_stride: 1,
            found: 15
        })
    );
    let overlapping = GatedRows {
        inner: 3,
        row_stride: 6,
        up_at: 2,
    };
    assert!(matches!(
        run(12, overlapping, 6),
        Err(KernelError::OverlappingView { row_stride: 2, .. })
    ));
    let tight = GatedRows {
        inner: 3,
        row_stride: 5,
        up_at: 3,
    };
    assert!(matches!(
        run(12, tight, 6),
        Err(KernelError::OverlappingView { row_stride: 5, .. })
    ));
    // One row may have any stride.
    for row_stride in [0, usize::MAX] {
        assert_eq!(
            run(
                6,
                GatedRows {
                    row_stride,
                    ..tight
                },
                3
            ),
            Ok(())
        );
        assert_eq!(
            run(
                0,
                GatedRows {
                    row_stride,
                    ..tight
                },
                0
            ),
            Ok(())
        );
    }
    let far = GatedRows {
        up_at: usize::MAX,
        ..tight
    };
    assert!(matches!(run(6, far, 3), Err(KernelError::Overflow { .. })));

    let (gate_up, rows) = ([0.0; 12], GatedRows::new(3));
    let kind = Activation::Silu;
    let mut grads = [0.0; 12];
    let short = gated_backward(kind, &gate_up, rows, &[0.0; 6], &mut grads[..11], None);
    assert!(matches!(short, Err(KernelError::View { found: 11, .. })));
    let out = Some(&mut [0.0; 5][..]);
    let short = gated_backward(kind, &gate_up, rows, &[0.0; 6], &mut grads, out);
    assert!(matches!(
        short,
        Err(KernelError::Length { name: "out", .. })
    ));
    let ragged = gated_backward_in_place(kind, &mut grads, rows, &[0.0; 5], None);
    assert!(matches!(
        ragged,
        Err(KernelError::Length { name: "dout", .. })
    ));
    assert!(activation_forward(kind, &gate_up, &mut [0.0; 3]).is_err());
    assert!(activation_backward(kind, &gate_up, &[0.0; 12], &mut [0.0; 3]).is_err());
    assert!(activation_backward(kind, &gate_up, &[0.0; 3], &mut [0.0; 12]).is_err());
}
