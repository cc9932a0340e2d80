//! A model with what it learns from, as one step sees it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::{ElementConversion, Tensor, TensorData};
use reparam::ForwardContext;
use reparam::methods::Methods;
use reparam::optim::{OptimError, Optimizer, StepReport};
use reparam::parameters::{self, ParameterList};

use crate::{Result, TrainError};

/// What a step leaves for the next one besides the parameters, such as the states of recurrent layers: numbers by name.
///
/// No gradient flows through them. They are part of a checkpoint, as f32.
pub type Carried = BTreeMap<String, TensorData>;

/// A loss that is a sum over the micro-batches of a step.
///
/// A micro-batch is a function of its number and of the run's seed alone, so that a run can go on at any step.
pub trait Objective {
    /// The model, any Burn module.
    type Model: Module;

    /// Returns how much the micro-batch `pass`, counted from 0 over the whole run, weighs: its labelled tokens, its
    /// rows. One that weighs nothing is passed over.
    fn weight(&self, pass: u64) -> f64;

    /// Returns how many times the data have been gone through before the micro-batch `pass`; `None` where they have no end.
    fn epochs(&self, _pass: u64) -> Option<f64> {
        None
    }

    /// Returns how many tokens or rows of the micro-batch `pass` go through the model: what its time and memory grow with.
    fn tokens(&self, pass: u64) -> usize {
        self.weight(pass) as usize
    }

    /// Returns the loss of the micro-batch `pass`, `[1]`: the sum over its tokens or rows, divided by `total`.
    ///
    /// `total` is the weight of all micro-batches of the step, so that the losses of a step add up to one mean, however
    /// it is divided.
    ///
    /// # Errors
    ///
    /// A batch that cannot be made; every batch that the data can lead to should have been checked before.
    fn loss(
        &self,
        model: &Self::Model,
        pass: u64,
        total: f64,
        context: &ForwardContext,
    ) -> Result<Tensor<1>>;

    /// Returns the loss of a micro-batch that goes on from what the step `before` has left, and what it leaves itself, under
    /// names that no other micro-batch of a step uses.
    ///
    /// By default nothing is carried.
    ///
    /// # Errors
    ///
    /// As [`loss`](Self::loss), and something that is not there.
    fn loss_from(
        &self,
        model: &Self::Model,
        pass: u64,
        total: f64,
        (_before, context): (&Carried, &ForwardContext),
    ) -> Result<(Tensor<1>, Carried)> {
        Ok((self.loss(model, pass, total, context)?, Carried::new()))
    }
}

/// What the trainer sees of a model: its trained numbers, and the loss and gradient of a step.
pub trait Learner {
    /// Returns the trained parameters.
    fn parameters(&self) -> ParameterList;

    /// Replaces the trained parameters; the list has the order of [`parameters`](Self::parameters).
    fn assign(&mut self, values: ParameterList);

    /// Goes forward and backward over all micro-batches of a step, counted from 0.
    ///
    /// # Errors
    ///
    /// A batch that cannot be made.
    fn pass(&self, step: u64) -> Result<Pass>;

    /// Advances what methods keep beside their parameters and takes what the step has left, once after each step.
    fn after_step(&mut self, carried: Carried);
}

/// What went over a step's micro-batches.
#[derive(Debug)]
pub struct Pass {
    /// The loss.
    pub loss: f64,
    /// The tokens or rows that it is the mean of.
    pub weight: f64,
    /// Its gradients, in the order of the parameters.
    pub gradients: ParameterList,
    /// What it leaves for the next step.
    pub carried: Carried,
}

/// A Burn module that learns an [`Objective`].
#[derive(Debug)]
pub struct ModuleLearner<O: Objective> {
    /// What is learned.
    pub objective: O,
    /// The model after the last finished step, on a device with autodiff.
    pub model: O::Model,
    /// What dropout is drawn from.
    pub seed: u64,
    /// Micro-batches in a step.
    pub accumulation: u64,
    /// What the last finished step has left.
    pub carried: Carried,
    /// Where the methods on the model are looked up.
    pub methods: Methods,
}

impl<O: Objective> Learner for ModuleLearner<O> {
    fn parameters(&self) -> ParameterList {
        parameters::trainable(&self.model)
    }

    fn assign(&mut self, values: ParameterList) {
        self.model = parameters::assign(self.model.clone(), values);
    }

    fn pass(&self, step: u64) -> Result<Pass> {
        let first = step * self.accumulation;
        let passes = first..first + self.accumulation;
        let passes = passes.map(|pass| (pass, self.objective.weight(pass)));
        let passes: Vec<(u64, f64)> = passes.filter(|(_, weight)| *weight > 0.0).collect();
        // One normalization for the whole step: with a mean for each micro-batch, tokens of a
        // short one would weigh more.
        let weight: f64 = passes.iter().map(|(_, weight)| weight).sum();
        let (mut loss, mut carried) = (0.0, Carried::new());
        let mut gradients: Option<ParameterList> = None;
        for (pass, _) in passes {
            let context = ForwardContext::training(self.seed, pass);
            let from = (&self.carried, &context);
            let (micro, left) = self.objective.loss_from(&self.model, pass, weight, from)?;
            carried.extend(left);
            loss += micro.clone().into_scalar::<f64>().elem::<f64>();
            let micro = parameters::take_gradients(&self.model, &mut micro.backward());
            gradients = Some(match gradients {
                None => micro,
                Some(sum) => add(sum, micro),
            });
        }
        Ok(Pass {
            loss,
            weight,
            gradients: gradients.unwrap_or_default(),
            carried,
        })
    }

    fn after_step(&mut self, carried: Carried) {
        self.carried = carried;
        self.model = self.methods.after_step(self.model.clone());
    }
}

fn add(sum: ParameterList, other: ParameterList) -> ParameterList {
    sum.into_iter()
        .zip(other)
        .map(|(sum, other)| {
            let values = sum.values.clone() + other.values;
            sum.with_values(values)
        })
        .collect()
}

/// A finished step.
#[derive(Debug)]
pub(crate) struct Stepped {
    /// The loss before the update.
    pub(crate) loss: f64,
    /// The tokens or rows that it is the mean of.
    pub(crate) weight: f64,
    pub(crate) report: StepReport,
    /// The time from the gradients to the new parameters.
    pub(crate) update: Duration,
}

/// Makes one step: forward and backward of every micro-batch, then the update.
///
/// `check` looks at the loss and at what was done with the gradient, before the model takes its new parameters. Whatever
/// fails, the model is that of the last finished step.
pub(crate) fn step<L: Learner + ?Sized>(
    learner: &mut L,
    optimizer: &mut Optimizer,
    check: impl FnOnce(&L, f64, &StepReport) -> Result<()>,
) -> Result<Stepped> {
    let number = optimizer.steps_done();
    step_at(learner, optimizer, number, check)
}

/// Makes one step on the micro-batches of step `number`, counted from 0, whichever step it is of the update.
pub(crate) fn step_at<L: Learner + ?Sized>(
    learner: &mut L,
    optimizer: &mut Optimizer,
    number: u64,
    check: impl FnOnce(&L, f64, &StepReport) -> Result<()>,
) -> Result<Stepped> {
    let Pass {
        loss,
        weight,
        mut gradients,
        carried,
    } = learner.pass(number)?;
    if !loss.is_finite() {
        return Err(diverged("the loss".to_owned(), optimizer));
    }
    let mut updating = Instant::now();
    let parameters = learner.parameters();
    let probed = optimizer.probe_list(&parameters, &gradients);
    if let Some(point) = probed.map_err(|error| not_finite(error, optimizer))? {
        learner.assign(point);
        let again = learner.pass(number);
        learner.assign(parameters.clone());
        gradients = again?.gradients;
        updating = Instant::now();
    }
    let (moved, report) = optimizer
        .step_list(parameters, gradients)
        .map_err(|error| not_finite(error, optimizer))?;
    check(learner, loss, &report)?;
    learner.assign(moved);
    let update = updating.elapsed();
    learner.after_step(carried);
    Ok(Stepped {
        loss,
        weight,
        report,
        update,
    })
}

pub(crate) fn diverged(what: String, optimizer: &Optimizer) -> TrainError {
    TrainError::Diverged {
        what,
        step: optimizer.steps_done() + 1,
        learning_rate: optimizer.next_learning_rate(),
        last_saved: None,
    }
}

/// Returns a failed step's error as a run's.
fn not_finite(error: OptimError, optimizer: &Optimizer) -> TrainError {
    match error {
        OptimError::NonFinite { name } => diverged(format!("the gradient of `{name}`"), optimizer),
        OptimError::NonFiniteParameter { name } => {
            diverged(format!("`{name}` after the update"), optimizer)
        }
        other => TrainError::Update(other),
    }
}
