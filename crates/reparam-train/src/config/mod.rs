//! The run file: everything that a training run needs, in one TOML document.
//!
//! ```
//! use reparam::schema::SettingValue;
//! use reparam_train::config::RunConfig;
//!
//! let config = RunConfig::parse(
//!     r#"
//!     [model]
//!     path = "assets/stories260K"
//!     [data]
//!     train = "assets/tinyshakespeare.txt"
//!     [method]
//!     kind = "lora"
//!     rank = 8
//!     [train]
//!     max_steps = 500
//!     [output]
//!     dir = "runs/shakespeare"
//!     "#,
//!     "run.toml",
//!     &[],
//! )?;
//! assert_eq!(config.method.get("rank"), Some(&SettingValue::Count(8)));
//! assert_eq!(config.train.batch_size, 4);
//! # Ok::<(), reparam_train::config::ConfigError>(())
//! ```
//!
//! Relative paths in the file are relative to the current directory, not to the file, so that a
//! run file can be kept anywhere and the shipped ones work from the project's root.
//!
//! Reading is strict. An unknown key, a value out of its range, two keys that exclude each other
//! and a key that would change nothing are all errors, and each says where it was written and
//! what to write instead.

mod catalog;
mod data;
mod defaults;
mod error;
mod method;
mod model;
mod optimizer;
mod output;
mod read;
mod regression;
mod rows;
mod section;
mod source;
mod suggest;
mod task;
mod task_file;
#[cfg(test)]
mod tests;
mod train;
mod tree;
mod words;

use std::path::Path;
use std::sync::Arc;

use reparam::schema::{SettingSpec, SettingValue};
use serde::Serialize;

pub use self::catalog::Catalog;
pub use self::data::{DataConfig, EvalData};
pub use self::error::{ConfigError, ConfigErrorKind};
pub use self::method::MethodConfig;
pub(crate) use self::method::{runs_in_bf16, starts_from_data};
pub use self::model::ModelConfig;
pub use self::optimizer::{
    Lambda, NamedUpdate, OptimizerConfig, SCHEDULE, ScheduleConfig, UpdateConfig,
};
pub use self::output::OutputConfig;
pub use self::regression::{
    Activation, GenerateConfig, RegressionConfig, RegressionModelConfig, RegressionModelKind,
    RegressionTrainConfig, TableConfig, TableSource,
};
pub use self::rows::{RowsConfig, RowsDataConfig};
pub use self::source::Location;
pub use self::task::RunTree;
pub use self::task_file::{TaskConfig, TaskKeys, TaskModelConfig};
pub use self::train::{Length, Precision, SampleConfig, StopConfig, TrainConfig};
pub use self::tree::Override;

use self::section::Section;
use self::source::Source;
use self::suggest::Layout;
use self::tree::{Entry, Value};

/// Everything that a run needs, with all defaults filled in.
///
/// A value that came from [`load`](Self::load) or [`parse`](Self::parse) is valid. One that was
/// put together in code is checked by [`check`](Self::check).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunConfig {
    /// `[model]`: what is trained.
    pub model: ModelConfig,
    /// `[data]`: what it is trained on.
    pub data: DataConfig,
    /// `[method]`: how its weights are reparameterized.
    pub method: MethodConfig,
    /// `[optimizer]`: how the trainable parameters are updated.
    pub optimizer: OptimizerConfig,
    /// `[train]`: how long, how much at once, in which precision.
    pub train: TrainConfig,
    /// `[output]`: where the results go.
    pub output: OutputConfig,
    /// Where methods and transforms are looked up; no part of the file.
    #[serde(skip)]
    pub catalog: Catalog,
}

impl RunConfig {
    /// Reads a run file, with overrides of the form `section.key=value`.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is not TOML, and everything that [`parse`](Self::parse)
    /// refuses.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        let overrides: Vec<Override> = overrides.iter().map(Override::set).collect();
        Self::load_with(path, &overrides)
    }

    /// Reads a run file, with overrides of any origin; a later one wins over an earlier one.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_with(path: &Path, overrides: &[Override]) -> Result<Self, ConfigError> {
        Self::read(&load_tree(path, overrides)?, &Catalog::builtin())
    }

    /// Reads the text of a run file; `name` is what errors call it.
    ///
    /// # Errors
    ///
    /// [`ConfigErrorKind`] lists them. The first problem in the order of the sections is
    /// returned, unknown keys before missing ones.
    pub fn parse(text: &str, name: &str, overrides: &[Override]) -> Result<Self, ConfigError> {
        Self::read(&parse_tree(text, name, overrides)?, &Catalog::builtin())
    }

    fn layout(catalog: &Catalog) -> Layout {
        layout(
            catalog,
            [ModelConfig::SPECS, DataConfig::SPECS, TrainConfig::SPECS],
        )
    }

    fn read(root: &[Entry], catalog: &Catalog) -> Result<Self, ConfigError> {
        let layout = Self::layout(catalog);
        let [model, data, method, optimizer, train, output] =
            open_sections(root, &layout, catalog)?;
        let config = Self {
            model: ModelConfig::read(&model)?,
            data: DataConfig::read(&data)?,
            method: method::read(&method, defaults::METHOD)?,
            optimizer: OptimizerConfig::read(&optimizer, defaults::OPTIMIZER)?,
            train: TrainConfig::read(&train)?,
            output: OutputConfig::read(&output)?,
            catalog: catalog.clone(),
        };
        check_method(catalog, &config.method, &method)?;
        optimizer::check_chain(&optimizer, &config.optimizer)?;
        if let Length::MaxSteps(steps) = config.train.length {
            check_warmup(&optimizer, &config.optimizer, steps)?;
        }
        check_evaluation(&config.data.eval, &config.train, &train)?;
        config.check_precision(&train)?;
        config.train.stop.check(&train, config.train.eval_every)?;
        Ok(config)
    }

    /// What runs in bf16 is methods with a plan, and recomputing is part of that.
    fn check_precision(&self, train: &Section<'_>) -> Result<(), ConfigError> {
        let runs_in_bf16 = runs_in_bf16(&self.catalog, &self.method);
        if self.train.precision == Precision::Bf16 && !runs_in_bf16 {
            return Err(train.no_effect(
                "precision",
                "the `kind` in [method] runs in f32 only",
                "set `precision` to \"f32\"",
            ));
        }
        if self.train.recompute && (self.train.precision == Precision::F32 || !runs_in_bf16) {
            return Err(train.no_effect(
                "recompute",
                "it applies to bf16, and this run is in f32",
                "remove `recompute`",
            ));
        }
        Ok(())
    }

    /// The whole configuration as TOML that reads back to an equal one.
    ///
    /// # Errors
    ///
    /// [`ConfigErrorKind::Write`] if a path is not UTF-8, which TOML cannot express.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        to_toml(self)
    }

    /// Checks a configuration that was put together in code, as if it had been read from a file.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse) and [`to_toml`](Self::to_toml).
    pub fn check(&self) -> Result<(), ConfigError> {
        let tree = parse_tree(&self.to_toml()?, "run configuration", &[])?;
        Self::read(&tree, &self.catalog).map(|_| ())
    }
}

/// A pretrained model starts from weights that mean something.
fn check_method(
    catalog: &Catalog,
    config: &MethodConfig,
    method: &Section<'_>,
) -> Result<(), ConfigError> {
    if starts_from_data(catalog, config) {
        return Err(method.no_effect(
            "init",
            "a language model starts from its weights",
            "remove `init`",
        ));
    }
    Ok(())
}

/// A period of evaluation needs something to evaluate.
fn check_evaluation(
    eval: &EvalData,
    config: &TrainConfig,
    train: &Section<'_>,
) -> Result<(), ConfigError> {
    if config.eval_every > 0 && *eval == EvalData::Fraction(0.0) {
        return Err(train.no_effect(
            "eval_every",
            "eval_fraction in [data] is 0, so nothing is held out",
            "remove `eval_every`, or give `eval` or a positive `eval_fraction` in [data]",
        ));
    }
    Ok(())
}

/// Reads a file into a tree and applies overrides to it.
fn load_tree(path: &Path, overrides: &[Override]) -> Result<Vec<Entry>, ConfigError> {
    let bytes = std::fs::read(path).map_err(|source| {
        ConfigError::nowhere(ConfigErrorKind::Read {
            path: path.to_owned(),
            source,
        })
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        ConfigError::nowhere(ConfigErrorKind::NotUtf8 {
            path: path.to_owned(),
            offset: error.utf8_error().valid_up_to(),
        })
    })?;
    parse_tree(&text, &path.display().to_string(), overrides)
}

/// Parses a text into a tree and applies overrides to it; `name` is what errors call the text.
fn parse_tree(text: &str, name: &str, overrides: &[Override]) -> Result<Vec<Entry>, ConfigError> {
    let source = Arc::new(Source {
        name: name.to_owned(),
        text: text.to_owned(),
        is_file: true,
    });
    let mut root = tree::parse_document(&source)?;
    for one in overrides {
        tree::merge(&mut root, one.parse()?);
    }
    Ok(root)
}

fn to_toml(config: &impl Serialize) -> Result<String, ConfigError> {
    toml::to_string(config).map_err(|error| {
        ConfigError::nowhere(ConfigErrorKind::Write {
            message: error.to_string(),
        })
    })
}

/// Returns all keys of a task, given the settings of `[model]`, `[data]` and `[train]`.
fn layout(catalog: &Catalog, [model, data, train]: [&'static [SettingSpec]; 3]) -> Layout {
    let keys = |specs: &'static [SettingSpec]| specs.iter().map(|spec| spec.key).collect();
    let methods = catalog.methods.iter().map(|spec| spec.settings);
    let mut method = vec!["kind"];
    method.extend(read::keys_of_kinds(methods));
    vec![
        ("model", keys(model)),
        ("data", keys(data)),
        ("method", method),
        ("optimizer", OptimizerConfig::keys(catalog)),
        ("train", keys(train)),
        ("output", keys(OutputConfig::SPECS)),
    ]
}

/// Opens all sections of a task.
///
/// Every section is searched for unknown keys before any is read: a misspelled key is the cause of the
/// missing one.
fn open_sections<'a>(
    root: &'a [Entry],
    layout: &Layout,
    catalog: &'a Catalog,
) -> Result<[Section<'a>; 6], ConfigError> {
    check_sections(root, layout)?;
    let open = |name: &'static str| Section::open(root, name, layout, catalog);
    Ok([
        open("model")?,
        open("data")?,
        open("method")?,
        open("optimizer")?,
        open("train")?,
        open("output")?,
    ])
}

/// A warm-up must end within the run.
fn check_warmup(
    section: &Section<'_>,
    optimizer: &OptimizerConfig,
    steps: u64,
) -> Result<(), ConfigError> {
    let Some(SettingValue::Count(warmup)) = optimizer.schedule.get("warmup_steps") else {
        return Ok(());
    };
    match section.find("warmup_steps") {
        Some(entry) if *warmup > steps => Err(section.out_of_range(
            "warmup_steps",
            &entry.node,
            format!("at most the {steps} steps of the run (max_steps in [train])"),
        )),
        _ => Ok(()),
    }
}

/// Refuses sections and top-level keys that do not exist.
fn check_sections(root: &[Entry], layout: &Layout) -> Result<(), ConfigError> {
    for entry in root {
        if layout.iter().any(|(name, _)| *name == entry.key) {
            continue;
        }
        let is_table = matches!(entry.node.value, Value::Table(_));
        return Err(ConfigError::at(
            &entry.key_span,
            ConfigErrorKind::UnknownSection {
                what: if is_table { "section" } else { "key" },
                name: if is_table {
                    format!("[{}]", entry.key)
                } else {
                    entry.key.clone()
                },
                suggestion: suggest::for_section(layout, &entry.key, is_table),
            },
        ));
    }
    Ok(())
}
