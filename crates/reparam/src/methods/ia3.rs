//! IA3: a trained factor for each output, or input, of a layer.

use std::sync::Arc;

use burn::tensor::Tensor;
use reparam_formats::peft::{
    KeySpec, KeyUsage, TargetModules, check_keys, config_of, target_matches,
};
use reparam_ops::LinearPlan;
use serde_json::{Map, Value};

use super::method::{NewTensor, selected};
use super::peft::{AdapterMeta, PeftFormat, key, targets_of};
use super::targets::{EXCLUDE_MODULES, Selection, TARGET_MODULES};
use super::{
    Base, Biases, Layer, LinearModule, Method, MethodConfig, MethodError, MethodSpec, Result,
    Start, TensorSpec, Theta,
};
use crate::ForwardContext;
use crate::schema::{SettingKind, Settings, optional};

pub(super) static SPEC: MethodSpec = MethodSpec {
    kind: "ia3",
    summary: "IA3: a trained factor for each output of a layer, or for each input of a feed-forward layer",
    formula: "W = diag(l) W0,  b = l b0;  in feed-forward modules  W = W0 diag(l)",
    source: "arXiv 2205.05638, section 3.3",
    settings: &[
        TARGET_MODULES,
        EXCLUDE_MODULES,
        optional(
            "feedforward_modules",
            SettingKind::Modules { all_linear: false },
            "down_proj, fc2, mlp.c_proj, wo, dense_4h_to_h, output.dense",
            "target modules whose inputs are scaled instead of their outputs",
        ),
    ],
    tensors: &[TensorSpec::new(
        L,
        "l, [d_out, 1], or [1, d_in] in feed-forward modules",
    )],
    runs_packed: true,
    peft: Some(PeftFormat {
        peft_type: "IA3",
        is_own: |_| true,
        read: |files| {
            check_keys(&files.config, &KEYS)?;
            // What counts is the shape that a module's tensor has.
            let is_feedforward = |name: &&String| {
                let shape = &files.tensors[name.as_str()].shape;
                shape.len() == 2 && shape[0] == 1 && shape[1] > 1
            };
            let suffix = format!(".{L}");
            let feedforward = files.tensors.keys().filter(is_feedforward);
            let paths = feedforward.filter_map(|name| name.strip_suffix(&suffix));
            Ok(Arc::new(Ia3Config {
                feedforward_modules: TargetModules::Names(paths.map(str::to_owned).collect()),
                selection: targets_of(files, &[L])?,
            }))
        },
        check: |_| Ok(()),
    }),
    build: |settings, _| {
        let feedforward = settings.optional("feedforward_modules", Settings::modules)?;
        Ok(Arc::new(Ia3Config {
            selection: Selection::from_settings(settings)?,
            feedforward_modules: match feedforward {
                Some(modules) => modules.clone(),
                None => Ia3Config::default().feedforward_modules,
            },
        }))
    },
    ..MethodSpec::DEFAULT
};

/// The factors.
const L: &str = "ia3_l";

const KEYS: [KeySpec; 6] = [
    key("exclude_modules", "null", KeyUsage::WithoutEffect),
    key("fan_in_fan_out", "false", KeyUsage::WithoutEffect),
    key("feedforward_modules", "null", KeyUsage::Honoured),
    key("init_ia3_weights", "true", KeyUsage::WithoutEffect),
    key("modules_to_save", "null", KeyUsage::Honoured),
    key("target_modules", "null", KeyUsage::Honoured),
];

/// The settings of IA3.
///
/// ```text
/// y = l * (x W0' + b0)          for the outputs,   l starts at 1
/// y = (l * x) W0' + b0          for the inputs of feed-forward modules
/// ```
///
/// # References
///
/// Liu et al., *Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning* (arXiv 2205.05638),
/// section 3.3, which scales keys, values and the inner activations of feed-forward blocks; PEFT's `IA3Config`.
///
/// # Cost
///
/// `d_out` or `d_in` numbers a layer. Over packed weights, the backward pass of an output factor takes the layer's product once
/// more.
#[derive(Debug, Clone, PartialEq)]
pub struct Ia3Config {
    /// The target modules whose inputs are scaled.
    pub feedforward_modules: TargetModules,
    /// Which layers are adapted.
    pub selection: Selection,
}

impl Default for Ia3Config {
    fn default() -> Self {
        let names = [
            "down_proj",
            "fc2",
            "mlp.c_proj",
            "wo",
            "dense_4h_to_h",
            "output.dense",
        ];
        Self {
            feedforward_modules: TargetModules::Names(names.map(str::to_owned).to_vec()),
            selection: Selection::default(),
        }
    }
}

impl Ia3Config {
    fn is_feedforward(&self, module: &str) -> Result<bool> {
        Ok(target_matches(&self.feedforward_modules, module)?)
    }
}

impl MethodConfig for Ia3Config {
    selected!(SPEC, selection);

    /// PEFT's files have no place for biases that are trained beside the factors.
    fn check(&self, _layers: &[&LinearModule]) -> Result<()> {
        if self.selection.bias == Biases::None {
            return Ok(());
        }
        Err(MethodError::Setting {
            setting: "bias",
            expected: "none",
            found: self.selection.bias.name().to_owned(),
        })
    }

    fn start(&self, layer: &Layer<'_>) -> Result<Start> {
        let is_feedforward = self.is_feedforward(&layer.module.path)?;
        let dims = if is_feedforward {
            [1, layer.d_in]
        } else {
            [layer.d_out, 1]
        };
        let ones = layer.place.tensor(vec![1.0; dims[0] * dims[1]], dims);
        let start = Start::new(Ia3 { is_feedforward }).with(NewTensor::matrix(L, ones));
        Ok(Start {
            acts_on_bias: !is_feedforward,
            ..start
        })
    }

    fn peft_config(&self, meta: &AdapterMeta) -> Option<Map<String, Value>> {
        let mut given = meta.common(&self.selection, "none");
        given.remove("bias");
        given.remove("layers_to_transform");
        given.remove("layers_pattern");
        let is_feedforward = |module: &&String| self.is_feedforward(module).unwrap_or(false);
        let (feedforward, others): (Vec<&String>, Vec<&String>) =
            meta.modules.iter().partition(is_feedforward);
        let names = match &meta.target_modules {
            TargetModules::Names(names) => feedforward_names(names, &feedforward, &others),
            _ => None,
        };
        // Where no names tell them apart, paths do.
        let names = names.unwrap_or_else(|| {
            if let TargetModules::Names(_) = &meta.target_modules {
                given.insert("target_modules".into(), meta.modules.clone().into());
            }
            feedforward.into_iter().cloned().collect()
        });
        given.insert("feedforward_modules".into(), names.into());
        Some(config_of("IA3", &KEYS, given))
    }
}

/// Returns the names of targets that are those of all feed-forward modules and of no other; `None` if there are no such names.
///
/// PEFT wants names of the targets, and takes every target whose path ends with one of them.
fn feedforward_names(
    targets: &[String],
    feedforward: &[&String],
    others: &[&String],
) -> Option<Vec<String>> {
    let is_end = |modules: &[&String], name: &String| {
        let mut modules = modules.iter();
        modules.any(|module| module.ends_with(name.as_str()))
    };
    let own = targets.iter().filter(|name| is_end(feedforward, name));
    let names: Vec<String> = own.cloned().collect();
    names
        .iter()
        .all(|name| !is_end(others, name))
        .then_some(names)
}

/// IA3 on one layer.
#[derive(Debug)]
struct Ia3 {
    is_feedforward: bool,
}

impl Ia3 {
    fn factors(theta: &Theta<'_>) -> Tensor<1> {
        let l = theta.matrix(L);
        let [rows, cols] = l.dims();
        l.reshape([rows * cols])
    }
}

impl Method for Ia3 {
    fn weight(&self, base: Tensor<2>, theta: &Theta<'_>) -> Tensor<2> {
        // A row or a column, which is repeated along the other side.
        base * theta.matrix(L)
    }

    fn bias(&self, base: Tensor<1>, theta: &Theta<'_>) -> Tensor<1> {
        base * Self::factors(theta)
    }

    fn plan(
        &self,
        _base: &Base<'_>,
        theta: &Theta<'_>,
        _context: &ForwardContext,
    ) -> Option<LinearPlan> {
        let factors = Some(Self::factors(theta));
        Some(if self.is_feedforward {
            LinearPlan {
                input_scale: factors,
                ..LinearPlan::default()
            }
        } else {
            LinearPlan {
                output_scale: factors,
                ..LinearPlan::default()
            }
        })
    }
}
