//! The catalog of transforms: what is known of each by its name.

use super::error::{OptimError, Result};
use super::transform::GradientTransform;
use crate::schema::{Chosen, Range, SchemaError, SettingSpec, Settings, number};

/// What is known about a transform.
#[derive(Debug, Clone, Copy)]
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
    /// Makes it of checked settings: one transform, or several that belong together, in order.
    pub build: fn(&Settings, &BuildContext<'_>) -> Built,
}

/// What a transform is built into.
pub type Built = Result<Vec<Box<dyn GradientTransform>>>;

/// What a single transform is built into.
pub(crate) fn one(transform: impl GradientTransform + 'static) -> Built {
    Ok(vec![Box::new(transform)])
}

/// What is known of a whole optimizer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerEntry {
    /// The learning rate where the run file gives none; `None` if it has to.
    pub learning_rate: Option<f64>,
}

/// A catalog of transforms, each by its name.
///
/// [`builtin`](Self::builtin) has those of this crate. A caller adds its own with [`with`](Self::with),
/// and run files find them like any other.
#[derive(Debug, Clone)]
pub struct Transforms {
    entries: Vec<TransformEntry>,
}

impl Transforms {
    /// Returns a catalog of the given entries.
    pub fn new(entries: impl IntoIterator<Item = TransformEntry>) -> Self {
        let mut catalog = Self {
            entries: Vec::new(),
        };
        for entry in entries {
            catalog = catalog.with(entry);
        }
        catalog
    }

    /// Adds an entry, in place of an earlier one of the same name.
    pub fn with(mut self, entry: TransformEntry) -> Self {
        match self.entries.iter_mut().find(|old| old.kind == entry.kind) {
            Some(old) => *old = entry,
            None => self.entries.push(entry),
        }
        self
    }

    /// Returns the entries, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &TransformEntry> {
        self.entries.iter()
    }

    /// Returns the whole optimizers, which a run file may name as its `kind`.
    pub fn optimizers(&self) -> impl Iterator<Item = (&TransformEntry, OptimizerEntry)> {
        self.iter()
            .filter_map(|entry| Some((entry, entry.optimizer?)))
    }

    /// Returns the entry of a name.
    pub fn find(&self, kind: &str) -> Option<&TransformEntry> {
        self.iter().find(|entry| entry.kind == kind)
    }
}

/// Makes transforms of what a run file says of them.
#[derive(Debug, Clone, Copy)]
pub struct BuildContext<'a> {
    /// Where transforms are looked up.
    pub transforms: &'a Transforms,
    /// The scaling `s` of the low-rank product `s B A`, if there is one.
    pub lora_scaling: Option<f64>,
}

impl<'a> BuildContext<'a> {
    /// Builds transforms of a catalog, for a model without a low-rank product.
    pub fn new(transforms: &'a Transforms) -> Self {
        Self {
            transforms,
            lora_scaling: None,
        }
    }

    /// Sets the scaling `s` of the low-rank product `s B A`.
    pub fn with_lora_scaling(self, lora_scaling: Option<f64>) -> Self {
        Self {
            lora_scaling,
            ..self
        }
    }

    /// Makes a transform, or the several that it stands for.
    ///
    /// # Errors
    ///
    /// Fails when there is no such transform or setting, one without a default is missing, or a value
    /// is of the wrong kind or out of its range.
    pub fn build(&self, chosen: &Chosen) -> Built {
        let entry = self.transforms.find(&chosen.kind).ok_or_else(|| {
            OptimError::Schema(SchemaError::UnknownKind {
                what: "transform",
                kind: chosen.kind.clone(),
                known: self.transforms.iter().map(|entry| entry.kind).collect(),
            })
        })?;
        let settings = Settings::new(entry.kind, entry.settings, &chosen.settings)?;
        (entry.build)(&settings, self)
    }

    /// Makes the transforms of a list, one after the other.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_all(&self, list: &[Chosen]) -> Built {
        let parts: Result<Vec<_>, _> = list.iter().map(|chosen| self.build(chosen)).collect();
        Ok(parts?.into_iter().flatten().collect())
    }
}

/// The decoupled or L2 decay that most optimizers have.
pub(crate) const WEIGHT_DECAY: SettingSpec = number(
    "weight_decay",
    Range::NonNegative,
    0.0,
    "multiple of the parameters that is added",
);

/// Adam's first decay, and what is named after it.
pub(crate) const BETA1: SettingSpec = number(
    "beta1",
    Range::BelowOne,
    0.9,
    "decay of the mean of the gradients",
);

/// Adam's second decay.
pub(crate) const BETA2: SettingSpec = number(
    "beta2",
    Range::BelowOne,
    0.999,
    "decay of the mean of their squares",
);

/// A list of transforms, where one has to be given.
pub(crate) const CHAIN_EXAMPLE: &str = "[{ kind = \"adam\" }]";

/// A pattern of parameter names, where one has to be given.
pub(crate) const PATTERN_EXAMPLE: &str = "\".*lora_B.*\"";

/// What is added to a root, with its default.
pub(crate) const fn eps(default: f64) -> SettingSpec {
    number("eps", Range::Positive, default, "added to the root")
}

/// A whole optimizer with a usual learning rate.
pub(crate) const fn optimizer(learning_rate: f64) -> Option<OptimizerEntry> {
    Some(OptimizerEntry {
        learning_rate: Some(learning_rate),
    })
}
