//! What a run file is for.

use std::path::Path;

use reparam::schema::{SettingSpec, word};

use super::catalog::Catalog;
use super::error::ConfigError;
use super::section;
use super::tree::{Entry, Override, Value};
use super::{RegressionConfig, RunConfig, load_tree, parse_tree};

/// A run file of any task: `task` in `[model]` says which.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskConfig {
    /// `"causal-lm"`, the default: training a language model.
    CausalLm(Box<RunConfig>),
    /// `"regression"`: predicting a number from a row of a table.
    Regression(Box<RegressionConfig>),
}

const REGRESSION: &str = "regression";
const TASKS: [&str; 2] = ["causal-lm", REGRESSION];

/// The setting of `[model]` that every task has.
pub(super) const TASK: SettingSpec = word("task", &TASKS, "causal-lm", "what is trained");

impl TaskConfig {
    /// Reads a run file, with overrides; a later one wins over an earlier one.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is not TOML, and everything that [`RunConfig::parse`] and
    /// [`RegressionConfig::parse`] refuse.
    pub fn load_with(path: &Path, overrides: &[Override]) -> Result<Self, ConfigError> {
        Self::load_in(&Catalog::builtin(), path, overrides)
    }

    /// Reads the text of a run file; `name` is what errors call it.
    ///
    /// # Errors
    ///
    /// As [`load_with`](Self::load_with).
    pub fn parse(text: &str, name: &str, overrides: &[Override]) -> Result<Self, ConfigError> {
        Self::read(&parse_tree(text, name, overrides)?, &Catalog::builtin())
    }

    /// Like [`load_with`](Self::load_with), with methods and transforms of the caller's.
    ///
    /// # Errors
    ///
    /// As [`load_with`](Self::load_with).
    pub fn load_in(
        catalog: &Catalog,
        path: &Path,
        overrides: &[Override],
    ) -> Result<Self, ConfigError> {
        Self::read(&load_tree(path, overrides)?, catalog)
    }

    fn read(root: &[Entry], catalog: &Catalog) -> Result<Self, ConfigError> {
        if is_regression(root)? {
            RegressionConfig::read(root, catalog).map(|config| Self::Regression(Box::new(config)))
        } else {
            RunConfig::read(root, catalog).map(|config| Self::CausalLm(Box::new(config)))
        }
    }

    /// Returns the threads to compute with; 0 for as many as the machine has.
    #[must_use]
    pub fn threads(&self) -> usize {
        match self {
            Self::CausalLm(config) => config.train.threads,
            // Tables are small; more threads would only wait for each other.
            Self::Regression(_) => 0,
        }
    }

    /// Returns the run directory.
    #[must_use]
    pub fn output(&self) -> &Path {
        match self {
            Self::CausalLm(config) => &config.output.dir,
            Self::Regression(config) => &config.output.dir,
        }
    }
}

/// Looks for the word before the sections are read, whose keys depend on it: of a word that is none, the keys
/// would be called unknown.
fn is_regression(root: &[Entry]) -> Result<bool, ConfigError> {
    let model = root.iter().find(|entry| entry.key == "model");
    let Some(Value::Table(keys)) = model.map(|entry| &entry.node.value) else {
        return Ok(false);
    };
    let Some(task) = keys.iter().find(|entry| entry.key == "task") else {
        return Ok(false);
    };
    let word = section::word_of("model", "task", &task.node, &TASKS)?;
    Ok(word == REGRESSION)
}
