//! One piece of the gradient update.

use std::fmt::Debug;

use super::error::{OptimError, Result};
use super::rules::Placed;
use crate::parameters::{NamedTensor, ParameterList};

/// What a transform may look at besides the gradients.
#[derive(Debug, Clone, Copy)]
pub struct StepContext<'a> {
    /// The number of this step, from 1.
    pub step: u64,
    /// The planned number of steps, `T`.
    pub horizon: u64,
    /// The learning rate that will move the parameters in this step.
    pub learning_rate: f64,
    /// The current parameters, in the gradients' order.
    pub parameters: &'a [NamedTensor],
}

/// What a transform makes of gradients.
pub type Transformed = Result<ParameterList>;

/// One piece of the gradient update.
pub trait GradientTransform: Debug + Send {
    /// Returns the name, which prefixes the names of its state.
    fn name(&self) -> &'static str;

    /// Turns the gradients, or what earlier transforms made of them, into updates.
    ///
    /// Names, shapes and order stay as they are.
    fn transform(&mut self, updates: ParameterList, context: &StepContext<'_>) -> Transformed;

    /// Says what the piece is in a chain, for the rules about order; with the pieces inside it, if
    /// it has any.
    fn roles(&self) -> Vec<Placed>;

    /// Returns the state as named tensors; empty for a stateless transform.
    fn state(&self) -> ParameterList {
        Vec::new()
    }

    /// Restores what [`state`](Self::state) returned.
    fn load_state(&mut self, state: ParameterList) -> Result<()> {
        match state.first() {
            None => Ok(()),
            Some(tensor) => Err(OptimError::UnexpectedState {
                transform: self.name(),
                name: tensor.name.clone(),
            }),
        }
    }

    /// Checks before the first step that the transform can work on these parameters, for so many
    /// steps.
    fn check(&self, _parameters: &[NamedTensor], _horizon: u64) -> Result<()> {
        Ok(())
    }

    /// Returns the point at which the gradient has to be taken instead of at the parameters, given
    /// the gradient there; `None` for a transform that needs no second gradient.
    fn probe(
        &mut self,
        _gradients: &[NamedTensor],
        _context: &StepContext<'_>,
    ) -> Result<Option<ParameterList>> {
        Ok(None)
    }

    /// Is told where the parameters are after the move.
    fn moved(&mut self, _parameters: &[NamedTensor]) -> Result<()> {
        Ok(())
    }

    /// Returns the parameters that are to be evaluated and saved in place of the trained ones, such
    /// as their running mean; `None` if they are the trained ones.
    fn evaluated(&self, _parameters: &[NamedTensor]) -> Option<ParameterList> {
        None
    }
}

/// The name of a transform, and its one role, which holds for all parameters.
macro_rules! placed {
    ($name:literal, $role:ident) => {
        fn name(&self) -> &'static str {
            $name
        }

        fn roles(&self) -> Vec<$crate::optim::rules::Placed> {
            use $crate::optim::rules::{Placed, Role};
            Placed::everywhere($name, Role::$role)
        }
    };
}
pub(crate) use placed;

/// Applies a function to every update and its parameter.
pub(crate) fn map_with_parameters(
    updates: ParameterList,
    context: &StepContext<'_>,
    mut new_values: impl FnMut(&NamedTensor, &NamedTensor) -> burn::tensor::Tensor<1>,
) -> ParameterList {
    updates
        .into_iter()
        .zip(context.parameters)
        .map(|(update, parameter)| {
            let values = new_values(&update, parameter);
            update.with_values(values)
        })
        .collect()
}

/// Applies a function to every update.
pub(crate) fn map(
    updates: ParameterList,
    mut new_values: impl FnMut(&NamedTensor) -> burn::tensor::Tensor<1>,
) -> ParameterList {
    updates
        .into_iter()
        .map(|update| {
            let values = new_values(&update);
            update.with_values(values)
        })
        .collect()
}
