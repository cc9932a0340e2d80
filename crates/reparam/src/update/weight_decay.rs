//! Weight decay as part of the gradient.

use super::{GradientTransform, StepContext, UpdateError};
use crate::parameters::ParameterList;

/// Adds a multiple of the parameters to the updates.
///
/// ```text
/// u = g + weight_decay * theta
/// ```
///
/// Placed before momentum this is L2 regularization, as in PyTorch's SGD; placed last in the chain
/// it is decoupled weight decay, multiplied by the learning rate as in PyTorch's AdamW.
///
/// # References
///
/// Loshchilov and Hutter, *Decoupled Weight Decay Regularization* (arXiv 1711.05101).
#[derive(Debug, Clone)]
pub struct WeightDecay {
    weight_decay: f64,
}

impl WeightDecay {
    /// Creates the transform; `weight_decay` must not be negative.
    pub fn new(weight_decay: f64) -> Result<Self, UpdateError> {
        if weight_decay.is_finite() && weight_decay >= 0.0 {
            Ok(Self { weight_decay })
        } else {
            Err(UpdateError::Setting {
                setting: "weight_decay",
                expected: "zero or a positive number",
                found: weight_decay.to_string(),
            })
        }
    }
}

impl GradientTransform for WeightDecay {
    fn name(&self) -> &'static str {
        "weight_decay"
    }

    fn transform(
        &mut self,
        updates: ParameterList,
        context: &StepContext<'_>,
    ) -> Result<ParameterList, UpdateError> {
        if self.weight_decay == 0.0 {
            return Ok(updates);
        }
        Ok(updates
            .into_iter()
            .zip(context.parameters)
            .map(|(update, parameter)| {
                let values = update.values.clone() + parameter.values.clone() * self.weight_decay;
                update.with_values(values)
            })
            .collect())
    }
}
