//! What a file or directory is.

use std::path::Path;

use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::config::ModelJson;
use reparam_formats::peft::{AdapterFiles, CONFIG_FILE, TargetModules, WEIGHTS_FILE};
use serde::Serialize;
use serde_json::{Value, json};

use crate::run_dir::model_of;
use crate::{Result, Tasks};

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
}

impl Kind {
    /// Returns the word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::OfTask(task) => task,
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
    pub dtype: &'static str,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its size in the file.
    pub bytes: u64,
}

impl TensorDescription {
    /// Returns the number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).product()
    }
}

/// Describes a model directory, an adapter directory, a run directory (its adapter or model) or a
/// safetensors file.
///
/// Only headers and configurations are read; an adapter's tensors are checked against its
/// configuration.
///
/// # Errors
///
/// Fails when there is nothing at the path, or it is none of these, or it is damaged.
pub fn inspect(path: &Path, tasks: &Tasks) -> Result<Description> {
    if path.is_file() {
        return describe_file(path);
    }
    let run_adapter = path.join("adapter");
    if path.join(CONFIG_FILE).exists() || path.join(WEIGHTS_FILE).exists() {
        describe_adapter(path, tasks)
    } else if run_adapter.join(CONFIG_FILE).exists() && !path.join("config.json").exists() {
        describe_adapter(&run_adapter, tasks)
    } else {
        describe_model(&model_of(path.to_owned())?, tasks)
    }
}

fn describe_file(path: &Path) -> Result<Description> {
    let checkpoint = Checkpoint::open_file(path)?;
    Ok(Description {
        kind: Kind::Tensors,
        properties: vec![("files", files(&checkpoint))],
        tensors: tensors(&checkpoint),
    })
}

fn describe_model(path: &Path, tasks: &Tasks) -> Result<Description> {
    for task in tasks.entries() {
        if let Some(description) = task.describe(path)? {
            return Ok(description);
        }
    }
    let checkpoint = Checkpoint::open(path)?;
    let config = ModelJson::load(path)?.beside(&checkpoint);
    let architecture = tasks.catalog().families.describe(&config)?;
    let (attention, feed_forward) = (
        &architecture.blocks[0].attention,
        &architecture.blocks[0].feed_forward,
    );
    let properties = vec![
        ("model_type", json!(config.model_type)),
        ("architectures", json!(config.architectures)),
        ("parameters", json!(checkpoint.total_parameters())),
        // A model directory is a frozen base; an adapter is what is trained.
        ("trainable_parameters", json!(0)),
        ("hidden_size", json!(architecture.width)),
        ("num_hidden_layers", json!(architecture.blocks.len())),
        ("num_attention_heads", json!(attention.n_heads)),
        ("num_key_value_heads", json!(attention.n_kv_heads)),
        ("head_dim", json!(attention.head_dim)),
        ("intermediate_size", json!(feed_forward.output.d_in)),
        ("vocab_size", json!(architecture.vocab_size)),
        ("max_position_embeddings", json!(architecture.max_positions)),
        ("tie_word_embeddings", json!(architecture.head.tied)),
        ("files", files(&checkpoint)),
    ];
    Ok(Description {
        kind: Kind::Model,
        properties,
        tensors: tensors(&checkpoint),
    })
}

fn describe_adapter(path: &Path, tasks: &Tasks) -> Result<Description> {
    let files = AdapterFiles::load(path)?.without_base();
    let (spec, format) = tasks.catalog().methods.of_adapter(&files)?;
    let method = (format.read)(&files)?;
    (format.check)(&files)?;
    let checkpoint = Checkpoint::open_file(&path.join(WEIGHTS_FILE))?;
    let is_trained = |name: &str| {
        let frozen = spec.tensors.iter().filter(|tensor| !tensor.is_trained);
        let mut ends = frozen.map(|tensor| format!(".{}", tensor.name));
        !ends.any(|end| format!(".{name}").ends_with(&end))
    };
    let trained = files.tensors.iter().filter(|(name, _)| is_trained(name));
    let trained: usize = trained.map(|(_, tensor)| tensor.data.len()).sum();
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
    properties.extend([
        ("adapted_modules", json!(modules)),
        ("trainable_parameters", json!(trained)),
    ]);
    Ok(Description {
        kind: Kind::Adapter,
        properties,
        tensors: tensors(&checkpoint),
    })
}

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
        .map(|(name, stored)| TensorDescription {
            name: name.to_owned(),
            dtype: stored.dtype.name(),
            shape: stored.shape.to_vec(),
            bytes: stored.n_bytes() as u64,
        })
        .collect()
}
