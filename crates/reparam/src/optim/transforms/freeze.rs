//! Holding parameters still.

use regex::Regex;

use crate::optim::entry::{PATTERN_EXAMPLE, TransformEntry, one};
use crate::optim::error::Result;
use crate::optim::rules::{Placed, Role, require_match};
use crate::optim::transform::{GradientTransform, StepContext, Transformed, map};
use crate::parameters::{NamedTensor, ParameterList};
use crate::schema::{SettingKind, required, whole_name};

pub(crate) const ENTRY: TransformEntry = TransformEntry {
    kind: "freeze",
    summary: "Hold the parameters still that a pattern names",
    formula: "u = 0",
    source: "",
    optimizer: None,
    settings: &[required(
        "pattern",
        SettingKind::Pattern,
        PATTERN_EXAMPLE,
        "a regular expression for whole parameter names",
    )],
    build: |settings, _| one(Freeze::new(settings.word("pattern")?)?),
};

/// Sets the updates of some parameters to zero.
///
/// It stands at the end of a chain: what comes later could move what it holds. Gradients of the held
/// parameters are computed all the same; a method that freezes tensors itself is cheaper.
#[derive(Debug, Clone)]
pub struct Freeze {
    pattern: Regex,
}

impl Freeze {
    /// Creates the transform for the parameters whose whole name a regular expression matches.
    pub fn new(names: &str) -> Result<Self> {
        Ok(Self {
            pattern: whole_name("pattern", names)?,
        })
    }
}

impl GradientTransform for Freeze {
    fn name(&self) -> &'static str {
        "freeze"
    }

    fn transform(&mut self, updates: ParameterList, _context: &StepContext<'_>) -> Transformed {
        Ok(map(updates, |update| {
            if self.pattern.is_match(&update.name) {
                update.values.zeros_like()
            } else {
                update.values.clone()
            }
        }))
    }

    fn roles(&self) -> Vec<Placed> {
        let roles = Placed::everywhere(self.name(), Role::Freeze);
        Placed::within(roles, self.pattern.as_str())
    }

    fn check(&self, parameters: &[NamedTensor], _horizon: u64) -> Result<()> {
        require_match(self.name(), &self.pattern, parameters)
    }
}
