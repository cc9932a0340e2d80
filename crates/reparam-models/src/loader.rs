//! Filling modules from a checkpoint.

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData, bf16};
use reparam::Linear;
use reparam_formats::checkpoint::{Checkpoint, TensorReader};
use reparam_ops::fused::{FrozenWeight, WeightNumbers};

use crate::layers::{Embedding, RmsNorm};
use crate::{ModelError, Precision};

/// Name and shape of a weight, and the bias of its layer.
type Described = (String, [usize; 2], Option<Param<Tensor<1>>>);

/// Takes tensors out of a checkpoint by name and keeps count of what was asked for.
///
/// A tensor that is missing or mis-shaped is replaced by zeros for the moment, so that
/// [`finish`](Self::finish) can report all problems at once.
pub(crate) struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    device: &'a Device,
    precision: Precision,
    asked: Vec<(String, Vec<usize>)>,
    unusable: Option<ModelError>,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(
        checkpoint: &'a Checkpoint,
        device: &'a Device,
        precision: Precision,
    ) -> Self {
        Self {
            checkpoint,
            device,
            precision,
            asked: Vec::new(),
            unusable: None,
        }
    }

    fn tensor<const D: usize>(&mut self, name: String, shape: [usize; D]) -> Param<Tensor<D>> {
        let values = match self.checkpoint.expect(&name, &shape) {
            Ok(view) => {
                if self.unusable.is_none() {
                    self.unusable = self
                        .checkpoint
                        .check_finite(&name)
                        .err()
                        .map(ModelError::from);
                }
                match view.to_f32_vec() {
                    Ok(values) => values,
                    Err(error) => {
                        self.unusable.get_or_insert(error.into());
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
        let name = format!("{name}.weight");
        match self.precision.packed() {
            None => Embedding {
                weight: self.tensor(name, [rows, width]),
                frozen: None,
            },
            Some(numbers) => {
                let described = [(name, [rows, width], None)];
                let Linear { weight, frozen, .. } = self.packed(&described, numbers).remove(0);
                Embedding { weight, frozen }
            }
        }
    }

    pub(crate) fn rms_norm(&mut self, name: &str, width: usize, eps: f64) -> RmsNorm {
        RmsNorm {
            weight: self.tensor(format!("{name}.weight"), [width]),
            eps,
        }
    }

    pub(crate) fn linear(&mut self, name: &str, d_out: usize, d_in: usize, bias: bool) -> Linear {
        let [linear] = self.linears([(name, d_out)], d_in, bias);
        linear
    }

    /// Layers that have the same input, by name and width of the output; packed, they share one stack of weights.
    pub(crate) fn linears<const N: usize>(
        &mut self,
        layers: [(&str, usize); N],
        d_in: usize,
        bias: bool,
    ) -> [Linear; N] {
        let mut described = layers.map(|(name, d_out)| {
            let weight = format!("{name}.weight");
            let bias = bias.then(|| self.tensor(format!("{name}.bias"), [d_out]));
            Some((weight, [d_out, d_in], bias))
        });
        match self.precision.packed() {
            None => described.map(|layer| {
                let (name, shape, bias) = layer.expect("all are there");
                Linear {
                    weight: self.tensor(name, shape),
                    bias,
                    frozen: None,
                }
            }),
            Some(numbers) => {
                let described = described
                    .each_mut()
                    .map(|layer| layer.take().expect("once"));
                let layers = self.packed(&described, numbers);
                layers
                    .try_into()
                    .unwrap_or_else(|_| unreachable!("one for each"))
            }
        }
    }

    /// Packs weights as one stack, converting them a few rows at a time.
    fn packed(&mut self, layers: &[Described], numbers: WeightNumbers) -> Vec<Linear> {
        let shapes: Vec<[usize; 2]> = layers.iter().map(|(_, shape, _)| *shape).collect();
        let mut unusable: Option<ModelError> = None;
        // What is missing or mis-shaped is reported by `finish`.
        let mut readers: Vec<Option<TensorReader>> = Vec::new();
        for (name, shape, _) in layers {
            let reader = match self.checkpoint.expect(name, shape) {
                Ok(_) => self.checkpoint.reader(name).map(Some),
                Err(_) => Ok(None),
            };
            readers.push(reader.unwrap_or_else(|error| {
                unusable.get_or_insert(error.into());
                None
            }));
            self.asked.push((name.clone(), shape.to_vec()));
        }
        let packed = FrozenWeight::pack(&shapes, numbers, |part, range, to| {
            let Some(reader) = &mut readers[part] else {
                to.fill(0.0);
                return;
            };
            let name = &layers[part].0;
            let checked = reader
                .read_f32(to)
                .map_err(ModelError::from)
                .and_then(|()| {
                    let is_usable = |x: &f32| bf16::from_f32(*x).is_finite();
                    let Some(at) = to.iter().position(|x| !is_usable(x)) else {
                        return Ok(());
                    };
                    // Asked only to name the element.
                    self.checkpoint.check_finite(name)?;
                    Err(ModelError::BeyondBf16 {
                        name: name.clone(),
                        index: range.start + at,
                        value: to[at],
                    })
                });
            if let Err(error) = checked {
                unusable.get_or_insert(error);
                readers[part] = None;
            }
        });
        if let Some(error) = unusable {
            self.unusable.get_or_insert(error);
        }
        packed
            .into_iter()
            .zip(layers)
            .map(|(weight, (_, _, bias))| {
                let bias = bias.as_ref().map(Param::val);
                Linear::frozen(weight, bias, self.device)
            })
            .collect()
    }

    /// Checks that the checkpoint held exactly what was asked for, and only finite numbers.
    ///
    /// `ignored` says which extra tensors are harmless.
    pub(crate) fn finish(self, ignored: impl Fn(&str) -> bool) -> Result<(), ModelError> {
        self.checkpoint.check_tensors(&self.asked, ignored)?;
        match self.unusable {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}
