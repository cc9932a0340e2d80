//! A chain of transforms and the parameter update after it.

use std::path::Path;

use burn::module::Module;
use burn::tensor::ElementConversion;

use crate::optim::chain::{Chain, chain};
use crate::optim::error::{OptimError, Result};
use crate::optim::math::{Noise, global_norm};
use crate::optim::schedule::Schedule;
use crate::optim::state::file;
use crate::optim::transform::{GradientTransform, StepContext};
use crate::parameters::{self, NamedTensor, ParameterList};
use crate::schema::{Range, at_least_one};

/// The two-step update of a run.
#[derive(Debug)]
pub struct Optimizer {
    chain: Chain,
    learning_rate: f64,
    schedule: Schedule,
    horizon: u64,
    steps_done: u64,
    variances: Option<Variances>,
}

/// The estimates of what varies from step to step.
#[derive(Debug)]
struct Variances {
    gradient: Noise,
    update: Noise,
}

/// The decay of the running means that variances are measured with: about the last twenty steps.
const VARIANCE_BETA: f64 = 0.95;

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// The number of the step, from 1.
    pub step: u64,
    /// The learning rate that moved the parameters.
    pub learning_rate: f64,
    /// The norm of all gradients together, before any transform.
    pub grad_norm: f64,
    /// The norm of all updates together, before the learning rate multiplies them.
    pub update_norm: f64,
    /// How gradients and updates vary, if it is measured.
    pub variances: Option<StepVariances>,
}

/// How gradients and updates vary over the last steps, summed over all elements; zero at the first step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepVariances {
    /// Of the gradients.
    pub gradient: f64,
    /// Of the updates, before the learning rate multiplies them.
    pub update: f64,
}

impl Optimizer {
    /// Creates an update with no step done.
    ///
    /// `horizon` is the planned number of steps, `T`: the schedule ends there, and
    /// [`Scale::ByHorizon`](super::Scale::ByHorizon) takes its root.
    ///
    /// # Errors
    ///
    /// Fails when the learning rate is not positive, the horizon is zero, or the transforms are in an
    /// order that [`chain`](super::chain()) refuses.
    pub fn new(
        transforms: Vec<Box<dyn GradientTransform>>,
        learning_rate: f64,
        schedule: Schedule,
        horizon: u64,
    ) -> Result<Self> {
        Range::Factor.check("learning_rate", learning_rate)?;
        at_least_one("horizon", horizon)?;
        Ok(Self {
            chain: chain(transforms)?,
            learning_rate,
            schedule,
            horizon,
            steps_done: 0,
            variances: None,
        })
    }

    /// Measures from now on how gradients and updates vary from step to step.
    ///
    /// The estimate is that of [`AdaptiveScale`](super::AdaptiveScale) with `beta = 0.95`: of the last
    /// twenty steps or so, with a change of the true gradient among them counted in.
    ///
    /// # Cost
    ///
    /// Two numbers a parameter. They are no part of the state.
    pub fn measure_variances(&mut self) {
        self.variances = Some(Variances {
            gradient: Noise::new(VARIANCE_BETA),
            update: Noise::new(VARIANCE_BETA),
        });
    }

    /// Checks before the first step that all transforms can work on a module's trainable parameters.
    ///
    /// # Errors
    ///
    /// Fails when a transform has no effect on them or cannot take their shapes.
    pub fn check<M: Module>(&self, module: &M) -> Result<()> {
        let parameters = parameters::trainable(module);
        self.chain.check(&parameters, self.horizon)
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
    ) -> Result<(M, StepReport)> {
        let parameters = parameters::trainable(&module);
        let (values, report) = self.step_list(parameters, gradients)?;
        Ok((parameters::assign(module, values), report))
    }

    /// Like [`step`](Self::step), on a list of parameters without a module.
    pub fn step_list(
        &mut self,
        parameters: ParameterList,
        gradients: ParameterList,
    ) -> Result<(ParameterList, StepReport)> {
        let grad_norm = global_norm(&gradients);
        if !grad_norm.is_finite() {
            return Err(OptimError::NonFinite {
                name: first_non_finite(&gradients),
            });
        }
        if self.steps_done == 0 {
            self.chain.check(&parameters, self.horizon)?;
        }
        let learning_rate = self.next_learning_rate();
        let context = self.context(&parameters);
        let mut of_gradient = None;
        if let Some(variances) = &mut self.variances {
            let estimate = variances
                .gradient
                .observe(&gradients, &context, "variance")?;
            of_gradient = Some(estimate.noise.unwrap_or(0.0));
        }
        let updates = self.chain.transform(gradients, &context)?;
        let mut measured = None;
        if let (Some(variances), Some(gradient)) = (&mut self.variances, of_gradient) {
            let estimate = variances.update.observe(&updates, &context, "variance")?;
            let update = estimate.noise.unwrap_or(0.0);
            measured = Some(StepVariances { gradient, update });
        }
        let update_norm = global_norm(&updates);
        let moved: ParameterList = parameters
            .into_iter()
            .zip(updates)
            .map(|(parameter, update)| {
                let values = parameter.values.clone() - update.values * learning_rate;
                parameter.with_values(values)
            })
            .collect();
        if !global_norm(&moved).is_finite() {
            return Err(OptimError::NonFiniteParameter {
                name: first_non_finite(&moved),
            });
        }
        self.chain.moved(&moved)?;
        self.steps_done += 1;
        let report = StepReport {
            step: self.steps_done,
            learning_rate,
            grad_norm,
            update_norm,
            variances: measured,
        };
        Ok((moved, report))
    }

    /// Returns the point at which the gradient has to be taken instead of at `parameters`, given the
    /// gradient there; `None` if one gradient a step is enough.
    ///
    /// With [`Sam`](super::Sam) in the chain a step is: gradients at the parameters, this, gradients at what
    /// it returns, and [`step_list`](Self::step_list) with the old parameters and the new gradients.
    ///
    /// # Errors
    ///
    /// Fails when a gradient is not finite.
    pub fn probe_list(
        &mut self,
        parameters: &[NamedTensor],
        gradients: &[NamedTensor],
    ) -> Result<Option<ParameterList>> {
        let context = self.context(parameters);
        let point = self.chain.probe(gradients, &context)?;
        if point.is_some() && !global_norm(gradients).is_finite() {
            return Err(OptimError::NonFinite {
                name: first_non_finite(gradients),
            });
        }
        Ok(point)
    }

    /// Returns the parameters that are to be evaluated and saved in place of the trained ones, if a
    /// transform keeps an average of them.
    pub fn evaluated_list(&self, parameters: &[NamedTensor]) -> Option<ParameterList> {
        self.chain.evaluated(parameters)
    }

    fn context<'a>(&self, parameters: &'a [NamedTensor]) -> StepContext<'a> {
        StepContext {
            step: self.steps_done + 1,
            horizon: self.horizon,
            learning_rate: self.next_learning_rate(),
            parameters,
        }
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
        self.chain.state()
    }

    /// Restores what [`state`](Self::state) returned after `steps_done` steps.
    ///
    /// # Errors
    ///
    /// Fails when the state is of another chain.
    pub fn load_state(&mut self, steps_done: u64, state: ParameterList) -> Result<()> {
        self.chain.load_state(state)?;
        self.steps_done = steps_done;
        Ok(())
    }
}

/// Writes the states of all transforms to a safetensors file, in one step.
///
/// Tensors keep their type and all of their bits; `steps_done` is in the metadata.
///
/// # Errors
///
/// [`OptimError::StateFile`] when the file cannot be written.
pub fn save_state(optimizer: &Optimizer, path: &Path) -> Result<()> {
    file::write(path, optimizer.steps_done(), optimizer.state())
}

/// Restores what [`save_state`] wrote, to the same bits.
///
/// # Errors
///
/// [`OptimError::StateFile`] when the file is missing or damaged, and the errors of
/// [`Optimizer::load_state`] when it is another chain's.
pub fn load_state(optimizer: &mut Optimizer, path: &Path) -> Result<()> {
    let (steps_done, state) = file::read(path)?;
    optimizer.load_state(steps_done, state)
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
