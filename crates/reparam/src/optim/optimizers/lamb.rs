//! LAMB: Adam with a trust ratio for every tensor.

use super::AdamW;
use crate::optim::entry::{BETA1, BETA2, TransformEntry, WEIGHT_DECAY, eps, one, optimizer};
use crate::optim::error::Result;
use crate::optim::math::global_norm;
use crate::optim::rules::Placed;
use crate::optim::transform::{GradientTransform, StepContext, Transformed, map_with_parameters};
use crate::parameters::ParameterList;

pub(crate) const ENTRY: TransformEntry = TransformEntry {
    kind: "lamb",
    summary: "Adam with a trust ratio for every tensor",
    formula: "u = r |theta| / |r|,  r = adam(g) + weight_decay theta",
    source: "arXiv 1904.00962, algorithm 2, as in optax",
    optimizer: optimizer(1e-3),
    settings: &[BETA1, BETA2, eps(1e-6), WEIGHT_DECAY],
    build: |settings, _| {
        let adam = AdamW::of(settings, settings.number("weight_decay")?)?;
        one(Lamb { adam })
    },
};

/// Scales Adam's direction of every tensor to the norm of the tensor.
///
/// ```text
/// r = adam(g) + weight_decay * theta
/// u = r * |theta| / |r|              r itself where either norm is zero
/// ```
///
/// # References
///
/// You et al. (arXiv 1904.00962), algorithm 2 with `phi(z) = z`, as optax's `lamb`.
///
/// # Cost
///
/// Two numbers a parameter.
#[derive(Debug, Clone)]
pub struct Lamb {
    adam: AdamW,
}

impl Lamb {
    /// Creates the transform; optax's values are 0.9, 0.999, 1e-6 and 0.
    ///
    /// # Errors
    ///
    /// As [`AdamW::new`].
    pub fn new(beta1: f64, beta2: f64, eps: f64, weight_decay: f64) -> Result<Self> {
        Ok(Self {
            adam: AdamW::new(beta1, beta2, eps, weight_decay)?,
        })
    }
}

impl GradientTransform for Lamb {
    fn name(&self) -> &'static str {
        "lamb"
    }

    fn transform(&mut self, updates: ParameterList, context: &StepContext<'_>) -> Transformed {
        let updates = self.adam.transform(updates, context)?;
        Ok(map_with_parameters(
            updates,
            context,
            |update, parameter| {
                let size = global_norm(std::slice::from_ref(update));
                let weight = global_norm(std::slice::from_ref(parameter));
                if size == 0.0 || weight == 0.0 {
                    update.values.clone()
                } else {
                    update.values.clone() * (weight / size)
                }
            },
        ))
    }

    fn roles(&self) -> Vec<Placed> {
        let mut roles = self.adam.roles();
        for placed in &mut roles {
            placed.name = self.name();
        }
        Placed::relative(roles)
    }

    fn state(&self) -> ParameterList {
        self.adam.state()
    }

    fn load_state(&mut self, state: ParameterList) -> Result<()> {
        self.adam.load_state(state)
    }
}
