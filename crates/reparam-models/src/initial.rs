//! What a new model starts from.

use std::sync::Arc;

use burn::tensor::Device;
use reparam::methods::{normal, uniform};

use crate::architecture::{Architecture, StepsSpec};
use crate::loader::{Init, Loader, Planned};
use crate::transformer::Transformer;
use crate::{CausalLm, MaskedLm, ModelError, Seq2SeqLm};

/// Which tensors a new model has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NewModel {
    /// Those of a [`CausalLm`].
    Causal,
    /// Those of a [`MaskedLm`].
    Masked,
    /// Those of a [`Seq2SeqLm`].
    Seq2Seq,
    /// Those of the body in a class with a head, which [`Predictor`](crate::Predictor) draws itself.
    Body,
}

/// A tensor of a new model.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTensor {
    planned: Planned,
}

impl NewTensor {
    /// Returns its name in a checkpoint.
    pub fn name(&self) -> &str {
        &self.planned.name
    }

    /// Returns its shape in a checkpoint.
    pub fn shape(&self) -> &[usize] {
        &self.planned.shape
    }

    /// Draws its numbers, which follow from `seed` and its name alone.
    pub fn values(&self, seed: u64) -> Vec<f32> {
        let Planned { name, shape, init } = &self.planned;
        let len = shape.iter().product();
        match *init {
            Init::Zeros => vec![0.0; len],
            Init::Ones => vec![1.0; len],
            Init::Normal(std) => normal(len, std, seed, name),
            Init::Uniform(bound) => uniform(len, bound, seed, name),
            Init::LogCounts => {
                let width = shape.last().copied().unwrap_or(1).max(1);
                let count = |place: usize| (place % width + 1) as f64;
                (0..len).map(|place| count(place).ln() as f32).collect()
            }
            Init::Steps(steps) => {
                let drawn = uniform(len, 1.0, seed, name).into_iter();
                drawn
                    .map(|x| before_softplus(steps, f64::from(x)))
                    .collect()
            }
        }
    }
}

/// The number whose softplus is a step, of a number in -1..1.
fn before_softplus(steps: StepsSpec, x: f64) -> f32 {
    let (least, most) = (steps.least.ln(), steps.most.ln());
    let step = (least + (most - least) * (x + 1.0) / 2.0).exp();
    let step = step.max(steps.floor);
    (step + (-(-step).exp_m1()).ln()) as f32
}

impl Architecture {
    /// Returns the tensors of a new model, as [`init`](Self::init) says what they start from.
    ///
    /// What differs from transformers: the vector of a padding token is drawn, too, for batches have no padding; the norms of T5 begin
    /// with 1 whatever `initializer_factor` is; the normal distribution of ModernBERT is not cut off at three deviations; the last linear
    /// layer of a Mamba's is normal, with the deviation of a uniform distribution there.
    ///
    /// # Errors
    ///
    /// [`ModelError::NotCausal`], [`ModelError::IsSeq2Seq`], [`ModelError::NoSuchHead`], and what [`check`](Self::check) finds.
    pub fn new_tensors(&self, of: NewModel) -> Result<Vec<NewTensor>, ModelError> {
        let architecture = Arc::new(self.clone());
        let device = Device::flex();
        let planned = match of {
            NewModel::Causal if self.seq2seq.is_none() && !self.is_causal() => {
                return Err(ModelError::NotCausal {
                    model_type: self.model_type.clone(),
                });
            }
            NewModel::Causal => {
                Loader::planned(&device, |loader| CausalLm::build(loader, &architecture))?
            }
            NewModel::Masked => {
                let spec = MaskedLm::head_of(self)?;
                Loader::planned(&device, |loader| {
                    MaskedLm::build(loader, &architecture, &spec, false)
                })?
            }
            NewModel::Seq2Seq => {
                let Some(spec) = self.seq2seq.as_deref() else {
                    return Err(ModelError::NotSeq2Seq {
                        model_type: self.model_type.clone(),
                    });
                };
                self.check()?;
                let spec = Arc::new(spec.clone());
                Loader::planned(&device, |loader| {
                    Ok(Seq2SeqLm::build(loader, &architecture, &spec))
                })?
            }
            NewModel::Body => Loader::planned(&device, |loader| {
                Transformer::load(loader, &architecture, &architecture.prefix)
            })?,
        };
        let tensors = planned.into_iter().map(|planned| NewTensor { planned });
        Ok(tensors.collect())
    }
}
