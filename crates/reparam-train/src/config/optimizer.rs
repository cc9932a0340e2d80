//! `[optimizer]`.

use serde::{Serialize, Serializer};

use super::error::ConfigError;
use super::section::{Range, Section};
use super::tree::Value;

/// `[optimizer]`: the two-step update of the trainable parameters `theta`.
///
/// The gradient is scaled by `lambda`, clipped, and turned into a direction `u` by the
/// [`Algorithm`]; then `theta <- theta - eta u`, where `eta` is the learning rate of the step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OptimizerConfig {
    /// `kind` and the keys that only this kind has.
    #[serde(flatten)]
    pub algorithm: Algorithm,
    /// The peak learning rate, greater than 0. AdamW has a default, SGD has none.
    pub learning_rate: f64,
    /// The L2 norm that the gradient of all parameters together is clipped to; 0 for no clipping.
    pub clip_grad_norm: f64,
    /// The magnitude that each element of the gradient is clipped to; no clipping if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_grad_value: Option<f64>,
    /// The factor that the gradient is multiplied by; 1 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lambda: Option<Lambda>,
    /// How the learning rate goes down after the warm-up.
    pub schedule: Schedule,
    /// `warmup_steps` or `warmup_ratio`: how the learning rate goes up.
    #[serde(flatten)]
    pub warmup: Warmup,
    /// What the schedule ends at, as a fraction, in 0..=1, of `learning_rate`.
    pub min_learning_rate_ratio: f64,
}

/// How the gradient is turned into a direction.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "kind")]
pub enum Algorithm {
    /// Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101).
    #[serde(rename = "adamw")]
    AdamW {
        /// The decay of the mean of gradients, in 0..1.
        beta1: f64,
        /// The decay of the mean of squared gradients, in 0..1.
        beta2: f64,
        /// What is added to the root of the second moment, greater than 0.
        eps: f64,
        /// The decoupled weight decay, at least 0.
        weight_decay: f64,
    },
    /// Gradient descent, with momentum if asked for.
    #[serde(rename = "sgd")]
    Sgd {
        /// The decay of the velocity, in 0..1; 0 for none.
        momentum: f64,
        /// Whether the gradient is taken ahead of the velocity; needs momentum.
        nesterov: bool,
        /// The weight decay, at least 0, added to the gradient.
        weight_decay: f64,
    },
}

/// The scale of the gradient in the two-step update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lambda {
    /// `"1/sqrt(T)"`, T being the planned number of steps.
    InverseSqrtHorizon,
    /// A number greater than 0.
    Fixed(f64),
}

impl Lambda {
    /// How [`InverseSqrtHorizon`](Self::InverseSqrtHorizon) is written.
    const INVERSE_SQRT_HORIZON: &str = "1/sqrt(T)";
}

impl Serialize for Lambda {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::InverseSqrtHorizon => serializer.serialize_str(Self::INVERSE_SQRT_HORIZON),
            Self::Fixed(value) => serializer.serialize_f64(*value),
        }
    }
}

/// How the learning rate goes down from its peak to the end of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Not at all.
    Constant,
    /// On a straight line.
    Linear,
    /// On half a cosine.
    Cosine,
}

/// How long the learning rate goes up from zero, on a straight line.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub enum Warmup {
    /// A number of steps.
    #[serde(rename = "warmup_steps")]
    Steps(u64),
    /// A fraction, in 0..=1, of the run.
    #[serde(rename = "warmup_ratio")]
    Ratio(f64),
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::AdamW {
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-8,
                weight_decay: 0.0,
            },
            learning_rate: 2e-4,
            clip_grad_norm: 1.0,
            clip_grad_value: None,
            lambda: None,
            schedule: Schedule::Constant,
            warmup: Warmup::Steps(0),
            min_learning_rate_ratio: 0.0,
        }
    }
}

impl OptimizerConfig {
    pub(super) const KEYS: [&str; 15] = [
        "kind",
        "learning_rate",
        "beta1",
        "beta2",
        "eps",
        "momentum",
        "nesterov",
        "weight_decay",
        "clip_grad_norm",
        "clip_grad_value",
        "lambda",
        "schedule",
        "warmup_steps",
        "warmup_ratio",
        "min_learning_rate_ratio",
    ];

    pub(super) fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        let default = Self::default();
        let learning_rate = section.number("learning_rate", Range::Positive)?;
        let algorithm = Algorithm::read(section)?;
        let learning_rate = match (learning_rate, algorithm) {
            (Some(learning_rate), _) => learning_rate,
            (None, Algorithm::AdamW { .. }) => default.learning_rate,
            (None, Algorithm::Sgd { .. }) => {
                return Err(section.missing("learning_rate", "learning_rate = 0.1"));
            }
        };
        section.exclusive("warmup_ratio", "warmup_steps")?;
        let warmup = match section.number("warmup_ratio", Range::UnitInterval)? {
            Some(ratio) => Warmup::Ratio(ratio),
            None => Warmup::Steps(section.integer("warmup_steps", 0)?.unwrap_or(0)),
        };
        let config = Self {
            algorithm,
            learning_rate,
            clip_grad_norm: section
                .number("clip_grad_norm", Range::NonNegative)?
                .unwrap_or(default.clip_grad_norm),
            clip_grad_value: section.number("clip_grad_value", Range::Positive)?,
            lambda: read_lambda(section)?,
            schedule: section
                .choice(
                    "schedule",
                    &[
                        ("constant", Schedule::Constant),
                        ("linear", Schedule::Linear),
                        ("cosine", Schedule::Cosine),
                    ],
                )?
                .unwrap_or(default.schedule),
            warmup,
            min_learning_rate_ratio: section
                .number("min_learning_rate_ratio", Range::UnitInterval)?
                .unwrap_or(default.min_learning_rate_ratio),
        };
        if config.schedule == Schedule::Constant && config.min_learning_rate_ratio > 0.0 {
            return Err(section.no_effect(
                "min_learning_rate_ratio",
                "a constant schedule does not go down",
                "set schedule = \"linear\" or \"cosine\", or remove `min_learning_rate_ratio`",
            ));
        }
        Ok(config)
    }
}

/// What `kind` stands for before its keys are read.
#[derive(Clone, Copy)]
enum Kind {
    AdamW,
    Sgd,
}

impl Algorithm {
    fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        let kind = section
            .choice("kind", &[("adamw", Kind::AdamW), ("sgd", Kind::Sgd)])?
            .unwrap_or(Kind::AdamW);
        let weight_decay = section
            .number("weight_decay", Range::NonNegative)?
            .unwrap_or(0.0);
        match kind {
            Kind::AdamW => {
                section.refuse(&["momentum", "nesterov"], "adamw", "sgd")?;
                Ok(Self::AdamW {
                    beta1: section.number("beta1", Range::BelowOne)?.unwrap_or(0.9),
                    beta2: section.number("beta2", Range::BelowOne)?.unwrap_or(0.999),
                    eps: section.number("eps", Range::Positive)?.unwrap_or(1e-8),
                    weight_decay,
                })
            }
            Kind::Sgd => {
                section.refuse(&["beta1", "beta2", "eps"], "sgd", "adamw")?;
                let momentum = section.number("momentum", Range::BelowOne)?.unwrap_or(0.0);
                let nesterov = section.boolean("nesterov")?.unwrap_or(false);
                if nesterov && momentum == 0.0 {
                    return Err(section.no_effect(
                        "nesterov",
                        "`momentum` is 0",
                        "set `momentum`, such as momentum = 0.9, or remove `nesterov`",
                    ));
                }
                Ok(Self::Sgd {
                    momentum,
                    nesterov,
                    weight_decay,
                })
            }
        }
    }

    /// The word for `kind`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::AdamW { .. } => "adamw",
            Self::Sgd { .. } => "sgd",
        }
    }
}

/// `"1/sqrt(T)"`, or a number greater than 0.
fn read_lambda(section: &Section<'_>) -> Result<Option<Lambda>, ConfigError> {
    const KEY: &str = "lambda";
    let Some(entry) = section.find(KEY) else {
        return Ok(None);
    };
    match &entry.node.value {
        Value::String(text) if text == Lambda::INVERSE_SQRT_HORIZON => {
            Ok(Some(Lambda::InverseSqrtHorizon))
        }
        Value::String(_) => Err(section.out_of_range(
            KEY,
            &entry.node,
            "\"1/sqrt(T)\" or a finite number greater than 0",
        )),
        _ => Ok(section.number(KEY, Range::Positive)?.map(Lambda::Fixed)),
    }
}
