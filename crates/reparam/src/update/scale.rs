//! The method's own transform: a constant scale of the gradient.

use super::clip::positive;
use super::{GradientTransform, StepContext, UpdateError};
use crate::parameters::ParameterList;

/// Multiplies the gradients by a constant.
///
/// ```text
/// u = lambda g,   lambda = 1 / sqrt(T)  or a given number
/// ```
///
/// With plain gradient descent this is a learning rate of `eta lambda`, and, by the square root
/// law, the same as training `V` in `W = sqrt(lambda) V`. Before a transform that normalizes, such
/// as Adam's, a constant scale cancels but for `eps`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// `lambda = 1 / sqrt(T)`, `T` the planned number of steps.
    ByHorizon,
    /// A given `lambda`.
    By(f64),
}

impl Scale {
    /// Creates the transform with a given factor, which must be positive.
    pub fn by(lambda: f64) -> Result<Self, UpdateError> {
        positive("lambda", lambda)?;
        Ok(Self::By(lambda))
    }

    /// Returns `lambda` for a horizon.
    pub fn lambda(&self, horizon: u64) -> f64 {
        match self {
            Self::ByHorizon => 1.0 / (horizon as f64).sqrt(),
            Self::By(lambda) => *lambda,
        }
    }
}

impl GradientTransform for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn transform(
        &mut self,
        updates: ParameterList,
        context: &StepContext<'_>,
    ) -> Result<ParameterList, UpdateError> {
        let lambda = self.lambda(context.horizon);
        Ok(updates
            .into_iter()
            .map(|update| {
                let values = update.values.clone() * lambda;
                update.with_values(values)
            })
            .collect())
    }
}
