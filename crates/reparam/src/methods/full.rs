//! Full training: of everything, or of the selected weights.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::method::selected;
use super::targets::{EXCLUDE_MODULES, Selection};
use super::{Layer, Method, MethodConfig, MethodSpec, Result, Start, TensorSpec, Theta};
use crate::schema::{SchemaError, SettingKind, SettingSpec, Settings, optional};

pub(super) static SPEC: MethodSpec = MethodSpec {
    kind: "full",
    aliases: &["identity"],
    summary: "Full training: all parameters themselves are trained, embeddings, norms and head included",
    formula: "W = theta",
    source: "ordinary training, as a reparameterization",
    settings: &[TARGETS, EXCLUDE_MODULES, BIAS],
    tensors: &[TensorSpec::new("weight", "theta, the layer's weight")],
    build: |settings, _| {
        if settings.has(TARGETS.key) {
            let selection = Selection::from_settings(settings)?;
            return Ok(Arc::new(FullConfig { selection }));
        }
        if settings.has(BIAS.key) {
            return Err(SchemaError::NoEffect {
                setting: BIAS.key,
                reason: "`target_modules` is absent, so that all biases are trained",
                fix: "list layers in `target_modules`, or remove `bias`",
            }
            .into());
        }
        let exclude = settings.optional(EXCLUDE_MODULES.key, Settings::modules)?;
        let mut config = FullConfig::whole();
        config.selection.exclude_modules = exclude.cloned();
        Ok(Arc::new(config))
    },
    ..MethodSpec::DEFAULT
};

const TARGETS: SettingSpec = optional(
    "target_modules",
    SettingKind::Modules { all_linear: true },
    "everything",
    "linear layers that alone are trained: a list of names, or a regex; `all-linear` is all but the output head",
);

const BIAS: SettingSpec = optional(
    "bias",
    SettingKind::Word(&["none", "all"]),
    "none",
    "which biases are trained beside `target_modules`",
);

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
    /// What is trained. [`Default`] is the linear layers but the output head; settings without `target_modules` are [`whole`](Self::whole).
    pub selection: Selection,
}

impl FullConfig {
    /// Returns the settings that train all parameters of a model.
    pub fn whole() -> Self {
        let selection = Selection {
            whole: true,
            ..Selection::default()
        };
        Self { selection }
    }
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
