//! The files of a merged model's weights.

use std::collections::BTreeMap;
use std::path::Path;

use reparam_formats::atomic::write_file_atomic;
use reparam_formats::rounding;
use reparam_formats::safetensors::{StreamedTensor, TakeBytes, write_streamed};
use serde_json::{Map, Value, json};

use super::{MergeError, MergeReport, MergeRequest, MergedLayer, MergedWeights};
use crate::{Result, Stop, TrainError};

/// How many numbers of a tensor that does not change are read at a time.
const PIECE: usize = 1 << 18;

/// A tensor of the result.
struct Planned {
    /// What transformers' class calls it.
    name: String,
    tensor: StreamedTensor,
}

/// Writes the weights, in as many files as their size asks for.
pub(super) fn write(
    request: &MergeRequest,
    weights: &mut MergedWeights<'_>,
    directory: &Path,
    stop: Stop<'_>,
) -> Result<MergeReport> {
    let mut planned = Vec::new();
    for (name, stored) in weights.names() {
        let base = weights.of_base(&name)?;
        // Only numbers have another type.
        let dtype = request.dtype.filter(|_| base.dtype.is_float());
        planned.push(Planned {
            tensor: StreamedTensor {
                name: stored,
                shape: base.shape.to_vec(),
                dtype: dtype.unwrap_or(base.dtype),
            },
            name,
        });
    }
    planned.sort_by(|a, b| a.tensor.name.cmp(&b.tensor.name));
    let shards = shards(planned, request.shard_size);
    let mut report = MergeReport::default();
    let count = shards.len();
    let mut index = Map::new();
    let mut total = 0_u64;
    for (number, shard) in shards.into_iter().enumerate() {
        let file = match count {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
        };
        let (names, tensors): (Vec<String>, Vec<StreamedTensor>) = shard
            .into_iter()
            .map(|planned| (planned.name, planned.tensor))
            .unzip();
        for tensor in &tensors {
            total += tensor.n_bytes().unwrap_or(0) as u64;
            index.insert(tensor.name.clone(), file.clone().into());
        }
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        let mut names = names.into_iter();
        write_streamed(
            &directory.join(&file),
            &tensors,
            &metadata,
            |tensor, take| {
                stop.check()?;
                let name = names.next().unwrap_or_default();
                let layer = fill(weights, &name, tensor, take)?;
                report.layers.extend(layer);
                Ok::<_, TrainError>(())
            },
        )?;
        report.files.push(file);
    }
    if count > 1 {
        let index = json!({"metadata": {"total_size": total}, "weight_map": Value::Object(index)});
        let path = directory.join("model.safetensors.index.json");
        write_file_atomic(&path, format!("{index:#}\n").as_bytes())?;
    }
    Ok(report)
}

/// Divides tensors among files, in order; one that is larger has a file of its own.
fn shards(planned: Vec<Planned>, most: u64) -> Vec<Vec<Planned>> {
    let mut shards: Vec<Vec<Planned>> = Vec::new();
    let mut filled = 0_u64;
    for one in planned {
        let size = one.tensor.n_bytes().unwrap_or(usize::MAX) as u64;
        match shards.last_mut() {
            Some(last) if filled.saturating_add(size) <= most => {
                filled += size;
                last.push(one);
            }
            _ => {
                filled = size;
                shards.push(vec![one]);
            }
        }
    }
    shards
}

/// Hands on the bytes of a tensor, and says what became of it if it changed.
fn fill(
    weights: &MergedWeights<'_>,
    name: &str,
    tensor: &StreamedTensor,
    take: &mut TakeBytes<'_, TrainError>,
) -> Result<Option<MergedLayer>> {
    let base = weights.of_base(name)?;
    let mut bytes = Vec::new();
    if weights.changes(name) {
        let (merged, before) = weights.merged(name)?;
        for values in merged.chunks(PIECE) {
            bytes.clear();
            rounding::append(values, tensor.dtype, &mut bytes)?;
            take(&bytes)?;
        }
        let layer = measured(tensor, &merged, &before)?;
        // Most methods leave the bias of an adapted layer as it is.
        return Ok((layer.max_change > 0.0).then_some(layer));
    }
    if base.dtype == tensor.dtype {
        take(&base.bytes()?)?;
        return Ok(None);
    }
    let n = base.n_elements();
    let mut values = vec![0.0; PIECE.min(n)];
    for first in (0..n).step_by(PIECE) {
        let part = &mut values[..PIECE.min(n - first)];
        base.read_finite_f64(first, part)?;
        check_range(tensor, part)?;
        bytes.clear();
        rounding::append(part, tensor.dtype, &mut bytes)?;
        take(&bytes)?;
    }
    Ok(None)
}

/// Says how a weight changed, and what rounding it cost.
fn measured(tensor: &StreamedTensor, merged: &[f64], before: &[f64]) -> Result<MergedLayer> {
    check_range(tensor, merged)?;
    let errors = || {
        merged
            .iter()
            .map(|value| (rounding::rounded(*value, tensor.dtype) - value).abs())
    };
    let changes = || {
        merged
            .iter()
            .zip(before)
            .map(|(after, before)| (after - before).abs())
    };
    let n = merged.len().max(1) as f64;
    Ok(MergedLayer {
        name: tensor.name.clone(),
        dtype: tensor.dtype.name(),
        max_error: errors().fold(0.0, f64::max),
        mean_error: errors().sum::<f64>() / n,
        max_change: changes().fold(0.0, f64::max),
        mean_change: changes().sum::<f64>() / n,
    })
}

/// Refuses a number that becomes infinite.
fn check_range(tensor: &StreamedTensor, values: &[f64]) -> Result<()> {
    let is_lost = |value: &&f64| !rounding::rounded(**value, tensor.dtype).is_finite();
    match values.iter().find(is_lost) {
        None => Ok(()),
        Some(value) => Err(MergeError::Beyond {
            name: tensor.name.clone(),
            value: *value,
            dtype: tensor.dtype,
        }
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use reparam_formats::checkpoint::Dtype;

    use super::*;

    #[test]
    fn tensors_go_to_files_in_order() {
        let planned = |bytes: &[usize]| {
            let one = |(number, bytes): (usize, &usize)| Planned {
                name: number.to_string(),
                tensor: StreamedTensor {
                    name: number.to_string(),
                    shape: vec![*bytes],
                    dtype: Dtype::U8,
                },
            };
            bytes.iter().enumerate().map(one).collect::<Vec<_>>()
        };
        let sizes = |bytes: &[usize], most| -> Vec<usize> {
            shards(planned(bytes), most).iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(&[4, 4, 4], 12), [3]);
        assert_eq!(sizes(&[4, 4, 4], 8), [2, 1]);
        assert_eq!(sizes(&[40, 4, 4], 8), [1, 2]);
        assert_eq!(sizes(&[], 8), [0; 0]);
    }
}
