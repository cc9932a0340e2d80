//! The run file: everything that a training run needs, in one TOML document.
//!
//! ```
//! use reparam::schema::SettingValue;
//! use reparam_train::RunFile;
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
//! let method = config.method.expect("there is no adapter");
//! assert_eq!(method.get("rank"), Some(&SettingValue::Count(8)));
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
pub mod elsewhere;
mod error;
mod method;
mod model;
mod new_model;
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
mod template;
#[cfg(test)]
mod tests;
mod text;
mod train;
mod tree;
mod words;

use std::fmt::Debug;
use std::path::Path;

use reparam::schema::{SettingSpec, SettingValue};
use serde::Serialize;

pub use self::catalog::Catalog;
pub use self::data::{CacheChoice, DataConfig, EvalData};
pub use self::error::{ConfigError, ConfigErrorKind};
pub use self::method::MethodConfig;
pub(crate) use self::method::{runs_in_bf16, starts_from_data};
pub use self::model::ModelConfig;
pub use self::new_model::{NewModelConfig, TokenizerConfig};
pub use self::optimizer::{
    Lambda, NamedUpdate, OptimizerConfig, SCHEDULE, ScheduleConfig, UpdateConfig,
};
pub use self::output::OutputConfig;
pub use self::regression::{
    Activation, GenerateConfig, RegressionConfig, RegressionModelConfig, RegressionModelKind,
    RegressionTrainConfig, TableConfig, TableSource,
};
pub use self::rows::{FileFormat, NoKeys, RowsDataConfig, RowsKeys};
pub use self::source::Location;
pub use self::task::RunTree;
pub use self::task_file::{TaskConfig, TaskKeys, TaskModelConfig};
pub use self::template::{RunKeys, Start};
pub(crate) use self::text::{TEXT_SETTING, text_options};
pub use self::train::{Keep, Length, Precision, SampleConfig, StopConfig, TrainConfig};
pub use self::tree::Override;

use self::section::Section;
use self::suggest::Layout;
use self::tree::{Entry, Value};
use crate::task::RunFile;

/// What reading a run file gives.
pub type Result<T, E = ConfigError> = std::result::Result<T, E>;

/// Everything that a run of a pretrained model needs, with all defaults filled in; `D` is what its `[data]` holds.
///
/// A value that came from [`RunFile::load`] or [`RunFile::parse`] is valid. One that was put together in code is checked by
/// [`RunFile::check`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelRun<D> {
    /// `[model]`: what is trained.
    pub model: ModelConfig,
    /// `[data]`: what it is trained on.
    pub data: D,
    /// `[method]`: how its weights are reparameterized; `None` if that is what [`ModelConfig::adapter`] says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<MethodConfig>,
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

/// The run file of a language model.
pub type RunConfig = ModelRun<DataConfig>;

/// The run file of a task over rows of texts. A row has at most `sequence_length` tokens.
pub type RowsConfig<K = NoKeys> = ModelRun<RowsDataConfig<K>>;

/// What a `[data]` section may hold, and what the rest of its run file has to be.
trait RunData: Debug + Serialize + Sized + 'static {
    fn specs() -> Vec<&'static SettingSpec>;

    fn read(section: &Section<'_>) -> Result<Self>;

    /// What the model is measured on.
    fn eval(&self) -> &EvalData;

    /// Refuses settings of `[train]` that have no effect.
    fn check(run: &ModelRun<Self>, train: &Section<'_>) -> Result<()>;
}

impl<D: RunData> RunFile for ModelRun<D> {
    fn keys() -> RunKeys {
        pretrained_keys([], D::specs())
    }

    fn read(tree: &RunTree) -> Result<Self> {
        let catalog = tree.catalog();
        let layout = Self::keys().layout(catalog);
        let sections = open_sections(tree.root(), &layout, catalog)?;
        let [model, data, method, optimizer, train, output] = &sections;
        let model = ModelConfig::read(model)?;
        let config = Self {
            data: D::read(data)?,
            method: match model.adapter {
                None => {
                    let defaults = match model.new {
                        None => defaults::METHOD,
                        Some(_) => defaults::NEW_METHOD,
                    };
                    Some(method::read(method, defaults)?)
                }
                Some(_) => {
                    method::refuse_beside_adapter(method)?;
                    None
                }
            },
            model,
            optimizer: OptimizerConfig::read(optimizer, defaults::OPTIMIZER)?,
            train: TrainConfig::read(train)?,
            output: OutputConfig::read(output)?,
            catalog: catalog.clone(),
        };
        check_pretrained(
            &sections,
            config.method.as_ref(),
            &config.optimizer,
            &config.train,
        )?;
        // A period of evaluation needs something to evaluate.
        if config.train.eval_every > 0 && *config.data.eval() == EvalData::Fraction(0.0) {
            return Err(train.no_effect(
                "eval_every",
                "eval_fraction in [data] is 0, so nothing is held out",
                "remove `eval_every`, or give `eval` or a positive `eval_fraction` in [data]",
            ));
        }
        if config.train.metric.is_some() && *config.data.eval() == EvalData::Fraction(0.0) {
            return Err(train.no_effect(
                "metric",
                "eval_fraction in [data] is 0, so nothing is held out",
                "remove `metric`, or give `eval` or a positive `eval_fraction` in [data]",
            ));
        }
        D::check(&config, train)?;
        Ok(config)
    }

    fn output(&self) -> &Path {
        &self.output.dir
    }

    fn threads(&self) -> usize {
        self.train.threads
    }

    fn catalog(&self) -> &Catalog {
        &self.catalog
    }
}

/// What the run file of a pretrained model may say: `model` beside the keys of every model, and `data`.
fn pretrained_keys(
    model: impl IntoIterator<Item = &'static SettingSpec>,
    data: impl IntoIterator<Item = &'static SettingSpec>,
) -> RunKeys {
    let model = ModelConfig::SPECS.iter().chain(model).collect();
    RunKeys {
        own: [
            model,
            data.into_iter().collect(),
            TrainConfig::SPECS.iter().collect(),
        ],
        method: defaults::METHOD,
        optimizer: defaults::OPTIMIZER,
    }
}

/// Checks what sections of a pretrained model's run mean together.
fn check_pretrained(
    [_, _, method, optimizer, train, _]: &[Section<'_>; 6],
    method_config: Option<&MethodConfig>,
    optimizer_config: &OptimizerConfig,
    train_config: &TrainConfig,
) -> Result<()> {
    // A pretrained model starts from weights that mean something.
    if method_config.is_some_and(|config| starts_from_data(method.catalog(), config)) {
        return Err(method.no_effect(
            "init",
            "a language model starts from its weights",
            "remove `init`",
        ));
    }
    let steps = match train_config.length {
        Length::MaxSteps(steps) => Some(steps),
        Length::Epochs(_) => None,
    };
    check_update(optimizer, optimizer_config, steps)?;
    train_config.stop.check(train, train_config.eval_every)
}

pub(crate) fn to_toml(config: &impl Serialize) -> Result<String> {
    toml::to_string(config).map_err(|error| {
        ConfigError::nowhere(ConfigErrorKind::Write {
            message: error.to_string(),
        })
    })
}

/// Opens all sections of a task.
///
/// Every section is searched for unknown keys before any is read: a misspelled key is the cause of the
/// missing one.
fn open_sections<'a>(
    root: &'a [Entry],
    layout: &Layout,
    catalog: &'a Catalog,
) -> Result<[Section<'a>; 6]> {
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

/// Refuses an update that cannot be composed, and a warm-up that does not end within a run of so many steps.
fn check_update(section: &Section<'_>, config: &OptimizerConfig, steps: Option<u64>) -> Result<()> {
    optimizer::check_chain(section, config)?;
    match (
        config.schedule.get("warmup_steps"),
        section.find("warmup_steps"),
        steps,
    ) {
        (Some(SettingValue::Count(warmup)), Some(entry), Some(steps)) if *warmup > steps => {
            Err(section.out_of_range(
                "warmup_steps",
                &entry.node,
                format!("at most the {steps} steps of the run (max_steps in [train])"),
            ))
        }
        _ => Ok(()),
    }
}

/// Refuses sections and top-level keys that do not exist.
fn check_sections(root: &[Entry], layout: &Layout) -> Result<()> {
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
