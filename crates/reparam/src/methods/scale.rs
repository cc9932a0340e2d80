//! A constant factor on a trained weight.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::method::selected;
use super::targets::{BIAS, EXCLUDE_MODULES, Selection, TARGET_MODULES};
use super::{
    Layer, LinearModule, Method, MethodConfig, MethodError, MethodSpec, Result, Start, TensorSpec,
    Theta,
};
use crate::schema::{Fallback, Range, SettingKind, SettingSpec, SettingValue};

/// The word for `s = T^(-1/4)`.
const BY_STEPS: &str = "horizon";

pub(super) static SPEC: MethodSpec = MethodSpec {
    kind: "scale",
    summary: "A constant scale: the effective weight is a fixed multiple of the trained one",
    formula: "W = s V,  s > 0 constant",
    source: "arXiv 2205.15242, with a single branch",
    settings: &[
        SettingSpec {
            key: "scale",
            kind: SettingKind::WordOrNumber(&[BY_STEPS], Range::Positive),
            fallback: Fallback::Word(BY_STEPS),
            meaning: "s: a positive number, or horizon for sqrt(lambda) with lambda = 1 / sqrt(steps)",
        },
        TARGET_MODULES,
        EXCLUDE_MODULES,
        BIAS,
    ],
    tensors: &[TensorSpec::new("weight_v", "V, of the weight's shape")],
    base_name: Some("weight_v"),
    build: |settings, context| {
        let config = match settings.value("scale")? {
            SettingValue::Number(scale) => ScaleConfig::new(*scale),
            _ => ScaleConfig::by_horizon(context.total_steps),
        };
        Ok(Arc::new(
            config.with_selection(Selection::from_settings(settings)?),
        ))
    },
    ..MethodSpec::DEFAULT
};

/// The settings of a constant scale.
///
/// ```text
/// W = s V,   V starts at W0 / s
/// ```
///
/// # The square-root law
///
/// The gradient of `V` is `s dL/dW`, so a step of gradient descent on `V` moves `W` by
/// `-eta s^2 dL/dW`. With `s = sqrt(lambda)` that is gradient descent on `W` with the gradient scaled
/// by `lambda`: what [`Scale`](crate::optim::Scale) does. It holds with momentum and with L2 decay too,
/// because both are linear; it does not hold with Adam, which divides the factor out of the gradient
/// of `V` and so moves `W` by `s` times as much as without the scale.
///
/// # References
///
/// Ding et al., *Re-parameterizing Your Optimizers rather than Architectures* (arXiv 2205.15242):
/// the case of one branch.
///
/// # Cost
///
/// That of full training and one product of the weight's size a forward pass.
#[derive(Debug, Clone, PartialEq)]
pub struct ScaleConfig {
    /// `s`, positive.
    pub scale: f64,
    /// Which layers are trained.
    pub selection: Selection,
}

impl ScaleConfig {
    /// Creates a configuration with a given `s`.
    pub fn new(scale: f64) -> Self {
        Self {
            scale,
            selection: Selection::default(),
        }
    }

    /// Creates a configuration with `s = sqrt(lambda)`, where `lambda = 1/sqrt(horizon)` and `horizon` is the
    /// planned number of steps.
    pub fn by_horizon(horizon: u64) -> Self {
        let lambda = 1.0 / (horizon as f64).sqrt();
        Self::new(lambda.sqrt())
    }

    /// Sets which layers are trained.
    pub fn with_selection(self, selection: Selection) -> Self {
        Self { selection, ..self }
    }
}

impl MethodConfig for ScaleConfig {
    selected!(SPEC, selection);

    fn check(&self, _layers: &[&LinearModule]) -> Result<()> {
        MethodError::require_positive("scale", self.scale)
    }

    fn start(&self, layer: &Layer<'_>) -> Result<Start> {
        let method = Scale { scale: self.scale };
        Ok(Start {
            scaling: Some(self.scale),
            ..Start::new(method).with_base(layer.base() / self.scale)
        })
    }
}

/// The constant scale of one weight; the stored weight is `V`.
#[derive(Debug)]
struct Scale {
    scale: f64,
}

impl Method for Scale {
    fn weight(&self, base: Tensor<2>, _theta: &Theta<'_>) -> Tensor<2> {
        base * self.scale
    }
}
