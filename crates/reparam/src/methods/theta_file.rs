//! What was trained, in a file.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{DType, Tensor, TensorData};
use reparam_formats::checkpoint::{Checkpoint, Dtype, StoredTensor};
use reparam_formats::safetensors::{self, TensorToWrite, write_safetensors};

use super::{MethodError, Result};
use crate::parameters::{self, ParameterList};

/// Writes the state of a model's methods to a safetensors file: all that is trained, biases included,
/// and what a method keeps besides, by their public names.
///
/// Together with the base model and the methods' settings, which are not in the file, that is the
/// model. Element types stay what they are. The model has to be one on a device with autodiff, as in
/// training: without, nothing says what is trained.
///
/// # Errors
///
/// [`MethodError::NothingTrained`] when no parameter requires a gradient; [`MethodError::File`] when the file
/// cannot be written.
pub fn save_theta<M: Module>(model: &M, path: &Path) -> Result<()> {
    let state = trained_state(model)?;
    let stored: Vec<(Vec<u8>, Dtype)> = state
        .iter()
        .map(|tensor| bytes(tensor.values.to_data()))
        .collect();
    let tensors: Vec<TensorToWrite<'_>> = state
        .iter()
        .zip(&stored)
        .map(|(tensor, (bytes, dtype))| TensorToWrite {
            name: &tensor.name,
            shape: &tensor.shape,
            data: safetensors::TensorData::Bytes(bytes, *dtype),
        })
        .collect();
    write_safetensors(path, &tensors, &BTreeMap::new())?;
    Ok(())
}

/// Puts what [`save_theta`] wrote into a model with the same methods attached.
///
/// # Errors
///
/// [`MethodError::NothingTrained`] as above; [`MethodError::File`] when the file cannot be read, lacks a tensor, has one that the model does not
/// know, has one of another shape, or holds a number that is not finite.
pub fn load_theta<M: Module>(model: M, path: &Path) -> Result<M> {
    let file = Checkpoint::open_file(path)?;
    let mut state = trained_state(&model)?;
    let expected: Vec<(String, Vec<usize>)> = state
        .iter()
        .map(|tensor| (tensor.name.clone(), tensor.shape.clone()))
        .collect();
    file.check_tensors(&expected, |_| false)?;
    for tensor in &mut state {
        let stored = file.expect(&tensor.name, &tensor.shape)?;
        let dtype = tensor.values.dtype();
        let data = numbers(&stored)?.convert_dtype(dtype);
        tensor.values = Tensor::from_data(data, (&tensor.values.device(), dtype));
    }
    Ok(parameters::assign_state(model, state))
}

/// Returns the state of a model that has some to train; without autodiff it would be a part only.
fn trained_state<M: Module>(model: &M) -> Result<ParameterList> {
    if parameters::trainable(model).is_empty() {
        return Err(MethodError::NothingTrained);
    }
    Ok(parameters::state(model))
}

/// Returns a tensor's numbers as they are stored: in their own type where the format and Burn agree
/// on one.
fn bytes(data: TensorData) -> (Vec<u8>, Dtype) {
    let dtype = match data.dtype() {
        DType::F64 => Dtype::F64,
        DType::BF16 => Dtype::BF16,
        DType::F16 => Dtype::F16,
        _ => Dtype::F32,
    };
    let mut bytes = Vec::new();
    if dtype == Dtype::F64 {
        for value in data.iter::<f64>() {
            bytes.extend(value.to_le_bytes());
        }
        return (bytes, dtype);
    }
    for value in data.iter::<f32>() {
        // A half widened to `f32` is exact, and so is its way back.
        match dtype {
            Dtype::BF16 => bytes.extend(burn::tensor::bf16::from_f32(value).to_le_bytes()),
            Dtype::F16 => bytes.extend(burn::tensor::f16::from_f32(value).to_le_bytes()),
            _ => bytes.extend(value.to_le_bytes()),
        }
    }
    (bytes, dtype)
}

/// Reads a tensor's numbers, all of them finite, `F64` without loss.
fn numbers(stored: &StoredTensor<'_>) -> Result<TensorData> {
    let len = stored.n_elements();
    if stored.dtype != Dtype::F64 {
        return Ok(TensorData::new(stored.to_finite_f32_vec()?, [len]));
    }
    let bytes = stored.bytes()?;
    let (words, _) = bytes.as_chunks::<8>();
    let values: Vec<f64> = words.iter().map(|word| f64::from_le_bytes(*word)).collect();
    if !values.iter().all(|value| value.is_finite()) {
        // Asked only to name the element.
        stored.check_finite()?;
    }
    Ok(TensorData::new(values, [len]))
}
