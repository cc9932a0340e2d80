use proptest::prelude::*;

use super::{
    assert_close, assert_threads_agree, cases, floats, halves, numbers, reference, tokens, wide,
};
use crate::KernelError;
use crate::rms_norm::{
    Saved, add_forward_on, add_rms_norm_forward, backward_on, forward_on, rms_norm_backward,
    rms_norm_backward_add, rms_norm_forward,
};

const EPS: f32 = 1e-5;

/// A sum of up to a few thousand squares in 64 lanes, and four more roundings.
const FORWARD: f64 = 1e-6;

/// Another such sum, a difference, and for the weight a sum over up to 400 rows.
const BACKWARD: f64 = 4e-6;

/// The gradients by their formulas.
fn gradients(dy: &[f64], x: &[f64], weight: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let d = weight.len();
    let inv_rms = reference::rms_norm(x, weight, f64::from(EPS)).1;
    let (mut dx, mut dweight) = (Vec::new(), vec![0.0; d]);
    for ((dy, x), inv) in dy.chunks_exact(d).zip(x.chunks_exact(d)).zip(inv_rms) {
        let mean = (0..d).map(|i| dy[i] * weight[i] * x[i]).sum::<f64>() / d as f64;
        for i in 0..d {
            dx.push(inv * (dy[i] * weight[i] - x[i] * inv * inv * mean));
            dweight[i] += dy[i] * x[i] * inv;
        }
    }
    (dx, dweight)
}

fn check(n: usize, d: usize) {
    let (x, residual, dy) = (numbers(1, n * d), numbers(2, n * d), numbers(3, n * d));
    let weight = numbers(4, d);
    let (y_expected, inv_expected) = reference::rms_norm(&wide(&x), &wide(&weight), f64::from(EPS));
    let (dx_expected, dweight_expected) = gradients(&wide(&dy), &wide(&x), &wide(&weight));
    for token in tokens() {
        let what = |name| format!("{} {n} x {d} {name}", token.isa());
        let (mut y, mut inv) = (vec![f32::NAN; n * d], vec![f32::NAN; n]);
        forward_on(token, &x, &weight, EPS, &mut y, &mut inv);
        assert_close(&what("y"), &y, &y_expected, FORWARD);
        assert_close(&what("inv_rms"), &inv, &inv_expected, FORWARD);

        let saved = Saved::new(&dy, &x, &weight, &inv).unwrap();
        let (mut dx, mut dweight) = (vec![f32::NAN; n * d], vec![f32::NAN; d]);
        backward_on(token, saved, &mut dx, false, Some(&mut dweight));
        // The terms of dx are as great as 1 / rms before they cancel, and cancel in narrow rows.
        let terms = inv_expected.iter().fold(1.0_f64, |max, x| max.max(*x));
        assert_close(&what("dx"), &dx, &dx_expected, BACKWARD * terms);
        assert_close(&what("dweight"), &dweight, &dweight_expected, BACKWARD);
        let mut alone = vec![f32::NAN; n * d];
        backward_on(token, saved, &mut alone, false, None);
        assert_eq!(alone, dx);

        let expected: Vec<f32> = residual.iter().zip(&dx).map(|(r, dx)| r + dx).collect();
        for wanted in [false, true] {
            let (mut added, mut sum) = (residual.clone(), vec![f32::NAN; d]);
            let to = wanted.then_some(&mut sum[..]);
            backward_on(token, saved, &mut added, true, to);
            assert_eq!(added, expected);
            assert!(!wanted || sum == dweight);
        }

        let mut sum = vec![f32::NAN; n * d];
        let (mut y_sum, mut inv_sum) = (vec![f32::NAN; n * d], vec![f32::NAN; n]);
        add_forward_on(
            token,
            &x,
            &residual,
            &weight,
            EPS,
            &mut sum,
            &mut y_sum,
            &mut inv_sum,
        );
        let expected: Vec<f32> = x.iter().zip(&residual).map(|(x, r)| x + r).collect();
        assert_eq!(sum, expected);
        forward_on(token, &sum, &weight, EPS, &mut y, &mut inv);
        assert_eq!((y_sum, inv_sum), (y, inv), "fused and separate");
    }
}

/// Over bf16 every result is that over `f32`, rounded once.
fn check_bf16(n: usize, d: usize) {
    let [x, residual, dy] = [1, 2, 3].map(|seed| halves(&numbers(seed, n * d)));
    let weight = numbers(4, d);
    let [x_wide, residual_wide, dy_wide] = [&x, &residual, &dy].map(|x| floats(x));
    for token in tokens() {
        let (mut y, mut inv) = (vec![0.0; n * d], vec![0.0; n]);
        forward_on(token, &x_wide, &weight, EPS, &mut y, &mut inv);
        let (mut y_half, mut inv_half) = (halves(&vec![9.0; n * d]), vec![0.0; n]);
        forward_on(token, &x, &weight, EPS, &mut y_half, &mut inv_half);
        assert_eq!((y_half, &inv_half), (halves(&y), &inv), "{}", token.isa());

        let wide = Saved::new(&dy_wide, &x_wide, &weight, &inv).unwrap();
        let saved = Saved::new(&dy, &x, &weight, &inv).unwrap();
        let (mut dx, mut dweight) = (vec![0.0; n * d], vec![0.0; d]);
        backward_on(token, wide, &mut dx, false, Some(&mut dweight));
        let (mut dx_half, mut dweight_half) = (halves(&vec![9.0; n * d]), vec![0.0; d]);
        backward_on(token, saved, &mut dx_half, false, Some(&mut dweight_half));
        assert_eq!(
            (dx_half, dweight_half),
            (halves(&dx), dweight),
            "{}",
            token.isa()
        );

        let (mut added, mut added_half) = (residual_wide.clone(), residual.clone());
        backward_on(token, wide, &mut added, true, None);
        backward_on(token, saved, &mut added_half, true, None);
        assert_eq!(added_half, halves(&added), "{}", token.isa());

        // The sum is rounded before it is normalized.
        let [mut sum, mut y_sum, mut y] = [0, 1, 2].map(|_| halves(&vec![9.0; n * d]));
        let mut inv_sum = vec![0.0; n];
        add_forward_on(
            token,
            &x,
            &residual,
            &weight,
            EPS,
            &mut sum,
            &mut y_sum,
            &mut inv_sum,
        );
        let both = x_wide.iter().zip(&residual_wide).map(|(x, r)| x + r);
        assert_eq!(sum, halves(&both.collect::<Vec<_>>()));
        forward_on(token, &sum, &weight, EPS, &mut y, &mut inv);
        assert_eq!((y_sum, inv_sum), (y, inv), "fused and separate");
    }
}

#[test]
fn agrees_with_the_definition_at_sizes_around_blocks() {
    for d in [1, 2, 15, 16, 17, 63, 64, 65, 576, 577, 4096] {
        for n in [0, 1, 2, 29] {
            check(n, d);
            check_bf16(n, d);
        }
    }
    // Several blocks of rows, the last one incomplete.
    check(400, 100);
    check(3, 20_000);
}

proptest! {
    #![proptest_config(cases(64))]
    #[test]
    fn agrees_with_the_definition(n in 0_usize..60, d in 1_usize..300) {
        check(n, d);
        check_bf16(n, d);
    }
}

#[test]
fn gradients_are_central_differences() {
    let (n, d) = (3, 7);
    let (x, dy, weight) = (numbers(1, n * d), numbers(2, n * d), numbers(3, d));
    let (mut y, mut inv) = (vec![0.0; n * d], vec![0.0; n]);
    rms_norm_forward(&x, &weight, EPS, &mut y, &mut inv).unwrap();
    let (mut dx, mut dweight) = (vec![0.0; n * d], vec![0.0; d]);
    rms_norm_backward(&dy, &x, &weight, &inv, &mut dx, Some(&mut dweight)).unwrap();
    let (x, dy, weight) = (wide(&x), wide(&dy), wide(&weight));
    let loss = |x: &[f64], weight: &[f64]| {
        reference::dot(&dy, &reference::rms_norm(x, weight, f64::from(EPS)).0)
    };
    assert_close(
        "dx",
        &dx,
        &reference::gradient(&x, |x| loss(x, &weight)),
        BACKWARD,
    );
    let expected = reference::gradient(&weight, |weight| loss(&x, weight));
    assert_close("dweight", &dweight, &expected, BACKWARD);
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (n, d) = (300, 576);
    let (x, dy, weight) = (numbers(1, n * d), numbers(2, n * d), numbers(3, d));
    assert_threads_agree("rms_norm", || {
        let (mut sum, mut y, mut inv) = (vec![0.0; n * d], vec![0.0; n * d], vec![0.0; n]);
        add_rms_norm_forward(&x, &dy, &weight, EPS, &mut sum, &mut y, &mut inv).unwrap();
        let (mut dx, mut dweight) = (vec![0.0; n * d], vec![0.0; d]);
        rms_norm_backward(&dy, &sum, &weight, &inv, &mut dx, Some(&mut dweight)).unwrap();
        let mut added = y.clone();
        rms_norm_backward_add(&dy, &sum, &weight, &inv, &mut added).unwrap();
        vec![sum, y, inv, dx, dweight, added]
    });
}

#[test]
fn a_row_of_zeros_is_finite() {
    for token in tokens() {
        let (mut y, mut inv) = (vec![1.0; 8], [0.0]);
        forward_on(token, &[0.0; 8], &[1.0; 8], EPS, &mut y, &mut inv);
        assert_eq!(y, [0.0; 8]);
        assert!(inv[0].is_finite());
    }
}

/// NaN, infinity and squares that overflow, in a whole group and in the incomplete one.
#[test]
fn what_is_not_finite_stays_in_its_row() {
    let (n, d) = (4, 21);
    let (clean, dy, weight) = (numbers(1, n * d), numbers(2, n * d), numbers(3, d));
    for token in tokens() {
        let run = |x: &[f32]| {
            let (mut y, mut inv) = (vec![7.0; n * d], vec![7.0; n]);
            forward_on(token, x, &weight, EPS, &mut y, &mut inv);
            let mut dx = vec![7.0; n * d];
            let saved = Saved::new(&dy, x, &weight, &inv).unwrap();
            backward_on(token, saved, &mut dx, false, None);
            (y, dx)
        };
        let expected = run(&clean);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1e30] {
            for at in [3, d - 1] {
                let mut x = clean.clone();
                x[2 * d + at] = bad;
                let (y, dx) = run(&x);
                let what = format!("{} {bad} at {at}", token.isa());
                for row in [0, 1, 3] {
                    let row = row * d..(row + 1) * d;
                    assert_eq!(y[row.clone()], expected.0[row.clone()], "{what}");
                    assert_eq!(dx[row.clone()], expected.1[row], "{what}");
                }
                for (i, y) in y[2 * d..3 * d].iter().enumerate() {
                    // Infinity times `1 / infinity` is NaN, all else is nothing beside it.
                    let is_nan = bad.is_nan() || (bad.is_infinite() && i == at);
                    assert!(if is_nan { y.is_nan() } else { *y == 0.0 }, "{what}: {y}");
                }
            }
        }
    }
}

#[test]
fn refuses_what_does_not_fit() {
    let run = |x: usize, d: usize, y: usize, n: usize| {
        rms_norm_forward(
            &vec![0.0_f32; x],
            &vec![0.0; d],
            EPS,
            &mut vec![0.0; y],
            &mut vec![0.0; n],
        )
    };
    assert_eq!(run(6, 3, 6, 2), Ok(()));
    assert_eq!(run(0, 0, 0, 0), Err(KernelError::Zero { name: "d" }));
    assert!(matches!(
        run(6, 3, 6, 3),
        Err(KernelError::Length {
            name: "x",
            expected: 9,
            found: 6
        })
    ));
    assert!(matches!(
        run(6, 3, 5, 2),
        Err(KernelError::Length { name: "y", .. })
    ));
    let result = rms_norm_backward_add(&[0.0; 6], &[0.0; 6], &[0.0; 3], &[0.0; 2], &mut [0.0; 5]);
    assert!(matches!(
        result,
        Err(KernelError::Length { name: "dx", .. })
    ));
    let result = rms_norm_backward(
        &[0.0; 6],
        &[0.0; 6],
        &[0.0; 3],
        &[0.0; 2],
        &mut [0.0; 6],
        Some(&mut [0.0; 2]),
    );
    assert!(matches!(
        result,
        Err(KernelError::Length {
            name: "dweight",
            ..
        })
    ));
}
