//! Full training of the selected weights.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::method::selected;
use super::targets::{BIAS, EXCLUDE_MODULES, Selection, TARGET_MODULES};
use super::{Layer, Method, MethodConfig, MethodSpec, Result, Start, TensorSpec, Theta};

pub(super) static SPEC: MethodSpec = MethodSpec {
    kind: "full",
    aliases: &["identity"],
    summary: "Full training: the selected weights themselves are trained",
    formula: "W = theta",
    source: "ordinary training, as a reparameterization",
    settings: &[TARGET_MODULES, EXCLUDE_MODULES, BIAS],
    tensors: &[TensorSpec::new("weight", "theta, the layer's weight")],
    build: |settings, _| {
        Ok(Arc::new(FullConfig {
            selection: Selection::from_settings(settings)?,
        }))
    },
    ..MethodSpec::DEFAULT
};

/// The settings of full training.
///
/// ```text
/// W = theta,   theta starts at W0
/// ```
///
/// # Cost
///
/// One number trained for each of the selected weights' elements.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FullConfig {
    /// Which layers are trained.
    pub selection: Selection,
}

impl MethodConfig for FullConfig {
    selected!(SPEC, selection);

    fn is_identity(&self) -> bool {
        true
    }

    fn start(&self, layer: &Layer<'_>) -> Result<Start> {
        Ok(Start::new(Full).with_base(layer.base()))
    }
}

/// The weight as it is.
#[derive(Debug)]
struct Full;

impl Method for Full {
    fn weight(&self, base: Tensor<2>, _theta: &Theta<'_>) -> Tensor<2> {
        base
    }
}
