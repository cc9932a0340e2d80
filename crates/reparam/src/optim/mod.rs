//! The two-step update: transform the gradient, then move the parameters.
//!
//! ```text
//! 1. gradient update     u     = transform_n(... transform_1(dL/dtheta))
//! 2. parameter update    theta <- theta - eta_t u
//! ```
//!
//! A [`GradientTransform`] is one piece of step 1: the method's own scale `lambda = 1/sqrt(T)`,
//! clipping, momentum, Adam. Pieces compose by [`chain()`] in the order in which they are listed; an
//! order that would break what a piece promises is refused. Each has a name and a state of named
//! tensors that [`save_state`] writes and [`load_state`] reads back to the same bits. Step 2 is the
//! same for all of them; `eta_t` is the learning rate times its [`Schedule`].
//!
//! A piece is one file here and one line in [`TRANSFORMS`], where run files find it by name.
//!
//! Everything works on flat tensors of any float type, so that the laws can be proven in `f64`.
//!
//! Burn's own optimizers are not used: they move a parameter themselves, so that nothing can be put
//! between their direction and the move, and their states are records without names.

mod accumulate;
mod adafactor;
mod adagrad;
mod adamw;
mod adaptive_scale;
mod agc;
mod centralize;
mod chain;
mod clip;
mod ema;
mod error;
mod file;
mod freeze;
mod galore;
mod group;
mod lamb;
mod linalg;
mod lion;
mod lora_fa;
mod lora_plus;
mod mask;
mod muon;
mod noise;
mod optimizer;
mod order;
mod pairs;
mod riemannian;
mod rmsprop;
mod sam;
mod scale;
mod schedule;
mod schedule_free;
mod sgd;
mod sign;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod weight_decay;

use std::fmt::Debug;

pub use accumulate::Accumulate;
pub use adafactor::{Adafactor, AdafactorSettings};
pub use adagrad::Adagrad;
pub use adamw::{AdamW, EpsPlacement};
pub use adaptive_scale::AdaptiveScale;
pub use agc::ClipByUnitNorm;
pub use centralize::Centralize;
pub use chain::{Chain, chain};
pub use clip::{ClipByGlobalNorm, ClipByValue, global_norm};
pub use ema::Ema;
pub use error::OptimError;
pub use file::{load_state, save_state};
pub use freeze::Freeze;
pub use galore::Galore;
pub use group::Group;
pub use lamb::Lamb;
pub use lion::Lion;
pub use lora_fa::LoraFa;
pub use lora_plus::LoraPlus;
pub use mask::{GradientMask, MaskRule};
pub use muon::{Muon, MuonScale};
pub use optimizer::{Optimizer, StepReport, StepVariances};
pub use order::{Placed, Role};
pub use riemannian::Riemannian;
pub use rmsprop::RmsProp;
pub use sam::Sam;
pub use scale::Scale;
pub use schedule::{Decay, DecayShape, Schedule};
pub use schedule_free::ScheduleFreeAdamW;
pub use sgd::Momentum;
pub use sign::Sign;
pub use table::{
    BuildContext, Fallback, OptimizerEntry, SettingKind, SettingSpec, SettingValue, Settings,
    TRANSFORMS, TransformEntry, TransformSpec, optimizer_entries, transform_entry,
};
pub use weight_decay::WeightDecay;

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
    ) -> Result<ParameterList, OptimError>;

    /// Says what the piece is in a chain, for the rules about order; with the pieces inside it, if
    /// it has any.
    fn roles(&self) -> Vec<Placed>;

    /// Returns the state as named tensors; empty for a stateless transform.
    fn state(&self) -> ParameterList {
        Vec::new()
    }

    /// Restores what [`state`](Self::state) returned.
    fn load_state(&mut self, state: ParameterList) -> Result<(), OptimError> {
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
    fn check(&self, _parameters: &[NamedTensor], _horizon: u64) -> Result<(), OptimError> {
        Ok(())
    }

    /// Returns the point at which the gradient has to be taken instead of at the parameters, given
    /// the gradient there; `None` for a transform that needs no second gradient.
    fn probe(
        &mut self,
        _gradients: &[NamedTensor],
        _context: &StepContext<'_>,
    ) -> Result<Option<ParameterList>, OptimError> {
        Ok(None)
    }

    /// Is told where the parameters are after the move.
    fn moved(&mut self, _parameters: &[NamedTensor]) -> Result<(), OptimError> {
        Ok(())
    }

    /// Returns the parameters that are to be evaluated and saved in place of the trained ones, such
    /// as their running mean; `None` if they are the trained ones.
    fn evaluated(&self, _parameters: &[NamedTensor]) -> Option<ParameterList> {
        None
    }
}

/// Applies a function to every update and its parameter.
fn map_with_parameters(
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
fn map(
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
