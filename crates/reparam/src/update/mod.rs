//! The two-step update: transform the gradient, then move the parameters.
//!
//! ```text
//! 1. gradient update     u     = transform_n(... transform_1(dL/dtheta))
//! 2. parameter update    theta <- theta - eta_t u
//! ```
//!
//! A [`GradientTransform`] is one piece of step 1: clipping, the method's own scale
//! `lambda = 1/sqrt(T)`, momentum, Adam. Transforms compose in the order in which they are listed,
//! and each has a name and a state of named tensors. Step 2 is the same for all of them; `eta_t`
//! is the learning rate times its [`Schedule`].
//!
//! Everything works on flat tensors of any float type, so that the laws can be proven in `f64`.

mod adamw;
mod clip;
mod error;
mod optimizer;
mod scale;
mod schedule;
mod sgd;
mod state;
#[cfg(test)]
mod tests;
mod weight_decay;

use std::fmt::Debug;

pub use adamw::AdamW;
pub use clip::{ClipByGlobalNorm, ClipByValue, global_norm};
pub use error::UpdateError;
pub use optimizer::{Optimizer, StepReport};
pub use scale::Scale;
pub use schedule::{Decay, Schedule};
pub use sgd::Momentum;
pub use weight_decay::WeightDecay;

use crate::parameters::ParameterList;

/// What a transform may look at besides the gradients.
#[derive(Debug)]
pub struct StepContext<'a> {
    /// The number of this step, from 1.
    pub step: u64,
    /// The planned number of steps, `T`.
    pub horizon: u64,
    /// The current parameters, in the gradients' order.
    pub parameters: &'a ParameterList,
}

/// One piece of the gradient update.
pub trait GradientTransform: Debug + Send {
    /// Returns the name, which prefixes the names of its state.
    fn name(&self) -> &'static str;

    /// Turns the gradients, or what earlier transforms made of them, into updates.
    ///
    /// Names, shapes and order stay as they are.
    fn transform(
        &mut self,
        updates: ParameterList,
        context: &StepContext<'_>,
    ) -> Result<ParameterList, UpdateError>;

    /// Returns the state as named tensors; empty for a stateless transform.
    fn state(&self) -> ParameterList {
        Vec::new()
    }

    /// Restores what [`state`](Self::state) returned.
    fn load_state(&mut self, state: ParameterList) -> Result<(), UpdateError> {
        match state.first() {
            None => Ok(()),
            Some(tensor) => Err(UpdateError::UnexpectedState {
                transform: self.name(),
                name: tensor.name.clone(),
            }),
        }
    }
}
