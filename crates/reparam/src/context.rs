//! What a forward pass needs to know besides its input.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use burn::module::ParamId;
use reparam_ops::{DropoutKey, LinearPlan};

use crate::methods::name_key;

/// Says whether a forward pass trains, and which one of the run it is.
#[derive(Debug, Clone, Default)]
pub struct ForwardContext {
    training: Option<(u64, u64)>,
    /// The plans that were made, by a tensor of the method on that layer alone.
    plans: Option<Arc<Mutex<HashMap<ParamId, LinearPlan>>>>,
}

impl ForwardContext {
    /// Returns the context of a pass without dropout.
    pub fn inference() -> Self {
        Self::default()
    }

    /// Returns the context of many passes without dropout over a model that does not change meanwhile, as in generation.
    ///
    /// Plans are made in the first pass and kept: that of DoRA takes the norms of all rows of the weight, which is more work
    /// than the layer has with a single token. They take memory as long as the context lives: VeRA's, the factors with their
    /// diagonals, `4 rank (d_in + d_out)` bytes a layer.
    pub fn generation() -> Self {
        Self {
            training: None,
            plans: Some(Arc::default()),
        }
    }

    /// Returns the context of a training pass.
    ///
    /// `seed` is the run's, `pass` counts the forward passes of the run: together they determine
    /// every dropout mask.
    pub fn training(seed: u64, pass: u64) -> Self {
        Self {
            training: Some((seed, pass)),
            plans: None,
        }
    }

    /// Returns the plan that is kept under `id`, or makes one.
    pub(crate) fn plan(
        &self,
        id: Option<ParamId>,
        make: impl FnOnce() -> Option<LinearPlan>,
    ) -> Option<LinearPlan> {
        let (Some(plans), Some(id)) = (&self.plans, id) else {
            return make();
        };
        let lock = || plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = lock().get(&id) {
            return Some(plan.clone());
        }
        let plan = make()?;
        lock().insert(id, plan.clone());
        Some(plan)
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
