//! What a model is trained for: the table of tasks.

use std::any::Any;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::module::Module as _;
use reparam::methods;
use reparam::optim::{Optimizer, StepReport};
use reparam::parameters::{self, ParameterList};
use reparam_data::FileDigest;
use reparam_data::rows::{Fields, OnError};
use reparam_formats::hub::{HubOptions, resolve_model};
use reparam_models::ModelError;
use reparam_ops::runtime::Runtime;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::cards::CARD_FILE;
use crate::config::{
    Catalog, ConfigError, ConfigErrorKind, Override, Precision, RunTree, StopConfig, TrainConfig,
    to_toml,
};
use crate::event::Step;
use crate::inspect::Description;
use crate::json::read_json;
use crate::learner::{Learner, ModuleLearner, Objective};
use crate::metrics::Metrics;
use crate::run_dir::model_of;
use crate::stop::Stop;
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
    /// Whatever keeps the run from starting.
    fn prepare(config: &Self::Config, hub: &HubOptions) -> Result<Prepared<Self>>;

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
}

/// The run file of a task.
pub trait RunFile: fmt::Debug + Serialize + Sized + 'static {
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
            save_every: config.save_every,
            stop: config.stop,
            result,
        }
    }
}

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
}

/// The files that a run is made from; the same ones give the same run.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    /// The base model, if there is one.
    pub base: Option<BaseOrigin>,
    /// The tokenizer.
    pub tokenizer: Option<FileDigest>,
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
    /// Its directory.
    pub directory: PathBuf,
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

/// What a model is measured on.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalRequest {
    /// The model, with what is attached to it.
    pub model: ModelRequest,
    /// The rows or texts.
    pub data: DataRequest,
    /// The most tokens that the model sees at once; what the model's run had, else [`DEFAULT_LENGTH`], if absent.
    pub sequence_length: Option<usize>,
}

/// The most tokens that a model sees at once, if nothing says it.
pub const DEFAULT_LENGTH: usize = 512;

/// A file of rows or texts, and how it is read.
#[derive(Debug, Clone, PartialEq)]
pub struct DataRequest {
    /// The file.
    pub path: PathBuf,
    /// The word for its format; what the model's run had, else by the file's name, if absent.
    pub format: Option<String>,
    /// Which column holds which field; as in the model's run if absent.
    pub fields: Option<Fields>,
    /// What is done with a row that cannot be read.
    pub on_error: OnError,
}

impl DataRequest {
    /// Asks for a file that is read by its name.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            format: None,
            fields: None,
            on_error: OnError::Stop,
        }
    }

    /// Refuses what a task without fields does not look at.
    ///
    /// # Errors
    ///
    /// [`TrainError::NoFields`].
    pub(crate) fn refuse_fields(&self, task: &'static str) -> Result<()> {
        let option = match (&self.fields, self.on_error) {
            (Some(_), _) => "--fields",
            (None, OnError::Skip) => "--on-error skip",
            (None, OnError::Stop) => return Ok(()),
        };
        Err(TrainError::NoFields { task, option })
    }
}

/// What a model predicts.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictRequest {
    /// The model, with what is attached to it.
    pub model: ModelRequest,
    /// The rows.
    pub data: DataRequest,
    /// The most tokens that the model sees at once; as in [`EvalRequest`].
    pub sequence_length: Option<usize>,
    /// Whether rows that lack a value are left out; otherwise they are an error.
    pub drop_rows: bool,
}

/// A model that is only asked.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelRequest {
    /// A directory, or a hub id.
    pub model: String,
    /// The directory of an adapter of it.
    pub adapter: Option<PathBuf>,
    /// What activations are computed in.
    pub precision: Precision,
    /// Where its family and the adapter's method are looked up.
    pub catalog: Catalog,
    /// What it is loaded and computed with.
    pub runtime: Runtime,
}

impl ModelRequest {
    /// Asks for a model by its directory or hub id, among the built-in families and methods.
    pub fn new(model: impl Into<String>) -> Self {
        Self {
            model: model.into(),
            adapter: None,
            precision: Precision::Auto,
            catalog: Catalog::builtin(),
            runtime: Runtime::default(),
        }
    }

    /// Asks for an adapter of it.
    #[must_use]
    pub fn with_adapter(self, directory: impl Into<PathBuf>) -> Self {
        Self {
            adapter: Some(directory.into()),
            ..self
        }
    }

    /// Sets what activations are computed in.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Sets where families and methods are looked up.
    #[must_use]
    pub fn with_catalog(self, catalog: Catalog) -> Self {
        Self { catalog, ..self }
    }

    /// Sets what it is loaded and computed with.
    #[must_use]
    pub fn with_runtime(self, runtime: Runtime) -> Self {
        Self { runtime, ..self }
    }
}

/// Where predictions go, one row after the other.
pub trait Predictions {
    /// Is told the heading of the rows' texts, before the first of them, where they have one.
    fn header(&mut self, text: &str);

    /// Is told of a row: as an object, and as a line of text.
    ///
    /// Nothing more is predicted after a `Break`.
    fn row(&mut self, object: Value, text: String) -> ControlFlow<()>;

    /// Is told what is worth saying of all of them, in a sentence.
    fn note(&mut self, text: String);
}

/// A line of the table of tasks: a [`Task`] as functions.
#[derive(Clone, Copy)]
pub struct TaskEntry {
    /// The word for it: `task` in `[model]`.
    pub name: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    task_type: Option<&'static str>,
    recognizes: fn(&Value) -> bool,
    read: fn(&RunTree) -> Result<TaskRun, ConfigError>,
    describe: fn(&Path) -> Result<Option<Description>>,
    eval: fn(&EvalRequest, &HubOptions, Stop<'_>) -> Result<Metrics>,
    predict: fn(&PredictRequest, &HubOptions, Stop<'_>, &mut dyn Predictions) -> Result<()>,
}

impl TaskEntry {
    /// Returns the line of a task.
    #[must_use]
    pub fn of<T: Task>() -> Self {
        Self {
            name: T::NAME,
            summary: T::SUMMARY,
            task_type: T::TASK_TYPE,
            recognizes: T::recognizes,
            read: |tree| Ok(TaskRun::of::<T>(T::Config::read(tree)?)),
            describe: T::describe,
            eval: T::eval,
            predict: T::predict,
        }
    }

    /// Describes the model in a directory if it is one of this task and in a format of the task's own.
    ///
    /// # Errors
    ///
    /// As [`Task::describe`].
    pub fn describe(&self, directory: &Path) -> Result<Option<Description>> {
        (self.describe)(directory)
    }

    /// Measures a model on files.
    ///
    /// # Errors
    ///
    /// As [`Task::eval`].
    pub fn eval(&self, request: &EvalRequest, hub: &HubOptions, stop: Stop<'_>) -> Result<Metrics> {
        let runtime = &request.model.runtime;
        runtime.run(|| (self.eval)(request, hub, stop))?
    }

    /// Predicts the rows of files, in order.
    ///
    /// # Errors
    ///
    /// As [`Task::predict`].
    pub fn predict(
        &self,
        request: &PredictRequest,
        hub: &HubOptions,
        stop: Stop<'_>,
        rows: &mut dyn Predictions,
    ) -> Result<()> {
        let runtime = &request.model.runtime;
        runtime.run(|| (self.predict)(request, hub, stop, rows))?
    }
}

impl fmt::Debug for TaskEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskEntry")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The table of tasks: the built-in ones, and what a caller adds.
///
/// ```
/// use reparam_train::Tasks;
///
/// let tasks = Tasks::builtin();
/// assert!(tasks.find("causal-lm").is_some());
/// ```
#[derive(Debug, Clone)]
pub struct Tasks {
    entries: Vec<TaskEntry>,
    catalog: Catalog,
    /// Where models of the hub are looked up that say what they are for.
    hub: Option<HubOptions>,
}

impl Tasks {
    /// Returns the tasks of this crate.
    #[must_use]
    pub fn builtin() -> Self {
        Self {
            entries: crate::tasks::builtin(),
            catalog: Catalog::builtin(),
            hub: None,
        }
    }

    /// Sets the hub whose cache is looked into for the task of a run file that names a hub id and no task; nothing is
    /// downloaded for that.
    #[must_use]
    pub fn with_hub(self, hub: HubOptions) -> Self {
        Self {
            hub: Some(hub),
            ..self
        }
    }

    /// Sets what run files may name as methods, transforms and families.
    #[must_use]
    pub fn with_catalog(self, catalog: Catalog) -> Self {
        Self { catalog, ..self }
    }

    /// Returns where methods, transforms and families are looked up.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Adds a task; it takes the place of one of the same name.
    #[must_use]
    pub fn with(mut self, entry: TaskEntry) -> Self {
        let mut known = self.entries.iter_mut();
        match known.find(|known| known.name == entry.name) {
            Some(known) => *known = entry,
            None => self.entries.push(entry),
        }
        self
    }

    /// Returns the lines, in order.
    #[must_use]
    pub fn entries(&self) -> &[TaskEntry] {
        &self.entries
    }

    /// Finds a task by its name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&TaskEntry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// Reads a run file, with overrides; a later one wins over an earlier one.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, a task that is not in the table, a key or a value that is none of the task's.
    pub fn load(&self, path: &Path, overrides: &[Override]) -> Result<TaskRun, ConfigError> {
        self.read(RunTree::load(path, overrides)?)
    }

    /// Reads the text of a run file; `name` is what errors call it.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn parse(
        &self,
        text: &str,
        name: &str,
        overrides: &[Override],
    ) -> Result<TaskRun, ConfigError> {
        self.read(RunTree::parse(text, name, overrides)?)
    }

    fn read(&self, tree: RunTree) -> Result<TaskRun, ConfigError> {
        let tree = tree.with_catalog(self.catalog.clone());
        let said = match tree.task(&self.names())? {
            Some(place) => Some(place),
            None => self.place_of_model(&tree),
        };
        // A model that says nothing is a language model, as every model was before there were other tasks.
        let entry = &self.entries[said.unwrap_or(0)];
        let choices = || ByDefault {
            task: entry.name,
            tasks: self.names(),
        };
        let by_default = said.is_none().then(choices);
        let run = (entry.read)(&tree).map_err(|error| match (&by_default, error.kind()) {
            (Some(default), ConfigErrorKind::UnknownKey { section, .. }) if section == "data" => {
                error.with_advice(default.hint())
            }
            _ => error,
        })?;
        Ok(TaskRun { by_default, ..run })
    }

    /// Finds the task that the model of a run file says it is for, as far as the model is on this machine.
    fn place_of_model(&self, tree: &RunTree) -> Option<usize> {
        let (path, revision) = tree.model();
        let path = path?;
        let directory = Path::new(path);
        if directory.is_dir() {
            return self.place_of_directory(directory);
        }
        let hub = self.hub.clone()?;
        let cached = HubOptions {
            offline: true,
            revision: revision.map_or(hub.revision, str::to_owned),
            ..hub
        };
        self.place_of_directory(&resolve_model(path, &cached).ok()?)
    }

    /// Finds the task that a model is asked for: the one that is named, else what its adapter says, else what the model
    /// itself says.
    ///
    /// # Errors
    ///
    /// [`TrainError::UnknownTask`], [`TrainError::NoTask`], and those of finding the model.
    pub fn of_request(
        &self,
        named: Option<&str>,
        request: &ModelRequest,
        hub: &HubOptions,
    ) -> Result<&TaskEntry> {
        if let Some(task) = named {
            return self.named(task);
        }
        if let Some(adapter) = &request.adapter
            && let Some(entry) = self.of_adapter(adapter)?
        {
            return Ok(entry);
        }
        let directory = resolve_model(&request.model, hub)?;
        self.of_directory(&directory)
            .ok_or_else(|| TrainError::NoTask {
                model: request.model.clone(),
                tasks: self.names(),
            })
    }

    /// Finds the task that a model's directory says it is for; that of a run will do.
    #[must_use]
    pub fn of_directory(&self, directory: &Path) -> Option<&TaskEntry> {
        Some(&self.entries[self.place_of_directory(directory)?])
    }

    fn place_of_directory(&self, directory: &Path) -> Option<usize> {
        let config = read_json(&model_of(directory.to_owned()).join("config.json"))?;
        self.entries
            .iter()
            .position(|entry| (entry.recognizes)(&config))
    }

    /// Finds the task that an adapter says it is for: in `reparam.json`, else by PEFT's word.
    ///
    /// # Errors
    ///
    /// [`TrainError::UnknownTask`] if `reparam.json` names one that is not in the table.
    pub fn of_adapter(&self, directory: &Path) -> Result<Option<&TaskEntry>, TrainError> {
        let own = read_json(&directory.join(CARD_FILE));
        if let Some(name) = own.as_ref().and_then(|own| own["task"].as_str()) {
            return self.named(name).map(Some);
        }
        let config = read_json(&directory.join("adapter_config.json")).unwrap_or_default();
        let word = config["task_type"].as_str();
        let mut entries = self.entries.iter();
        Ok(entries.find(|entry| word.is_some() && entry.task_type == word))
    }

    /// [`find`](Self::find) of a task that has to be there.
    fn named(&self, name: &str) -> Result<&TaskEntry, TrainError> {
        self.find(name).ok_or_else(|| TrainError::UnknownTask {
            task: name.to_owned(),
            tasks: self.names(),
        })
    }

    fn names(&self) -> Vec<&'static str> {
        self.entries.iter().map(|entry| entry.name).collect()
    }
}

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
struct ByDefault {
    task: &'static str,
    tasks: Vec<&'static str>,
}

impl ByDefault {
    fn hint(&self) -> String {
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

    pub(crate) fn prepare(&self, hub: &HubOptions) -> Result<PreparedRun> {
        self.run
            .prepare(hub)
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
    fn prepare(&self, hub: &HubOptions) -> Result<PreparedRun>;
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

    fn prepare(&self, hub: &HubOptions) -> Result<PreparedRun> {
        let prepared = T::prepare(&self.0, hub)?;
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

/// What the trainer sees of a task with its model.
///
/// `values` are parameters to look at instead of the model's own: an average that the update keeps.
pub(crate) trait TaskLearner: Learner {
    fn evaluate(&self, values: Option<ParameterList>, stop: Stop<'_>) -> Result<Option<Metrics>>;
    fn save(&self, values: Option<ParameterList>, directory: &Path) -> Result<()>;
    fn sample(
        &self,
        values: Option<ParameterList>,
        stop: Stop<'_>,
    ) -> Result<Option<(String, String)>>;
    fn report(&self, values: Option<ParameterList>) -> Result<Option<Report>>;
    fn check_gradient(&self, loss: f64, report: &StepReport) -> Result<()>;
    fn check_step(&self, step: &Step) -> Result<()>;
    fn check_end(&self, last: &Step) -> Result<()>;
    fn explain(&self, error: TrainError) -> TrainError;
    /// Writes all that the method has learned and keeps.
    fn save_theta(&self, path: &Path) -> Result<()>;
    /// Reads what [`save_theta`](Self::save_theta) wrote.
    fn load_theta(&mut self, path: &Path) -> Result<()>;
}

impl<T: Task> ModuleLearner<T> {
    fn at(&self, values: Option<ParameterList>) -> T::Model {
        match values {
            None => self.model.clone(),
            Some(values) => parameters::assign(self.model.clone(), values),
        }
    }
}

impl<T: Task> TaskLearner for ModuleLearner<T> {
    fn evaluate(&self, values: Option<ParameterList>, stop: Stop<'_>) -> Result<Option<Metrics>> {
        self.objective.evaluate(&self.at(values).valid(), stop)
    }

    fn save(&self, values: Option<ParameterList>, directory: &Path) -> Result<()> {
        self.objective.save(&self.at(values), directory)
    }

    fn sample(
        &self,
        values: Option<ParameterList>,
        stop: Stop<'_>,
    ) -> Result<Option<(String, String)>> {
        self.objective.sample(&self.at(values).valid(), stop)
    }

    fn report(&self, values: Option<ParameterList>) -> Result<Option<Report>> {
        self.objective.report(&self.at(values).valid())
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

    fn save_theta(&self, path: &Path) -> Result<()> {
        Ok(methods::save_theta(&self.model, path)?)
    }

    fn load_theta(&mut self, path: &Path) -> Result<()> {
        self.model = methods::load_theta(self.model.clone(), path)?;
        Ok(())
    }
}
