//! `[method]` of the kinds that train the weights themselves.

use serde::{Serialize, Serializer};

use super::super::error::ConfigError;
use super::super::section::{MOST, Range, Section};
use super::super::tree::Value;
use super::lora::{ModuleSelector, read_selector};

/// Which weights are trained.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TargetConfig {
    /// The modules that are trained.
    pub target_modules: ModuleSelector,
    /// Modules that are not although `target_modules` selects them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_modules: Option<ModuleSelector>,
    /// Which biases are trained along.
    pub bias: TrainedBias,
}

/// Which biases are trained along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainedBias {
    /// None.
    None,
    /// Every bias of the model.
    All,
}

impl TargetConfig {
    pub(super) const KEYS: [&str; 3] = ["target_modules", "exclude_modules", "bias"];

    pub(super) fn read(
        section: &Section<'_>,
        default_bias: TrainedBias,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            target_modules: read_selector(section, "target_modules")?
                .unwrap_or(ModuleSelector::AllLinear),
            exclude_modules: read_selector(section, "exclude_modules")?,
            bias: section
                .choice(
                    "bias",
                    &[("none", TrainedBias::None), ("all", TrainedBias::All)],
                )?
                .unwrap_or(default_bias),
        })
    }
}

/// `W = s V` with a constant `s`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScaleConfig {
    /// The constant.
    pub scale: WeightScale,
    /// Which weights.
    #[serde(flatten)]
    pub targets: TargetConfig,
}

/// The constant `s` of `W = s V`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum WeightScale {
    /// `"horizon"`: `sqrt(lambda)` with `lambda = 1/sqrt(T)`, so that plain descent on `V` moves `W` as
    /// that scale of the gradient does.
    Horizon,
    /// A number greater than 0.
    Fixed(f64),
}

impl WeightScale {
    const HORIZON: &str = "horizon";
}

impl Serialize for WeightScale {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Horizon => serializer.serialize_str(Self::HORIZON),
            Self::Fixed(scale) => serializer.serialize_f64(*scale),
        }
    }
}

impl ScaleConfig {
    pub(super) const KEYS: [&str; 4] = ["scale", "target_modules", "exclude_modules", "bias"];

    pub(super) fn read(section: &Section<'_>, targets: TargetConfig) -> Result<Self, ConfigError> {
        let scale = match section.find("scale") {
            None => WeightScale::Horizon,
            Some(entry) => match &entry.node.value {
                Value::String(word) if word == WeightScale::HORIZON => WeightScale::Horizon,
                Value::String(_) => {
                    return Err(section.out_of_range(
                        "scale",
                        &entry.node,
                        "\"horizon\" or a finite number greater than 0",
                    ));
                }
                _ => {
                    WeightScale::Fixed(section.number_of("scale", &entry.node, Range::Positive)?)
                }
            },
        };
        Ok(Self { scale, targets })
    }
}

/// `W = g v / |v|` for each row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WeightNormConfig {
    /// How `g`, `v` and the bias start.
    pub init: WeightNormInit,
    /// Which weights.
    #[serde(flatten)]
    pub targets: TargetConfig,
}

/// How weight normalization starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightNormInit {
    /// At the weights as they are.
    Weights,
    /// So that the outputs of every layer have mean 0 and variance 1 over the training data.
    Data,
}

impl WeightNormConfig {
    pub(super) const KEYS: [&str; 4] = ["target_modules", "exclude_modules", "bias", "init"];

    pub(super) fn read(section: &Section<'_>, targets: TargetConfig) -> Result<Self, ConfigError> {
        let init = section.choice(
            "init",
            &[
                ("weights", WeightNormInit::Weights),
                ("data", WeightNormInit::Data),
            ],
        )?;
        Ok(Self {
            init: init.unwrap_or(WeightNormInit::Weights),
            targets,
        })
    }
}

/// `W = gamma V / sigma(V)`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SigmaReparamConfig {
    /// How `gamma` starts.
    pub gamma_init: GammaInit,
    /// Which weights.
    #[serde(flatten)]
    pub targets: TargetConfig,
}

/// How the trained spectral norm starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GammaInit {
    /// At the weight's own, so that the model starts unchanged.
    Sigma,
    /// At one, as in the paper.
    One,
}

impl SigmaReparamConfig {
    pub(super) const KEYS: [&str; 4] = ["target_modules", "exclude_modules", "bias", "gamma_init"];

    pub(super) fn read(section: &Section<'_>, targets: TargetConfig) -> Result<Self, ConfigError> {
        let gamma_init = section.choice(
            "gamma_init",
            &[("sigma", GammaInit::Sigma), ("one", GammaInit::One)],
        )?;
        Ok(Self {
            gamma_init: gamma_init.unwrap_or(GammaInit::Sigma),
            targets,
        })
    }
}

/// `W = sum_k s_k V_k + B A + diag(d)`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OverparameterizedConfig {
    /// The constants `s_k` of the dense branches, each greater than 0.
    pub branches: Vec<f64>,
    /// The inner width of the product branch, in 0..=65536; 0 for none.
    pub product_width: usize,
    /// Whether there is a diagonal branch; the weights have to be square.
    pub diagonal: bool,
    /// Which weights.
    #[serde(flatten)]
    pub targets: TargetConfig,
}

impl OverparameterizedConfig {
    pub(super) const KEYS: [&str; 6] = [
        "branches",
        "product_width",
        "diagonal",
        "target_modules",
        "exclude_modules",
        "bias",
    ];

    pub(super) fn read(section: &Section<'_>, targets: TargetConfig) -> Result<Self, ConfigError> {
        let branches = section
            .numbers("branches", Range::Positive)?
            .unwrap_or_else(|| vec![1.0]);
        let product_width = section
            .find("product_width")
            .map(|entry| section.size_of("product_width", &entry.node, 0, MOST))
            .transpose()?;
        Ok(Self {
            branches,
            product_width: product_width.unwrap_or(0),
            diagonal: section.boolean("diagonal")?.unwrap_or(false),
            targets,
        })
    }
}
