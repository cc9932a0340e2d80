//! `[method]` of kind `lora`.

use serde::{Serialize, Serializer};

use super::super::error::ConfigError;
use super::super::section::{MOST, Range, Section};
use super::super::tree::{Node, Value};
use super::trained::TrainedBias;

/// LoRA: `W = W0 + s B A`, with `A` of `[rank, d_in]`, `B` of `[d_out, rank]` and the scaling
/// `s = alpha / rank`, or `alpha / sqrt(rank)` with `use_rslora`.
///
/// # References
///
/// Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685; rsLoRA:
/// Kalajdzievski, arXiv 2312.03732. Selection of modules and patterns as in PEFT's `LoraConfig`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoraConfig {
    /// The rank `r` of the update, in 1..=65536.
    pub rank: usize,
    /// The numerator of the scaling, greater than 0.
    pub alpha: f64,
    /// The probability, in 0..1, that an element of the input of `A` is dropped in training.
    pub dropout: f64,
    /// Whether the scaling is `alpha / sqrt(rank)`.
    pub use_rslora: bool,
    /// The modules that are adapted.
    pub target_modules: ModuleSelector,
    /// Modules that are not adapted although `target_modules` selects them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_modules: Option<ModuleSelector>,
    /// The rank of the modules that a pattern selects; the first pattern that matches wins.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_table")]
    pub rank_pattern: Vec<(String, usize)>,
    /// The alpha of the modules that a pattern selects; the first pattern that matches wins.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_table")]
    pub alpha_pattern: Vec<(String, f64)>,
    /// The layers, counted from 0, that are adapted; all if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers_to_transform: Option<Vec<usize>>,
    /// The name, or names, of the module list that `layers_to_transform` counts in, such as
    /// `layers` or `h`; any that a number follows if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers_pattern: Option<Vec<String>>,
    /// Which biases are trained along.
    pub bias: Bias,
    /// How `A` starts; `B` starts at zero, so that the model starts unchanged.
    pub init: LoraInit,
}

/// A choice of modules by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModuleSelector {
    /// `"all-linear"`: every linear layer except the output head.
    AllLinear,
    /// A list: the modules whose name is an entry, or ends with a dot and an entry.
    Names(Vec<String>),
    /// Another string: the modules whose whole name the regular expression matches.
    Pattern(String),
}

impl Serialize for ModuleSelector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::AllLinear => serializer.serialize_str("all-linear"),
            Self::Names(names) => names.serialize(serializer),
            Self::Pattern(pattern) => serializer.serialize_str(pattern),
        }
    }
}

/// Which biases are trained along with the adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bias {
    /// None.
    None,
    /// Every bias of the model.
    All,
    /// The biases of the adapted modules.
    LoraOnly,
}

/// How the factor `A` starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LoraInit {
    /// Uniform in `+-1/sqrt(d_in)`: PEFT's default, Kaiming's with `a = sqrt(5)`.
    Kaiming,
    /// Normal with standard deviation `1/rank`.
    Gaussian,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 16,
            alpha: 32.0,
            dropout: 0.0,
            use_rslora: false,
            target_modules: ModuleSelector::AllLinear,
            exclude_modules: None,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            layers_to_transform: None,
            layers_pattern: None,
            bias: Bias::None,
            init: LoraInit::Kaiming,
        }
    }
}

impl LoraConfig {
    pub(super) const KEYS: [&str; 12] = [
        "rank",
        "alpha",
        "dropout",
        "use_rslora",
        "target_modules",
        "exclude_modules",
        "rank_pattern",
        "alpha_pattern",
        "layers_to_transform",
        "layers_pattern",
        "bias",
        "init",
    ];

    pub(super) fn read(
        section: &Section<'_>,
        default_bias: TrainedBias,
    ) -> Result<Self, ConfigError> {
        let default = Self {
            bias: match default_bias {
                TrainedBias::None => Bias::None,
                TrainedBias::All => Bias::All,
            },
            ..Self::default()
        };
        let config = Self {
            rank: section.size("rank")?.unwrap_or(default.rank),
            alpha: section
                .number("alpha", Range::Positive)?
                .unwrap_or(default.alpha),
            dropout: section
                .number("dropout", Range::BelowOne)?
                .unwrap_or(default.dropout),
            use_rslora: section.boolean("use_rslora")?.unwrap_or(default.use_rslora),
            target_modules: read_selector(section, "target_modules")?
                .unwrap_or(default.target_modules),
            exclude_modules: read_selector(section, "exclude_modules")?,
            rank_pattern: section
                .patterns("rank_pattern", |s, key, n| s.size_of(key, n, 1, MOST))?,
            alpha_pattern: section.patterns("alpha_pattern", |s, key, n| {
                s.number_of(key, n, Range::Positive)
            })?,
            layers_to_transform: read_layers(section)?,
            layers_pattern: section.strings("layers_pattern")?,
            bias: section
                .choice(
                    "bias",
                    &[
                        ("none", Bias::None),
                        ("all", Bias::All),
                        ("lora_only", Bias::LoraOnly),
                    ],
                )?
                .unwrap_or(default.bias),
            init: section
                .choice(
                    "init",
                    &[
                        ("kaiming", LoraInit::Kaiming),
                        ("gaussian", LoraInit::Gaussian),
                    ],
                )?
                .unwrap_or(default.init),
        };
        config.check_layers(section)?;
        Ok(config)
    }

    /// PEFT refuses the same two combinations, because it would ignore one of the keys.
    fn check_layers(&self, section: &Section<'_>) -> Result<(), ConfigError> {
        if self.layers_pattern.is_some() && self.layers_to_transform.is_none() {
            return Err(section.no_effect(
                "layers_pattern",
                "`layers_to_transform` is absent",
                "give the layers in `layers_to_transform`, or remove `layers_pattern`",
            ));
        }
        if self.layers_to_transform.is_some() && self.target_modules == ModuleSelector::AllLinear {
            return Err(section.no_effect(
                "layers_to_transform",
                "`target_modules` is \"all-linear\", which is the layers of every block",
                "list names in `target_modules`, as in [\"q_proj\", \"v_proj\"]",
            ));
        }
        if self.layers_to_transform.is_some()
            && matches!(self.target_modules, ModuleSelector::Pattern(_))
        {
            return Err(section.no_effect(
                "layers_to_transform",
                "`target_modules` is a regular expression over whole module names",
                "select the layers in the regular expression, or list names in `target_modules`",
            ));
        }
        Ok(())
    }
}

/// A list of names, `"all-linear"`, or a regular expression.
pub(super) fn read_selector(
    section: &Section<'_>,
    key: &'static str,
) -> Result<Option<ModuleSelector>, ConfigError> {
    let Some(entry) = section.find(key) else {
        return Ok(None);
    };
    if let Value::Array(_) = entry.node.value {
        return Ok(section.strings(key)?.map(ModuleSelector::Names));
    }
    let Value::String(text) = &entry.node.value else {
        return Err(section.wrong_type(
            key,
            &entry.node,
            "\"all-linear\", a list of names or a regular expression",
        ));
    };
    if key == "exclude_modules" && text == "all-linear" {
        return Err(section.out_of_range(
            key,
            &entry.node,
            "a list of names or a regular expression",
        ));
    }
    section.string(key)?;
    if text == "all-linear" {
        return Ok(Some(ModuleSelector::AllLinear));
    }
    section.pattern(key, text, &entry.node.span)?;
    Ok(Some(ModuleSelector::Pattern(text.clone())))
}

/// A layer or a list of layers.
fn read_layers(section: &Section<'_>) -> Result<Option<Vec<usize>>, ConfigError> {
    const KEY: &str = "layers_to_transform";
    let Some(entry) = section.find(KEY) else {
        return Ok(None);
    };
    match &entry.node.value {
        Value::Array(items) if items.is_empty() => {
            Err(section.out_of_range(KEY, &entry.node, "a list of at least one layer"))
        }
        Value::Array(items) => items
            .iter()
            .map(|item: &Node| section.integer_of(KEY, item, 0))
            .collect::<Result<_, _>>()
            .map(Some),
        _ => Ok(Some(vec![section.integer_of(KEY, &entry.node, 0)?])),
    }
}

/// Writes an ordered list of pairs as a table.
fn as_table<T: Serialize, S: Serializer>(
    pairs: &[(String, T)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(key, value)| (key, value)))
}
