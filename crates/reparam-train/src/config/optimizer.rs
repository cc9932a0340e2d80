//! `[optimizer]`.

use std::collections::BTreeSet;

use reparam::optim::{BuildContext, OptimError, TransformSpec, optimizer_entries};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::error::{ConfigError, ConfigErrorKind};
use super::section::{Range, Section};
pub use super::transform::Lambda;
use super::transform::{
    WrittenList, read_lambda, read_list, read_settings, with_defaults, write_into,
};

/// `[optimizer]`: the two-step update of the trainable parameters `theta`.
///
/// The gradient is turned into a direction `u` by the [`UpdateConfig`]; then `theta <- theta - eta u`,
/// where `eta` is the learning rate of the step.
#[derive(Debug, Clone, PartialEq)]
pub struct OptimizerConfig {
    /// How the gradient is turned into a direction.
    pub update: UpdateConfig,
    /// The peak learning rate, greater than 0. Most kinds have a default, SGD has none.
    pub learning_rate: f64,
    /// How the learning rate goes down after the warm-up.
    pub schedule: Schedule,
    /// `warmup_steps` or `warmup_ratio`: how the learning rate goes up.
    pub warmup: Warmup,
    /// What the schedule ends at, as a fraction, in 0..=1, of `learning_rate`.
    pub min_learning_rate_ratio: f64,
}

/// How the gradient is turned into a direction.
#[derive(Debug, Clone, PartialEq)]
pub enum UpdateConfig {
    /// In the usual order: scaled by `lambda`, clipped, and handed to an optimizer.
    Named(NamedUpdate),
    /// `transforms`: by a list, in its order.
    Transforms(Vec<TransformSpec>),
}

/// An optimizer by its `kind`, with what comes before it.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedUpdate {
    /// `kind`, with the settings that this kind has.
    pub algorithm: TransformSpec,
    /// The factor that the gradient is multiplied by; 1 if absent.
    pub lambda: Option<Lambda>,
    /// The magnitude that each element of the gradient is clipped to; no clipping if absent.
    pub clip_grad_value: Option<f64>,
    /// The L2 norm that the gradient of all parameters together is clipped to; 0 for no clipping.
    pub clip_grad_norm: f64,
}

/// How the learning rate goes down from its peak to the end of the run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Schedule {
    /// Not at all.
    Constant,
    /// On a straight line.
    Linear,
    /// On half a cosine.
    Cosine,
    /// With the inverse root of the steps; it has no end.
    InverseSqrt,
    /// Not at all until the last part of the run: warm-up, stable, decay.
    Wsd {
        /// The fraction, in 0..=1, of the run that the decay takes.
        decay_ratio: f64,
        /// How it decays.
        decay_shape: DecayShape,
    },
}

/// How the last part of a `wsd` schedule goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum DecayShape {
    /// On a straight line.
    #[serde(rename = "linear")]
    Linear,
    /// On half a cosine.
    #[serde(rename = "cosine")]
    Cosine,
    /// As one minus a root: fast at first.
    #[serde(rename = "1-sqrt")]
    OneMinusSqrt,
}

/// How long the learning rate goes up from zero, on a straight line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Warmup {
    /// `warmup_steps`: a number of steps.
    Steps(u64),
    /// `warmup_ratio`: a fraction, in 0..=1, of the run.
    Ratio(f64),
}

/// What a task leaves unsaid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Defaults {
    pub(super) kind: &'static str,
    /// The learning rate of this kind, where it has none of its own.
    pub(super) learning_rate: Option<f64>,
    pub(super) clip_grad_norm: f64,
}

impl Defaults {
    pub(super) const CAUSAL_LM: Self = Self {
        kind: "adamw",
        learning_rate: None,
        clip_grad_norm: 1.0,
    };
    /// The method's own reference case.
    pub(super) const REGRESSION: Self = Self {
        kind: "sgd",
        learning_rate: Some(0.1),
        clip_grad_norm: 0.0,
    };
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            update: UpdateConfig::Named(NamedUpdate {
                algorithm: with_defaults(Defaults::CAUSAL_LM.kind),
                lambda: None,
                clip_grad_value: None,
                clip_grad_norm: Defaults::CAUSAL_LM.clip_grad_norm,
            }),
            learning_rate: 2e-4,
            schedule: Schedule::Constant,
            warmup: Warmup::Steps(0),
            min_learning_rate_ratio: 0.0,
        }
    }
}

/// The keys that do not belong to a kind.
const OWN_KEYS: [&str; 12] = [
    "kind",
    "transforms",
    "learning_rate",
    "clip_grad_norm",
    "clip_grad_value",
    "lambda",
    "schedule",
    "decay_ratio",
    "decay_shape",
    "warmup_steps",
    "warmup_ratio",
    "min_learning_rate_ratio",
];

/// The decay of a `wsd` schedule if the file does not say.
const DECAY_RATIO: f64 = 0.2;

impl OptimizerConfig {
    /// Returns every key, those of all kinds included.
    pub(super) fn keys() -> Vec<&'static str> {
        let mut keys = OWN_KEYS.to_vec();
        for (entry, _) in optimizer_entries() {
            for setting in entry.settings {
                if !keys.contains(&setting.key) {
                    keys.push(setting.key);
                }
            }
        }
        keys
    }

    pub(super) fn read(section: &Section<'_>, defaults: Defaults) -> Result<Self, ConfigError> {
        let learning_rate = section.number("learning_rate", Range::Positive)?;
        let (update, default_rate) = UpdateConfig::read(section, defaults)?;
        let learning_rate = learning_rate
            .or(default_rate)
            .ok_or_else(|| section.missing("learning_rate", "learning_rate = 0.1"))?;
        section.exclusive("warmup_ratio", "warmup_steps")?;
        let warmup = match section.number("warmup_ratio", Range::UnitInterval)? {
            Some(ratio) => Warmup::Ratio(ratio),
            None => Warmup::Steps(section.integer("warmup_steps", 0)?.unwrap_or(0)),
        };
        let config = Self {
            update,
            learning_rate,
            schedule: read_schedule(section)?,
            warmup,
            min_learning_rate_ratio: section
                .number("min_learning_rate_ratio", Range::UnitInterval)?
                .unwrap_or(0.0),
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

impl UpdateConfig {
    /// Reads the update, and returns with it the learning rate that suits it.
    fn read(section: &Section<'_>, defaults: Defaults) -> Result<(Self, Option<f64>), ConfigError> {
        if let Some(entry) = section.find("transforms") {
            let transforms = read_list(section, "transforms", &entry.node)?;
            let named = OptimizerConfig::keys();
            let in_list = |key: &&str| {
                !OWN_KEYS.contains(key)
                    || ["kind", "lambda", "clip_grad_norm", "clip_grad_value"].contains(key)
            };
            for key in named.into_iter().filter(in_list) {
                section.exclusive(key, "transforms")?;
            }
            return Ok((Self::Transforms(transforms), None));
        }
        let kinds: Vec<_> = optimizer_entries()
            .map(|(entry, optimizer)| (entry.kind, (entry, optimizer)))
            .collect();
        let chosen = section.choice("kind", &kinds)?;
        let by_default = || kinds.iter().find(|(kind, _)| *kind == defaults.kind);
        let Some((entry, optimizer)) = chosen.or_else(|| by_default().map(|(_, entry)| *entry))
        else {
            return Err(section.missing("kind", "kind = \"adamw\""));
        };
        refuse_foreign_keys(section, entry.kind)?;
        let algorithm = read_settings(section, entry)?;
        if section.find("nesterov").is_some()
            && section.boolean("nesterov")? == Some(true)
            && section.number("momentum", Range::BelowOne)?.unwrap_or(0.0) == 0.0
            && entry.kind == "sgd"
        {
            return Err(section.no_effect(
                "nesterov",
                "`momentum` is 0",
                "set `momentum`, such as momentum = 0.9, or remove `nesterov`",
            ));
        }
        let named = NamedUpdate {
            algorithm,
            lambda: read_lambda(section, "lambda")?,
            clip_grad_value: section.number("clip_grad_value", Range::Positive)?,
            clip_grad_norm: section
                .number("clip_grad_norm", Range::NonNegative)?
                .unwrap_or(defaults.clip_grad_norm),
        };
        let of_task = defaults
            .learning_rate
            .filter(|_| entry.kind == defaults.kind);
        Ok((Self::Named(named), of_task.or(optimizer.learning_rate)))
    }

    /// The word for `kind`, or `transforms`.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Named(named) => &named.algorithm.kind,
            Self::Transforms(_) => "transforms",
        }
    }
}

/// Refuses the keys that only other kinds have.
fn refuse_foreign_keys(section: &Section<'_>, kind: &'static str) -> Result<(), ConfigError> {
    let keys_of = |kind: &str| -> BTreeSet<&'static str> {
        optimizer_entries()
            .filter(|(entry, _)| entry.kind == kind)
            .flat_map(|(entry, _)| entry.settings.iter().map(|setting| setting.key))
            .collect()
    };
    let own = keys_of(kind);
    for (entry, _) in optimizer_entries() {
        let foreign: Vec<&str> = keys_of(entry.kind).difference(&own).copied().collect();
        let foreign: Vec<&str> = foreign
            .into_iter()
            .filter(|key| !OWN_KEYS.contains(key))
            .collect();
        section.refuse(&foreign, kind, entry.kind)?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum ScheduleWord {
    Constant,
    Linear,
    Cosine,
    InverseSqrt,
    Wsd,
}

fn read_schedule(section: &Section<'_>) -> Result<Schedule, ConfigError> {
    let word = section
        .choice(
            "schedule",
            &[
                ("constant", ScheduleWord::Constant),
                ("linear", ScheduleWord::Linear),
                ("cosine", ScheduleWord::Cosine),
                ("inverse_sqrt", ScheduleWord::InverseSqrt),
                ("wsd", ScheduleWord::Wsd),
            ],
        )?
        .unwrap_or(ScheduleWord::Constant);
    let schedule = match word {
        ScheduleWord::Constant => Schedule::Constant,
        ScheduleWord::Linear => Schedule::Linear,
        ScheduleWord::Cosine => Schedule::Cosine,
        ScheduleWord::InverseSqrt => Schedule::InverseSqrt,
        ScheduleWord::Wsd => {
            return Ok(Schedule::Wsd {
                decay_ratio: section
                    .number("decay_ratio", Range::UnitInterval)?
                    .unwrap_or(DECAY_RATIO),
                decay_shape: section
                    .choice(
                        "decay_shape",
                        &[
                            ("linear", DecayShape::Linear),
                            ("cosine", DecayShape::Cosine),
                            ("1-sqrt", DecayShape::OneMinusSqrt),
                        ],
                    )?
                    .unwrap_or(DecayShape::Linear),
            });
        }
    };
    for key in ["decay_ratio", "decay_shape"] {
        if section.find(key).is_some() {
            return Err(section.no_effect(
                key,
                "only schedule = \"wsd\" has a decay of its own",
                format!("set schedule = \"wsd\", or remove `{key}`"),
            ));
        }
    }
    Ok(schedule)
}

impl Serialize for OptimizerConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let UpdateConfig::Named(named) = &self.update {
            write_into(&mut map, &named.algorithm)?;
            map.serialize_entry("clip_grad_norm", &named.clip_grad_norm)?;
            if let Some(max_value) = &named.clip_grad_value {
                map.serialize_entry("clip_grad_value", max_value)?;
            }
            if let Some(lambda) = &named.lambda {
                map.serialize_entry("lambda", lambda)?;
            }
        }
        map.serialize_entry("learning_rate", &self.learning_rate)?;
        let word = match self.schedule {
            Schedule::Constant => "constant",
            Schedule::Linear => "linear",
            Schedule::Cosine => "cosine",
            Schedule::InverseSqrt => "inverse_sqrt",
            Schedule::Wsd { .. } => "wsd",
        };
        map.serialize_entry("schedule", word)?;
        if let Schedule::Wsd {
            decay_ratio,
            decay_shape,
        } = &self.schedule
        {
            map.serialize_entry("decay_ratio", decay_ratio)?;
            map.serialize_entry("decay_shape", decay_shape)?;
        }
        match &self.warmup {
            Warmup::Steps(steps) => map.serialize_entry("warmup_steps", steps)?,
            Warmup::Ratio(ratio) => map.serialize_entry("warmup_ratio", ratio)?,
        }
        map.serialize_entry("min_learning_rate_ratio", &self.min_learning_rate_ratio)?;
        if let UpdateConfig::Transforms(transforms) = &self.update {
            map.serialize_entry("transforms", &WrittenList(transforms))?;
        }
        map.end()
    }
}

/// Refuses transforms that cannot be composed.
pub(super) fn check_chain(
    section: &Section<'_>,
    config: &OptimizerConfig,
) -> Result<(), ConfigError> {
    // Any scaling will do: whether the order is lawful does not depend on it.
    let context = BuildContext {
        lora_scaling: Some(1.0),
    };
    let built = crate::settings::transforms(&config.update, &context);
    let Err(error) = built.and_then(reparam::optim::chain) else {
        return Ok(());
    };
    if let (UpdateConfig::Named(named), OptimError::Order { .. }) = (&config.update, &error) {
        // The usual order is lawful but for a scale before signs.
        return Err(section.no_effect(
            "lambda",
            format!(
                "`{}` moves by signs, which have no size",
                named.algorithm.kind
            ),
            "remove `lambda`, and lower `learning_rate` instead",
        ));
    }
    let at = ["transforms", "kind"]
        .iter()
        .find_map(|key| section.find(key));
    let kind = ConfigErrorKind::Transforms { source: error };
    Err(match at {
        Some(entry) => ConfigError::at(&entry.key_span, kind),
        None => ConfigError::nowhere(kind),
    })
}
