//! What a model is trained for: what a task says, what it is asked, and the table of tasks.

mod request;
mod run;
mod table;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use reparam::optim::{Optimizer, StepReport};
use reparam_data::FileDigest;
use reparam_formats::hub::HubOptions;
use serde::Serialize;
use serde_json::{Map, Value};

pub(crate) use self::request::refuse_options_of_texts;
pub use self::request::{
    BOOTSTRAP, CHAT_TEMPLATE, DECODING, DEFAULT_LENGTH, DataRequest, Decoding, EXAMPLES,
    EvalRequest, ExamplesRequest, GENERATE, LABEL_WORDS, ModelRequest, NORMALIZE, POOLING,
    PredictRequest, Predictions, SHOTS, TARGETS, THRESHOLD,
};
pub use self::run::TaskRun;
pub(crate) use self::run::{At, PreparedRun, TaskLearner};
pub use self::table::{TaskEntry, Tasks};
use crate::Stop;
use crate::config::{
    Catalog, ConfigError, Keep, Override, RunKeys, RunTree, StopConfig, TrainConfig, to_toml,
};
use crate::event::Step;
use crate::explain::{ExplainRequest, Explanation};
use crate::inspect::Description;
use crate::learner::{ModuleLearner, Objective};
use crate::metrics::Metrics;
use crate::model_files::ModelFiles;
use crate::preflight::{Finding, Footprint, LayerCount};
use crate::seen::{Look, Seen};
use crate::{Result, TrainError};

/// A task: how rows become batches, a loss, metrics, predictions and a result.
///
/// A task is a type; a value of it is a task with its data, which one run learns from. [`TaskEntry::of`] makes the type
/// into a line of the table, and nothing else knows it.
pub trait Task: Objective + Sized + 'static {
    /// The word for it: `task` in `[model]`.
    const NAME: &'static str;
    /// What it does, in a line.
    const SUMMARY: &'static str;
    /// What [`Objective::weight`] counts, in the plural: `tokens`, `rows`.
    const UNIT: &'static str;
    /// PEFT's word for it, by which an adapter is recognized.
    const TASK_TYPE: Option<&'static str> = None;
    /// A file that only models for it have beside `config.json`; it says more than that does.
    const FILE: Option<&'static str> = None;
    /// What `eval` and `predict` look at of the options that only some tasks have, such as [`BOOTSTRAP`]; the others are refused.
    const OPTIONS: &'static [&'static str] = &[];

    /// Its run file.
    type Config: RunFile;

    /// Returns whether a model's `config.json` says that the model is for this task.
    fn recognizes(_config: &Value) -> bool {
        false
    }

    /// Loads and checks everything that a run needs; nothing is written yet.
    ///
    /// # Errors
    ///
    /// Whatever keeps the run from starting; [`TrainError::Interrupted`] when `watch` asks for it.
    fn prepare(config: &Self::Config, hub: &HubOptions, watch: Stop<'_>) -> Result<Prepared<Self>>;

    /// Checks before the first of several runs what costs little to check.
    ///
    /// # Errors
    ///
    /// As [`prepare`](Self::prepare).
    fn check(config: &Self::Config) -> Result<()> {
        Ok(config.check()?)
    }

    /// Measures a model, which is on a device without autodiff, on what is held out; `None` if nothing is.
    ///
    /// # Errors
    ///
    /// [`TrainError::Interrupted`] when `stop` is requested; data that cannot be measured.
    fn evaluate(&self, model: &Self::Model, stop: Stop<'_>) -> Result<Option<Metrics>>;

    /// Writes a trained model, which is on a device with autodiff, as a directory in one step.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be written.
    fn save(&self, model: &Self::Model, directory: &Path) -> Result<()>;

    /// Generates a text that shows what a model says, the prompt first; `None` if there is none to show.
    ///
    /// # Errors
    ///
    /// [`TrainError::Interrupted`] when `stop` is requested; a prompt that cannot be encoded.
    fn sample(&self, _model: &Self::Model, _stop: Stop<'_>) -> Result<Option<(String, String)>> {
        Ok(None)
    }

    /// Says what the model will see of the data: `reparam data inspect`, and what is looked at before every run. `None` where that
    /// is something else than tokens.
    ///
    /// # Errors
    ///
    /// Rows that cannot be decoded.
    fn seen(&self, _look: &Look<'_>) -> Result<Option<Seen>> {
        Ok(None)
    }

    /// Says more about the model at the end of a run than its metrics; `None` if there is nothing to add.
    ///
    /// # Errors
    ///
    /// Numbers that cannot be made.
    fn report(&self, _model: &Self::Model) -> Result<Option<Report>> {
        Ok(None)
    }

    /// Looks at a step before the model takes its new parameters.
    ///
    /// # Errors
    ///
    /// By default [`TrainError::Vanished`] when every gradient is zero and the loss is not: numbers that overflow inside
    /// a normalization come out as zeros instead of infinities, the loss stays finite, and nothing would ever be learned
    /// again.
    fn check_gradient(&self, loss: f64, report: &StepReport) -> Result<()> {
        if report.grad_norm == 0.0 && loss > 0.0 {
            return Err(TrainError::Vanished {
                step: report.step,
                loss,
                learning_rate: report.learning_rate,
                last_saved: None,
            });
        }
        Ok(())
    }

    /// Looks at a finished step.
    ///
    /// # Errors
    ///
    /// A loss that no further step will bring down again.
    fn check_step(&self, _step: &Step) -> Result<()> {
        Ok(())
    }

    /// Looks at the model after the last step.
    ///
    /// # Errors
    ///
    /// A model that has not learned.
    fn check_end(&self, _model: &Self::Model, _last: &Step) -> Result<()> {
        Ok(())
    }

    /// Says of a failed step what the task knows about it.
    fn explain(&self, error: TrainError) -> TrainError {
        error
    }

    /// Describes the model in a directory if it is one of this task and in a format of the task's own: `reparam inspect`.
    ///
    /// # Errors
    ///
    /// A damaged file.
    fn describe(_directory: &Path) -> Result<Option<Description>> {
        Ok(None)
    }

    /// Measures a model on files: `reparam eval`.
    ///
    /// # Errors
    ///
    /// [`TrainError::NotForTask`] for a task without; else what keeps it from being measured.
    fn eval(_request: &EvalRequest, _hub: &HubOptions, _stop: Stop<'_>) -> Result<Metrics> {
        Err(TrainError::not_for_task(Self::NAME, "evaluated on a file"))
    }

    /// Predicts the rows of files, in order: `reparam predict`.
    ///
    /// # Errors
    ///
    /// [`TrainError::NotForTask`] for a task without; else what keeps a row from being predicted.
    fn predict(
        _request: &PredictRequest,
        _hub: &HubOptions,
        _stop: Stop<'_>,
        _rows: &mut dyn Predictions,
    ) -> Result<()> {
        Err(TrainError::not_for_task(Self::NAME, "used for predictions"))
    }

    /// Says why a model says what it says of a text: `reparam explain`.
    ///
    /// # Errors
    ///
    /// [`TrainError::NotForTask`] for a task without; else what keeps the text from being explained.
    fn explain_text(
        _request: &ExplainRequest,
        _hub: &HubOptions,
        _stop: Stop<'_>,
    ) -> Result<Vec<Explanation>> {
        Err(TrainError::not_for_task(Self::NAME, "explained"))
    }
}

/// The run file of a task.
pub trait RunFile: fmt::Debug + Serialize + Sized + 'static {
    /// Returns what it may say.
    fn keys() -> RunKeys;

    /// Reads it.
    ///
    /// # Errors
    ///
    /// A key or a value that is none of the task's.
    fn read(tree: &RunTree) -> Result<Self, ConfigError>;

    /// Returns the run directory.
    fn output(&self) -> &Path;

    /// Returns the threads to compute with; 0 for as many as the machine has.
    fn threads(&self) -> usize;

    /// Returns where it was read what methods and transforms there are.
    fn catalog(&self) -> &Catalog;

    /// Reads a file, with overrides; a later one wins over an earlier one.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is not TOML, and everything that [`parse`](Self::parse) refuses.
    fn load(path: &Path, overrides: &[Override]) -> Result<Self, ConfigError> {
        Self::read(&RunTree::load(path, overrides)?)
    }

    /// Reads the text of a file; `name` is what errors call it.
    ///
    /// # Errors
    ///
    /// [`ConfigErrorKind`](crate::config::ConfigErrorKind) lists them. The first problem in the order of the sections is
    /// returned, unknown keys before missing ones.
    fn parse(text: &str, name: &str, overrides: &[Override]) -> Result<Self, ConfigError> {
        Self::read(&RunTree::parse(text, name, overrides)?)
    }

    /// The whole configuration, defaults filled in, as TOML that reads back to an equal one.
    ///
    /// # Errors
    ///
    /// A path that is not UTF-8, which TOML cannot express.
    fn to_toml(&self) -> Result<String, ConfigError> {
        to_toml(self)
    }

    /// Checks a configuration that was put together in code, as if it had been read from a file.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read) and [`to_toml`](Self::to_toml).
    fn check(&self) -> Result<(), ConfigError> {
        let tree = RunTree::parse(&self.to_toml()?, "run configuration", &[])?;
        Self::read(&tree.with_catalog(self.catalog().clone())).map(|_| ())
    }
}

/// A run that is loaded and checked.
#[derive(Debug)]
pub struct Prepared<T: Task> {
    /// The task with its data, and the model with the method attached, on a device with autodiff.
    pub learner: ModuleLearner<T>,
    /// The update.
    pub optimizer: Optimizer,
    /// How long the run is, and what it does on the way.
    pub plan: RunPlan,
    /// What the run says of itself at the start.
    pub facts: RunFacts,
    /// What the run is made from.
    pub origins: Origins,
}

/// How long a run is, and what it does on the way.
#[derive(Debug, Clone)]
pub struct RunPlan {
    /// The steps of the run.
    pub max_steps: u64,
    /// Steps between evaluations; 0 for one at the start and one at the end.
    pub eval_every: u64,
    /// Steps between the steps that are written down, at least 1.
    pub log_every: u64,
    /// Steps between checkpoints; 0 for none but where the run breaks off.
    pub save_every: u64,
    /// How many of the newest checkpoints stay; 0 for all.
    pub keep_last: u64,
    /// Which model the run results in.
    pub keep: Keep,
    /// The metric of the evaluations that decides which model is best and when there is no progress; the task's own if absent.
    pub metric: Option<String>,
    /// When the run ends before its last step.
    pub stop: StopConfig,
    /// What the run results in.
    pub result: ResultKind,
}

impl RunPlan {
    /// Takes the plan of a run of `max_steps` steps from its `[train]`.
    pub fn new(config: &TrainConfig, max_steps: u64, result: ResultKind) -> Self {
        Self {
            max_steps,
            eval_every: config.eval_every,
            log_every: config.log_every,
            save_every: config
                .save_every
                .unwrap_or_else(|| default_save_every(max_steps)),
            keep_last: config.keep_last,
            keep: config.keep,
            metric: config.metric.clone(),
            stop: config.stop,
            result,
        }
    }
}

/// A tenth of the run. It depends on the run file alone, so that two runs of it have the same events.
fn default_save_every(max_steps: u64) -> u64 {
    max_steps.div_ceil(10).max(LEAST_SAVE_EVERY)
}

/// A shorter piece of a run is made again faster than a run is looked after.
const LEAST_SAVE_EVERY: u64 = 10;

/// What a run results in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultKind {
    /// An adapter of a base, in `adapter/`.
    Adapter,
    /// A whole model, in `model/`.
    Model,
}

/// What a run says of itself at the start.
#[derive(Debug, Clone, PartialEq)]
pub struct RunFacts {
    /// The model as the run file names it.
    pub model: String,
    /// The word for the method.
    pub method: String,
    /// The numbers of the model before the method was attached.
    pub model_parameters: usize,
    /// The names of the adapted modules.
    pub targets: Vec<String>,
    /// The factor of a low-rank product, of a method that has one.
    pub scaling: Option<f64>,
    /// Sequences or rows in a micro-batch.
    pub batch_size: usize,
    /// What activations are computed in.
    pub precision: String,
    /// The peak learning rate.
    pub learning_rate: f64,
    /// The factor of the gradient in the two-step update, where it is a constant.
    pub lambda: Option<f64>,
    /// What only this task has: counts of its data, names of columns.
    pub data: Map<String, Value>,
    /// What is known of the model and its tokenizer that the user should know.
    pub findings: Vec<Finding>,
    /// The linear layers by kind.
    pub layers: Vec<LayerCount>,
    /// The entries of a list of `target_modules`.
    pub target_modules: Vec<LayerCount>,
    /// What a micro-batch takes; `None` where nothing is known of that.
    pub footprint: Option<Footprint>,
}

/// The files that a run is made from; the same ones give the same run.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    /// The base model, if there is one.
    pub base: Option<BaseOrigin>,
    /// The tokenizer.
    pub tokenizer: Option<FileDigest>,
    /// The files of the adapter that a run trains on from.
    pub adapter: Vec<FileDigest>,
    /// What is learned from, and what is held out.
    pub data: Vec<FileDigest>,
}

/// Where a base model comes from.
#[derive(Debug, Clone)]
pub struct BaseOrigin {
    /// The model as the run file names it.
    pub model: String,
    /// Its branch, tag or commit, if the run file says one.
    pub revision: Option<String>,
    /// What was read of its directory.
    pub from: Arc<ModelFiles>,
    /// The names of the files in it that are read besides weights and `tokenizer.json`, whether they are there or not.
    pub files: Vec<&'static str>,
}

impl BaseOrigin {
    /// What every model with a tokenizer is read from besides weights and `tokenizer.json`.
    pub const FILES: [&str; 3] = [
        "config.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
    ];
}

/// What is said of a model at the end of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The numbers, as in `report.json`.
    pub values: Map<String, Value>,
    /// The same in words: a label and a text each.
    pub text: Vec<(String, String)>,
    /// More files of the run directory, with what is in them.
    pub files: Vec<(&'static str, Value)>,
}
