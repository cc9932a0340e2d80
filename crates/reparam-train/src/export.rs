//! A trained model as a directory in Hugging Face layout.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use reparam_formats::FormatError;
use reparam_formats::atomic::AtomicDirectory;
use reparam_formats::safetensors::{TensorToWrite, write_safetensors};
use reparam_models::CausalLm;

use crate::TrainError;

/// What a model directory has besides its weights, where it is there.
const COMPANIONS: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// Writes the effective weights of a model, with what else its base's directory has, as a directory of its
/// own.
///
/// Weights are named and laid out as transformers does, and stored in `f32`; whoever loads them rounds to the type that `config.json` names.
pub(crate) fn save_model(model: &CausalLm, base: &Path, target: &Path) -> Result<(), TrainError> {
    let mut weights = model.to_tensors();
    weights.sort_by(|a, b| a.name.cmp(&b.name));
    let values: Vec<Vec<f32>> = weights
        .iter()
        .map(|tensor| {
            let data = tensor.values.clone().into_data().convert::<f32>();
            data.as_slice::<f32>().unwrap_or_default().to_vec()
        })
        .collect();
    let tensors: Vec<TensorToWrite<'_>> = weights
        .iter()
        .zip(&values)
        .map(|(tensor, values)| TensorToWrite::f32(&tensor.name, &tensor.shape, values))
        .collect();
    let directory = AtomicDirectory::create(target)?;
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    write_safetensors(
        &directory.path().join("model.safetensors"),
        &tensors,
        &metadata,
    )?;
    for name in COMPANIONS {
        let from = base.join(name);
        if from.exists() {
            fs::copy(&from, directory.path().join(name))
                .map_err(|source| FormatError::io("copy", &from, source))?;
        }
    }
    Ok(directory.commit()?)
}
