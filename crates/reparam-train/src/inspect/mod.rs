//! What a file or directory is.
//!
//! Whatever is there is described, also what cannot be run: the reason is one of its properties then, and no error.

mod adapter;
mod file;
mod model;
mod tensors;

use std::path::Path;

use reparam_formats::identify::{self, identify};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{Result, Tasks};

pub(crate) use tensors::{files, tensors};

/// A description of what is at a path.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// What it is.
    pub kind: Kind,
    /// What is worth knowing, in the order to show it.
    pub properties: Vec<(&'static str, Value)>,
    /// The tensors, in the order of their names.
    pub tensors: Vec<TensorDescription>,
}

/// What can be described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A model directory.
    Model,
    /// A model that is none of the ecosystem's, of a task by its name.
    OfTask(&'static str),
    /// A PEFT adapter directory.
    Adapter,
    /// A safetensors file.
    Tensors,
    /// Anything else, in a word or two.
    Other(&'static str),
}

impl Kind {
    /// Returns the word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::OfTask(name) | Self::Other(name) => name,
            Self::Adapter => "adapter",
            Self::Tensors => "tensors",
        }
    }
}

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TensorDescription {
    /// Its name in the file.
    pub name: String,
    /// Its element type in the file's words.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its size in the file.
    pub bytes: u64,
}

impl TensorDescription {
    /// Returns the number of elements.
    pub fn elements(&self) -> u64 {
        let sizes = self.shape.iter().map(|&size| size as u64);
        sizes.fold(1, u64::saturating_mul)
    }
}

/// Describes a model, an adapter, a run (its result), a checkpoint of a run, a file of tensors, or any other file.
///
/// Only headers and configurations are read, and the tensors of an adapter, which are checked against its configuration. What
/// this program cannot run is listed all the same; `problem` says why it cannot be run.
///
/// # Errors
///
/// Fails when there is nothing at the path, or it cannot be read.
pub fn inspect(path: &Path, tasks: &Tasks) -> Result<Description> {
    Ok(match identify(path)? {
        identify::Kind::Safetensors => file::tensors_of(path),
        identify::Kind::Adapter => adapter::describe(path, tasks),
        identify::Kind::Model(_) => model::describe(path, tasks),
        identify::Kind::Run => describe_run(path, tasks)?,
        identify::Kind::RunCheckpoint => describe_result(path, tasks),
        identify::Kind::Runs(runs) => Description {
            kind: Kind::Other("runs"),
            properties: vec![("runs", json!(runs))],
            tensors: Vec::new(),
        },
        kind => file::describe(path, &kind)?,
    })
}

/// Describes what a run resulted in, else its newest checkpoint.
fn describe_run(path: &Path, tasks: &Tasks) -> Result<Description> {
    let checkpoints = file::names(&path.join("checkpoints"))?;
    let newest = checkpoints.last();
    let has_result = ["adapter", "model"]
        .iter()
        .any(|name| path.join(name).is_dir());
    let mut description = match newest {
        Some(newest) if !has_result => {
            describe_result(&path.join("checkpoints").join(newest), tasks)
        }
        _ => describe_result(path, tasks),
    };
    let result = match (has_result, newest) {
        (true, _) => "there",
        (false, Some(_)) => "not there; this is the newest checkpoint",
        (false, None) => "not there",
    };
    let of_run = [
        ("result", json!(result)),
        ("checkpoints", json!(checkpoints)),
    ];
    description.properties.splice(0..0, of_run);
    Ok(description)
}

/// Describes the adapter or model in a directory of a run.
fn describe_result(path: &Path, tasks: &Tasks) -> Description {
    let [adapter, whole] = ["adapter", "model"].map(|name| path.join(name));
    if adapter.is_dir() {
        adapter::describe(&adapter, tasks)
    } else if whole.is_dir() {
        model::describe(&whole, tasks)
    } else {
        Description {
            kind: Kind::Other("run"),
            properties: Vec::new(),
            tensors: Vec::new(),
        }
    }
}
