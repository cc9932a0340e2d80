//! The comparison of a checkpoint with what a model needs.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;

use super::Checkpoint;
use crate::FormatError;
use crate::config::JsonObject;
use crate::error::NAMES_SHOWN;

/// Everything in which a checkpoint and a model differ.
///
/// Its `Display` lists the first ten names of each kind, with the most similar name of the other
/// side where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadMismatch {
    /// The checkpoint.
    pub path: PathBuf,
    /// Tensors that the model needs and the checkpoint lacks.
    pub missing: Vec<String>,
    /// Tensors of the checkpoint that the model does not know.
    pub unexpected: Vec<String>,
    /// Tensors that both have, in different shapes.
    pub misshaped: Vec<Misshaped>,
    /// Sizes of the configuration that a tensor contradicts; see [`LoadMismatch::beside`].
    pub sizes: Vec<(String, usize)>,
}

/// A tensor whose shape is not what the model needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misshaped {
    /// The tensor.
    pub name: String,
    /// The shape that the model needs.
    pub expected: Vec<usize>,
    /// The shape in the checkpoint.
    pub found: Vec<usize>,
    /// The file it is in.
    pub file: PathBuf,
}

impl LoadMismatch {
    /// Takes note of the sizes of a configuration that a tensor contradicts.
    #[must_use]
    pub fn beside(self, config: &JsonObject) -> Self {
        let contradicts = |size: usize, tensor: &Misshaped| {
            let dims = tensor.expected.iter().zip(&tensor.found);
            let mut wrong = dims.filter(|(expected, found)| expected != found);
            wrong.any(|(expected, _)| *expected == size)
        };
        let sizes = config.map().iter().filter_map(|(key, value)| {
            let size = usize::try_from(value.as_u64()?).ok()?;
            let is_wrong = self.misshaped.iter().any(|it| contradicts(size, it));
            is_wrong.then(|| (key.clone(), size))
        });
        Self {
            sizes: sizes.collect(),
            ..self
        }
    }

    /// Returns the name of `unexpected` most similar to a missing one, or the other way around.
    pub fn nearest(&self, name: &str) -> Option<String> {
        let is_missing = self.missing.iter().any(|missing| missing == name);
        let others = if is_missing {
            &self.unexpected
        } else {
            &self.missing
        };
        crate::nearest(name, others.iter().map(String::as_str)).map(str::to_owned)
    }

    /// Returns what the user can do about it.
    pub fn hint(&self) -> Option<String> {
        // What wraps a model for a while, and what its states must not be saved with.
        let wrappers = [
            (
                "_orig_mod.",
                "torch.compile put `_orig_mod.` before the names; save the model that it compiled: \
              model._orig_mod.save_pretrained(DIR)",
            ),
            (
                "module.",
                "DataParallel put `module.` before the names; save the model in it: \
              model.module.save_pretrained(DIR)",
            ),
            (
                "base_model.model.",
                "these are the weights of a model with a PEFT adapter; save it without: \
              model.merge_and_unload().save_pretrained(DIR)",
            ),
        ];
        let begins = |prefix: &str| self.unexpected.iter().any(|name| name.starts_with(prefix));
        if let Some((_, text)) = wrappers.iter().find(|(prefix, _)| begins(prefix)) {
            return Some((*text).to_owned());
        }
        let sizes = self.sizes.iter();
        let sizes: Vec<String> = sizes.map(|(key, size)| format!("{key} = {size}")).collect();
        if !sizes.is_empty() {
            let sizes = sizes.join(", ");
            return Some(format!(
                "config.json says {sizes}: it and the weights are of different models"
            ));
        }
        let text = if !self.misshaped.is_empty() {
            "config.json and the weights are of different models"
        } else if self.unexpected.is_empty() {
            "the checkpoint is incomplete, or is of another architecture than config.json says"
        } else if self.missing.is_empty() {
            "the checkpoint has parts that this architecture does not use; check model_type in \
             config.json"
        } else {
            "the names belong to another architecture or naming scheme; check model_type in config.json"
        };
        Some(text.to_owned())
    }

    fn list_names(
        &self,
        formatter: &mut fmt::Formatter<'_>,
        kind: &str,
        names: &[String],
    ) -> fmt::Result {
        if names.is_empty() {
            return Ok(());
        }
        write!(formatter, "\n  {} {kind}:", names.len())?;
        for name in names.iter().take(NAMES_SHOWN) {
            write!(formatter, "\n    {name}")?;
            if let Some(nearest) = self.nearest(name) {
                write!(formatter, " (similar: {nearest})")?;
            }
        }
        rest(formatter, names.len())
    }
}

/// Counts what a list of ten leaves out.
fn rest(formatter: &mut fmt::Formatter<'_>, count: usize) -> fmt::Result {
    if count > NAMES_SHOWN {
        write!(formatter, "\n    and {} more", count - NAMES_SHOWN)?;
    }
    Ok(())
}

impl fmt::Display for LoadMismatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "the weights in {} do not fit the model",
            self.path.display()
        )?;
        self.list_names(formatter, "missing", &self.missing)?;
        self.list_names(formatter, "unexpected", &self.unexpected)?;
        if !self.misshaped.is_empty() {
            write!(formatter, "\n  {} of another shape:", self.misshaped.len())?;
            for tensor in self.misshaped.iter().take(NAMES_SHOWN) {
                let Misshaped {
                    name,
                    expected,
                    found,
                    ..
                } = tensor;
                write!(
                    formatter,
                    "\n    {name}: expected {expected:?}, found {found:?}"
                )?;
            }
            rest(formatter, self.misshaped.len())?;
        }
        Ok(())
    }
}

impl Checkpoint {
    /// Compares the checkpoint with all tensors that a model needs, and reports every difference
    /// at once.
    ///
    /// `is_allowed_extra` is asked for each name that the model does not list; buffers that old
    /// checkpoints carry along can be let through by it.
    ///
    /// # Errors
    ///
    /// [`FormatError::Mismatch`] with all missing, unexpected and mis-shaped tensors.
    pub fn check_tensors<F>(
        &self,
        expected: &[(String, Vec<usize>)],
        is_allowed_extra: F,
    ) -> Result<(), FormatError>
    where
        F: Fn(&str) -> bool,
    {
        let mut missing = Vec::new();
        let mut misshaped = Vec::new();
        for (name, shape) in expected {
            match self.get(name) {
                None => missing.push(name.clone()),
                Some(tensor) if tensor.shape != shape => misshaped.push(Misshaped {
                    name: name.clone(),
                    expected: shape.clone(),
                    found: tensor.shape.to_vec(),
                    file: tensor.file().to_path_buf(),
                }),
                Some(_) => {}
            }
        }
        let known: HashSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        let unexpected: Vec<String> = self
            .names()
            .filter(|name| !known.contains(name) && !is_allowed_extra(name))
            .map(str::to_owned)
            .collect();
        if missing.is_empty() && unexpected.is_empty() && misshaped.is_empty() {
            return Ok(());
        }
        let path = self.path().to_path_buf();
        Err(FormatError::Mismatch(Box::new(LoadMismatch {
            path,
            missing,
            unexpected,
            misshaped,
            sizes: Vec::new(),
        })))
    }
}
