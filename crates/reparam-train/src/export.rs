//! A trained model as a directory in Hugging Face layout.

use std::collections::BTreeMap;
use std::path::Path;

use reparam::parameters::ParameterList;
use reparam_formats::FormatError;
use reparam_formats::atomic::{AtomicDirectory, write_file_atomic};
use reparam_formats::safetensors::{TensorToWrite, write_safetensors};

use crate::Result;
use crate::model_files::{CONFIG, ModelFiles};

/// Writes weights, named and laid out as transformers does, with what else was read of the directory of their base, as a
/// directory of its own. `config` is the text of its `config.json`, and `others` are files by name, which replace those of the base.
///
/// Weights are stored in `f32`; whoever loads them rounds to the type that `config.json` names.
pub(crate) fn save_model(
    mut weights: ParameterList,
    base: &ModelFiles,
    config: &str,
    others: &[(&str, &str)],
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
    for (name, bytes) in base.companions() {
        let path = directory.path().join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|source| FormatError::Io {
                action: "create",
                path: parent.to_owned(),
                source,
            })?;
        }
        write_file_atomic(&path, bytes)?;
    }
    for (name, text) in others {
        write_file_atomic(&directory.path().join(name), text.as_bytes())?;
    }
    write_file_atomic(&directory.path().join(CONFIG), config.as_bytes())?;
    Ok(directory.commit()?)
}
