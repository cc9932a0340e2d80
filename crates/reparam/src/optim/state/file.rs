//! Optimizer states in safetensors files.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use reparam_formats::FormatError;
use reparam_formats::checkpoint::{Checkpoint, Dtype};
use reparam_formats::safetensors::{TensorData as Data, TensorToWrite, write_safetensors};

use crate::optim::error::{OptimError, Result};
use crate::parameters::{NamedTensor, ParameterList};

/// The metadata key that says after which step the state was saved.
const STEPS_DONE: &str = "steps_done";

/// Writes a state to a safetensors file, in one step: tensors keep their type and all of their bits.
pub(crate) fn write(path: &Path, steps_done: u64, state: ParameterList) -> Result<()> {
    let tensors: Vec<(NamedTensor, TensorData)> = state
        .into_iter()
        .map(|tensor| {
            let data = tensor.values.clone().into_data();
            (tensor, data)
        })
        .collect();
    let to_write: Result<Vec<TensorToWrite<'_>>> = tensors
        .iter()
        .map(|(tensor, data)| {
            Ok(TensorToWrite {
                name: &tensor.name,
                shape: &tensor.shape,
                data: Data::Bytes(data.as_bytes(), dtype_of(data.dtype())?),
            })
        })
        .collect();
    let metadata = BTreeMap::from([(STEPS_DONE.to_owned(), steps_done.to_string())]);
    write_safetensors(path, &to_write?, &metadata).map_err(file_error)
}

/// Reads what [`write`] wrote: after how many steps, and the state.
pub(crate) fn read(path: &Path) -> Result<(u64, ParameterList)> {
    let file = Checkpoint::open_file(path).map_err(file_error)?;
    let steps_done = file
        .metadata(STEPS_DONE)
        .and_then(|steps| steps.parse().ok())
        .ok_or_else(|| OptimError::StateFile {
            message: format!("{} does not say `{STEPS_DONE}`", path.display()),
            hint: Some("give the file of a saved optimizer state".into()),
        })?;
    let mut state = ParameterList::new();
    for (name, stored) in file.tensors() {
        let dtype = match stored.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F64 => DType::F64,
            other => return Err(unsupported(&other.to_string())),
        };
        let shape = stored.shape.to_vec();
        let len: usize = shape.iter().product();
        let bytes = stored.bytes().map_err(file_error)?;
        let data = TensorData::from_bytes_vec(bytes, [len], dtype);
        state.push(NamedTensor {
            name: name.to_owned(),
            shape,
            values: Tensor::from_data(data, (&Device::flex(), dtype)),
        });
    }
    Ok((steps_done, state))
}

fn dtype_of(dtype: DType) -> Result<Dtype> {
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
