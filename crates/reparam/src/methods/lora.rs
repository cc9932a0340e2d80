//! LoRA: a frozen weight plus a trainable product of two thin matrices.

use std::sync::Arc;

use reparam_formats::peft::{
    AdapterFiles, Bias, InitLoraWeights, LoraAdapterConfig, LoraNumbers, LoraRules, PeftAdapter,
    TargetModules,
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::low_rank::{LowRankPart, names};
use super::method::{NewTensor, selected};
use super::peft::{AdapterMeta, PeftFormat};
use super::target_parameters::TARGET_PARAMETERS;
use super::targets::{
    ADAPTER_BIAS, EXCLUDE_MODULES, LAYERS_PATTERN, LAYERS_TO_TRANSFORM, Selection, TARGET_MODULES,
};
use super::{
    Biases, Layer, LinearModule, MethodConfig, MethodSpec, Result, Start, TensorSpec, init,
};
use crate::schema::{
    Fallback, MOST, Range, SchemaError, SettingKind, SettingSpec, Settings, flag, number, optional,
    size, word,
};

pub(super) static SPEC: MethodSpec = MethodSpec {
    kind: "lora",
    summary: "Low-rank adaptation: a product of two thin matrices is added to a frozen weight",
    formula: "W = W0 + s B A,  s = alpha / rank, or alpha / sqrt(rank) with use_rslora",
    source: "arXiv 2106.09685, equation 3; rsLoRA: arXiv 2312.03732",
    settings: &const { with_parameters(SETTINGS) },
    tensors: &TENSORS,
    runs_packed: true,
    peft: Some(PeftFormat {
        peft_type: "LORA",
        is_own: |config| !config.bool("use_dora").ok().flatten().unwrap_or(false),
        read: |files| Ok(Arc::new(LoraConfig::read(files)?)),
        check: check_files,
    }),
    build: |settings, _| Ok(Arc::new(LoraConfig::from_settings(settings)?)),
    ..MethodSpec::DEFAULT
};

/// The settings with that of LoRA alone.
const fn with_parameters(shared: [SettingSpec; 12]) -> [SettingSpec; 13] {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = shared;
    [a, b, c, d, e, f, TARGET_PARAMETERS, g, h, i, j, k, l]
}

/// The settings that LoRA and DoRA share.
pub(super) const SETTINGS: [SettingSpec; 12] = [
    size("rank", 16, "rows of A and columns of B"),
    SettingSpec::new(
        "alpha",
        SettingKind::Number(Range::Positive),
        Fallback::Twice("rank"),
        "numerator of the scaling s",
    ),
    flag(
        "use_rslora",
        false,
        "scale by alpha / sqrt(rank), which keeps the update size as the rank grows",
    ),
    number("dropout", Range::BelowOne, 0.0, "dropout on the input of A"),
    TARGET_MODULES,
    EXCLUDE_MODULES,
    optional(
        "rank_pattern",
        SettingKind::CountByPattern {
            least: 1,
            most: MOST,
        },
        "none",
        "ranks of single modules: a table of pattern = rank; the first match wins",
    ),
    optional(
        "alpha_pattern",
        SettingKind::NumberByPattern(Range::Positive),
        "none",
        "alphas of single modules: a table of pattern = alpha",
    ),
    LAYERS_TO_TRANSFORM,
    LAYERS_PATTERN,
    ADAPTER_BIAS,
    word(
        "init",
        &["kaiming", "gaussian"],
        "kaiming",
        "how A starts: kaiming or gaussian; B starts at zero",
    ),
];

/// The factors.
pub(super) const A: &str = "lora_A.weight";
pub(super) const B: &str = "lora_B.weight";

const TENSORS: [TensorSpec; 2] = [
    TensorSpec::new(A, "A, [rank, d_in]"),
    TensorSpec::new(B, "B, [d_out, rank]"),
];

/// How `A` starts; `B` starts at zero, so that the adapted model equals the base model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FactorInit {
    /// Uniform in `[-1/sqrt(d_in), 1/sqrt(d_in)]`: PEFT's Kaiming-uniform with `a = sqrt(5)`.
    #[default]
    Kaiming,
    /// Normal with standard deviation `1/rank`.
    Gaussian,
}

/// The settings of LoRA, in PEFT's terms.
///
/// ```text
/// W = W0 + s B A,   s = alpha / rank   or, with rsLoRA,   s = alpha / sqrt(rank)
/// ```
///
/// # References
///
/// Hu et al., *LoRA* (arXiv 2106.09685), equation 3; Kalajdzievski, *rsLoRA* (arXiv 2312.03732).
/// Differs from the paper: `A` starts uniform as in PEFT, where the paper says Gaussian; choose
/// [`FactorInit::Gaussian`] for that.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// The rank `r` of the product.
    pub rank: usize,
    /// The numerator of the scaling.
    pub alpha: f64,
    /// The probability with which an input element of the low-rank path is dropped in training.
    pub dropout: f64,
    /// Whether the scaling divides by the root of the rank.
    pub use_rslora: bool,
    /// Ranks of single modules, by the end of their path or a regular expression for it; the
    /// first that matches counts.
    pub rank_pattern: Vec<(String, usize)>,
    /// Alphas of single modules, likewise.
    pub alpha_pattern: Vec<(String, f64)>,
    /// How `A` starts.
    pub init: FactorInit,
    /// Which layers are adapted.
    pub selection: Selection,
}

impl LoraConfig {
    /// Creates a configuration that adapts every linear layer but the output head.
    pub fn new(rank: usize, alpha: f64) -> Self {
        Self {
            rank,
            alpha,
            dropout: 0.0,
            use_rslora: false,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            init: FactorInit::Kaiming,
            selection: Selection::default(),
        }
    }

    /// Sets which linear layers are adapted.
    pub fn with_target_modules(self, target_modules: TargetModules) -> Self {
        Self {
            selection: self.selection.with_target_modules(target_modules),
            ..self
        }
    }

    /// Returns the effective multiplier of modules without a pattern of their own.
    pub fn scaling(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }

    pub(super) fn from_settings(settings: &Settings) -> Result<Self> {
        if settings.has("target_parameters") && settings.number("dropout")? > 0.0 {
            return Err(SchemaError::NoEffect {
                setting: "dropout",
                reason: "the factors of `target_parameters` have none, as in PEFT",
                fix: "remove `dropout`, or `target_parameters`",
            }
            .into());
        }
        Ok(Self {
            rank: settings.size("rank")?,
            alpha: settings.number("alpha")?,
            dropout: settings.number("dropout")?,
            use_rslora: settings.flag("use_rslora")?,
            rank_pattern: settings.counts_by_pattern("rank_pattern")?,
            alpha_pattern: settings.numbers_by_pattern("alpha_pattern")?,
            init: settings.choice(
                "init",
                &[
                    ("kaiming", FactorInit::Kaiming),
                    ("gaussian", FactorInit::Gaussian),
                ],
            )?,
            selection: Selection::from_settings(settings)?,
        })
    }

    /// Returns the same settings as PEFT writes them.
    pub fn to_adapter_config(&self) -> LoraAdapterConfig {
        LoraAdapterConfig {
            r: self.rank,
            lora_alpha: self.alpha,
            lora_dropout: self.dropout,
            use_rslora: self.use_rslora,
            rank_pattern: self.rank_pattern.clone(),
            alpha_pattern: self.alpha_pattern.clone(),
            bias: match self.selection.bias {
                Biases::None => Bias::None,
                Biases::All => Bias::All,
                Biases::Targets => Bias::LoraOnly,
            },
            init_lora_weights: match self.init {
                FactorInit::Kaiming => InitLoraWeights::Flag(true),
                FactorInit::Gaussian => InitLoraWeights::Named("gaussian".into()),
            },
            ..self.selection.rules()
        }
    }

    /// Reads what PEFT, or [`to_adapter_config`](Self::to_adapter_config), wrote; the layers are those that have factors.
    pub(super) fn read(files: &AdapterFiles) -> Result<Self> {
        let adapter = PeftAdapter::from_files(files.clone())?;
        let config = adapter.config();
        Ok(Self {
            rank: config.r,
            alpha: config.lora_alpha,
            dropout: config.lora_dropout,
            use_rslora: config.use_rslora,
            rank_pattern: config.rank_pattern.clone(),
            alpha_pattern: config.alpha_pattern.clone(),
            init: FactorInit::Kaiming,
            selection: Selection {
                target_modules: TargetModules::Names(
                    adapter.module_paths().map(str::to_owned).collect(),
                ),
                target_parameters: config.target_parameters.clone(),
                bias: match config.bias {
                    Bias::None => Biases::None,
                    Bias::All => Biases::All,
                    Bias::LoraOnly => Biases::Targets,
                },
                ..Selection::default()
            },
        })
    }

    fn rules(&self) -> Result<LoraRules> {
        Ok(LoraRules::new(&self.to_adapter_config())?)
    }

    pub(super) fn check_layers(&self, layers: &[&LinearModule]) -> Result<()> {
        self.to_adapter_config().validate()?;
        let paths: Vec<&str> = layers.iter().map(|layer| layer.path.as_str()).collect();
        Ok(self.rules()?.require_all(&paths)?)
    }

    /// The numbers of both factors on all layers.
    pub(super) fn n_factors(&self, layers: &[&LinearModule]) -> Result<u128> {
        let rules = self.rules()?;
        let numbers = layers.iter().map(|layer| {
            let rank = rules.numbers_for(&layer.path)?.rank as u128;
            let [rows, cols] = layer.shape.map(|size| size as u128);
            let parameter = layer.parameter.as_ref();
            let n_experts = parameter.map_or(1, |of| of.n_experts as u128);
            Ok(rank.saturating_mul(rows + cols.saturating_mul(n_experts)))
        });
        numbers.sum()
    }

    /// Starts with the factors of one layer.
    pub(super) fn start_factors(&self, layer: &Layer<'_>) -> Result<(LowRankPart, Start)> {
        let path = &layer.module.path;
        let numbers = self.rules()?.numbers_for(path)?;
        let (rank, d_in, seed) = (numbers.rank, layer.d_in, layer.place.seed);
        let parameter = layer.module.parameter.as_ref();
        let n_experts = parameter.map_or(1, |of| of.n_experts);
        let [a_name, b_name] = names(parameter);
        let name = layer.module.tensor_name(&a_name);
        let (rows, d_out) = (rank * n_experts, layer.d_out / n_experts);
        let a = match self.init {
            FactorInit::Kaiming => {
                init::uniform(rows * d_in, 1.0 / (d_in as f64).sqrt(), seed, &name)
            }
            FactorInit::Gaussian => init::normal(rows * d_in, 1.0 / rank as f64, seed, &name),
        };
        let b = vec![0.0; d_out * rows];
        let part = LowRankPart {
            scaling: numbers.scaling,
            dropout: self.dropout,
            dropout_tensor: init::name_key(&name),
            experts: parameter.cloned(),
        };
        let start = Start {
            rank: Some(rank),
            scaling: Some(numbers.scaling),
            ..Start::new(part.clone())
        }
        .with(NewTensor::matrix(
            a_name,
            layer.place.tensor(a, [rows, d_in]),
        ))
        .with(NewTensor::matrix(
            b_name,
            layer.place.tensor(b, [d_out, rows]),
        ));
        Ok((part, start))
    }

    pub(super) fn peft_config_with(
        &self,
        meta: &AdapterMeta,
        use_dora: bool,
    ) -> Map<String, Value> {
        LoraAdapterConfig {
            base_model_name_or_path: meta.base_model_name_or_path.clone(),
            revision: meta.revision.clone(),
            task_type: meta.task_type.clone(),
            target_modules: Some(meta.target_modules.clone()),
            modules_to_save: meta.modules_to_save.clone(),
            fan_in_fan_out: meta.fan_in_fan_out,
            use_dora,
            ..self.to_adapter_config()
        }
        .to_map()
    }
}

/// Checks that an adapter of LoRA's file format means the same once it is written.
pub(super) fn check_files(files: &AdapterFiles) -> Result<()> {
    Ok(PeftAdapter::from_files(files.clone())?.check_writable()?)
}

impl MethodConfig for LoraConfig {
    selected!(SPEC, selection);

    fn check(&self, layers: &[&LinearModule]) -> Result<()> {
        self.check_layers(layers)
    }

    fn start(&self, layer: &Layer<'_>) -> Result<Start> {
        self.start_factors(layer).map(|(_, start)| start)
    }

    fn least_numbers(&self, layers: &[&LinearModule]) -> Result<Option<(&'static str, u128)>> {
        Ok(Some(("rank", self.n_factors(layers)?)))
    }

    fn scaling(&self) -> Option<f64> {
        Some(self.scaling())
    }

    fn properties(&self) -> Result<Vec<(&'static str, Value)>> {
        let rules = self.rules()?;
        let modules = match &self.selection.target_modules {
            TargetModules::Names(names) => names.as_slice(),
            _ => &[],
        };
        // Patterns are asked about whole paths, of which these are the ends.
        let parameters = self.selection.target_parameters.iter();
        let parameters = parameters.map(|target| format!("model.{target}"));
        let paths = modules.iter().cloned().chain(parameters);
        let numbers: Vec<LoraNumbers> = paths
            .map(|path| rules.numbers_for(&path))
            .collect::<Result<_, _>>()?;
        let mut ranks: Vec<usize> = numbers.iter().map(|numbers| numbers.rank).collect();
        ranks.sort_unstable();
        let mut scalings: Vec<f64> = numbers.iter().map(|numbers| numbers.scaling).collect();
        scalings.sort_by(f64::total_cmp);
        Ok(vec![
            ("rank", one_or_list(ranks)),
            ("alpha", json!(self.alpha)),
            ("use_rslora", json!(self.use_rslora)),
            ("scaling", one_or_list(scalings)),
            ("dropout", json!(self.dropout)),
        ])
    }

    fn peft_config(&self, meta: &AdapterMeta) -> Option<Map<String, Value>> {
        Some(self.peft_config_with(meta, false))
    }
}

/// Returns sorted values, each once; one that all share by itself.
fn one_or_list<T: Serialize + PartialEq>(mut values: Vec<T>) -> Value {
    values.dedup();
    match values.as_slice() {
        [one] => json!(one),
        many => json!(many),
    }
}
