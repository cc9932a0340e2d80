//! A trained model as a directory in Hugging Face layout.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use reparam_formats::FormatError;
use reparam_formats::atomic::AtomicDirectory;
use reparam_formats::safetensors::{TensorToWrite, write_safetensors};

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
/// Weights are stored in `f32`; whoever loads them rounds to the type that `config.json` names.
pub(crate) fn save_model<M: Module>(
    model: &M,
    base: &Path,
    target: &Path,
) -> Result<(), TrainError> {
    let mut collect = Collect::default();
    model.clone().materialize().visit(&mut collect);
    let tensors: Vec<TensorToWrite<'_>> = collect
        .tensors
        .iter()
        .map(|(name, (shape, values))| TensorToWrite::f32(name, shape, values))
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

/// Collects all tensors by path, sorted by name.
#[derive(Default)]
struct Collect {
    path: Vec<String>,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let data = param.val().into_data().convert::<f32>();
        let values = data.as_slice::<f32>().unwrap_or_default().to_vec();
        let shape = param.val().dims().to_vec();
        self.tensors.insert(self.path.join("."), (shape, values));
    }
}
