//! Momentum.

use super::{GradientTransform, StepContext, UpdateError, state};
use crate::parameters::ParameterList;

/// Accumulates a velocity, as PyTorch's SGD does.
///
/// ```text
/// v_1 = g_1
/// v_t = momentum * v_{t-1} + g_t
/// u   = v_t                      or, with Nesterov,   u = g_t + momentum * v_t
/// ```
///
/// # References
///
/// Sutskever et al., *On the importance of initialization and momentum in deep learning* (2013).
/// Differs from the paper as PyTorch does: the learning rate multiplies the velocity instead of
/// the gradient inside it.
#[derive(Debug, Clone)]
pub struct Momentum {
    momentum: f64,
    nesterov: bool,
    velocity: ParameterList,
}

impl Momentum {
    /// Creates the transform; `momentum` must be in `(0, 1)`.
    pub fn new(momentum: f64, nesterov: bool) -> Result<Self, UpdateError> {
        if momentum > 0.0 && momentum < 1.0 {
            Ok(Self {
                momentum,
                nesterov,
                velocity: Vec::new(),
            })
        } else {
            Err(UpdateError::Setting {
                setting: "momentum",
                expected: "between 0 and 1",
                found: momentum.to_string(),
            })
        }
    }
}

impl GradientTransform for Momentum {
    fn name(&self) -> &'static str {
        "momentum"
    }

    fn transform(
        &mut self,
        updates: ParameterList,
        context: &StepContext<'_>,
    ) -> Result<ParameterList, UpdateError> {
        state::check(self.name(), &self.velocity, &updates, context)?;
        if self.velocity.is_empty() {
            self.velocity.clone_from(&updates);
        } else {
            for (velocity, gradient) in self.velocity.iter_mut().zip(&updates) {
                velocity.values = velocity.values.clone() * self.momentum + gradient.values.clone();
            }
        }
        if !self.nesterov {
            return Ok(self.velocity.clone());
        }
        Ok(updates
            .into_iter()
            .zip(&self.velocity)
            .map(|(gradient, velocity)| {
                let values = gradient.values.clone() + velocity.values.clone() * self.momentum;
                gradient.with_values(values)
            })
            .collect())
    }

    fn state(&self) -> ParameterList {
        state::prefixed("velocity", &self.velocity)
    }

    fn load_state(&mut self, state: ParameterList) -> Result<(), UpdateError> {
        let mut state = state::Loaded::new(self.name(), state);
        self.velocity = state.take_group("velocity");
        state.finish()
    }
}
