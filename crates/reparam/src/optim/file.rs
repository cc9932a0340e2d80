//! Optimizer states in safetensors files.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use reparam_formats::FormatError;
use reparam_formats::checkpoint::{Checkpoint, Dtype};
use reparam_formats::safetensors::{TensorData as Data, TensorToWrite, write_safetensors};

use super::{OptimError, Optimizer};
use crate::parameters::{NamedTensor, ParameterList};

/// The metadata key that says after which step the state was saved.
const STEPS_DONE: &str = "steps_done";

/// Writes the states of all transforms to a safetensors file, in one step.
///
/// Tensors keep their type and all of their bits; `steps_done` is in the metadata.
///
/// # Errors
///
/// [`OptimError::StateFile`] when the file cannot be written.
pub fn save_state(optimizer: &Optimizer, path: &Path) -> Result<(), OptimError> {
    let tensors: Vec<(NamedTensor, TensorData)> = optimizer
        .state()
        .into_iter()
        .map(|tensor| {
            let data = tensor.values.clone().into_data();
            (tensor, data)
        })
        .collect();
    let to_write: Result<Vec<TensorToWrite<'_>>, OptimError> = tensors
        .iter()
        .map(|(tensor, data)| {
            Ok(TensorToWrite {
                name: &tensor.name,
                shape: &tensor.shape,
                data: Data::Bytes(data.as_bytes(), dtype_of(data.dtype())?),
            })
        })
        .collect();
    let steps_done = optimizer.steps_done().to_string();
    let metadata = BTreeMap::from([(STEPS_DONE.to_owned(), steps_done)]);
    write_safetensors(path, &to_write?, &metadata).map_err(file_error)
}

/// Restores what [`save_state`] wrote, to the same bits.
///
/// # Errors
///
/// [`OptimError::StateFile`] when the file is missing or damaged, and the errors of
/// [`Optimizer::load_state`] when it is another chain's.
pub fn load_state(optimizer: &mut Optimizer, path: &Path) -> Result<(), OptimError> {
    let file = Checkpoint::open_file(path).map_err(file_error)?;
    let steps_done = file
        .metadata(STEPS_DONE)
        .and_then(|steps| steps.parse().ok())
        .ok_or_else(|| OptimError::StateFile {
            message: format!("{} does not say `{STEPS_DONE}`", path.display()),
            hint: Some("give the file of a saved optimizer state".into()),
        })?;
    let mut state = ParameterList::new();
    for (name, view) in file.tensors() {
        let dtype = match view.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F64 => DType::F64,
            other => return Err(unsupported(&other.to_string())),
        };
        let shape = view.shape.to_vec();
        let len: usize = shape.iter().product();
        let data = TensorData::from_bytes_vec(view.bytes.to_vec(), [len], dtype);
        state.push(NamedTensor {
            name: name.to_owned(),
            shape,
            values: Tensor::from_data(data, (&Device::flex(), dtype)),
        });
    }
    optimizer.load_state(steps_done, state)
}

fn dtype_of(dtype: DType) -> Result<Dtype, OptimError> {
    match dtype {
        DType::F32 => Ok(Dtype::F32),
        DType::F64 => Ok(Dtype::F64),
        other => Err(unsupported(&format!("{other:?}"))),
    }
}

fn unsupported(dtype: &str) -> OptimError {
    OptimError::StateFile {
        message: format!("a state of type {dtype} is neither f32 nor f64"),
        hint: None,
    }
}

fn file_error(error: FormatError) -> OptimError {
    OptimError::StateFile {
        message: error.to_string(),
        hint: error.hint(),
    }
}
