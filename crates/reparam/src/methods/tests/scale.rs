//! The square-root law: a constant scale of the weight is a constant scale of its gradient.

use burn::tensor::{DType, Tensor};

use super::toy::{data, numbers, values};
use super::{assert_close, max_difference, objective};
use crate::methods::{
    FullConfig, MethodConfig, MethodError, OverparameterizedConfig, ScaleConfig, attach,
};
use crate::optim::{GradientTransform, Momentum, Optimizer, Scale, Schedule};
use crate::{ForwardContext, Linear, parameters};

const D_OUT: usize = 3;
const D_IN: usize = 5;
const STEPS: u64 = 50;
const LAMBDA: f64 = 0.2;
/// Fifty steps of rounding in `f64`, on numbers of size one.
const TOLERANCE: f64 = 1e-12;

/// Trains a layer to a target and returns its effective weight after every step.
fn trajectory(method: &dyn MethodConfig, chain: Vec<Box<dyn GradientTransform>>) -> Vec<Vec<f64>> {
    let base = Linear::new(
        data(numbers(D_OUT * D_IN, 1), &[D_OUT, D_IN], DType::F64),
        None,
    );
    let (mut layer, _) = attach(base, method, 0).expect("attaches");
    let mut optimizer = Optimizer::new(chain, 0.1, Schedule::Constant, STEPS).expect("valid");
    let x: Tensor<2> = data(numbers(4 * D_IN, 2), &[4, D_IN], DType::F64);
    let mut weights = Vec::new();
    for pass in 0..STEPS {
        // Not a quadratic: the gradient depends on the weight in a way of its own.
        let y = layer.forward(x.clone(), &ForwardContext::training(0, pass));
        let loss = objective(y.clone().tanh()) + (y.clone() * y).mean();
        let mut gradients = loss.backward();
        let gradients = parameters::take_gradients(&layer, &mut gradients);
        (layer, _) = optimizer.step(layer, gradients).expect("a finite step");
        weights.push(values(&layer.weight.param().val()));
    }
    weights
}

fn momentum() -> Box<dyn GradientTransform> {
    Box::new(Momentum::new(0.9, false).expect("valid"))
}

#[test]
fn training_v_moves_w_as_scaling_the_gradient_does() {
    let scaled = ScaleConfig::new(LAMBDA.sqrt());
    let whole = FullConfig::default();
    let lambda = || -> Box<dyn GradientTransform> { Box::new(Scale::By(LAMBDA)) };
    for (left, right) in [
        (Vec::new(), vec![lambda()]),
        (vec![momentum()], vec![lambda(), momentum()]),
    ] {
        let left = trajectory(&scaled, left);
        let right = trajectory(&whole, right);
        for (left, right) in left.iter().zip(&right) {
            assert_close(left, right, TOLERANCE, "W");
        }
        // Neither the law nor the test is empty: the weights moved, and without the factor they
        // would have moved elsewhere.
        let moved = max_difference(&right[0], &right[STEPS as usize - 1]);
        assert!(moved > 0.1, "{moved}");
        let unscaled = trajectory(&whole, Vec::new());
        assert!(max_difference(&unscaled[0], &right[0]) > 1e-3);
    }
}

#[test]
fn by_the_horizon_the_scale_is_the_root_of_lambda() {
    let scale = ScaleConfig::by_horizon(10_000).scale;
    assert_close(&[scale], &[0.1], 1e-15, "s");
    let config = ScaleConfig::by_horizon(STEPS);
    let left = trajectory(&config, Vec::new());
    let right = trajectory(&FullConfig::default(), vec![Box::new(Scale::ByHorizon)]);
    for (left, right) in left.iter().zip(&right) {
        assert_close(left, right, TOLERANCE, "W");
    }
}

#[test]
fn a_scale_that_is_not_positive_is_refused() {
    let layer = || Linear::new(data(numbers(6, 1), &[2, 3], DType::F32), None);
    for scale in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = attach(layer(), &ScaleConfig::new(scale), 0).expect_err("not positive");
        assert!(
            matches!(
                error,
                MethodError::Setting {
                    setting: "scale",
                    ..
                }
            ),
            "{error}"
        );
        let branches = OverparameterizedConfig {
            branches: vec![1.0, scale],
            ..OverparameterizedConfig::default()
        };
        let error = attach(layer(), &branches, 0).expect_err("not positive");
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
    }
}
