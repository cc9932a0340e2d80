//! What is weight normalization's alone.

use burn::tensor::DType;

use super::toy::{data, numbers, randomize, values};
use super::{F64_TOLERANCE, assert_close, burn_layer, objective};
use crate::methods::{
    MethodError, Selection, WeightLayout, WeightNormConfig, attach, initialize_from_data,
};
use crate::parameters;
use crate::{ForwardContext, Linear};

const D_OUT: usize = 4;
const D_IN: usize = 6;

fn layer(has_bias: bool) -> Linear {
    let weight = data(numbers(D_OUT * D_IN, 5), &[D_OUT, D_IN], DType::F64);
    let bias = has_bias.then(|| data(numbers(D_OUT, 6), &[D_OUT], DType::F64));
    let config = WeightNormConfig::default();
    let (layer, _) = attach(Linear::new(weight, bias), &config, 0).expect("no row is zero");
    layer
}

/// The definition, by hand: a row of norm five.
#[test]
fn the_weight_is_the_definitions() {
    let base = Linear::new(data(vec![3.0, 4.0], &[1, 2], DType::F64), None);
    let (layer, _) = attach(base, &WeightNormConfig::default(), 0).expect("not zero");
    let list = parameters::trainable(&layer);
    let names: Vec<&str> = list.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["weight_v", "weight_g"]);
    assert_eq!(list[1].shape, [1, 1]);
    assert_eq!(values(&list[1].values), [5.0]);
    let moved = list
        .into_iter()
        .zip([vec![5.0, 12.0], vec![26.0]])
        .map(|(tensor, new)| {
            let len = new.len();
            tensor.with_values(data::<1>(new, &[len], DType::F64).inner())
        })
        .collect();
    let layer = parameters::assign(layer, moved);
    assert_close(
        &values(&layer.weight.param().val()),
        &[10.0, 24.0],
        1e-15,
        "W",
    );
}

/// A step along the gradient never shortens a row.
#[test]
fn the_gradient_of_v_is_orthogonal_to_v() {
    let layer = randomize(layer(true), 3);
    let x = data(numbers(5 * D_IN, 8), &[5, D_IN], DType::F64);
    let output = layer.forward(x, &ForwardContext::inference());
    let mut gradients = objective(output.tanh()).backward();
    let gradients = parameters::take_gradients(&layer, &mut gradients);
    let theta = parameters::trainable(&layer);
    assert_eq!(theta[0].name, "weight_v");
    let (v, dv) = (values(&theta[0].values), values(&gradients[0].values));
    for (v, dv) in v.chunks(D_IN).zip(dv.chunks(D_IN)) {
        let product: f64 = v.iter().zip(dv).map(|(v, dv)| v * dv).sum();
        let length: f64 = dv.iter().map(|dv| dv * dv).sum::<f64>().sqrt();
        assert!(length > 1e-3, "{length}");
        assert!(product.abs() < F64_TOLERANCE, "{product}");
    }
}

#[test]
fn a_row_without_direction_is_refused_by_number() {
    let mut weight = numbers(12, 1);
    weight[4..8].fill(0.0);
    let base = Linear::new(data(weight, &[3, 4], DType::F32), None);
    let error = attach(base, &WeightNormConfig::default(), 0).expect_err("zero");
    assert!(
        matches!(error, MethodError::ZeroRow { row: 1, .. }),
        "{error}"
    );
    assert!(error.hint().is_some());
}

fn check_moments(outputs: &[f64]) {
    for output in 0..D_OUT {
        let column: Vec<f64> = outputs
            .iter()
            .skip(output)
            .step_by(D_OUT)
            .copied()
            .collect();
        let n = column.len() as f64;
        let mean = column.iter().sum::<f64>() / n;
        let variance = column.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / n;
        assert!(mean.abs() < 1e-12, "{mean}");
        assert!((variance - 1.0).abs() < 1e-12, "{variance}");
    }
}

#[test]
fn outputs_initialized_from_data_have_mean_zero_and_variance_one() {
    let x = || data(numbers(20 * D_IN, 9), &[20, D_IN], DType::F64) * 3.0 + 0.5;
    let before = layer(true);
    let direction = values(&before.weight.param().base());
    let layer = initialize_from_data(before, x(), WeightLayout::OutIn).expect("it varies");
    check_moments(&values(&layer.forward(x(), &ForwardContext::inference())));
    assert_eq!(values(&layer.weight.param().base()), direction);
    // All three are trained now; a bias that was frozen would stay so.
    assert_eq!(parameters::trainable(&layer).len(), 2);
    let selection = Selection::default().with_weight_layout(WeightLayout::InOut);
    let (burns, _) = attach(
        burn_layer(D_OUT, D_IN, DType::F64, 2),
        &WeightNormConfig {
            selection,
            ..WeightNormConfig::default()
        },
        0,
    )
    .expect("no row is zero");
    let burns = initialize_from_data(burns, x(), WeightLayout::InOut).expect("it varies");
    check_moments(&values(&burns.forward(x())));
}

#[test]
fn an_initialization_that_cannot_be_is_refused() {
    let x = |rows: usize| data(numbers(rows * D_IN, 9), &[rows, D_IN], DType::F64);
    let initialize = |layer: Linear, x| {
        let error = initialize_from_data(layer, x, WeightLayout::OutIn).expect_err("it cannot");
        assert!(error.hint().is_some(), "{error}");
        error
    };
    let error = initialize(layer(false), x(9));
    assert!(
        matches!(error, MethodError::NotInitializable { missing: "bias" }),
        "{error}"
    );
    let weight = data(numbers(D_OUT * D_IN, 5), &[D_OUT, D_IN], DType::F64);
    let error = initialize(Linear::new(weight, None), x(9));
    assert!(
        matches!(error, MethodError::NotInitializable { .. }),
        "{error}"
    );
    let error = initialize(layer(true), x(1));
    assert!(
        matches!(
            error,
            MethodError::NoDeviation {
                output: 0,
                deviation: 0.0
            }
        ),
        "{error}"
    );
    let wide = data(numbers(3 * 7, 9), &[3, 7], DType::F64);
    let error = initialize(layer(true), wide);
    assert!(
        matches!(
            error,
            MethodError::BatchWidth {
                expected: D_IN,
                found: 7
            }
        ),
        "{error}"
    );
}
