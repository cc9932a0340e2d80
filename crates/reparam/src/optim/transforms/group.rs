//! Parameter groups.

use regex::Regex;

use crate::optim::chain::{Chain, inner};
use crate::optim::entry::{CHAIN_EXAMPLE, PATTERN_EXAMPLE, TransformEntry, one};
use crate::optim::error::Result;
use crate::optim::rules::{Placed, Role, require_match};
use crate::optim::transform::{GradientTransform, StepContext, Transformed};
use crate::parameters::{NamedTensor, ParameterList};
use crate::schema::{SettingKind, required, whole_name};

pub(crate) const ENTRY: TransformEntry = TransformEntry {
    kind: "group",
    summary: "Apply transforms only to the parameters that a pattern names",
    formula: "u = chain(g) where the name matches, g elsewhere",
    source: "as optax's masked",
    optimizer: None,
    settings: &[
        required(
            "pattern",
            SettingKind::Pattern,
            PATTERN_EXAMPLE,
            "a regular expression for whole parameter names",
        ),
        required(
            "transforms",
            SettingKind::Chain,
            CHAIN_EXAMPLE,
            "transforms of these parameters",
        ),
    ],
    build: |settings, context| {
        let parts = context.build_all(settings.chain("transforms")?)?;
        one(Group::new(settings.word("pattern")?, parts)?)
    },
};

/// Applies a chain to some of the parameters, and leaves the updates of the others alone.
///
/// Several groups after each other, with patterns that exclude each other, give every parameter an
/// optimizer of its own. Norms inside of a group are those of the group.
#[derive(Debug)]
pub struct Group {
    pattern: Regex,
    inner: Chain,
}

impl Group {
    /// Creates the transform for the parameters whose whole name a regular expression matches.
    ///
    /// # Errors
    ///
    /// Fails when the pattern is not a regular expression, the order of the parts breaks a law, or one
    /// of them concerns all parameters together: a probe or an average.
    pub fn new(names: &str, parts: Vec<Box<dyn GradientTransform>>) -> Result<Self> {
        let whole =
            |placed: &Placed| matches!(placed.role, Role::Probe | Role::Average | Role::Move);
        let why = (
            "it concerns all parameters together and cannot be inside of a group",
            "put it outside of the group",
        );
        let inner = inner("group", parts, whole, why)?;
        Ok(Self {
            pattern: whole_name("pattern", names)?,
            inner,
        })
    }

    fn select(&self, list: &[NamedTensor]) -> ParameterList {
        let selected = list
            .iter()
            .filter(|tensor| self.pattern.is_match(&tensor.name));
        selected.cloned().collect()
    }
}

impl GradientTransform for Group {
    fn name(&self) -> &'static str {
        "group"
    }

    fn transform(&mut self, updates: ParameterList, context: &StepContext<'_>) -> Transformed {
        let selected = self.select(&updates);
        let parameters = self.select(context.parameters);
        let inner = StepContext {
            parameters: &parameters,
            ..*context
        };
        let mut changed = self.inner.transform(selected, &inner)?.into_iter();
        Ok(updates
            .into_iter()
            .map(|update| {
                if self.pattern.is_match(&update.name) {
                    changed.next().unwrap_or(update)
                } else {
                    update
                }
            })
            .collect())
    }

    fn roles(&self) -> Vec<Placed> {
        Placed::within(self.inner.roles(), self.pattern.as_str())
    }

    fn check(&self, parameters: &[NamedTensor], horizon: u64) -> Result<()> {
        require_match(self.name(), &self.pattern, parameters)?;
        self.inner.check(&self.select(parameters), horizon)
    }

    fn state(&self) -> ParameterList {
        self.inner.state()
    }

    fn load_state(&mut self, state: ParameterList) -> Result<()> {
        self.inner.load_state(state)
    }
}
