//! Both norms: the layer norm has a mean and a bias, the other has neither.

use proptest::prelude::*;

use super::{
    assert_close, assert_refused, assert_threads_agree, cases, floats, halves, numbers, reference,
    tokens, wide,
};
use crate::KernelError;
use crate::layer_norm::{layer_norm_backward, layer_norm_backward_add, layer_norm_forward};
use crate::number::Number;
use crate::rms_norm::{rms_norm_backward, rms_norm_backward_add, rms_norm_forward};

const EPS: f32 = 1e-5;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Rms,
    Layer,
    LayerWithoutBias,
}

use Kind::{Layer, LayerWithoutBias, Rms};

const ALL: [Kind; 3] = [Rms, Layer, LayerWithoutBias];

/// What rows are normalized by.
struct Weights {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
}

impl Weights {
    fn new(d: usize) -> Self {
        Self {
            weight: numbers(4, d),
            bias: numbers(5, d),
            eps: EPS,
        }
    }
}

/// Means and inverse deviations.
type Statistics = [Vec<f32>; 2];

impl Kind {
    /// Sums of up to some thousand numbers in 64 lanes, and a few more roundings; for the gradients
    /// more such sums, a difference, and for those of the weight a sum over up to 400 rows.
    fn tolerances(self) -> [f64; 2] {
        match self {
            Rms => [1e-6, 4e-6],
            Layer | LayerWithoutBias => [2e-6, 6e-6],
        }
    }

    fn bias(self, weights: &Weights) -> Option<&[f32]> {
        (self == Layer).then_some(&weights.bias[..])
    }

    fn forward<T: Number>(self, x: &[T], w: &Weights) -> (Vec<T>, Statistics) {
        let n = x.len() / w.weight.len();
        let mut y = vec![T::from_f32(9.0); x.len()];
        let [mut mean, mut inv] = [0, 1].map(|_| vec![f32::NAN; n]);
        match self {
            Rms => {
                mean.fill(0.0);
                rms_norm_forward(x, &w.weight, w.eps, &mut y, &mut inv)
            }
            _ => {
                let bias = self.bias(w);
                layer_norm_forward(x, &w.weight, bias, w.eps, &mut y, &mut mean, &mut inv)
            }
        }
        .unwrap();
        (y, [mean, inv])
    }

    /// The gradients of the rows, and of weight and bias where they are wanted.
    fn backward<T: Number>(
        self,
        dy: &[T],
        x: &[T],
        weight: &[f32],
        [mean, inv]: &Statistics,
        wanted: [bool; 2],
    ) -> (Vec<T>, [Vec<f32>; 2]) {
        let mut dx = vec![T::from_f32(9.0); x.len()];
        let mut sums = wanted.map(|wanted| vec![f32::NAN; if wanted { weight.len() } else { 0 }]);
        let [dweight, dbias] = &mut sums;
        let dweight = wanted[0].then_some(&mut dweight[..]);
        let dbias = wanted[1].then_some(&mut dbias[..]);
        match self {
            Rms => rms_norm_backward(dy, x, weight, inv, &mut dx, dweight),
            _ => layer_norm_backward(dy, x, weight, mean, inv, &mut dx, dweight, dbias),
        }
        .unwrap();
        (dx, sums)
    }

    fn backward_add<T: Number>(
        self,
        dy: &[T],
        x: &[T],
        weight: &[f32],
        [mean, inv]: &Statistics,
        dx: &[T],
    ) -> Vec<T> {
        let mut dx = dx.to_vec();
        match self {
            Rms => rms_norm_backward_add(dy, x, weight, inv, &mut dx),
            _ => layer_norm_backward_add(dy, x, weight, mean, inv, &mut dx),
        }
        .unwrap();
        dx
    }

    fn reference(self, x: &[f64], weight: &[f64], bias: &[f64]) -> [Vec<f64>; 3] {
        let bias = (self == Layer).then_some(bias);
        reference::norm(x, weight, bias, f64::from(EPS), self != Rms)
    }

    /// `dx`, `dweight` and `dbias` by their formulas.
    fn gradients(self, dy: &[f64], x: &[f64], weight: &[f64]) -> [Vec<f64>; 3] {
        let d = weight.len();
        let [_, means, invs] = self.reference(x, weight, &vec![0.0; d]);
        let (mut dx, mut dweight, mut dbias) = (Vec::new(), vec![0.0; d], vec![0.0; d]);
        for (n, (dy, x)) in dy.chunks_exact(d).zip(x.chunks_exact(d)).enumerate() {
            let h: Vec<f64> = x.iter().map(|x| (x - means[n]) * invs[n]).collect();
            let g: Vec<f64> = dy.iter().zip(weight).map(|(dy, w)| dy * w).collect();
            let mean_g = match self {
                Rms => 0.0,
                _ => g.iter().sum::<f64>() / d as f64,
            };
            let mean_gh = reference::dot(&g, &h) / d as f64;
            for i in 0..d {
                dx.push(invs[n] * (g[i] - mean_g - h[i] * mean_gh));
                dweight[i] += dy[i] * h[i];
                dbias[i] += dy[i];
            }
        }
        [dx, dweight, dbias]
    }
}

fn check(kind: Kind, n: usize, d: usize) {
    // Numbers of bf16, so that both types see the same.
    let [x, residual, dy] = [1, 2, 3].map(|seed| halves(&numbers(seed, n * d)));
    let [xf, rf, dyf] = [&x, &residual, &dy].map(|x| floats(x));
    let weights = Weights::new(d);
    let w = &weights.weight;
    let (xw, ww) = (wide(&xf), wide(w));
    let expected = kind.reference(&xw, &ww, &wide(&weights.bias));
    let expected_gradients = kind.gradients(&wide(&dyf), &xw, &ww);
    let [forward, backward] = kind.tolerances();
    // The errors of what is subtracted grow with it, and rows of few numbers may be nearly constant;
    // without a mean the terms of dx are as great before they cancel.
    let terms = expected[2].iter().fold(1.0_f64, |max, x| max.max(*x));
    let (of_y, of_dx, of_dw) = match kind {
        Rms => (1.0, terms, 1.0),
        _ => (terms, terms * terms, terms),
    };
    for token in tokens() {
        let what = |name| format!("{} {kind:?} {n} x {d} {name}", token.isa());
        let (y, statistics) = kind.forward(&xf, &weights);
        assert_close(&what("y"), &y, &expected[0], forward * of_y);
        assert_close(&what("mean"), &statistics[0], &expected[1], forward);
        assert_close(&what("inv"), &statistics[1], &expected[2], forward * of_y);

        let all = [true, kind != Rms];
        let (dx, sums) = kind.backward(&dyf, &xf, w, &statistics, all);
        assert_close(&what("dx"), &dx, &expected_gradients[0], backward * of_dx);
        for (i, sum) in sums.iter().enumerate().filter(|(i, _)| all[*i]) {
            let tolerance = backward * if i == 0 { of_dw } else { 1.0 };
            assert_close(&what("sum"), sum, &expected_gradients[i + 1], tolerance);
        }
        for wanted in [[false, false], [true, false], [false, all[1]]] {
            let (alone, some) = kind.backward(&dyf, &xf, w, &statistics, wanted);
            assert_eq!(alone, dx);
            for i in [0, 1] {
                assert!(!wanted[i] || some[i] == sums[i], "{}", what("alone"));
            }
        }
        let added = kind.backward_add(&dyf, &xf, w, &statistics, &rf);
        let expected: Vec<f32> = rf.iter().zip(&dx).map(|(r, dx)| r + dx).collect();
        assert_eq!(added, expected);

        // Over bf16 every result is that over `f32`, rounded once.
        let narrow = kind.forward(&x, &weights);
        assert_eq!(narrow, (halves(&y), statistics.clone()), "{}", what("bf16"));
        let narrow = kind.backward(&dy, &x, w, &statistics, all);
        assert_eq!(narrow, (halves(&dx), sums), "{}", what("bf16 gradients"));
        let narrow = kind.backward_add(&dy, &x, w, &statistics, &residual);
        assert_eq!(narrow, halves(&added), "{}", what("bf16 added"));
    }
}

#[test]
fn agree_with_their_definitions_at_sizes_around_blocks() {
    for kind in ALL {
        let first = if kind == Rms { 1 } else { 2 };
        for d in [first, 2, 15, 16, 17, 63, 64, 65, 576, 577, 4096] {
            for n in [0, 1, 2, 29] {
                check(kind, n, d);
            }
        }
        // Several blocks of rows, the last one incomplete.
        check(kind, 400, 100);
        check(kind, 3, 20_000);
    }
}

proptest! {
    #![proptest_config(cases(64))]
    #[test]
    fn agree_with_their_definitions(kind in 0_usize..3, n in 0_usize..60, d in 1_usize..300) {
        let kind = ALL[kind];
        check(kind, n, if kind == Rms { d } else { d + 3 });
    }
}

#[test]
fn gradients_are_central_differences() {
    let (n, d) = (3, 7);
    let (x, dy, weights) = (numbers(1, n * d), numbers(2, n * d), Weights::new(d));
    let [xw, dyw, ww, bw] = [&x, &dy, &weights.weight, &weights.bias].map(|x| wide(x));
    for kind in ALL {
        let (_, statistics) = kind.forward(&x, &weights);
        let wanted = [true, kind != Rms];
        let (dx, [dweight, dbias]) = kind.backward(&dy, &x, &weights.weight, &statistics, wanted);
        let loss = |x: &[f64], weight: &[f64], bias: &[f64]| {
            reference::dot(&dyw, &kind.reference(x, weight, bias)[0])
        };
        let tolerance = kind.tolerances()[1];
        let expected = reference::gradient(&xw, |x| loss(x, &ww, &bw));
        assert_close("dx", &dx, &expected, tolerance);
        let expected = reference::gradient(&ww, |weight| loss(&xw, weight, &bw));
        assert_close("dweight", &dweight, &expected, tolerance);
        if kind == Layer {
            let expected = reference::gradient(&bw, |bias| loss(&xw, &ww, bias));
            assert_close("dbias", &dbias, &expected, tolerance);
        }
    }
}

#[test]
fn a_great_mean_does_not_spoil_the_variance() {
    // Also in the incomplete group at the end, whose missing numbers are far from the mean.
    for d in [16, 21] {
        let x: Vec<f32> = (0..d).map(|i| 10_000.0 + (i % 2) as f32).collect();
        for token in tokens() {
            let weights = Weights {
                weight: vec![1.0; d],
                eps: 0.0,
                ..Weights::new(d)
            };
            let (_, [_, inv]) = LayerWithoutBias.forward(&x, &weights);
            let odd = (d / 2) as f64 / d as f64;
            let expected = 1.0 / (odd * (1.0 - odd)).sqrt();
            let error = (f64::from(inv[0]) - expected).abs();
            assert!(error < 1e-3, "{} {d}", token.isa());
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (n, d) = (300, 576);
    let [x, dy] = [1, 2].map(|seed| halves(&numbers(seed, n * d)));
    let weights = Weights::new(d);
    for kind in ALL {
        assert_threads_agree("norm", || {
            let (y, statistics) = kind.forward(&x, &weights);
            let wanted = [true, kind != Rms];
            let (dx, sums) = kind.backward(&dy, &x, &weights.weight, &statistics, wanted);
            let added = kind.backward_add(&dy, &x, &weights.weight, &statistics, &dx);
            let mut all = [y, dx, added].map(|x| floats(&x)).to_vec();
            all.extend(statistics.into_iter().chain(sums));
            all
        });
    }
}

#[test]
fn a_constant_row_is_finite() {
    for _ in tokens() {
        for (kind, number) in [(Rms, 0.0), (LayerWithoutBias, 3.0)] {
            let (y, [mean, inv]) = kind.forward(&[number; 8], &Weights::new(8));
            assert_eq!((&y[..], mean[0]), (&[0.0; 8][..], number));
            assert!(inv[0].is_finite());
        }
    }
}

/// NaN, infinity and squares that overflow make their row NaN and no other, in a whole group and in the incomplete one.
#[test]
fn what_is_not_finite_stays_in_its_row() {
    let (n, d) = (4, 21);
    let (clean, dy, weights) = (numbers(1, n * d), numbers(2, n * d), Weights::new(d));
    for (token, kind) in tokens().flat_map(|token| ALL.map(|kind| (token, kind))) {
        let run = |x: &[f32]| {
            let (y, statistics) = kind.forward(x, &weights);
            let (dx, _) = kind.backward(&dy, x, &weights.weight, &statistics, [false; 2]);
            [y, dx]
        };
        let expected = run(&clean);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1e30] {
            for at in [3, d - 1] {
                let mut x = clean.clone();
                x[2 * d + at] = bad;
                let found = run(&x);
                let what = format!("{} {kind:?} {bad} at {at}", token.isa());
                for row in [0, 1, 3] {
                    let row = row * d..(row + 1) * d;
                    for (found, expected) in found.iter().zip(&expected) {
                        assert_eq!(found[row.clone()], expected[row.clone()], "{what}");
                    }
                }
                let mut all = found.iter().flat_map(|x| &x[2 * d..3 * d]);
                assert!(all.all(|x| x.is_nan()), "{what}");
            }
        }
    }
}

#[test]
fn refuse_what_does_not_fit() {
    let rms = |x: usize, d: usize, y: usize, n: usize| {
        let (x, weight) = (vec![0.0_f32; x], vec![0.0; d]);
        rms_norm_forward(&x, &weight, EPS, &mut vec![0.0; y], &mut vec![0.0; n])
    };
    assert_eq!(rms(6, 3, 6, 2), Ok(()));
    assert_eq!(rms(0, 0, 0, 0), Err(KernelError::Zero { name: "d" }));
    let wrong = Err(KernelError::Length {
        name: "x",
        expected: 9,
        found: 6,
    });
    assert_eq!(rms(6, 3, 6, 3), wrong);
    assert_refused("y", rms(6, 3, 5, 2));

    let layer = |x: usize, d: usize, bias: usize, y: usize, n: [usize; 2]| {
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
    assert_eq!(layer(6, 3, 3, 6, [2, 2]), Ok(()));
    let none = layer(0, 0, 0, 0, [0, 0]);
    assert_eq!(none, Err(KernelError::Zero { name: "d" }));
    assert_refused("x", layer(6, 3, 3, 6, [3, 3]));
    assert_refused("bias", layer(6, 3, 2, 6, [2, 2]));
    assert_refused("y", layer(6, 3, 3, 5, [2, 2]));
    assert_refused("inv_std", layer(6, 3, 3, 6, [2, 1]));

    let (six, three, two) = ([0.0_f32; 6], [0.0; 3], [0.0; 2]);
    let mut dx = [0.0; 6];
    let short = rms_norm_backward_add(&six, &six, &three, &two, &mut dx[1..]);
    assert_refused("dx", short);
    let short = layer_norm_backward_add(&six[..5], &six, &three, &two, &two, &mut dx);
    assert_refused("dy", short);
    let short = layer_norm_backward_add(&six, &six, &three, &two, &two, &mut dx[1..]);
    assert_refused("dx", short);
    let mut wrong = [0.0; 2];
    let short = rms_norm_backward(&six, &six, &three, &two, &mut dx, Some(&mut wrong));
    assert_refused("dweight", short);
    let to = Some(&mut wrong[..]);
    let short = layer_norm_backward(&six, &six, &three, &two, &two, &mut dx, None, to);
    assert_refused("dbias", short);
}
