//! What a forward pass needs to know besides its input.

use reparam_ops::DropoutKey;

use crate::methods::name_key;

/// Says whether a forward pass trains, and which one of the run it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardContext {
    training: Option<(u64, u64)>,
}

impl ForwardContext {
    /// Returns the context of a pass without dropout.
    pub fn inference() -> Self {
        Self { training: None }
    }

    /// Returns the context of a training pass.
    ///
    /// `seed` is the run's, `pass` counts the forward passes of the run: together they determine
    /// every dropout mask.
    pub fn training(seed: u64, pass: u64) -> Self {
        Self {
            training: Some((seed, pass)),
        }
    }

    /// Returns the probability and the key of the dropout that a model has at `name`; `None` outside training, or if nothing
    /// is dropped out.
    ///
    /// The mask is a function of the run's seed, the pass, the name and the element.
    pub fn dropout(&self, probability: f64, name: &str) -> Option<(f32, DropoutKey)> {
        let key = self.dropout_key(name_key(name))?;
        (probability > 0.0).then_some((probability as f32, key))
    }

    /// Returns the key of a tensor's dropout mask, or `None` outside training.
    pub(crate) fn dropout_key(&self, tensor: u64) -> Option<DropoutKey> {
        self.training
            .map(|(seed, step)| DropoutKey { seed, step, tensor })
    }
}
