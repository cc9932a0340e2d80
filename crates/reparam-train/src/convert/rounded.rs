//! What rounding the weights of a model costs it.

use std::collections::BTreeMap;
use std::path::Path;

use reparam_formats::atomic::AtomicDirectory;
use reparam_formats::checkpoint::Dtype;
use reparam_formats::gguf::{GgufDtype, GgufModel, RoundedWeights};
use reparam_formats::hub::HubOptions;
use reparam_formats::rounding;
use reparam_formats::safetensors::{StreamedTensor, write_streamed};
use reparam_formats::weights::Weights as _;

use crate::config::Precision;
use crate::merge::{Agreement, MergedWeights, Opened, compare_sessions};
use crate::task::{DataRequest, ModelRequest};
use crate::{Result, Session, Stop, TrainError};

/// How many numbers are written at a time.
const PIECE: usize = 1 << 18;

/// Compares a model, with its adapter beside it if it has one, with what a file of it in a type computes, on texts.
///
/// The rounded weights are written in f32 to a directory beside the output, which is gone when this returns.
pub(super) fn compare(
    request: &ModelRequest,
    (opened, model, dtype): (&Opened, &GgufModel, GgufDtype),
    (data, sequence_length): (&DataRequest, usize),
    (output, hub): (&Path, &HubOptions),
    stop: Stop<'_>,
) -> Result<Agreement> {
    let name = output.file_name().unwrap_or_default().to_string_lossy();
    let directory = AtomicDirectory::create(&output.with_file_name(format!("{name}.rounded")))?;
    let mut weights = opened.weights(request)?;
    write(&mut weights, (model, dtype), directory.path(), stop)?;
    let config = opened.config(Some(Dtype::F32), weights.unties())?;
    opened.write_beside(directory.path(), &config)?;
    let open = |model: ModelRequest| {
        let request = ModelRequest {
            precision: Precision::F32,
            ..model
        };
        Session::open_request(&request, hub)
    };
    let whole = open(request.clone())?;
    let rounded = open(ModelRequest {
        model: directory.path().display().to_string(),
        adapter: None,
        ..request.clone()
    })?;
    compare_sessions(&whole, &rounded, data, sequence_length, stop)
}

fn write(
    weights: &mut MergedWeights<'_>,
    (model, dtype): (&GgufModel, GgufDtype),
    directory: &Path,
    stop: Stop<'_>,
) -> Result<()> {
    let (mut names, mut tensors) = (Vec::new(), Vec::new());
    for (name, stored) in weights.names() {
        let base = weights.of_base(&name)?;
        // A table of whole numbers is no weight, and is drawn anew where it is needed.
        if base.dtype.is_float() {
            tensors.push(StreamedTensor {
                name: stored,
                shape: base.shape.to_vec(),
                dtype: Dtype::F32,
            });
            names.push(name);
        }
    }
    let mut rounded = RoundedWeights::new(model, weights, dtype)?;
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let mut names = names.into_iter();
    write_streamed(
        &directory.join("model.safetensors"),
        &tensors,
        &metadata,
        |tensor, take| {
            stop.check()?;
            let name = names.next().unwrap_or_default();
            let n: usize = tensor.shape.iter().product();
            let mut values = vec![0.0; PIECE.min(n)];
            let mut bytes = Vec::new();
            for first in (0..n).step_by(PIECE) {
                let part = &mut values[..PIECE.min(n - first)];
                rounded.read(&name, first, part)?;
                bytes.clear();
                rounding::append(part, tensor.dtype, &mut bytes)?;
                take(&bytes)?;
            }
            Ok::<_, TrainError>(())
        },
    )?;
    Ok(())
}
