//! What a directory is, by the files in it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use super::{Kind, kind_of_bytes, kind_of_text, read_head};
use crate::FormatError;
use crate::checkpoint::is_pickle;
use crate::file;
use crate::peft::{CONFIG_FILE, WEIGHTS_FILE};

/// A directory with a `config.json`, or with weights that would need one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelDirectory {
    /// The family, if `config.json` is there and says it.
    pub model_type: Option<String>,
    /// The classes of transformers that `config.json` names.
    pub architectures: Vec<String>,
    /// The files of weights of any format, sorted.
    pub weights: Vec<String>,
    /// What is there of `config.json`, `tokenizer.json` and `tokenizer.model`.
    pub files: Vec<&'static str>,
}

/// Says what is at a path. Of a file the beginning is read, of a directory the names and `config.json`.
///
/// # Errors
///
/// [`FormatError::NoSuchFile`], [`FormatError::BrokenLink`], and those of the file system.
pub fn identify(path: &Path) -> Result<Kind, FormatError> {
    let metadata = fs::metadata(path).map_err(|source| FormatError::io("read", path, source))?;
    if metadata.is_dir() {
        return of_directory(path);
    }
    if !metadata.is_file() {
        return Ok(Kind::Special);
    }
    let head = read_head(path)?;
    if head.is_empty() {
        return Ok(Kind::EmptyFile);
    }
    let kind = kind_of_bytes(&head).or_else(|| kind_of_text(&head));
    Ok(kind.unwrap_or(Kind::Unknown))
}

fn of_directory(path: &Path) -> Result<Kind, FormatError> {
    let names = names(path)?;
    let has = |name: &str| names.contains(name);
    if names.is_empty() {
        return Ok(Kind::EmptyDirectory);
    }
    if is_run(path) {
        return Ok(Kind::Run);
    }
    let is_adapter = has(CONFIG_FILE) || has(WEIGHTS_FILE) || has("adapter_model.bin");
    if is_adapter && !has("config.json") {
        return Ok(Kind::Adapter);
    }
    let weights: Vec<String> = names
        .iter()
        .filter(|name| is_weights(name))
        .cloned()
        .collect();
    if has("config.json") || !weights.is_empty() {
        return Ok(Kind::Model(model(path, &names, weights)));
    }
    if has("tokenizer.json") || has("tokenizer.model") || has("tokenizer_config.json") {
        return Ok(Kind::Tokenizer);
    }
    let runs = names.into_iter().filter(|name| is_run(&path.join(name)));
    let runs: Vec<String> = runs.collect();
    Ok(match runs.is_empty() {
        true => Kind::Directory,
        false => Kind::Runs(runs),
    })
}

/// Whether a run began in a directory, with or without a result so far.
fn is_run(path: &Path) -> bool {
    path.join("config.resolved.toml").is_file() || path.join("events.jsonl").is_file()
}

/// The names of what is in a directory, but for hidden ones.
fn names(path: &Path) -> Result<BTreeSet<String>, FormatError> {
    let failed = |source| FormatError::io("read", path, source);
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with('.') {
            names.insert(name.into_owned());
        }
    }
    Ok(names)
}

fn is_weights(name: &str) -> bool {
    let ends = [".safetensors", ".gguf", ".h5", ".msgpack", ".onnx"];
    ends.iter().any(|end| name.ends_with(end)) || is_pickle(name)
}

fn model(path: &Path, names: &BTreeSet<String>, weights: Vec<String>) -> ModelDirectory {
    // What is damaged is told by who opens it; here is said what can be.
    let config = file::read_text(&path.join("config.json")).ok();
    let config: Map<String, Value> = config
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let listed = config.get("architectures").and_then(Value::as_array);
    let files = ["config.json", "tokenizer.json", "tokenizer.model"];
    ModelDirectory {
        model_type: config.get("model_type").and_then(text),
        architectures: listed.into_iter().flatten().filter_map(text).collect(),
        weights,
        files: files
            .into_iter()
            .filter(|name| names.contains(*name))
            .collect(),
    }
}
