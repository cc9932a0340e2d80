//! The transforms by name, with what a run file may say about them.

use super::{GradientTransform, OptimError};

/// What the program knows about a transform.
#[derive(Debug)]
pub struct TransformEntry {
    /// The name in a run file.
    pub kind: &'static str,
    /// One line that says what it is.
    pub summary: &'static str,
    /// What it does to a gradient `g`.
    pub formula: &'static str,
    /// Where it comes from.
    pub source: &'static str,
    /// Set if it is a whole optimizer, which a run file may name as its `kind`.
    pub optimizer: Option<OptimizerEntry>,
    /// What it can be told.
    pub settings: &'static [SettingSpec],
    /// Makes it: one transform, or several that belong together, in order.
    pub(super) build: fn(&Settings<'_>, &BuildContext) -> Built,
}

/// What a transform is built into.
pub(super) type Built = Result<Vec<Box<dyn GradientTransform>>, OptimError>;

/// What is known of a whole optimizer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerEntry {
    /// The learning rate where the run file gives none; `None` if it has to.
    pub learning_rate: Option<f64>,
}

/// A setting of a transform.
#[derive(Debug)]
pub struct SettingSpec {
    /// The key in a run file.
    pub key: &'static str,
    /// What its value may be.
    pub kind: SettingKind,
    /// What it is where the run file says nothing.
    pub fallback: Fallback,
    /// What it says, in a line.
    pub meaning: &'static str,
}

/// What the value of a setting may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingKind {
    /// A number greater than 0.
    Positive,
    /// A number of at least 0.
    NonNegative,
    /// A number of at least 0 and less than 1.
    BelowOne,
    /// Any finite number.
    Number,
    /// A whole number of at least 1.
    Count,
    /// True or false.
    Flag,
    /// One of a few words.
    Word(&'static [&'static str]),
    /// A regular expression for whole parameter names.
    Pattern,
    /// At least one number greater than 0.
    Numbers,
    /// Transforms of its own.
    Chain,
    /// `"1/sqrt(T)"`, or a number greater than 0.
    Lambda,
}

/// The value of a setting that a run file leaves out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fallback {
    /// There is none: the run file has to say it.
    Required,
    /// None, and the transform decides, as described.
    Absent(&'static str),
    /// A number.
    Number(f64),
    /// A whole number.
    Count(u64),
    /// A flag.
    Flag(bool),
    /// A word, or a pattern.
    Word(&'static str),
}

/// A given value of a setting.
#[derive(Debug, Clone, PartialEq)]
pub enum SettingValue {
    /// A number.
    Number(f64),
    /// A whole number.
    Count(u64),
    /// A flag.
    Flag(bool),
    /// A word or a pattern.
    Word(String),
    /// Numbers.
    Numbers(Vec<f64>),
    /// Transforms.
    Chain(Vec<TransformSpec>),
}

/// A transform by name with the settings that are given.
#[derive(Debug, Clone, PartialEq)]
pub struct TransformSpec {
    /// Which transform.
    pub kind: String,
    /// The settings that are given, by key.
    pub settings: Vec<(String, SettingValue)>,
}

/// What building a transform may need to know of the rest of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BuildContext {
    /// The scaling `s` of the low-rank product `s B A`, if there is one.
    pub lora_scaling: Option<f64>,
}

/// Every transform.
pub static TRANSFORMS: &[TransformEntry] = &[
    super::scale::ENTRY,
    super::adaptive_scale::ENTRY,
    super::clip::BY_VALUE,
    super::clip::BY_GLOBAL_NORM,
    super::agc::ENTRY,
    super::centralize::ENTRY,
    super::sign::ENTRY,
    super::weight_decay::ENTRY,
    super::sgd::MOMENTUM,
    super::sgd::SGD,
    super::adamw::ADAMW,
    super::adamw::ADAM,
    super::adafactor::ENTRY,
    super::adagrad::ENTRY,
    super::rmsprop::ENTRY,
    super::lamb::ENTRY,
    super::lion::ENTRY,
    super::muon::ENTRY,
    super::schedule_free::ENTRY,
    super::sam::ENTRY,
    super::ema::ENTRY,
    super::accumulate::ENTRY,
    super::group::ENTRY,
    super::freeze::ENTRY,
    super::lora_plus::ENTRY,
    super::lora_fa::ENTRY,
    super::riemannian::ENTRY,
    super::galore::ENTRY,
    super::mask::ENTRY,
];

/// Returns the whole optimizers, which a run file may name as its `kind`.
pub fn optimizer_entries() -> impl Iterator<Item = (&'static TransformEntry, OptimizerEntry)> {
    TRANSFORMS
        .iter()
        .filter_map(|entry| Some((entry, entry.optimizer?)))
}

/// Returns the entry of a transform.
pub fn transform_entry(kind: &str) -> Option<&'static TransformEntry> {
    TRANSFORMS.iter().find(|entry| entry.kind == kind)
}

impl TransformEntry {
    /// Returns the setting of a key.
    pub fn setting(&self, key: &str) -> Option<&'static SettingSpec> {
        self.settings.iter().find(|setting| setting.key == key)
    }
}

impl TransformSpec {
    /// Returns a transform with all settings left at what they are by default.
    pub fn new(kind: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            settings: Vec::new(),
        }
    }

    /// Gives a setting.
    pub fn with(mut self, key: impl Into<String>, value: SettingValue) -> Self {
        self.settings.push((key.into(), value));
        self
    }

    /// Makes the transform, or the several that it stands for.
    ///
    /// # Errors
    ///
    /// Fails when there is no such transform or setting, one without a default is missing, or a value
    /// is of the wrong kind or out of its range.
    pub fn build(
        &self,
        context: &BuildContext,
    ) -> Result<Vec<Box<dyn GradientTransform>>, OptimError> {
        let entry = transform_entry(&self.kind).ok_or_else(|| OptimError::UnknownTransform {
            kind: self.kind.clone(),
        })?;
        if let Some((key, _)) = self
            .settings
            .iter()
            .find(|(key, _)| entry.setting(key).is_none())
        {
            return Err(OptimError::UnknownSetting {
                transform: entry.kind,
                setting: key.clone(),
            });
        }
        (entry.build)(&Settings { entry, spec: self }, context)
    }
}

/// Makes the transforms of a list, one after the other.
pub(super) fn build_all(specs: &[TransformSpec], context: &BuildContext) -> Built {
    let parts: Result<Vec<_>, _> = specs.iter().map(|spec| spec.build(context)).collect();
    Ok(parts?.into_iter().flatten().collect())
}

/// The settings of a transform that is being built.
#[derive(Debug)]
pub struct Settings<'a> {
    entry: &'static TransformEntry,
    spec: &'a TransformSpec,
}

impl Settings<'_> {
    fn given(&self, key: &'static str) -> Option<&SettingValue> {
        let given = self.spec.settings.iter().find(|(name, _)| name == key);
        given.map(|(_, value)| value)
    }

    fn fallback(&self, key: &'static str) -> Fallback {
        self.entry
            .setting(key)
            .map_or(Fallback::Required, |setting| setting.fallback)
    }

    fn wrong(&self, setting: &'static str, expected: &'static str) -> OptimError {
        match self.given(setting) {
            Some(value) => OptimError::Setting {
                setting,
                expected,
                found: format!("{value:?}"),
            },
            None => OptimError::MissingSetting {
                transform: self.entry.kind,
                setting,
            },
        }
    }

    /// Returns a number.
    pub(super) fn number(&self, key: &'static str) -> Result<f64, OptimError> {
        match (self.given(key), self.fallback(key)) {
            (Some(SettingValue::Number(number)), _) => Ok(*number),
            (Some(SettingValue::Count(count)), _) => Ok(*count as f64),
            (None, Fallback::Number(number)) => Ok(number),
            _ => Err(self.wrong(key, "a number")),
        }
    }

    /// Returns a number if it is given.
    pub(super) fn optional(&self, key: &'static str) -> Option<f64> {
        self.number(key).ok()
    }

    /// Returns a whole number.
    pub(super) fn count(&self, key: &'static str) -> Result<u64, OptimError> {
        match (self.given(key), self.fallback(key)) {
            (Some(SettingValue::Count(count)), _) => Ok(*count),
            (None, Fallback::Count(count)) => Ok(count),
            _ => Err(self.wrong(key, "a whole number")),
        }
    }

    /// Returns a flag.
    pub(super) fn flag(&self, key: &'static str) -> Result<bool, OptimError> {
        match (self.given(key), self.fallback(key)) {
            (Some(SettingValue::Flag(flag)), _) => Ok(*flag),
            (None, Fallback::Flag(flag)) => Ok(flag),
            _ => Err(self.wrong(key, "true or false")),
        }
    }

    /// Returns a word or a pattern.
    pub(super) fn word(&self, key: &'static str) -> Result<&str, OptimError> {
        match (self.given(key), self.fallback(key)) {
            (Some(SettingValue::Word(word)), _) => Ok(word),
            (None, Fallback::Word(word)) => Ok(word),
            _ => Err(self.wrong(key, "a word")),
        }
    }

    /// Returns numbers.
    pub(super) fn numbers(&self, key: &'static str) -> Result<&[f64], OptimError> {
        match self.given(key) {
            Some(SettingValue::Numbers(numbers)) => Ok(numbers),
            _ => Err(self.wrong(key, "a list of numbers")),
        }
    }

    /// Returns the transforms of a chain.
    pub(super) fn chain(&self, key: &'static str, context: &BuildContext) -> Built {
        match self.given(key) {
            Some(SettingValue::Chain(specs)) => build_all(specs, context),
            _ => Err(self.wrong(key, "a list of transforms")),
        }
    }
}

/// The decoupled or L2 decay that most optimizers have.
pub(super) const WEIGHT_DECAY: SettingSpec = SettingSpec {
    key: "weight_decay",
    kind: SettingKind::NonNegative,
    fallback: Fallback::Number(0.0),
    meaning: "what is added of the parameters",
};

/// Adam's first decay, and what is named after it.
pub(super) const BETA1: SettingSpec = number(
    "beta1",
    SettingKind::BelowOne,
    0.9,
    "decay of the mean of the gradients",
);

/// Adam's second decay.
pub(super) const BETA2: SettingSpec = number(
    "beta2",
    SettingKind::BelowOne,
    0.999,
    "decay of the mean of their squares",
);

/// What is added to a root, with its default.
pub(super) const fn eps(default: f64) -> SettingSpec {
    number("eps", SettingKind::Positive, default, "added to the root")
}

/// A number with a default.
pub(super) const fn number(
    key: &'static str,
    kind: SettingKind,
    default: f64,
    meaning: &'static str,
) -> SettingSpec {
    SettingSpec {
        key,
        kind,
        fallback: Fallback::Number(default),
        meaning,
    }
}

/// A flag that is off by default.
pub(super) const fn flag(key: &'static str, default: bool, meaning: &'static str) -> SettingSpec {
    SettingSpec {
        key,
        kind: SettingKind::Flag,
        fallback: Fallback::Flag(default),
        meaning,
    }
}

/// A setting that has to be given.
pub(super) const fn required(
    key: &'static str,
    kind: SettingKind,
    meaning: &'static str,
) -> SettingSpec {
    SettingSpec {
        key,
        kind,
        fallback: Fallback::Required,
        meaning,
    }
}

/// A whole number with a default.
pub(super) const fn count(key: &'static str, default: u64, meaning: &'static str) -> SettingSpec {
    SettingSpec {
        key,
        kind: SettingKind::Count,
        fallback: Fallback::Count(default),
        meaning,
    }
}

/// A whole optimizer with a usual learning rate.
pub(super) const fn optimizer(learning_rate: f64) -> Option<OptimizerEntry> {
    Some(OptimizerEntry {
        learning_rate: Some(learning_rate),
    })
}
