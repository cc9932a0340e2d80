//! What a run file is for.

use std::path::Path;
use std::sync::Arc;

use reparam::schema::{SettingKind, SettingSpec, optional};
use reparam_formats::file;

use super::catalog::Catalog;
use super::error::{ConfigError, ConfigErrorKind};
use super::section::Section;
use super::source::Source;
use super::tree::{Entry, Override, Value};
use super::{Result, tree};

/// A run file as it was written, with overrides applied, before a task has read it.
#[derive(Debug, Clone)]
pub struct RunTree {
    root: Vec<Entry>,
    catalog: Catalog,
}

/// The setting of `[model]` that every task has; the table of tasks knows its words.
pub(super) const SPEC: SettingSpec = optional(
    "task",
    SettingKind::Text,
    "what the model says",
    "what is trained",
);

fn expand_home(value: &mut Value, home: &Path) {
    match value {
        Value::String(text) => {
            if let Some(rest) = text.strip_prefix("~/") {
                // A path that is no text could not be written into the run's own file.
                if let Some(path) = home.join(rest).to_str() {
                    *text = path.to_owned();
                }
            }
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| expand_home(&mut item.value, home)),
        _ => {}
    }
}

impl RunTree {
    /// Reads a run file, with overrides; a later one wins over an earlier one.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is not TOML, and overrides that are none.
    pub fn load(path: &Path, overrides: &[Override]) -> Result<Self> {
        let bytes = file::read(path).map_err(|source| {
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
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        Self::parse(text, &path.display().to_string(), overrides)
    }

    /// Reads the text of a run file; `name` is what errors call it.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn parse(text: &str, name: &str, overrides: &[Override]) -> Result<Self> {
        let source = Arc::new(Source {
            name: name.to_owned(),
            text: text.to_owned(),
            is_file: true,
        });
        let mut root = tree::parse_document(&source)?;
        for one in overrides {
            tree::merge(&mut root, one.parse()?);
        }
        let catalog = Catalog::builtin();
        Ok(Self { root, catalog })
    }

    /// Puts the home directory in the place of a `~` that begins a path.
    #[must_use]
    pub(crate) fn with_home(mut self, home: &Path) -> Self {
        const PATHS: [(&str, &[&str]); 3] = [
            ("model", &["path", "adapter", "word_vectors"]),
            ("data", &["train", "eval", "cache"]),
            ("output", &["dir"]),
        ];
        for (section, keys) in PATHS {
            let mut sections = self.root.iter_mut();
            let section = sections.find(|entry| entry.key == section);
            let Some(Value::Table(entries)) = section.map(|entry| &mut entry.node.value) else {
                continue;
            };
            for entry in entries
                .iter_mut()
                .filter(|entry| keys.contains(&entry.key.as_str()))
            {
                expand_home(&mut entry.node.value, home);
            }
        }
        self
    }

    /// Sets where methods and transforms are looked up.
    #[must_use]
    pub fn with_catalog(self, catalog: Catalog) -> Self {
        Self { catalog, ..self }
    }

    /// Finds `task` of `[model]` among the words that there are, and returns its place.
    ///
    /// It is looked for before the sections are read, whose keys depend on it: of a word that is none, the keys would
    /// be called unknown.
    pub(crate) fn task(&self, known: &[&'static str]) -> Result<Option<usize>> {
        let Some(task) = self.model_key("task") else {
            return Ok(None);
        };
        let word = Section::absent("model", &self.catalog).word_of("task", &task.node, known)?;
        Ok(known.iter().position(|one| *one == word))
    }

    /// Returns `path` and `revision` of `[model]`, as far as they are texts.
    pub(crate) fn model(&self) -> (Option<&str>, Option<&str>) {
        let text = |key| match &self.model_key(key)?.node.value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        };
        (text("path"), text("revision"))
    }

    pub(super) fn root(&self) -> &[Entry] {
        &self.root
    }

    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn model_key(&self, key: &str) -> Option<&Entry> {
        let model = self.root.iter().find(|entry| entry.key == "model")?;
        match &model.node.value {
            Value::Table(keys) => keys.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }
}
