//! Filling modules from a checkpoint.

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use reparam::Linear;
use reparam_formats::FormatError;
use reparam_formats::checkpoint::Checkpoint;

use crate::ModelError;
use crate::layers::{Embedding, RmsNorm};

/// Takes tensors out of a checkpoint by name and keeps count of what was asked for.
///
/// A tensor that is missing or mis-shaped is replaced by zeros for the moment, so that
/// [`finish`](Self::finish) can report all problems at once.
pub(crate) struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    device: &'a Device,
    asked: Vec<(String, Vec<usize>)>,
    unusable: Option<FormatError>,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(checkpoint: &'a Checkpoint, device: &'a Device) -> Self {
        Self {
            checkpoint,
            device,
            asked: Vec::new(),
            unusable: None,
        }
    }

    fn tensor<const D: usize>(&mut self, name: String, shape: [usize; D]) -> Param<Tensor<D>> {
        let values = match self.checkpoint.expect(&name, &shape) {
            Ok(view) => {
                if self.unusable.is_none() {
                    self.unusable = self.checkpoint.check_finite(&name).err();
                }
                match view.to_f32_vec() {
                    Ok(values) => values,
                    Err(error) => {
                        self.unusable.get_or_insert(error);
                        vec![0.0; shape.iter().product()]
                    }
                }
            }
            Err(_) => vec![0.0; shape.iter().product()],
        };
        self.asked.push((name, shape.to_vec()));
        let data = TensorData::new(values, shape);
        // A loaded model is frozen; methods say what is trained.
        Param::from_tensor(Tensor::from_data(data, self.device)).set_require_grad(false)
    }

    pub(crate) fn embedding(&mut self, name: &str, rows: usize, width: usize) -> Embedding {
        Embedding {
            weight: self.tensor(format!("{name}.weight"), [rows, width]),
        }
    }

    pub(crate) fn rms_norm(&mut self, name: &str, width: usize, eps: f64) -> RmsNorm {
        RmsNorm {
            weight: self.tensor(format!("{name}.weight"), [width]),
            eps,
        }
    }

    pub(crate) fn linear(&mut self, name: &str, d_out: usize, d_in: usize, bias: bool) -> Linear {
        Linear {
            weight: self.tensor(format!("{name}.weight"), [d_out, d_in]),
            bias: bias.then(|| self.tensor(format!("{name}.bias"), [d_out])),
        }
    }

    /// Checks that the checkpoint held exactly what was asked for, and only finite numbers.
    ///
    /// `ignored` says which extra tensors are harmless.
    pub(crate) fn finish(self, ignored: impl Fn(&str) -> bool) -> Result<(), ModelError> {
        self.checkpoint.check_tensors(&self.asked, ignored)?;
        match self.unusable {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }
}
