//! The table of tasks.

use std::fmt;
use std::path::{Path, PathBuf};

use reparam_formats::config::{ConfigError as ModelConfigError, ModelJson};
use reparam_formats::hub::{HubOptions, resolve_model};
use serde_json::Value;

use super::run::ByDefault;
use super::{EvalRequest, ModelRequest, PredictRequest, Predictions, RunFile, Task, TaskRun};
use crate::Stop;
use crate::cards::{self, CARD_FILE};
use crate::config::{Catalog, ConfigError, ConfigErrorKind, Override, RunKeys, RunTree, Start};
use crate::explain::{ExplainRequest, Explanation};
use crate::inspect::Description;
use crate::json::read_json;
use crate::metrics::Metrics;
use crate::open::model_directory;
use crate::run_dir::model_of;
use crate::{Result, TrainError};

/// A line of the table of tasks: a [`Task`] as functions.
#[derive(Clone, Copy)]
pub struct TaskEntry {
    /// The word for it: `task` in `[model]`.
    pub name: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    task_type: Option<&'static str>,
    file: Option<&'static str>,
    options: &'static [&'static str],
    recognizes: fn(&Value) -> bool,
    keys: fn() -> RunKeys,
    read: fn(&RunTree) -> Result<TaskRun, ConfigError>,
    describe: fn(&Path) -> Result<Option<Description>>,
    eval: fn(&EvalRequest, &HubOptions, Stop<'_>) -> Result<Metrics>,
    predict: fn(&PredictRequest, &HubOptions, Stop<'_>, &mut dyn Predictions) -> Result<()>,
    explain: fn(&ExplainRequest, &HubOptions, Stop<'_>) -> Result<Vec<Explanation>>,
}

impl TaskEntry {
    /// Returns the line of a task.
    #[must_use]
    pub fn of<T: Task>() -> Self {
        Self {
            name: T::NAME,
            summary: T::SUMMARY,
            task_type: T::TASK_TYPE,
            file: T::FILE,
            options: T::OPTIONS,
            recognizes: T::recognizes,
            keys: T::Config::keys,
            read: |tree| Ok(TaskRun::of::<T>(T::Config::read(tree)?)),
            describe: T::describe,
            eval: T::eval,
            predict: T::predict,
            explain: T::explain_text,
        }
    }

    /// Returns PEFT's word for the task, if it has one.
    #[must_use]
    pub fn task_type(&self) -> Option<&'static str> {
        self.task_type
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
        self.refuse(request.options())?;
        let (model, hub) = request.model.found(hub)?;
        let request = EvalRequest {
            model,
            ..request.clone()
        };
        let runtime = &request.model.runtime;
        runtime.run(|| (self.eval)(&request, &hub, stop))?
    }

    /// Refuses options that the task does not look at.
    fn refuse(&self, mut options: impl Iterator<Item = &'static str>) -> Result<()> {
        match options.find(|option| !self.options.contains(option)) {
            None => Ok(()),
            Some(option) => Err(TrainError::NoFields {
                task: self.name,
                option,
            }),
        }
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
        self.refuse(request.options())?;
        let (model, hub) = request.model.found(hub)?;
        let request = PredictRequest {
            model,
            ..request.clone()
        };
        let runtime = &request.model.runtime;
        runtime.run(|| (self.predict)(&request, &hub, stop, rows))?
    }

    /// Says why a model says what it says of a text.
    ///
    /// # Errors
    ///
    /// As [`Task::explain_text`], and an option that the method does not look at.
    pub fn explain(
        &self,
        request: &ExplainRequest,
        hub: &HubOptions,
        stop: Stop<'_>,
    ) -> Result<Vec<Explanation>> {
        request.check()?;
        let (model, hub) = request.model.found(hub)?;
        let request = ExplainRequest {
            model,
            ..request.clone()
        };
        let runtime = &request.model.runtime;
        runtime.run(|| (self.explain)(&request, &hub, stop))?
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
    /// What a `~` at the beginning of a path in a run file stands for.
    home: Option<PathBuf>,
}

impl Tasks {
    /// Returns the tasks of this crate.
    #[must_use]
    pub fn builtin() -> Self {
        Self {
            entries: crate::tasks::builtin(),
            catalog: Catalog::builtin(),
            hub: None,
            home: None,
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

    /// Sets the home directory, which takes the place of a `~` at the beginning of paths in run files.
    #[must_use]
    pub fn with_home(self, home: Option<PathBuf>) -> Self {
        Self { home, ..self }
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

    /// Reads a run that no file describes: what the overrides say, and defaults.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load) but for the file.
    pub fn without_file(&self, overrides: &[Override]) -> Result<TaskRun, ConfigError> {
        let run = self.parse("", "", overrides);
        run.map_err(ConfigError::of_flags)
    }

    /// Returns a run file to start from: common keys live, every other commented out, each with its meaning.
    ///
    /// It is for the task that is named, else what the model says it is for, as far as it is on this machine, else a language
    /// model.
    ///
    /// # Errors
    ///
    /// [`TrainError::UnknownTask`].
    pub fn template(&self, task: Option<&str>, start: &Start) -> Result<String> {
        let of_model = |path: &str| self.place_of_path(path, None);
        let entry = match task {
            Some(task) => self.named(task)?,
            None => &self.entries[start.model.as_deref().and_then(of_model).unwrap_or(0)],
        };
        Ok((entry.keys)().template(&self.catalog, entry.name, start))
    }

    /// Returns the section that has a key, in the run file of the first task that has it.
    #[must_use]
    pub fn section_of(&self, key: &str) -> Option<&'static str> {
        let mut entries = self.entries.iter();
        entries.find_map(|entry| (entry.keys)().section_of(&self.catalog, key))
    }

    /// Returns whether a section has a key in the run file of any task.
    #[must_use]
    pub fn has_key(&self, section: &str, key: &str) -> bool {
        let mut entries = self.entries.iter();
        entries.any(|entry| (entry.keys)().has(&self.catalog, section, key))
    }

    fn read(&self, tree: RunTree) -> Result<TaskRun, ConfigError> {
        let tree = tree.with_catalog(self.catalog.clone());
        let tree = match &self.home {
            Some(home) => tree.with_home(home),
            None => tree,
        };
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
            (Some(default), ConfigErrorKind::Data { .. }) => error.with_advice(default.hint()),
            _ => error,
        })?;
        Ok(run.chosen(by_default))
    }

    /// Finds the task that the model of a run file says it is for, as far as the model is on this machine.
    fn place_of_model(&self, tree: &RunTree) -> Option<usize> {
        let (path, revision) = tree.model();
        self.place_of_path(path?, revision)
    }

    fn place_of_path(&self, path: &str, revision: Option<&str>) -> Option<usize> {
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
    /// [`TrainError::UnknownTask`], [`TrainError::NoTask`], and those of finding the model and reading its `config.json`.
    pub fn of_request(
        &self,
        named: Option<&str>,
        request: &ModelRequest,
        hub: &HubOptions,
    ) -> Result<&TaskEntry> {
        if let Some(task) = named {
            return self.named(task);
        }
        let (request, hub) = &request.found(hub)?;
        if let Some(adapter) = &request.adapter
            && let Some(entry) = self.of_adapter(adapter)?
        {
            return Ok(entry);
        }
        let directory = model_directory(&request.model, hub)?;
        if let Some(entry) = self.of_directory(&directory) {
            return Ok(entry);
        }
        // A model of a family that is not known says more by that than by its task, and so does a file that is no JSON.
        match ModelJson::load(&directory) {
            Ok(config) => {
                self.catalog.families.find(&config.model_type)?;
            }
            // A task of a caller may need no `model_type`.
            Err(ModelConfigError::MissingKey { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Err(TrainError::NoTask {
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
        let directory = model_of(directory.to_owned()).ok()?;
        let config = read_json(&directory.join("config.json"))?;
        let has_file = |entry: &TaskEntry| {
            entry
                .file
                .is_some_and(|name| directory.join(name).is_file())
        };
        let mut entries = self.entries.iter();
        let by_file = entries.position(has_file);
        // What a run of ours wrote says more than files that were copied from its base.
        let own = cards::task_of(&config);
        let own = own.and_then(|name| self.entries.iter().position(|entry| entry.name == name));
        own.or(by_file).or_else(|| {
            let mut entries = self.entries.iter();
            entries.position(|entry| (entry.recognizes)(&config))
        })
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
