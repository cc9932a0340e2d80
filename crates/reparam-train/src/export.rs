//! A trained model as a directory in Hugging Face layout.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use reparam::parameters::ParameterList;
use reparam_formats::FormatError;
use reparam_formats::atomic::{AtomicDirectory, write_file_atomic};
use reparam_formats::safetensors::{TensorToWrite, write_safetensors};

use crate::Result;

/// What a model directory has besides its weights and its configuration, where it is there.
const COMPANIONS: [&str; 7] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// Writes weights, named and laid out as transformers does, with what else the directory of their base has, as a directory of
/// its own. `config` is the text of its `config.json`.
///
/// Weights are stored in `f32`; whoever loads them rounds to the type that `config.json` names.
pub(crate) fn save_model(
    mut weights: ParameterList,
    base: &Path,
    config: &str,
    target: &Path,
) -> Result<()> {
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
    write_file_atomic(&directory.path().join("config.json"), config.as_bytes())?;
    Ok(directory.commit()?)
}
