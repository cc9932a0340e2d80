//! A run whose task is known to one value alone: what the trainer sees of any task.

use std::any::Any;
use std::fmt;
use std::path::{Path, PathBuf};

use burn::module::Module as _;
use reparam::methods;
use reparam::optim::{Optimizer, StepReport};
use reparam::parameters::{self, ParameterList};
use reparam_formats::hub::HubOptions;
use reparam_models::ModelError;

use super::{Origins, Report, RunFacts, RunFile, RunPlan, Task};
use crate::Stop;
use crate::event::Step;
use crate::learner::{Carried, Learner, ModuleLearner};
use crate::metrics::Metrics;
use crate::seen::{Look, Seen};
use crate::{Result, TrainError};

/// A run file that has been read, of any task.
#[derive(Debug)]
pub struct TaskRun {
    name: &'static str,
    output: PathBuf,
    threads: usize,
    run: Box<dyn AnyRun>,
    by_default: Option<ByDefault>,
}

/// A task that nothing says, neither the run file nor the model.
#[derive(Debug)]
pub(super) struct ByDefault {
    pub(super) task: &'static str,
    pub(super) tasks: Vec<&'static str>,
}

impl ByDefault {
    pub(super) fn hint(&self) -> String {
        let Self { task, tasks } = self;
        let tasks = tasks.join(", ");
        format!(
            "the task is {task} because nothing says another; set `task` in [model] to one of {tasks}"
        )
    }
}

impl TaskRun {
    /// Makes a run of a configuration that was put together in code.
    pub fn of<T: Task>(config: T::Config) -> Self {
        Self {
            name: T::NAME,
            output: config.output().to_owned(),
            threads: config.threads(),
            run: Box::new(Typed::<T>(config)),
            by_default: None,
        }
    }

    /// Remembers whether the task was chosen for want of another.
    pub(super) fn chosen(self, by_default: Option<ByDefault>) -> Self {
        Self { by_default, ..self }
    }

    /// Returns the task's name.
    #[must_use]
    pub fn task(&self) -> &'static str {
        self.name
    }

    /// Returns the run directory.
    #[must_use]
    pub fn output(&self) -> &Path {
        &self.output
    }

    /// Returns the threads to compute with; 0 for as many as the machine has.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Returns the configuration, if it is of this type.
    #[must_use]
    pub fn config<C: 'static>(&self) -> Option<&C> {
        self.run.config().downcast_ref()
    }

    /// Checks before the first of several runs what costs little to check.
    ///
    /// # Errors
    ///
    /// As the run itself.
    pub fn check(&self) -> Result<()> {
        self.run.check()
    }

    /// Returns the configuration with all defaults as TOML.
    pub(crate) fn to_toml(&self) -> Result<String> {
        self.run.to_toml()
    }

    pub(crate) fn prepare(&self, hub: &HubOptions, watch: Stop<'_>) -> Result<PreparedRun> {
        self.run
            .prepare(hub, watch)
            .map_err(|error| match (&self.by_default, error) {
                (Some(default), TrainError::Model(error)) if is_another_kind(&error) => {
                    TrainError::ModelOfAnotherKind {
                        error,
                        advice: default.hint(),
                    }
                }
                (_, error) => error,
            })
    }
}

/// Whether a model may well be for another task.
fn is_another_kind(error: &ModelError) -> bool {
    matches!(
        error,
        ModelError::NotCausal { .. } | ModelError::UnsupportedFamily { .. }
    )
}

/// A run file whose task is known to this value alone.
trait AnyRun: fmt::Debug {
    fn config(&self) -> &dyn Any;
    fn check(&self) -> Result<()>;
    fn to_toml(&self) -> Result<String>;
    fn prepare(&self, hub: &HubOptions, watch: Stop<'_>) -> Result<PreparedRun>;
}

struct Typed<T: Task>(T::Config);

impl<T: Task> fmt::Debug for Typed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: Task> AnyRun for Typed<T> {
    fn config(&self) -> &dyn Any {
        &self.0
    }

    fn check(&self) -> Result<()> {
        T::check(&self.0)
    }

    fn to_toml(&self) -> Result<String> {
        self.0.check()?;
        Ok(self.0.to_toml()?)
    }

    fn prepare(&self, hub: &HubOptions, watch: Stop<'_>) -> Result<PreparedRun> {
        let prepared = T::prepare(&self.0, hub, watch)?;
        let learner = prepared.learner;
        Ok(PreparedRun {
            seed: learner.seed,
            accumulation: learner.accumulation,
            counts: parameters::count(&learner.model),
            unit: T::UNIT,
            learner: Box::new(learner),
            optimizer: prepared.optimizer,
            plan: prepared.plan,
            facts: prepared.facts,
            origins: prepared.origins,
        })
    }
}

/// [`Prepared`] with the task's type forgotten.
pub(crate) struct PreparedRun {
    pub(crate) learner: Box<dyn TaskLearner>,
    pub(crate) optimizer: Optimizer,
    pub(crate) plan: RunPlan,
    pub(crate) facts: RunFacts,
    pub(crate) origins: Origins,
    pub(crate) counts: parameters::ParameterCount,
    pub(crate) seed: u64,
    pub(crate) accumulation: u64,
    pub(crate) unit: &'static str,
}

impl PreparedRun {
    /// Returns the tokens or rows of all micro-batches of a step.
    pub(crate) fn tokens_of(&self, step: u64) -> u64 {
        let first = step * self.accumulation;
        let passes = first..first + self.accumulation;
        passes.map(|pass| self.learner.tokens(pass) as u64).sum()
    }
}

/// The parameters with which a model is looked at.
#[derive(Debug)]
pub(crate) enum At<'a> {
    /// Those of the last step.
    Trained,
    /// These: an average that the update keeps.
    Values(ParameterList),
    /// Those of a file that [`TaskLearner::save_theta`] wrote.
    File(&'a Path),
}

impl At<'_> {
    /// Returns those that are evaluated and saved.
    pub(crate) fn evaluated(learner: &dyn TaskLearner, optimizer: &Optimizer) -> Self {
        let averaged = optimizer.evaluated_list(&learner.parameters());
        averaged.map_or(Self::Trained, Self::Values)
    }
}

/// What the trainer sees of a task with its model.
pub(crate) trait TaskLearner: Learner {
    /// How many times the data have been gone through before a micro-batch.
    fn epochs(&self, pass: u64) -> Option<f64>;
    /// How many tokens or rows of a micro-batch go through the model.
    fn tokens(&self, pass: u64) -> usize;
    fn seen(&self, look: &Look<'_>) -> Result<Option<Seen>>;
    fn evaluate(&self, at: At<'_>, stop: Stop<'_>) -> Result<Option<Metrics>>;
    fn save(&self, at: At<'_>, directory: &Path) -> Result<()>;
    fn sample(&self, at: At<'_>, stop: Stop<'_>) -> Result<Option<(String, String)>>;
    fn report(&self, at: At<'_>) -> Result<Option<Report>>;
    fn check_gradient(&self, loss: f64, report: &StepReport) -> Result<()>;
    fn check_step(&self, step: &Step) -> Result<()>;
    fn check_end(&self, last: &Step) -> Result<()>;
    fn explain(&self, error: TrainError) -> TrainError;
    /// Writes all that the method has learned and keeps.
    fn save_theta(&self, at: At<'_>, path: &Path) -> Result<()>;
    /// Reads what [`save_theta`](Self::save_theta) wrote.
    fn load_theta(&mut self, path: &Path) -> Result<()>;
    /// What the last finished step has left for the next one.
    fn carried(&self) -> &Carried;
    /// Goes on from what a step has left.
    fn carry(&mut self, carried: Carried);
}

impl<T: Task> ModuleLearner<T> {
    fn at(&self, at: At<'_>) -> Result<T::Model> {
        let model = self.model.clone();
        Ok(match at {
            At::Trained => model,
            At::Values(values) => parameters::assign(model, values),
            At::File(path) => methods::load_theta(model, path)?,
        })
    }
}

impl<T: Task> TaskLearner for ModuleLearner<T> {
    fn epochs(&self, pass: u64) -> Option<f64> {
        self.objective.epochs(pass)
    }

    fn tokens(&self, pass: u64) -> usize {
        self.objective.tokens(pass)
    }

    fn seen(&self, look: &Look<'_>) -> Result<Option<Seen>> {
        self.objective.seen(look)
    }

    fn evaluate(&self, at: At<'_>, stop: Stop<'_>) -> Result<Option<Metrics>> {
        self.objective.evaluate(&self.at(at)?.valid(), stop)
    }

    fn save(&self, at: At<'_>, directory: &Path) -> Result<()> {
        self.objective.save(&self.at(at)?, directory)
    }

    fn sample(&self, at: At<'_>, stop: Stop<'_>) -> Result<Option<(String, String)>> {
        self.objective.sample(&self.at(at)?.valid(), stop)
    }

    fn report(&self, at: At<'_>) -> Result<Option<Report>> {
        self.objective.report(&self.at(at)?.valid())
    }

    fn check_gradient(&self, loss: f64, report: &StepReport) -> Result<()> {
        self.objective.check_gradient(loss, report)
    }

    fn check_step(&self, step: &Step) -> Result<()> {
        self.objective.check_step(step)
    }

    fn check_end(&self, last: &Step) -> Result<()> {
        self.objective.check_end(&self.model, last)
    }

    fn explain(&self, error: TrainError) -> TrainError {
        self.objective.explain(error)
    }

    fn save_theta(&self, at: At<'_>, path: &Path) -> Result<()> {
        Ok(methods::save_theta(&self.at(at)?, path)?)
    }

    fn load_theta(&mut self, path: &Path) -> Result<()> {
        self.model = self.at(At::File(path))?;
        Ok(())
    }

    fn carried(&self) -> &Carried {
        &self.carried
    }

    fn carry(&mut self, carried: Carried) {
        self.carried = carried;
    }
}
