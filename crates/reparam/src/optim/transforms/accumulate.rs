//! Collecting gradients over several calls.

use crate::optim::chain::{Chain, inner};
use crate::optim::entry::{CHAIN_EXAMPLE, TransformEntry, one};
use crate::optim::error::{OptimError, Result};
use crate::optim::rules::{Placed, Role};
use crate::optim::state;
use crate::optim::transform::{GradientTransform, StepContext, Transformed, map};
use crate::parameters::{NamedTensor, ParameterList};
use crate::schema::{SettingKind, at_least_one, required};

pub(crate) const ENTRY: TransformEntry = TransformEntry {
    kind: "accumulate",
    summary: "Average the gradients of several steps before the transforms inside see them",
    formula: "every n-th step u = chain(mean of the last n gradients), else 0",
    source: "as optax's MultiSteps",
    optimizer: None,
    settings: &[
        required(
            "steps",
            SettingKind::COUNT,
            "4",
            "number of gradients to average",
        ),
        required(
            "transforms",
            SettingKind::Chain,
            CHAIN_EXAMPLE,
            "transforms of the mean",
        ),
    ],
    build: |settings, context| {
        let parts = context.build_all(settings.chain("transforms")?)?;
        one(Accumulate::new(settings.count("steps")?, parts)?)
    },
};

/// Gives a chain the mean of several gradients, and moves nothing in between.
///
/// ```text
/// u_t = chain((g_{t-n+1} + ... + g_t) / n)   if n divides t,   0 otherwise
/// ```
///
/// The chain counts its own steps, so that Adam inside it corrects for its start as with the larger
/// batch; the horizon it sees is `T / n`. It differs from `train.gradient_accumulation`, which weighs
/// tokens rather than batches and counts one step for all of them. Gradients of a last, incomplete round are
/// not used.
///
/// # Cost
///
/// One number a parameter besides what the chain keeps.
#[derive(Debug)]
pub struct Accumulate {
    steps: u64,
    inner: Chain,
    sum: ParameterList,
}

impl Accumulate {
    /// Creates the transform.
    ///
    /// # Errors
    ///
    /// Fails when `steps` is zero, the order of the parts breaks a law, or one of them takes the
    /// gradient elsewhere or follows every move of the parameters.
    pub fn new(steps: u64, parts: Vec<Box<dyn GradientTransform>>) -> Result<Self> {
        at_least_one("steps", steps)?;
        let every_step = |placed: &Placed| matches!(placed.role, Role::Probe | Role::Average);
        let why = (
            "it concerns every step and cannot be inside of an accumulation",
            "put it outside, before the accumulation or after it",
        );
        Ok(Self {
            steps,
            inner: inner("accumulate", parts, every_step, why)?,
            sum: Vec::new(),
        })
    }
}

impl GradientTransform for Accumulate {
    fn name(&self) -> &'static str {
        "accumulate"
    }

    fn transform(&mut self, updates: ParameterList, context: &StepContext<'_>) -> Transformed {
        state::ready_zeros(self.name(), &mut self.sum, &updates, context)?;
        for (sum, update) in self.sum.iter_mut().zip(&updates) {
            sum.values = sum.values.clone() + update.values.clone();
        }
        if !context.step.is_multiple_of(self.steps) {
            return Ok(map(updates, |update| update.values.zeros_like()));
        }
        let n = self.steps as f64;
        let mean = map(self.sum.clone(), |sum| sum.values.clone() / n);
        for sum in &mut self.sum {
            sum.values = sum.values.zeros_like();
        }
        let inner = StepContext {
            step: context.step / self.steps,
            horizon: (context.horizon / self.steps).max(1),
            ..*context
        };
        self.inner.transform(mean, &inner)
    }

    fn roles(&self) -> Vec<Placed> {
        // What is inside sees whole means; what comes after sees the zeros too.
        let mut roles = self.inner.roles();
        roles.extend(Placed::everywhere(self.name(), Role::Collect));
        roles
    }

    fn check(&self, parameters: &[NamedTensor], horizon: u64) -> Result<()> {
        if horizon < self.steps {
            return Err(OptimError::NoEffect {
                transform: self.name(),
                problem: format!(
                    "it collects {} gradients before the first move, and the run has {horizon} steps",
                    self.steps
                ),
            });
        }
        self.inner.check(parameters, horizon / self.steps)
    }

    fn evaluated(&self, parameters: &[NamedTensor]) -> Option<ParameterList> {
        self.inner.evaluated(parameters)
    }

    fn state(&self) -> ParameterList {
        let mut state = state::groups(&[("sum", &self.sum)]);
        state.extend(state::prefixed("inner", &self.inner.state()));
        state
    }

    fn load_state(&mut self, state: ParameterList) -> Result<()> {
        let mut state = state::Loaded::new(self.name(), state);
        self.sum = state.take_group("sum");
        self.inner.load_state(state.take_group("inner"))?;
        state.finish()
    }
}
