//! What is sigma-Reparam's alone: the spectral norm.

use burn::tensor::DType;
use nalgebra::DMatrix;

use super::toy::{bits, data, numbers, randomize, values};
use super::{assert_close, objective};
use crate::methods::{GammaInit, MethodError, SigmaReparamConfig, after_step, attach};
use crate::parameters::{self, NamedTensor};
use crate::{ForwardContext, Linear};

const D_OUT: usize = 5;
const D_IN: usize = 8;

fn base(dtype: DType) -> Linear {
    Linear::new(data(numbers(D_OUT * D_IN, 5), &[D_OUT, D_IN], dtype), None)
}

fn attached(gamma_init: GammaInit, dtype: DType) -> Linear {
    let config = SigmaReparamConfig {
        gamma_init,
        ..SigmaReparamConfig::default()
    };
    let (layer, _) = attach(base(dtype), &config, 3).expect("not zero");
    layer
}

fn singular_values(matrix: &[f64]) -> Vec<f64> {
    let svd = DMatrix::from_row_slice(D_OUT, D_IN, matrix).svd(false, false);
    svd.singular_values.iter().copied().collect()
}

fn named(layer: &Linear, name: &str) -> Vec<f64> {
    let state = parameters::state(layer);
    let tensor = state.iter().find(|tensor| tensor.name == name);
    values(&tensor.expect("part of the state").values)
}

#[test]
fn gamma_starts_at_the_largest_singular_value() {
    let expected = singular_values(&values(&base(DType::F64).weight.param().val()))[0];
    for (dtype, tolerance) in [(DType::F64, 1e-13), (DType::F32, 1e-6)] {
        let layer = attached(GammaInit::Sigma, dtype);
        assert_close(
            &named(&layer, "weight_gamma"),
            &[expected],
            tolerance,
            "sigma",
        );
        for name in ["weight_u", "weight_v"] {
            let norm: f64 = named(&layer, name).iter().map(|x| x * x).sum();
            assert_close(&[norm], &[1.0], tolerance, name);
        }
    }
}

/// The documented exception to the identity.
#[test]
fn from_one_the_weight_starts_with_spectral_norm_one() {
    let layer = attached(GammaInit::One, DType::F64);
    assert_eq!(named(&layer, "weight_gamma"), [1.0]);
    let sigma = singular_values(&values(&base(DType::F64).weight.param().val()))[0];
    let expected: Vec<f64> = values(&base(DType::F64).weight.param().val())
        .iter()
        .map(|w| w / sigma)
        .collect();
    assert_close(
        &values(&layer.weight.param().val()),
        &expected,
        1e-13,
        "W0 / sigma",
    );
}

#[test]
fn the_spectral_norm_is_gamma_once_the_iteration_has_caught_up() {
    let mut layer = randomize(attached(GammaInit::Sigma, DType::F64), 4);
    for _ in 0..500 {
        layer = after_step(layer);
    }
    let gamma = named(&layer, "weight_gamma")[0].abs();
    let norm = singular_values(&values(&layer.weight.param().val()))[0];
    assert_close(&[norm], &[gamma], 1e-12, "|W|");
}

/// One iteration a step, by hand, however often the forward pass ran.
#[test]
fn the_vectors_advance_by_one_iteration_a_step() {
    let layer = attached(GammaInit::Sigma, DType::F64);
    // Another `V`, and the vectors of the old one.
    let mut list = parameters::trainable(&layer);
    list[0].values = data::<1>(numbers(D_OUT * D_IN, 9), &[D_OUT * D_IN], DType::F64).inner();
    let layer = parameters::assign(layer, list);
    let u = named(&layer, "weight_u");
    for _ in 0..3 {
        let x = data(numbers(2 * D_IN, 8), &[2, D_IN], DType::F64);
        let _ = objective(layer.forward(x, &ForwardContext::training(0, 0))).backward();
    }
    assert_eq!(named(&layer, "weight_u"), u);
    let weight = DMatrix::from_row_slice(D_OUT, D_IN, &values(&layer.weight.param().base()));
    let v = (weight.transpose() * DMatrix::from_column_slice(D_OUT, 1, &u)).normalize();
    let next_u = (&weight * &v).normalize();
    let trained: Vec<NamedTensor> = parameters::trainable(&layer);
    let after = after_step(layer);
    assert_close(&named(&after, "weight_v"), v.as_slice(), 1e-14, "v");
    assert_close(&named(&after, "weight_u"), next_u.as_slice(), 1e-14, "u");
    // Neither is trained, and what is trained did not move.
    let names: Vec<String> = trained.iter().map(|tensor| tensor.name.clone()).collect();
    assert_eq!(names, ["weight_orig", "weight_gamma"]);
    for (before, after) in trained.iter().zip(parameters::trainable(&after)) {
        assert_eq!(bits(&before.values), bits(&after.values));
    }
}

#[test]
fn a_weight_of_zero_is_refused() {
    let zero = Linear::new(data(vec![0.0; 6], &[2, 3], DType::F32), None);
    let error = attach(zero, &SigmaReparamConfig::default(), 0).expect_err("no norm");
    assert!(matches!(error, MethodError::ZeroWeight { .. }), "{error}");
    assert!(error.hint().is_some());
}

/// A vanished weight has no singular vectors: the old ones stay, and nothing panics.
#[test]
fn the_vectors_stay_where_the_weight_vanishes() {
    let layer = attached(GammaInit::Sigma, DType::F32);
    let u = named(&layer, "weight_u");
    let mut list = parameters::trainable(&layer);
    list[0].values = list[0].values.zeros_like();
    let layer = after_step(parameters::assign(layer, list));
    assert_eq!(named(&layer, "weight_u"), u);
}
