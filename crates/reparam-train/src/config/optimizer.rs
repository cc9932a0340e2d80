//! `[optimizer]`.

use reparam::optim::{BuildContext, OptimError};
use reparam::schema::{
    Chosen, Fallback, Range, SettingKind, SettingSpec, SettingValue, Settings, number, optional,
    word,
};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::Result;
use super::catalog::Catalog;
use super::defaults::{self, OptimizerDefaults};
use super::error::{ConfigError, ConfigErrorKind};
use super::read;
use super::section::Section;

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
    /// How the learning rate changes over the run: [`SCHEDULE`] with all that apply.
    pub schedule: ScheduleConfig,
}

/// The settings of the learning rate's schedule, `schedule` among them.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleConfig(pub Vec<(String, SettingValue)>);

/// How the gradient is turned into a direction.
#[derive(Debug, Clone, PartialEq)]
pub enum UpdateConfig {
    /// In the usual order: scaled by `lambda`, clipped, and handed to an optimizer.
    Named(NamedUpdate),
    /// `transforms`: by a list, in its order.
    Transforms(Vec<Chosen>),
}

/// An optimizer by its `kind`, with what comes before it.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedUpdate {
    /// `kind`, with the settings that this kind has.
    pub algorithm: Chosen,
    /// The factor that the gradient is multiplied by; 1 if absent.
    pub lambda: Option<Lambda>,
    /// The magnitude that each element of the gradient is clipped to; no clipping if absent.
    pub clip_grad_value: Option<f64>,
    /// The L2 norm that the gradient of all parameters together is clipped to; 0 for no clipping.
    pub clip_grad_norm: f64,
}

/// The scale of the gradient in the two-step update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lambda {
    /// `"1/sqrt(T)"`, T being the planned number of steps.
    InverseSqrtHorizon,
    /// `"adaptive"`: it follows the measured share of the gradient that is signal.
    Adaptive,
    /// A number greater than 0.
    Fixed(f64),
}

impl Lambda {
    const INVERSE_SQRT_HORIZON: &str = "1/sqrt(T)";
    const ADAPTIVE: &str = "adaptive";

    fn value(self) -> SettingValue {
        match self {
            Self::InverseSqrtHorizon => SettingValue::Word(Self::INVERSE_SQRT_HORIZON.to_owned()),
            Self::Adaptive => SettingValue::Word(Self::ADAPTIVE.to_owned()),
            Self::Fixed(lambda) => SettingValue::Number(lambda),
        }
    }
}

/// What comes before a named optimizer.
pub(super) static BEFORE: [SettingSpec; 3] = [
    optional(
        "lambda",
        SettingKind::WordOrNumber(
            &[Lambda::INVERSE_SQRT_HORIZON, Lambda::ADAPTIVE],
            Range::Factor,
        ),
        "none",
        "factor of the gradient; T is the planned number of steps, and adaptive the share of the gradient \
         that is signal",
    ),
    optional(
        "clip_grad_value",
        SettingKind::Number(Range::Positive),
        "none",
        "bound of each element",
    ),
    number(
        "clip_grad_norm",
        Range::NonNegative,
        1.0,
        "maximum norm of the whole gradient; 0 for none",
    ),
];

const SCHEDULES: &[&str] = &["constant", "linear", "cosine", "inverse_sqrt", "wsd"];

/// How the learning rate changes over the run.
pub static SCHEDULE: [SettingSpec; 6] = [
    word(
        "schedule",
        SCHEDULES,
        "constant",
        "what follows the warm-up: linear or cosine, down to the end of the run; inverse_sqrt, with the root \
         of the steps, without an end; wsd (warm-up, stable, decay), constant until the last part",
    ),
    SettingSpec {
        key: "warmup_steps",
        kind: SettingKind::COUNT_OR_ZERO,
        fallback: Fallback::Count(0),
        meaning: "steps over which the learning rate rises from zero; excludes warmup_ratio",
    },
    optional(
        "warmup_ratio",
        SettingKind::Number(Range::Unit),
        "",
        "warm-up as a fraction of the run",
    ),
    number(
        "min_learning_rate_ratio",
        Range::Unit,
        0.0,
        "final learning rate as a fraction of learning_rate; not with constant",
    ),
    number(
        "decay_ratio",
        Range::Unit,
        0.2,
        "wsd: fraction of the run spent decaying",
    ),
    word(
        "decay_shape",
        &["linear", "cosine", "1-sqrt"],
        "linear",
        "wsd: shape of the decay; 1-sqrt is fast at first",
    ),
];

/// What `[optimizer]` has beside the settings of its kind and of the schedule.
pub(super) static OWN: [SettingSpec; 2] = [
    optional(
        "learning_rate",
        SettingKind::Number(Range::Factor),
        "that of kind",
        "peak learning rate; required with transforms",
    ),
    optional(
        "transforms",
        SettingKind::Chain,
        "",
        "a list of transforms instead of kind, lambda and clipping",
    ),
];

impl Default for OptimizerConfig {
    fn default() -> Self {
        let catalog = Catalog::builtin();
        let defaults = defaults::OPTIMIZER;
        let entry = catalog.transforms.find(defaults.kind);
        let specs = entry.map_or(&[][..], |entry| entry.settings);
        Self {
            update: UpdateConfig::Named(NamedUpdate {
                algorithm: Chosen::with_defaults(defaults.kind, specs),
                lambda: None,
                clip_grad_value: None,
                clip_grad_norm: defaults.clip_grad_norm,
            }),
            learning_rate: 2e-4,
            schedule: ScheduleConfig::default(),
        }
    }
}

/// The keys that do not belong to a kind.
fn own_keys() -> Vec<&'static str> {
    let specs = OWN.iter().chain(&BEFORE).chain(&SCHEDULE);
    std::iter::once("kind")
        .chain(specs.map(|spec| spec.key))
        .collect()
}

impl OptimizerConfig {
    /// Returns every key, those of all kinds included.
    pub(super) fn keys(catalog: &Catalog) -> Vec<&'static str> {
        let mut keys = own_keys();
        let optimizers = catalog.transforms.optimizers();
        for key in read::keys_of_kinds(optimizers.map(|(entry, _)| entry.settings)) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }

    pub(super) fn read(section: &Section<'_>, defaults: OptimizerDefaults) -> Result<Self> {
        let own = section.read(&OWN)?;
        let learning_rate = own
            .optional("learning_rate", Settings::number)
            .map_err(|error| section.schema(error))?;
        let (update, default_rate) = UpdateConfig::read(section, defaults)?;
        let learning_rate = learning_rate
            .or(default_rate)
            .ok_or_else(|| section.missing("learning_rate", "0.1"))?;
        if let UpdateConfig::Named(named) = &update
            && let Some(Lambda::Fixed(lambda)) = named.lambda
            && !Range::Factor.contains(lambda * learning_rate)
        {
            let product = lambda * learning_rate;
            let (effect, fix) = match product < 1.0 {
                true => (
                    "makes zeros of all updates",
                    "raise `lambda` or `learning_rate`",
                ),
                false => ("is beyond f32", "lower `lambda` or `learning_rate`"),
            };
            let reason = format!("times learning_rate it is {product:e}, which {effect}");
            return Err(section.no_effect("lambda", reason, fix));
        }
        Ok(Self {
            update,
            learning_rate,
            schedule: ScheduleConfig::read(section)?,
        })
    }
}

impl UpdateConfig {
    /// Reads the update, and returns with it the learning rate that suits it.
    fn read(section: &Section<'_>, defaults: OptimizerDefaults) -> Result<(Self, Option<f64>)> {
        let catalog = section.catalog();
        let kinds: Vec<_> = catalog
            .transforms
            .optimizers()
            .map(|(entry, _)| read::Kind {
                name: entry.kind,
                aliases: &[],
                settings: entry.settings,
            })
            .collect();
        if let Some(entry) = section.find("transforms") {
            let transforms = read::chain(section, "transforms", &entry.node)?;
            let named = std::iter::once("kind").chain(BEFORE.iter().map(|spec| spec.key));
            let of_kinds = read::keys_of_kinds(kinds.iter().map(|kind| kind.settings));
            let own = own_keys();
            for key in named.chain(of_kinds.into_iter().filter(|key| !own.contains(key))) {
                section.exclusive(key, "transforms")?;
            }
            return Ok((Self::Transforms(transforms), None));
        }
        let kind = read::kind(section, &kinds, defaults.kind, &own_keys())?;
        let algorithm = Chosen {
            kind: kind.name.to_owned(),
            settings: read::settings(section, kind.settings, &[])?,
        };
        let clip = SettingValue::Number(defaults.clip_grad_norm);
        let before = read::settings(section, &BEFORE, &[("clip_grad_norm", clip)])?;
        let before = Settings::new("optimizer", &BEFORE, &before);
        let named = before.and_then(|before| {
            Ok(NamedUpdate {
                algorithm,
                lambda: match before.value("lambda") {
                    Err(_) => None,
                    Ok(SettingValue::Number(lambda)) => Some(Lambda::Fixed(*lambda)),
                    Ok(_) => Some(before.choice(
                        "lambda",
                        &[
                            (Lambda::INVERSE_SQRT_HORIZON, Lambda::InverseSqrtHorizon),
                            (Lambda::ADAPTIVE, Lambda::Adaptive),
                        ],
                    )?),
                },
                clip_grad_value: before.optional("clip_grad_value", Settings::number)?,
                clip_grad_norm: before.number("clip_grad_norm")?,
            })
        });
        let named = named.map_err(|error| section.schema(error))?;
        let of_task = defaults
            .learning_rate
            .filter(|_| kind.name == defaults.kind);
        let mut optimizers = catalog.transforms.optimizers();
        let of_kind = optimizers.find(|(entry, _)| entry.kind == kind.name);
        let of_kind = of_kind.and_then(|(_, optimizer)| optimizer.learning_rate);
        Ok((Self::Named(named), of_task.or(of_kind)))
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

impl Default for ScheduleConfig {
    fn default() -> Self {
        let mut schedule = Self(Chosen::with_defaults("", &SCHEDULE).settings);
        schedule.remove_what_does_not_apply();
        schedule
    }
}

impl ScheduleConfig {
    /// Sets a value, in place of the one that is there or of the one that it excludes.
    #[must_use]
    pub fn with(mut self, key: &str, value: SettingValue) -> Self {
        let (mut chosen, rival) = (
            Chosen {
                kind: String::new(),
                settings: std::mem::take(&mut self.0),
            },
            match key {
                "warmup_steps" => "warmup_ratio",
                "warmup_ratio" => "warmup_steps",
                _ => "",
            },
        );
        chosen.settings.retain(|(name, _)| name != rival);
        Self(chosen.with(key, value).settings)
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&SettingValue> {
        let own = self.0.iter().find(|(name, _)| name == key);
        own.map(|(_, value)| value)
    }

    fn is(&self, word: &str) -> bool {
        matches!(self.get("schedule"), Some(SettingValue::Word(own)) if own == word)
    }

    fn remove_what_does_not_apply(&mut self) {
        let is_wsd = self.is("wsd");
        let has_ratio = self.get("warmup_ratio").is_some();
        self.0.retain(|(key, _)| match key.as_str() {
            "decay_ratio" | "decay_shape" => is_wsd,
            "warmup_steps" => !has_ratio,
            _ => true,
        });
    }

    fn read(section: &Section<'_>) -> Result<Self> {
        section.exclusive("warmup_ratio", "warmup_steps")?;
        let mut schedule = Self(read::settings(section, &SCHEDULE, &[])?);
        let falls = |value: &SettingValue| *value != SettingValue::Number(0.0);
        if schedule.is("constant") && schedule.get("min_learning_rate_ratio").is_some_and(falls) {
            return Err(section.no_effect(
                "min_learning_rate_ratio",
                "a constant schedule does not go down",
                "set schedule = \"linear\" or \"cosine\", or remove `min_learning_rate_ratio`",
            ));
        }
        let of_wsd = ["decay_ratio", "decay_shape"];
        let foreign = of_wsd.into_iter().find(|key| section.find(key).is_some());
        if let (Some(key), false) = (foreign, schedule.is("wsd")) {
            return Err(section.no_effect(
                key,
                "only schedule = \"wsd\" has a decay of its own",
                format!("set schedule = \"wsd\", or remove `{key}`"),
            ));
        }
        schedule.remove_what_does_not_apply();
        Ok(schedule)
    }
}

impl Serialize for OptimizerConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let UpdateConfig::Named(named) = &self.update {
            map.serialize_entry("kind", &named.algorithm.kind)?;
            for (key, value) in &named.algorithm.settings {
                map.serialize_entry(key, value)?;
            }
            map.serialize_entry("clip_grad_norm", &named.clip_grad_norm)?;
            if let Some(max_value) = &named.clip_grad_value {
                map.serialize_entry("clip_grad_value", max_value)?;
            }
            if let Some(lambda) = named.lambda {
                map.serialize_entry("lambda", &lambda.value())?;
            }
        }
        map.serialize_entry("learning_rate", &self.learning_rate)?;
        for (key, value) in &self.schedule.0 {
            map.serialize_entry(key, value)?;
        }
        if let UpdateConfig::Transforms(transforms) = &self.update {
            map.serialize_entry("transforms", transforms)?;
        }
        map.end()
    }
}

/// Refuses transforms that cannot be built or composed.
pub(super) fn check_chain(section: &Section<'_>, config: &OptimizerConfig) -> Result<()> {
    // Any scaling will do: whether the order is lawful does not depend on it.
    let transforms = &section.catalog().transforms;
    let context = BuildContext::new(transforms).with_lora_scaling(Some(1.0));
    let built = crate::settings::transforms(&config.update, &context);
    let Err(error) = built.and_then(reparam::optim::chain) else {
        return Ok(());
    };
    match (&config.update, error) {
        (UpdateConfig::Named(_), OptimError::Schema(error)) => Err(section.schema(error)),
        // The usual order is lawful but for a scale before signs.
        (UpdateConfig::Named(named), OptimError::Order { .. }) => Err(section.no_effect(
            "lambda",
            format!(
                "`{}` moves by signs, which have no size",
                named.algorithm.kind
            ),
            "remove `lambda`, and lower `learning_rate` instead",
        )),
        (_, source) => {
            let at = ["transforms", "kind"]
                .iter()
                .find_map(|key| section.find(key));
            let kind = ConfigErrorKind::Transforms { source };
            Err(match at {
                Some(entry) => ConfigError::at(&entry.key_span, kind),
                None => ConfigError::nowhere(kind),
            })
        }
    }
}
