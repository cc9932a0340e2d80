//! Models, those too that cannot be run.

use std::path::Path;

use reparam_formats::FormatError;
use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::config::ModelJson;
use reparam_formats::identify::quantization;
use reparam_models::Architecture;
use serde_json::{Value, json};

use super::tensors::Listed;
use super::{Description, Kind, TensorDescription};
use crate::{Result, Tasks, TrainError};

/// Describes the directory of a model.
pub(super) fn describe(path: &Path, tasks: &Tasks) -> Description {
    let own = tasks.entries().iter().map(|task| task.describe(path));
    let mut problem = None;
    for described in own {
        match described {
            Ok(Some(description)) => return description,
            Ok(None) => {}
            Err(error) => problem = Some(error),
        }
    }
    let listed = Listed::of_model(path);
    let mut properties = Vec::new();
    if let Err(error) = describe_config(path, tasks, &listed.tensors, &mut properties) {
        problem.get_or_insert(error);
    }
    properties.push(("files", json!(listed.files)));
    properties.extend(problem.map(self::problem));
    Description {
        kind: Kind::Model,
        properties,
        tensors: listed.tensors,
    }
}

/// Says why something cannot be run.
pub(super) fn problem(error: TrainError) -> (&'static str, Value) {
    ("problem", json!(error.to_string()))
}

/// Adds what `config.json` says, and returns what keeps the model from being run.
fn describe_config(
    path: &Path,
    tasks: &Tasks,
    tensors: &[TensorDescription],
    properties: &mut Vec<(&'static str, Value)>,
) -> Result<()> {
    let parameters: u64 = tensors.iter().map(TensorDescription::elements).sum();
    let config = ModelJson::load(path)?;
    properties.extend([
        ("model_type", json!(config.model_type)),
        ("architectures", json!(config.architectures)),
        ("parameters", json!(parameters)),
        // A model directory is a frozen base; an adapter is what is trained.
        ("trainable_parameters", json!(0)),
    ]);
    let names = tensors.iter().map(|tensor| tensor.name.as_str());
    let quantized = quantization(config.json.map(), names);
    properties.extend(quantized.map(|by| ("quantized_by", json!(by.name()))));
    let architecture = tasks.catalog().families.describe(&config)?;
    properties.extend(sizes(&architecture));
    if let Some(by) = quantized {
        let path = path.to_owned();
        return Err(FormatError::Quantized { path, by }.into());
    }
    Checkpoint::open(path)?;
    Ok(())
}

fn sizes(architecture: &Architecture) -> Vec<(&'static str, Value)> {
    let mut properties = vec![
        ("hidden_size", json!(architecture.width)),
        ("num_hidden_layers", json!(architecture.n_layers())),
    ];
    if let Some(block) = architecture.blocks.first() {
        let attention = &block.attention;
        properties.extend([
            ("num_attention_heads", json!(attention.n_heads)),
            ("num_key_value_heads", json!(attention.n_kv_heads)),
            ("head_dim", json!(attention.head_dim)),
        ]);
        let mut layers = architecture.blocks.iter().map(|block| &block.feed_forward);
        let dense = layers.clone().find(|layer| layer.experts.is_none());
        properties.extend(dense.map(|layer| ("intermediate_size", json!(layer.output.d_in))));
        let sparse = layers.find_map(|layer| Some((layer, layer.experts.as_ref()?)));
        if let Some((layer, experts)) = sparse {
            let shared = experts.shared.as_ref();
            properties.extend([
                ("num_experts", json!(experts.n_experts)),
                ("num_experts_per_tok", json!(experts.per_token)),
                ("moe_intermediate_size", json!(layer.output.d_in)),
            ]);
            properties.extend(shared.map(|shared| {
                let inner = shared.feed_forward.output.d_in;
                ("shared_expert_intermediate_size", json!(inner))
            }));
        }
    }
    if let Some(spec) = &architecture.state_space {
        properties.extend([
            ("intermediate_size", json!(spec.channels)),
            ("state_size", json!(spec.states)),
            ("conv_kernel", json!(spec.taps)),
        ]);
    }
    properties.extend([
        ("vocab_size", json!(architecture.vocab_size)),
        ("max_position_embeddings", json!(architecture.max_positions)),
        ("tie_word_embeddings", json!(architecture.head.tied)),
    ]);
    properties
}
