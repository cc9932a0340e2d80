//! Tensors and the files that they are in.

use std::path::{Path, PathBuf};

use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::identify::{Kind, identify, list_tensors};
use serde_json::{Map, Value, json};

use super::{TensorDescription, file};
use crate::TrainError;
use crate::json::read_json;

/// Returns the names of the files of a checkpoint.
pub(crate) fn files(checkpoint: &Checkpoint) -> Value {
    let name =
        |path: &Path| -> Option<String> { Some(path.file_name()?.to_string_lossy().into_owned()) };
    json!(checkpoint.files().filter_map(name).collect::<Vec<_>>())
}

/// Returns what is in a checkpoint.
pub(crate) fn tensors(checkpoint: &Checkpoint) -> Vec<TensorDescription> {
    checkpoint
        .tensors()
        .map(|(name, view)| TensorDescription {
            name: name.to_owned(),
            dtype: view.dtype.name().to_owned(),
            shape: view.shape.to_vec(),
            bytes: view.n_bytes() as u64,
        })
        .collect()
}

/// The tensors of a directory, of whatever type, and what its files of weights are.
pub(super) struct Listed {
    pub(super) tensors: Vec<TensorDescription>,
    /// The names of the files, and with each that has no tensors to list what it is.
    pub(super) files: Vec<String>,
}

impl Listed {
    /// Lists `names` of a directory.
    pub(super) fn of(directory: &Path, names: Vec<String>) -> Self {
        let mut listed = Self {
            tensors: Vec::new(),
            files: Vec::new(),
        };
        for name in names {
            let path = directory.join(&name);
            match list(&path) {
                Ok(tensors) => {
                    listed.tensors.extend(tensors);
                    listed.files.push(name);
                }
                Err(error) => {
                    let what = match identify(&path) {
                        Ok(Kind::Safetensors) => error.to_string(),
                        Ok(kind) => kind.name().to_owned(),
                        Err(error) => error.to_string(),
                    };
                    listed.files.push(format!("{name}: {what}"));
                }
            }
        }
        listed.tensors.sort_by(|a, b| a.name.cmp(&b.name));
        listed
    }

    /// Lists the weights of a model's directory: those that would be read, or all.
    pub(super) fn of_model(directory: &Path) -> Self {
        let names = file::names(directory).unwrap_or_default();
        let single = "model.safetensors".to_owned();
        if names.contains(&single) {
            return Self::of(directory, vec![single]);
        }
        let index: PathBuf = directory.join("model.safetensors.index.json");
        let map = read_json(&index).and_then(|index| index["weight_map"].as_object().cloned());
        if let Some(map) = map {
            return Self::of(directory, shards(&map));
        }
        let ends = [
            ".safetensors",
            ".gguf",
            ".bin",
            ".pt",
            ".pth",
            ".h5",
            ".msgpack",
            ".onnx",
        ];
        let weights = names
            .into_iter()
            .filter(|name| ends.iter().any(|end| name.ends_with(end)));
        Self::of(directory, weights.collect())
    }
}

fn shards(map: &Map<String, Value>) -> Vec<String> {
    let mut shards: Vec<String> = map
        .values()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    shards.sort();
    shards.dedup();
    shards
}

/// Lists the tensors of a file.
pub(super) fn list(path: &Path) -> Result<Vec<TensorDescription>, TrainError> {
    let tensors = list_tensors(path)?
        .into_iter()
        .map(|tensor| TensorDescription {
            name: tensor.name,
            dtype: tensor.dtype,
            shape: tensor.shape,
            bytes: tensor.bytes,
        });
    Ok(tensors.collect())
}
