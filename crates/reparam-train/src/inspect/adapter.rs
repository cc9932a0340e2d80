//! Adapters, those too of methods that are not read.

use std::path::Path;

use reparam_formats::peft::{AdapterFiles, TargetModules, WEIGHTS_FILE};
use serde_json::{Value, json};

use super::model::problem;
use super::tensors::Listed;
use super::{Description, Kind, file};
use crate::{Result, Tasks};

/// Describes the directory of an adapter.
pub(super) fn describe(path: &Path, tasks: &Tasks) -> Description {
    let (mut properties, problem) = match checked(path, tasks) {
        Ok(properties) => (properties, None),
        Err(error) => (said(path).unwrap_or_default(), Some(problem(error))),
    };
    let names = file::names(path).unwrap_or_default();
    let names = names
        .into_iter()
        .filter(|name| name == WEIGHTS_FILE || name == "adapter_model.bin");
    let listed = Listed::of(path, names.collect());
    if problem.is_some() {
        properties.push(("files", json!(listed.files)));
    }
    properties.extend(problem);
    Description {
        kind: Kind::Adapter,
        properties,
        tensors: listed.tensors,
    }
}

/// What the configuration of any adapter says.
fn said(path: &Path) -> Result<Vec<(&'static str, Value)>> {
    let config = AdapterFiles::load_config(path)?;
    let value = |key: &str| config.get(key).cloned().unwrap_or_default();
    let mut properties = vec![
        ("peft_type", value("peft_type")),
        ("base_model", value("base_model_name_or_path")),
        ("revision", value("revision")),
    ];
    for key in [
        "r",
        "lora_alpha",
        "target_modules",
        "use_dora",
        "init_lora_weights",
    ] {
        properties.extend(config.get(key).map(|value| (key, value.clone())));
    }
    Ok(properties)
}

/// What a method says of an adapter that it can read.
fn checked(path: &Path, tasks: &Tasks) -> Result<Vec<(&'static str, Value)>> {
    let mut files = AdapterFiles::load(path)?;
    let tokens = files.take_tokens()?.unwrap_or_default();
    let files = files.without_base();
    let (spec, format) = tasks.catalog().methods.of_adapter(&files)?;
    let method = (format.read)(&files)?;
    (format.check)(&files)?;
    let is_trained = |name: &str| {
        let frozen = spec.tensors.iter().filter(|tensor| !tensor.is_trained);
        let mut ends = frozen.map(|tensor| format!(".{}", tensor.name));
        !ends.any(|end| format!(".{name}").ends_with(&end))
    };
    let trained = files.tensors.iter().filter(|(name, _)| is_trained(name));
    let trained: usize = trained.map(|(_, tensor)| tensor.data.len()).sum();
    let rows = tokens.layers.values();
    let trained = trained + rows.clone().map(|rows| rows.rows.data.len()).sum::<usize>();
    let trained_tokens = rows.map(|rows| rows.indices.len()).max();
    let modules = match &method.selection().target_modules {
        TargetModules::Names(names) => names.len(),
        _ => 0,
    };
    let config = &files.config;
    let mut properties = vec![
        ("method", json!(spec.kind)),
        ("peft_type", json!(format.peft_type)),
        ("base_model", json!(config.str("base_model_name_or_path")?)),
        ("revision", json!(config.str("revision")?)),
    ];
    properties.extend(method.properties()?);
    properties.push(("adapted_modules", json!(modules)));
    let parameters = &method.selection().target_parameters;
    if !parameters.is_empty() {
        properties.push(("target_parameters", json!(parameters)));
    }
    properties.push(("trainable_parameters", json!(trained)));
    properties.extend(trained_tokens.map(|tokens| ("trained_tokens", json!(tokens))));
    Ok(properties)
}
