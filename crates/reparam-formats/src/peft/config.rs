//! `adapter_config.json` of a LoRA adapter.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::features;
use super::files::render;
use super::{PeftError, TargetModules};
use crate::config::{ConfigError, JsonObject};

/// The version of PEFT whose format is written.
pub const PEFT_VERSION: &str = "0.21.2";

/// Which biases an adapter trains and stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bias {
    /// None.
    #[default]
    None,
    /// Every bias of the model.
    All,
    /// Those of the adapted modules.
    LoraOnly,
}

impl Bias {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::All => "all",
            Self::LoraOnly => "lora_only",
        }
    }
}

/// How the factors were initialized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InitLoraWeights {
    /// `true`: A is Kaiming-uniform and B zero; `false`: both are random.
    Flag(bool),
    /// A named initialization that leaves the base as it is, such as `gaussian`.
    Named(String),
}

/// One layer index or a list of them, as the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerIndices {
    /// A single index.
    One(usize),
    /// A list; an empty one means all layers.
    List(Vec<usize>),
}

impl LayerIndices {
    /// Returns the indices as a slice.
    pub fn as_slice(&self) -> &[usize] {
        match self {
            Self::One(index) => std::slice::from_ref(index),
            Self::List(list) => list,
        }
    }
}

/// The configuration of a LoRA adapter, with PEFT's names and defaults.
///
/// A weight `W` (out x in) becomes `W + scaling * B A`, where A is r x in, B is out x r, and
/// `scaling` is `lora_alpha / r`, or `lora_alpha / sqrt(r)` with `use_rslora`.
///
/// Keys of PEFT that are not here are written with the value that turns them off, and a file in
/// which they are turned on is refused.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraAdapterConfig {
    /// The rank; by default 8.
    pub r: usize,
    /// The numerator of the scaling; by default 8.
    pub lora_alpha: f64,
    /// The probability, at least 0 and below 1, with which inputs of A are zeroed in training.
    pub lora_dropout: f64,
    /// Whether the scaling is `lora_alpha / sqrt(r)`.
    pub use_rslora: bool,
    /// Which modules are adapted. `None` leaves the choice to PEFT's table of architectures.
    pub target_modules: Option<TargetModules>,
    /// Which of them are not.
    pub exclude_modules: Option<TargetModules>,
    /// Which parameters are adapted that are no linear layer's, such as those of experts: the ends of their paths.
    pub target_parameters: Vec<String>,
    /// Which layers are adapted; only with a list of names as `target_modules`.
    pub layers_to_transform: Option<LayerIndices>,
    /// The name, or names, of the list that the layers are in; any if empty.
    pub layers_pattern: Vec<String>,
    /// Ranks of modules other than `r`: regular expressions for the end of a module's path. The
    /// first that matches counts.
    pub rank_pattern: Vec<(String, usize)>,
    /// Values of other than `lora_alpha`, likewise.
    pub alpha_pattern: Vec<(String, f64)>,
    /// Which biases are stored too.
    pub bias: Bias,
    /// How the factors were initialized.
    pub init_lora_weights: InitLoraWeights,
    /// Whether the rows of the adapted weight have trained lengths (DoRA).
    pub use_dora: bool,
    /// Whether the base stores its weights in x out (GPT-2). It changes nothing in the adapter.
    pub fan_in_fan_out: bool,
    /// Modules that are stored whole, such as a new classification head.
    pub modules_to_save: Vec<String>,
    /// The model that is adapted, as a path or a hub id.
    pub base_model_name_or_path: Option<String>,
    /// Its revision.
    pub revision: Option<String>,
    /// What the model does, such as `CAUSAL_LM`.
    pub task_type: Option<String>,
    /// The class of the base, which PEFT notes if there is no task type.
    pub auto_mapping: Option<Map<String, Value>>,
}

impl Default for LoraAdapterConfig {
    fn default() -> Self {
        Self {
            r: 8,
            lora_alpha: 8.0,
            lora_dropout: 0.0,
            use_rslora: false,
            target_modules: None,
            exclude_modules: None,
            target_parameters: Vec::new(),
            layers_to_transform: None,
            layers_pattern: Vec::new(),
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            bias: Bias::None,
            init_lora_weights: InitLoraWeights::Flag(true),
            use_dora: false,
            fan_in_fan_out: false,
            modules_to_save: Vec::new(),
            base_model_name_or_path: None,
            revision: None,
            task_type: None,
            auto_mapping: None,
        }
    }
}

/// The task types of PEFT.
const TASK_TYPES: [&str; 6] = [
    "SEQ_CLS",
    "SEQ_2_SEQ_LM",
    "CAUSAL_LM",
    "TOKEN_CLS",
    "QUESTION_ANS",
    "FEATURE_EXTRACTION",
];

impl LoraAdapterConfig {
    /// Reads the text of an `adapter_config.json`; `path` is for messages.
    ///
    /// # Errors
    ///
    /// [`PeftError::UnsupportedType`], [`PeftError::UnsupportedFeature`] and
    /// [`PeftError::UnknownKey`] for what cannot be honoured, [`PeftError::Config`] for values that
    /// are missing or impossible, [`PeftError::Contradiction`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, PeftError> {
        Self::from_json(&JsonObject::parse(path, text)?)
    }

    /// Reads a configuration.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub fn from_json(raw: &JsonObject) -> Result<Self, PeftError> {
        let peft_type = raw
            .str("peft_type")?
            .ok_or_else(|| raw.missing("peft_type"))?;
        if peft_type != "LORA" {
            return Err(PeftError::UnsupportedType {
                path: raw.path().to_path_buf(),
                peft_type: peft_type.to_owned(),
            });
        }
        features::check(raw)?;
        let defaults = Self::default();
        let config = Self {
            r: raw.usize("r")?.unwrap_or(defaults.r),
            lora_alpha: raw.f64("lora_alpha")?.unwrap_or(defaults.lora_alpha),
            lora_dropout: raw.f64("lora_dropout")?.unwrap_or(defaults.lora_dropout),
            use_rslora: raw.bool("use_rslora")?.unwrap_or(defaults.use_rslora),
            target_modules: targets(raw, "target_modules")?,
            exclude_modules: targets(raw, "exclude_modules")?.filter(|names| !names.is_empty()),
            target_parameters: raw.strings("target_parameters")?.unwrap_or_default(),
            layers_to_transform: layers_to_transform(raw)?,
            layers_pattern: layers_pattern(raw)?,
            rank_pattern: pattern(raw, "rank_pattern", "a positive whole number", |value| {
                usize::try_from(value.as_u64()?)
                    .ok()
                    .filter(|rank| *rank > 0)
            })?,
            alpha_pattern: pattern(raw, "alpha_pattern", "a number", Value::as_f64)?,
            bias: bias(raw)?,
            init_lora_weights: init_lora_weights(raw)?,
            use_dora: raw.bool("use_dora")?.unwrap_or(false),
            fan_in_fan_out: raw.bool("fan_in_fan_out")?.unwrap_or(false),
            modules_to_save: raw.strings("modules_to_save")?.unwrap_or_default(),
            base_model_name_or_path: owned(raw, "base_model_name_or_path")?,
            revision: owned(raw, "revision")?,
            task_type: owned(raw, "task_type")?,
            auto_mapping: raw
                .object("auto_mapping")?
                .map(|object| object.map().clone()),
        };
        config.check(raw)?;
        Ok(config)
    }

    /// Checks the settings against each other.
    ///
    /// # Errors
    ///
    /// Those of [`LoraAdapterConfig::parse`].
    pub fn validate(&self) -> Result<(), PeftError> {
        let path = Path::new(super::CONFIG_FILE);
        let text = self.render();
        // The first check sees numbers that JSON cannot hold, the second all that a file can.
        self.check(&JsonObject::parse(path, &text)?)?;
        Self::parse(path, &text).map(|_| ())
    }

    fn check(&self, raw: &JsonObject) -> Result<(), PeftError> {
        if self.r == 0 {
            return Err(raw.invalid("r", "the rank has to be at least 1").into());
        }
        if !self.lora_alpha.is_finite() {
            return Err(raw.invalid("lora_alpha", "it has to be finite").into());
        }
        if !(0.0..1.0).contains(&self.lora_dropout) {
            return Err(raw
                .invalid("lora_dropout", "it has to be at least 0 and below 1")
                .into());
        }
        if let Some(task) = &self.task_type
            && !TASK_TYPES.contains(&task.as_str())
        {
            let reason = format!("PEFT knows {}", TASK_TYPES.join(", "));
            return Err(raw.invalid("task_type", reason).into());
        }
        let is_plain = self.lora_dropout == 0.0 && !self.use_dora && !self.fan_in_fan_out;
        if !self.target_parameters.is_empty() && !is_plain {
            return Err(PeftError::Contradiction {
                reason: "target_parameters work with neither lora_dropout nor use_dora nor fan_in_fan_out, in PEFT as here",
            });
        }
        let is_list = matches!(self.target_modules, Some(TargetModules::Names(_)) | None);
        if self.layers_to_transform.is_some() && !is_list {
            return Err(PeftError::Contradiction {
                reason: "layers_to_transform cannot be used when target_modules is a string",
            });
        }
        if !self.layers_pattern.is_empty() && self.layers_to_transform.is_none() {
            return Err(PeftError::Contradiction {
                reason: "layers_pattern needs layers_to_transform",
            });
        }
        Ok(())
    }

    /// Returns the text of `adapter_config.json`, with the keys and values of PEFT 0.21.2.
    ///
    /// Numbers that may be either are written as integers where they are whole, as PEFT's users
    /// give them.
    pub fn render(&self) -> String {
        render(self.to_value())
    }

    /// Returns every key that PEFT writes.
    pub fn to_map(&self) -> Map<String, Value> {
        match self.to_value() {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    fn to_value(&self) -> Value {
        json!({
            "alora_invocation_tokens": null,
            "alpha_pattern": self.alpha_pattern.iter().map(|(key, alpha)| (key.clone(), number(*alpha)))
                .collect::<Map<_, _>>(),
            "arrow_config": null,
            "auto_mapping": self.auto_mapping,
            "base_model_name_or_path": self.base_model_name_or_path,
            "bias": self.bias.name(),
            "corda_config": null,
            "ensure_weight_tying": false,
            "eva_config": null,
            "exclude_modules": self.exclude_modules.as_ref().map(TargetModules::to_value),
            "fan_in_fan_out": self.fan_in_fan_out,
            "inference_mode": true,
            "init_lora_weights": match &self.init_lora_weights {
                InitLoraWeights::Flag(flag) => Value::Bool(*flag),
                InitLoraWeights::Named(name) => Value::String(name.clone()),
            },
            "kasa_config": null,
            "layer_replication": null,
            "layers_pattern": match self.layers_pattern.as_slice() {
                [] => Value::Null,
                [pattern] => json!(pattern),
                patterns => json!(patterns),
            },
            "layers_to_transform": self.layers_to_transform.as_ref().map(|layers| match layers {
                LayerIndices::One(index) => json!(index),
                LayerIndices::List(list) => json!(list),
            }),
            "loftq_config": {},
            "lora_alpha": number(self.lora_alpha),
            "lora_bias": false,
            "lora_dropout": self.lora_dropout,
            "lora_ga_config": null,
            "megatron_config": null,
            "megatron_core": "megatron.core",
            "modules_to_save": match self.modules_to_save.as_slice() {
                [] => Value::Null,
                modules => json!(modules),
            },
            "monteclora_config": null,
            "peft_type": "LORA",
            "peft_version": PEFT_VERSION,
            "qalora_group_size": 16,
            "r": self.r,
            "rank_pattern": self.rank_pattern.iter().map(|(key, rank)| (key.clone(), json!(rank)))
                .collect::<Map<_, _>>(),
            "revision": self.revision,
            "target_modules": self.target_modules.as_ref().map(TargetModules::to_value),
            "target_parameters": match self.target_parameters.as_slice() {
                [] => Value::Null,
                targets => json!(targets),
            },
            "task_type": self.task_type,
            "trainable_token_indices": null,
            "use_bdlora": null,
            "use_dora": self.use_dora,
            "use_qalora": false,
            "use_rslora": self.use_rslora,
            "velora_config": null,
        })
    }
}

/// Returns a whole number as an integer and any other as a float.
fn number(value: f64) -> Value {
    // Whole numbers up to 2^53 are exact in both types.
    if value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 {
        json!(value as i64)
    } else {
        json!(value)
    }
}

fn owned(raw: &JsonObject, key: &str) -> Result<Option<String>, ConfigError> {
    Ok(raw.str(key)?.map(str::to_owned))
}

fn targets(raw: &JsonObject, key: &str) -> Result<Option<TargetModules>, ConfigError> {
    match raw.get(key) {
        None => Ok(None),
        Some(value) => TargetModules::from_value(value)
            .map(Some)
            .ok_or_else(|| raw.wrong_type(key, "a string or a list of strings")),
    }
}

fn layers_to_transform(raw: &JsonObject) -> Result<Option<LayerIndices>, ConfigError> {
    let key = "layers_to_transform";
    let index = |value: &Value| usize::try_from(value.as_u64()?).ok();
    let parsed = match raw.get(key) {
        None => return Ok(None),
        Some(Value::Array(list)) => list
            .iter()
            .map(index)
            .collect::<Option<_>>()
            .map(LayerIndices::List),
        Some(value) => index(value).map(LayerIndices::One),
    };
    parsed
        .map(Some)
        .ok_or_else(|| raw.wrong_type(key, "a layer index or a list of them"))
}

fn layers_pattern(raw: &JsonObject) -> Result<Vec<String>, ConfigError> {
    match raw.get("layers_pattern") {
        None => Ok(Vec::new()),
        Some(Value::String(pattern)) if pattern.is_empty() => Ok(Vec::new()),
        Some(Value::String(pattern)) => Ok(vec![pattern.clone()]),
        Some(_) => Ok(raw.strings("layers_pattern")?.unwrap_or_default()),
    }
}

fn pattern<T, F>(
    raw: &JsonObject,
    key: &str,
    expected: &'static str,
    convert: F,
) -> Result<Vec<(String, T)>, ConfigError>
where
    F: Fn(&Value) -> Option<T>,
{
    let Some(object) = raw.object(key)? else {
        return Ok(Vec::new());
    };
    let entries = object.map().iter().map(|(name, value)| {
        let converted = convert(value).ok_or_else(|| object.wrong_type(name, expected))?;
        Ok((name.clone(), converted))
    });
    entries.collect()
}

fn bias(raw: &JsonObject) -> Result<Bias, ConfigError> {
    match raw.str("bias")? {
        None | Some("none") => Ok(Bias::None),
        Some("all") => Ok(Bias::All),
        Some("lora_only") => Ok(Bias::LoraOnly),
        Some(_) => Err(raw.invalid("bias", "it has to be none, all or lora_only")),
    }
}

fn init_lora_weights(raw: &JsonObject) -> Result<InitLoraWeights, PeftError> {
    match raw.get("init_lora_weights") {
        None => Ok(InitLoraWeights::Flag(true)),
        Some(Value::Bool(flag)) => Ok(InitLoraWeights::Flag(*flag)),
        Some(Value::String(name)) => {
            features::check_init(raw, name)?;
            Ok(InitLoraWeights::Named(name.clone()))
        }
        Some(_) => Err(raw
            .wrong_type("init_lora_weights", "true, false or a name")
            .into()),
    }
}
