//! The run file: everything that a training run needs, in one TOML document.
//!
//! ```
//! use reparam_train::config::{MethodConfig, RunConfig};
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
//! let MethodConfig::Lora(lora) = &config.method;
//! assert_eq!(lora.rank, 8);
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

mod data;
mod error;
mod method;
mod model;
mod optimizer;
mod output;
mod section;
mod source;
mod suggest;
#[cfg(test)]
mod tests;
mod train;
mod tree;

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

pub use self::data::{DataConfig, DataFormat, EvalData, Packing};
pub use self::error::{ConfigError, ConfigErrorKind};
pub use self::method::{Bias, LoraConfig, LoraInit, MethodConfig, ModuleSelector};
pub use self::model::ModelConfig;
pub use self::optimizer::{Algorithm, Lambda, OptimizerConfig, Schedule, Warmup};
pub use self::output::OutputConfig;
pub use self::source::Location;
pub use self::train::{Length, Precision, SampleConfig, TrainConfig};
pub use self::tree::Override;

use self::section::Section;
use self::source::Source;
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
        Self::parse(&text, &path.display().to_string(), overrides)
    }

    /// Reads the text of a run file; `name` is what errors call it.
    ///
    /// # Errors
    ///
    /// [`ConfigErrorKind`] lists them. The first problem in the order of the sections is
    /// returned, unknown keys before missing ones.
    pub fn parse(text: &str, name: &str, overrides: &[Override]) -> Result<Self, ConfigError> {
        let source = Arc::new(Source {
            name: name.to_owned(),
            text: text.to_owned(),
            is_file: true,
        });
        let mut root = tree::parse_document(&source)?;
        for one in overrides {
            tree::merge(&mut root, one.parse()?);
        }
        Self::read(&root)
    }

    fn read(root: &[Entry]) -> Result<Self, ConfigError> {
        check_sections(root)?;
        // Every section is opened, and so searched for unknown keys, before any is read: a
        // misspelled key is the cause of the missing one.
        let [model, data, method, optimizer, train, output] = [0, 1, 2, 3, 4, 5].map(|index| {
            let (name, keys) = suggest::SECTIONS[index];
            Section::open(root, name, keys)
        });
        let (model, data, method) = (model?, data?, method?);
        let (optimizer, train, output) = (optimizer?, train?, output?);
        let config = Self {
            model: ModelConfig::read(&model)?,
            data: DataConfig::read(&data)?,
            method: MethodConfig::read(&method)?,
            optimizer: OptimizerConfig::read(&optimizer)?,
            train: TrainConfig::read(&train)?,
            output: OutputConfig::read(&output)?,
        };
        config.check_warmup(&optimizer)?;
        config.check_evaluation(&train)?;
        Ok(config)
    }

    /// A warm-up must end within the run.
    fn check_warmup(&self, optimizer: &Section<'_>) -> Result<(), ConfigError> {
        let (Warmup::Steps(warmup), Length::MaxSteps(steps)) =
            (self.optimizer.warmup, self.train.length)
        else {
            return Ok(());
        };
        match optimizer.find("warmup_steps") {
            Some(entry) if warmup > steps => Err(optimizer.out_of_range(
                "warmup_steps",
                &entry.node,
                format!("at most the {steps} steps of the run (max_steps in [train])"),
            )),
            _ => Ok(()),
        }
    }

    /// A period of evaluation needs something to evaluate.
    fn check_evaluation(&self, train: &Section<'_>) -> Result<(), ConfigError> {
        if self.train.eval_every > 0 && self.data.eval == EvalData::Fraction(0.0) {
            return Err(train.no_effect(
                "eval_every",
                "eval_fraction in [data] is 0, so nothing is held out",
                "remove `eval_every`, or give `eval` or a positive `eval_fraction` in [data]",
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
        let write = |error: toml::ser::Error| {
            ConfigError::nowhere(ConfigErrorKind::Write {
                message: error.to_string(),
            })
        };
        toml::to_string(self).map_err(write)
    }

    /// Checks a configuration that was put together in code, as if it had been read from a file.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse) and [`to_toml`](Self::to_toml).
    pub fn check(&self) -> Result<(), ConfigError> {
        Self::parse(&self.to_toml()?, "run configuration", &[]).map(|_| ())
    }
}

/// Refuses sections and top-level keys that do not exist.
fn check_sections(root: &[Entry]) -> Result<(), ConfigError> {
    for entry in root {
        if suggest::SECTIONS.iter().any(|(name, _)| *name == entry.key) {
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
                suggestion: suggest::for_section(&entry.key, is_table),
            },
        ));
    }
    Ok(())
}
