//! What a run file is for.

use std::path::Path;

use super::error::ConfigError;
use super::section::Section;
use super::tree::{Entry, Override, Value};
use super::{RegressionConfig, RunConfig, load_tree, parse_tree};
use crate::task::RunFile;

/// A run file as it was written, with overrides applied, before a task has read it.
#[derive(Debug, Clone)]
pub struct RunTree {
    root: Vec<Entry>,
}

impl RunTree {
    /// Reads a run file, with overrides; a later one wins over an earlier one.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is not TOML, and overrides that are none.
    pub fn load(path: &Path, overrides: &[Override]) -> Result<Self, ConfigError> {
        Ok(Self {
            root: load_tree(path, overrides)?,
        })
    }

    /// Reads the text of a run file; `name` is what errors call it.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn parse(text: &str, name: &str, overrides: &[Override]) -> Result<Self, ConfigError> {
        Ok(Self {
            root: parse_tree(text, name, overrides)?,
        })
    }

    /// Finds `task` of `[model]` among the words that there are, and returns its place.
    ///
    /// It is looked for before the sections are read, whose keys depend on it: of a word that is none, the keys would
    /// be called unknown.
    pub(crate) fn task(&self, known: &[&'static str]) -> Result<Option<usize>, ConfigError> {
        let Some((entry, keys)) = self.model() else {
            return Ok(None);
        };
        let words: Vec<(&'static str, usize)> = known.iter().copied().zip(0..).collect();
        Section::inline("model", keys, &entry.key_span).choice("task", &words)
    }

    /// Returns `path` of `[model]`, if it is a text.
    pub(crate) fn model_path(&self) -> Option<&str> {
        let (_, keys) = self.model()?;
        let path = keys.iter().find(|entry| entry.key == "path")?;
        match &path.node.value {
            Value::String(path) => Some(path),
            _ => None,
        }
    }

    fn model(&self) -> Option<(&Entry, &[Entry])> {
        let entry = self.root.iter().find(|entry| entry.key == "model")?;
        match &entry.node.value {
            Value::Table(keys) => Some((entry, keys)),
            _ => None,
        }
    }
}

impl RunFile for RunConfig {
    fn read(tree: &RunTree) -> Result<Self, ConfigError> {
        Self::read(&tree.root)
    }

    fn to_toml(&self) -> Result<String, ConfigError> {
        self.to_toml()
    }

    fn output(&self) -> &Path {
        &self.output.dir
    }

    fn threads(&self) -> usize {
        self.train.threads
    }
}

impl RunFile for RegressionConfig {
    fn read(tree: &RunTree) -> Result<Self, ConfigError> {
        Self::read(&tree.root)
    }

    fn to_toml(&self) -> Result<String, ConfigError> {
        self.to_toml()
    }

    fn output(&self) -> &Path {
        &self.output.dir
    }

    /// Tables are small; more threads would only wait for each other.
    fn threads(&self) -> usize {
        0
    }
}
