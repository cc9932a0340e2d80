//! What is over-parameterization's alone: the folded weight, and the law of its gradient's mask.

use burn::module::Module;
use burn::tensor::{DType, Tensor};

use super::toy::{data, numbers, randomize, values};
use super::{assert_close, max_difference, objective};
use crate::methods::{MethodError, OverparameterizedConfig, Selection, attach};
use crate::optim::{GradientTransform, Momentum, Optimizer, Schedule, WeightDecay};
use crate::parameters;
use crate::{ForwardContext, Linear};

const WIDTH: usize = 4;
const STEPS: u64 = 50;
const RATE: f64 = 0.05;
const MOMENTUM: f64 = 0.9;
const DECAY: f64 = 0.01;

fn layer(dtype: DType) -> Linear {
    Linear::new(
        data(numbers(WIDTH * WIDTH, 1), &[WIDTH, WIDTH], dtype),
        None,
    )
}

fn config(branches: &[f64], product_width: usize, diagonal: bool) -> OverparameterizedConfig {
    OverparameterizedConfig {
        branches: branches.to_vec(),
        product_width,
        diagonal,
        selection: Selection::default(),
    }
}

fn loss(x: Tensor<2>, weight: Tensor<2>) -> Tensor<1> {
    let y = x.matmul(weight.transpose());
    objective(y.clone().tanh()) + (y.clone() * y).mean()
}

/// The left side of RepOptimizers' law: branches, trained.
fn branches_trained(config: &OverparameterizedConfig, x: &Tensor<2>) -> Vec<Vec<f64>> {
    let (mut layer, _) = attach(layer(DType::F64), config, 0).expect("attaches");
    let chain: Vec<Box<dyn GradientTransform>> = vec![
        Box::new(WeightDecay::new(DECAY).expect("valid")),
        Box::new(Momentum::new(MOMENTUM, false).expect("valid")),
    ];
    let mut optimizer = Optimizer::new(chain, RATE, Schedule::Constant, STEPS).expect("valid");
    let mut weights = Vec::new();
    for pass in 0..STEPS {
        let y = layer.forward(x.clone(), &ForwardContext::training(0, pass));
        let loss = objective(y.clone().tanh()) + (y.clone() * y).mean();
        let mut gradients = loss.backward();
        let gradients = parameters::take_gradients(&layer, &mut gradients);
        (layer, _) = optimizer.step(layer, gradients).expect("a finite step");
        weights.push(values(&layer.weight.param().val()));
    }
    weights
}

/// The right side: one weight, its gradient multiplied by a mask before decay and momentum.
fn folded_trained(mask: &[f64], x: &Tensor<2>) -> Vec<Vec<f64>> {
    let mut weight = values(&layer(DType::F64).weight.param().val());
    let mut velocity = vec![0.0; weight.len()];
    let mut weights = Vec::new();
    for _ in 0..STEPS {
        let w = data::<2>(weight.clone(), &[WIDTH, WIDTH], DType::F64).require_grad();
        let gradients = loss(x.clone(), w.clone()).backward();
        let gradient = values(&w.grad(&gradients).expect("it is tracked"));
        for (idx, gradient) in gradient.into_iter().enumerate() {
            let decayed = mask[idx] * gradient + DECAY * weight[idx];
            velocity[idx] = MOMENTUM * velocity[idx] + decayed;
            weight[idx] -= RATE * velocity[idx];
        }
        weights.push(weight.clone());
    }
    weights
}

/// RepOptimizers (arXiv 2205.15242): with momentum and decay, the sum of constant-scaled branches moves
/// as the folded weight whose gradient is multiplied by the sum of the squares of the scales, and by
/// one more where a diagonal branch is.
#[test]
fn branches_are_a_mask_on_the_gradient_of_the_folded_weight() {
    let x: Tensor<2> = data(numbers(6 * WIDTH, 2), &[6, WIDTH], DType::F64);
    let (s1, s2) = (0.6_f64, 1.1_f64);
    let dense = s1 * s1 + s2 * s2;
    for diagonal in [false, true] {
        let mask: Vec<f64> = (0..WIDTH * WIDTH)
            .map(|idx| {
                let is_diagonal = diagonal && idx % (WIDTH + 1) == 0;
                dense + f64::from(u8::from(is_diagonal))
            })
            .collect();
        let branched = branches_trained(&config(&[s1, s2], 0, diagonal), &x);
        let folded = folded_trained(&mask, &x);
        for (branched, folded) in branched.iter().zip(&folded) {
            assert_close(branched, folded, 1e-10, "W");
        }
        // Without the mask the folded weight goes elsewhere, from the first step on.
        let unmasked = folded_trained(&[1.0; WIDTH * WIDTH], &x);
        assert!(max_difference(&unmasked[0], &folded[0]) > 1e-3);
        assert!(max_difference(&folded[0], &folded[STEPS as usize - 1]) > 0.1);
    }
}

/// The definition, by hand on every branch.
#[test]
fn the_weight_is_the_sum_of_the_branches() {
    let config = config(&[0.5, 2.0], 3, true);
    let (layer, _) = attach(layer(DType::F64), &config, 4).expect("attaches");
    let layer = randomize(layer, 2);
    let list = parameters::trainable(&layer);
    let names: Vec<&str> = list.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "weight_branch_0",
            "weight_branch_1",
            "weight_product_a",
            "weight_product_b",
            "weight_diagonal"
        ]
    );
    let theta: Vec<Vec<f64>> = list.iter().map(|tensor| values(&tensor.values)).collect();
    let mut expected = Vec::new();
    for row in 0..WIDTH {
        for col in 0..WIDTH {
            let at = row * WIDTH + col;
            let product: f64 = (0..3)
                .map(|k| theta[3][row * 3 + k] * theta[2][k * WIDTH + col])
                .sum();
            let diagonal = if row == col { theta[4][row] } else { 0.0 };
            expected.push(0.5 * theta[0][at] + 2.0 * theta[1][at] + product + diagonal);
        }
    }
    assert_close(&values(&layer.weight.param().val()), &expected, 1e-14, "W");
    let folded = layer.materialize();
    assert_close(
        &values(&folded.weight.param().base()),
        &expected,
        1e-14,
        "folded",
    );
    assert_eq!(parameters::trainable(&folded).len(), 1);
}

/// On the toy networks no weight is square, so that the laws are checked on the layer here.
#[test]
fn a_diagonal_starts_as_nothing_and_has_the_right_gradient() {
    let base = layer(DType::F64);
    let start = values(&base.weight.param().val());
    let config = config(&[1.0], 0, true);
    let (layer, _) = attach(base, &config, 4).expect("attaches");
    assert_eq!(values(&layer.weight.param().val()), start);
    let x: Tensor<2> = data(numbers(6 * WIDTH, 2), &[6, WIDTH], DType::F64);
    let mut gradients = loss(x, layer.weight.param().val()).backward();
    let gradients = parameters::take_gradients(&layer, &mut gradients);
    let dense = values(&gradients[0].values);
    let diagonal: Vec<f64> = (0..WIDTH).map(|idx| dense[idx * (WIDTH + 1)]).collect();
    assert_close(&values(&gradients[1].values), &diagonal, 1e-15, "dL/dd");
}

#[test]
fn settings_without_effect_are_refused() {
    let error = attach(layer(DType::F32), &config(&[], 0, false), 0).expect_err("no branch");
    assert!(
        matches!(
            error,
            MethodError::Setting {
                setting: "branches",
                ..
            }
        ),
        "{error}"
    );
    let oblong = Linear::new(data(numbers(6, 1), &[2, 3], DType::F32), None);
    let error = attach(oblong, &config(&[1.0], 0, true), 0).expect_err("not square");
    assert!(matches!(error, MethodError::NoSquareWeight), "{error}");
    assert!(error.hint().is_some());
}
