//! What a file or directory is.
//!
//! Whatever is there is described, also what cannot be run: the reason is one of its properties then, and no error.

mod adapter;
mod file;
mod model;
mod tensors;
mod words;

use std::path::Path;

use reparam_formats::identify::{self, identify};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{Result, Tasks};

pub(crate) use tensors::{files, tensors};
pub use words::{Neighbour, WordQuestion, ask_words};

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
    let result = ["adapter", "model"].map(|name| path.join(name));
    let result = result.into_iter().find(|path| path.is_dir());
    let steps = checkpoints
        .iter()
        .filter_map(|name| Some((step_of(name)?, name)));
    let newest = steps.max().map(|(_, name)| name);
    let (place, found) = match (result, newest) {
        (Some(result), _) => (Some(result), "there"),
        (None, Some(newest)) => {
            let newest = path.join("checkpoints").join(newest);
            (Some(newest), "not there; this is the newest checkpoint")
        }
        (None, None) => (None, "not there"),
    };
    let mut description = match place {
        Some(place) if matches!(identify(&place)?, identify::Kind::Adapter) => {
            adapter::describe(&place, tasks)
        }
        Some(place) => model::describe(&place, tasks),
        None => Description {
            kind: Kind::Other("run"),
            properties: Vec::new(),
            tensors: Vec::new(),
        },
    };
    let of_run = [
        ("result", json!(found)),
        ("checkpoints", json!(checkpoints)),
    ];
    description.properties.splice(0..0, of_run);
    Ok(description)
}

/// The step of a checkpoint by its name; `None` of what is no checkpoint to go on from.
fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix("step-")?.parse().ok()
}
