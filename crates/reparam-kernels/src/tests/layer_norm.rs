use proptest::prelude::*;

use super::{
    assert_close, assert_threads_agree, cases, floats, halves, numbers, reference, tokens, wide,
};
use crate::KernelError;
use crate::layer_norm::{
    Affine, Saved, add_forward_on, add_layer_norm_forward, backward_on, forward_on,
    layer_norm_backward, layer_norm_backward_add, layer_norm_forward,
};

const EPS: f32 = 1e-5;

/// Sums of up to some thousand numbers in 64 lanes, and a few more roundings.
const FORWARD: f64 = 2e-6;

/// Two more such sums, a difference, and for the weight a sum over up to 400 rows.
const BACKWARD: f64 = 6e-6;

/// `dx`, `dweight` and `dbias` by their formulas.
fn gradients(dy: &[f64], x: &[f64], weight: &[f64]) -> [Vec<f64>; 3] {
    let d = weight.len();
    let zeros = vec![0.0; d];
    let (_, means, inv_stds) = reference::layer_norm(x, weight, &zeros, f64::from(EPS));
    let (mut dx, mut dweight, mut dbias) = (Vec::new(), zeros.clone(), zeros);
    for (n, (dy, x)) in dy.chunks_exact(d).zip(x.chunks_exact(d)).enumerate() {
        let h: Vec<f64> = x.iter().map(|x| (x - means[n]) * inv_stds[n]).collect();
        let g: Vec<f64> = dy.iter().zip(weight).map(|(dy, w)| dy * w).collect();
        let mean_g = g.iter().sum::<f64>() / d as f64;
        let mean_gh = reference::dot(&g, &h) / d as f64;
        for i in 0..d {
            dx.push(inv_stds[n] * (g[i] - mean_g - h[i] * mean_gh));
            dweight[i] += dy[i] * h[i];
            dbias[i] += dy[i];
        }
    }
    [dx, dweight, dbias]
}

fn check(n: usize, d: usize) {
    // Numbers of bf16, so that both types see the same.
    let [x, residual, dy] = [1, 2, 3].map(|seed| halves(&numbers(seed, n * d)));
    let (weight, bias) = (numbers(4, d), numbers(5, d));
    let [xf, rf, dyf] = [&x, &residual, &dy].map(|x| floats(x));
    let (xw, ww) = (wide(&xf), wide(&weight));
    let (y_expected, mean_expected, inv_expected) =
        reference::layer_norm(&xw, &ww, &wide(&bias), f64::from(EPS));
    let [dx_expected, dweight_expected, dbias_expected] = gradients(&wide(&dyf), &xw, &ww);
    let affine = |bias| Affine {
        weight: &weight,
        bias,
        eps: EPS,
    };
    let with_bias = affine(Some(&bias[..]));
    // The errors of what is subtracted grow with it, and rows of few numbers may be nearly constant.
    let terms = inv_expected.iter().fold(1.0_f64, |max, x| max.max(*x));
    for token in tokens() {
        let what = |name| format!("{} {n} x {d} {name}", token.isa());
        let [mut mean, mut inv] = [0, 1].map(|_| vec![f32::NAN; n]);
        let mut y = vec![f32::NAN; n * d];
        forward_on(token, &xf, with_bias, &mut y, &mut mean, &mut inv);
        assert_close(&what("y"), &y, &y_expected, FORWARD * terms);
        assert_close(&what("mean"), &mean, &mean_expected, FORWARD);
        assert_close(&what("inv_std"), &inv, &inv_expected, FORWARD * terms);

        let (mut dx, mut dweight) = (vec![f32::NAN; n * d], vec![f32::NAN; d]);
        let mut dbias = dweight.clone();
        let saved = Saved::new(&dyf, &xf, &weight, &mean, &inv).unwrap();
        let sums = (Some(&mut dweight[..]), Some(&mut dbias[..]));
        backward_on(token, saved, &mut dx, false, sums.0, sums.1);
        assert_close(&what("dx"), &dx, &dx_expected, BACKWARD * terms * terms);
        assert_close(
            &what("dweight"),
            &dweight,
            &dweight_expected,
            BACKWARD * terms,
        );
        assert_close(&what("dbias"), &dbias, &dbias_expected, BACKWARD);
        for wanted in 0..3 {
            let mut alone = vec![f32::NAN; n * d];
            let mut sum = vec![f32::NAN; d];
            let (to_weight, to_bias) = match wanted {
                0 => (None, None),
                1 => (Some(&mut sum[..]), None),
                _ => (None, Some(&mut sum[..])),
            };
            backward_on(token, saved, &mut alone, false, to_weight, to_bias);
            assert_eq!(alone, dx);
            match wanted {
                0 => assert!(sum[0].is_nan()),
                1 => assert_eq!(sum, dweight),
                _ => assert_eq!(sum, dbias),
            }
        }
        let mut added = rf.clone();
        backward_on(token, saved, &mut added, true, None, None);
        let expected: Vec<f32> = rf.iter().zip(&dx).map(|(r, dx)| r + dx).collect();
        assert_eq!(added, expected);

        // Over bf16 every result is that over `f32`, rounded once.
        let mut narrow = halves(&vec![9.0; n * d]);
        let [mut mean_half, mut inv_half] = [0, 1].map(|_| vec![f32::NAN; n]);
        forward_on(
            token,
            &x,
            with_bias,
            &mut narrow,
            &mut mean_half,
            &mut inv_half,
        );
        assert_eq!(narrow, halves(&y), "{}", what("bf16"));
        assert_eq!((&mean_half, &inv_half), (&mean, &inv));
        let saved = Saved::new(&dy, &x, &weight, &mean, &inv).unwrap();
        let [mut dweight_half, mut dbias_half] = [0, 1].map(|_| vec![f32::NAN; d]);
        let sums = (Some(&mut dweight_half[..]), Some(&mut dbias_half[..]));
        backward_on(token, saved, &mut narrow, false, sums.0, sums.1);
        assert_eq!(narrow, halves(&dx), "{}", what("bf16 dx"));
        assert_eq!((dweight_half, dbias_half), (dweight, dbias));
        let mut added_half = residual.clone();
        backward_on(token, saved, &mut added_half, true, None, None);
        assert_eq!(added_half, halves(&added), "{}", what("bf16 added"));

        // The sum is rounded before it is normalized; and without a bias.
        let [mut sum, mut y_sum] = [0, 1].map(|_| halves(&vec![9.0; n * d]));
        let no_bias = affine(None);
        add_forward_on(
            token,
            &x,
            &residual,
            no_bias,
            &mut sum,
            &mut y_sum,
            &mut mean_half,
            &mut inv_half,
        );
        let both: Vec<f32> = xf.iter().zip(&rf).map(|(x, r)| x + r).collect();
        assert_eq!(sum, halves(&both));
        forward_on(token, &sum, no_bias, &mut narrow, &mut mean, &mut inv);
        assert_eq!((y_sum, mean_half, inv_half), (narrow, mean, inv));
    }
}

#[test]
fn agrees_with_the_definition_at_sizes_around_blocks() {
    for d in [2, 15, 16, 17, 63, 64, 65, 576, 577, 4096] {
        for n in [0, 1, 2, 29] {
            check(n, d);
        }
    }
    // Several blocks of rows, the last one incomplete.
    check(400, 100);
    check(3, 20_000);
}

proptest! {
    #![proptest_config(cases(64))]
    #[test]
    fn agrees_with_the_definition(n in 0_usize..60, d in 4_usize..300) {
        check(n, d);
    }
}

#[test]
fn gradients_are_central_differences() {
    let (n, d) = (3, 7);
    let (x, dy) = (numbers(1, n * d), numbers(2, n * d));
    let (weight, bias) = (numbers(3, d), numbers(4, d));
    let (mut y, mut mean, mut inv) = (vec![0.0; n * d], vec![0.0; n], vec![0.0; n]);
    layer_norm_forward(&x, &weight, Some(&bias), EPS, &mut y, &mut mean, &mut inv).unwrap();
    let (mut dx, mut dweight, mut dbias) = (vec![0.0; n * d], vec![0.0; d], vec![0.0; d]);
    layer_norm_backward(
        &dy,
        &x,
        &weight,
        &mean,
        &inv,
        &mut dx,
        Some(&mut dweight),
        Some(&mut dbias),
    )
    .unwrap();
    let [x, dy, weight, bias] = [&x, &dy, &weight, &bias].map(|x| wide(x));
    let loss = |x: &[f64], weight: &[f64], bias: &[f64]| {
        let y = reference::layer_norm(x, weight, bias, f64::from(EPS)).0;
        reference::dot(&dy, &y)
    };
    let expected = reference::gradient(&x, |x| loss(x, &weight, &bias));
    assert_close("dx", &dx, &expected, BACKWARD);
    let expected = reference::gradient(&weight, |weight| loss(&x, weight, &bias));
    assert_close("dweight", &dweight, &expected, BACKWARD);
    let expected = reference::gradient(&bias, |bias| loss(&x, &weight, bias));
    assert_close("dbias", &dbias, &expected, BACKWARD);
}

#[test]
fn a_great_mean_does_not_spoil_the_variance() {
    // Also in the incomplete group at the end, whose missing numbers are far from the mean.
    for d in [16, 21] {
        let x: Vec<f32> = (0..d).map(|i| 10_000.0 + (i % 2) as f32).collect();
        for token in tokens() {
            let (mut y, mut mean, mut inv) = (vec![0.0; d], [0.0], [0.0]);
            let weight = vec![1.0; d];
            let affine = Affine {
                weight: &weight,
                bias: None,
                eps: 0.0,
            };
            forward_on(token, &x, affine, &mut y, &mut mean, &mut inv);
            let odd = (d / 2) as f64 / d as f64;
            let expected = 1.0 / (odd * (1.0 - odd)).sqrt();
            assert!(
                (f64::from(inv[0]) - expected).abs() < 1e-3,
                "{} {d}",
                token.isa()
            );
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (n, d) = (300, 576);
    let [x, dy] = [1, 2].map(|seed| halves(&numbers(seed, n * d)));
    let (weight, bias) = (numbers(3, d), numbers(4, d));
    assert_threads_agree("layer_norm", || {
        let [mut sum, mut y, mut dx] = [0, 1, 2].map(|_| x.clone());
        let (mut mean, mut inv) = (vec![0.0; n], vec![0.0; n]);
        add_layer_norm_forward(
            &x,
            &dy,
            &weight,
            Some(&bias),
            EPS,
            &mut sum,
            &mut y,
            &mut mean,
            &mut inv,
        )
        .unwrap();
        let (mut dweight, mut dbias) = (vec![0.0; d], vec![0.0; d]);
        layer_norm_backward(
            &dy,
            &sum,
            &weight,
            &mean,
            &inv,
            &mut dx,
            Some(&mut dweight),
            Some(&mut dbias),
        )
        .unwrap();
        let mut added = dx.clone();
        layer_norm_backward_add(&dy, &sum, &weight, &mean, &inv, &mut added).unwrap();
        let mut all = [sum, y, dx, added].map(|x| floats(&x)).to_vec();
        all.extend([mean, inv, dweight, dbias]);
        all
    });
}

#[test]
fn a_constant_row_is_finite() {
    for token in tokens() {
        let (mut y, mut mean, mut inv) = (vec![1.0; 8], [0.0], [0.0]);
        let affine = Affine {
            weight: &[1.0; 8],
            bias: None,
            eps: EPS,
        };
        forward_on(token, &[3.0; 8], affine, &mut y, &mut mean, &mut inv);
        assert_eq!((&y[..], mean[0]), (&[0.0; 8][..], 3.0));
        assert!(inv[0].is_finite());
    }
}

/// In a whole group and in the incomplete one.
#[test]
fn nan_and_infinity_stay_in_their_row() {
    let (n, d) = (4, 21);
    let (clean, dy) = (numbers(1, n * d), numbers(2, n * d));
    let (weight, bias) = (numbers(3, d), numbers(4, d));
    let affine = Affine {
        weight: &weight,
        bias: Some(&bias),
        eps: EPS,
    };
    for token in tokens() {
        let run = |x: &[f32]| {
            let (mut y, mut dx) = (vec![7.0; n * d], vec![7.0; n * d]);
            let (mut mean, mut inv) = (vec![7.0; n], vec![7.0; n]);
            forward_on(token, x, affine, &mut y, &mut mean, &mut inv);
            let saved = Saved::new(&dy, x, &weight, &mean, &inv).unwrap();
            backward_on(token, saved, &mut dx, false, None, None);
            [y, dx]
        };
        let expected = run(&clean);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [3, d - 1] {
                let mut x = clean.clone();
                x[2 * d + at] = bad;
                for (actual, expected) in run(&x).iter().zip(&expected) {
                    let what = format!("{} {bad} at {at}", token.isa());
                    for row in [0, 1, 3] {
                        let row = row * d..(row + 1) * d;
                        assert_eq!(actual[row.clone()], expected[row], "{what}");
                    }
                    assert!(actual[2 * d..3 * d].iter().all(|x| x.is_nan()), "{what}");
                }
            }
        }
    }
}

#[test]
fn refuses_what_does_not_fit() {
    let run = |x: usize, d: usize, bias: usize, y: usize, n: [usize; 2]| {
        layer_norm_forward(
            &vec![0.0_f32; x],
            &vec![0.0; d],
            Some(&vec![0.0; bias]),
            EPS,
            &mut vec![0.0; y],
            &mut vec![0.0; n[0]],
            &mut vec![0.0; n[1]],
        )
    };
    let name = |result| match result {
        Err(KernelError::Length { name, .. }) => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(run(6, 3, 3, 6, [2, 2]), Ok(()));
    assert_eq!(
        run(0, 0, 0, 0, [0, 0]),
        Err(KernelError::Zero { name: "d" })
    );
    assert_eq!(name(run(6, 3, 3, 6, [3, 3])), "x");
    assert_eq!(name(run(6, 3, 2, 6, [2, 2])), "bias");
    assert_eq!(name(run(6, 3, 3, 5, [2, 2])), "y");
    assert_eq!(name(run(6, 3, 3, 6, [2, 1])), "inv_std");

    let (six, three, two) = ([0.0_f32; 6], [0.0; 3], [0.0; 2]);
    let short = layer_norm_backward_add(&six[..5], &six, &three, &two, &two, &mut [0.0; 6]);
    assert_eq!(name(short), "dy");
    let short = layer_norm_backward_add(&six, &six, &three, &two, &two, &mut [0.0; 5]);
    assert_eq!(name(short), "dx");
    let mut dx = [0.0; 6];
    let wrong = Some(&mut [0.0; 2][..]);
    let short = layer_norm_backward(&six, &six, &three, &two, &two, &mut dx, None, wrong);
    assert_eq!(name(short), "dbias");
}
