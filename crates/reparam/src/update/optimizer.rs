//! A chain of transforms and the parameter update after it.

use burn::module::Module;
use burn::tensor::ElementConversion;

use super::clip::{global_norm, positive};
use super::{GradientTransform, Schedule, StepContext, UpdateError};
use crate::parameters::{self, NamedTensor, ParameterList};

/// The two-step update of a run.
#[derive(Debug)]
pub struct Optimizer {
    chain: Vec<Box<dyn GradientTransform>>,
    learning_rate: f64,
    schedule: Schedule,
    horizon: u64,
    steps_done: u64,
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// The number of the step, from 1.
    pub step: u64,
    /// The learning rate that moved the parameters.
    pub learning_rate: f64,
    /// The norm of all gradients together, before any transform.
    pub grad_norm: f64,
}

impl Optimizer {
    /// Creates an update with no step done.
    ///
    /// `horizon` is the planned number of steps, `T`: the schedule ends there, and
    /// [`Scale::ByHorizon`](super::Scale::ByHorizon) takes its root.
    ///
    /// # Errors
    ///
    /// Fails when the learning rate is not positive or the horizon is zero.
    pub fn new(
        chain: Vec<Box<dyn GradientTransform>>,
        learning_rate: f64,
        schedule: Schedule,
        horizon: u64,
    ) -> Result<Self, UpdateError> {
        positive("learning_rate", learning_rate)?;
        if horizon == 0 {
            return Err(UpdateError::Setting {
                setting: "horizon",
                expected: "at least one step",
                found: "0".into(),
            });
        }
        Ok(Self {
            chain,
            learning_rate,
            schedule,
            horizon,
            steps_done: 0,
        })
    }

    /// Moves a module's trainable parameters by one step.
    ///
    /// ```text
    /// theta <- theta - eta_t * chain(gradients)
    /// ```
    ///
    /// `gradients` come from [`parameters::take_gradients`], several backward passes added up if
    /// need be.
    ///
    /// # Errors
    ///
    /// Fails when a gradient is not finite, with no state changed, or when a moved parameter is not,
    /// which the transforms' states have then followed: such an optimizer is not to be used again.
    /// The module is consumed; keep a clone, which shares its tensors, of what was there before.
    pub fn step<M: Module>(
        &mut self,
        module: M,
        gradients: ParameterList,
    ) -> Result<(M, StepReport), UpdateError> {
        let parameters = parameters::trainable(&module);
        let (values, report) = self.step_list(parameters, gradients)?;
        Ok((parameters::assign(module, values), report))
    }

    /// Like [`step`](Self::step), on a list of parameters without a module.
    pub fn step_list(
        &mut self,
        parameters: ParameterList,
        gradients: ParameterList,
    ) -> Result<(ParameterList, StepReport), UpdateError> {
        let grad_norm = global_norm(&gradients);
        if !grad_norm.is_finite() {
            return Err(UpdateError::NonFinite {
                name: first_non_finite(&gradients),
            });
        }
        let context = StepContext {
            step: self.steps_done + 1,
            horizon: self.horizon,
            parameters: &parameters,
        };
        let mut updates = gradients;
        for transform in &mut self.chain {
            updates = transform.transform(updates, &context)?;
        }
        let learning_rate = self.next_learning_rate();
        let moved: ParameterList = parameters
            .into_iter()
            .zip(updates)
            .map(|(parameter, update)| {
                let values = parameter.values.clone() - update.values * learning_rate;
                parameter.with_values(values)
            })
            .collect();
        if !global_norm(&moved).is_finite() {
            return Err(UpdateError::NonFiniteParameter {
                name: first_non_finite(&moved),
            });
        }
        self.steps_done += 1;
        let report = StepReport {
            step: self.steps_done,
            learning_rate,
            grad_norm,
        };
        Ok((moved, report))
    }

    /// Returns the learning rate that the next step will use.
    pub fn next_learning_rate(&self) -> f64 {
        self.learning_rate * self.schedule.multiplier(self.steps_done, self.horizon)
    }

    /// Returns how many steps were done.
    pub fn steps_done(&self) -> u64 {
        self.steps_done
    }

    /// Returns the states of all transforms: `<place>.<transform>.<its own name>`.
    pub fn state(&self) -> ParameterList {
        self.chain
            .iter()
            .enumerate()
            .flat_map(|(place, transform)| {
                super::state::prefixed(&prefix(place, transform.as_ref()), &transform.state())
            })
            .collect()
    }

    /// Restores what [`state`](Self::state) returned after `steps_done` steps.
    ///
    /// # Errors
    ///
    /// Fails when the state is of another chain.
    pub fn load_state(&mut self, steps_done: u64, state: ParameterList) -> Result<(), UpdateError> {
        let mut state = super::state::Loaded::new("optimizer", state);
        for (place, transform) in self.chain.iter_mut().enumerate() {
            let own = state.take_group(&prefix(place, transform.as_ref()));
            transform.load_state(own)?;
        }
        self.steps_done = steps_done;
        state.finish()
    }
}

fn prefix(place: usize, transform: &dyn GradientTransform) -> String {
    format!("{place}.{}", transform.name())
}

/// Returns the name of the first tensor with an element that is not finite.
fn first_non_finite(tensors: &[NamedTensor]) -> String {
    let is_finite = |tensor: &&NamedTensor| {
        let sum: f64 = tensor
            .values
            .clone()
            .abs()
            .sum()
            .into_scalar::<f64>()
            .elem();
        sum.is_finite()
    };
    // Every element may be finite while the squares overflow; then the first tensor stands for all.
    tensors
        .iter()
        .find(|tensor| !is_finite(tensor))
        .or(tensors.first())
        .map_or_else(String::new, |tensor| tensor.name.clone())
}
