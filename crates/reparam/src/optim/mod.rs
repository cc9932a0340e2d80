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
//! A piece is one file, in `transforms/` or, if it is a whole optimizer, in `optimizers/`, and one line
//! in the list of `builtin.rs`. [`Transforms`] is the catalog in which run files find pieces by name,
//! and to which a caller adds its own. `rules/` says which orders are lawful, `state/` how states are kept.
//! Files import from files beside and above them in this order, never from below: `error`, `rules`, `transform`, `state`,
//! `math`, `entry`, `chain`, `transforms/`, `optimizers/`, `builtin`, `optimizer`.
//!
//! Everything works on flat tensors of any float type, so that the laws can be proven in `f64`.
//!
//! Burn's own optimizers are not used: they move a parameter themselves, so that nothing can be put
//! between their direction and the move, and their states are records without names.

mod builtin;
mod chain;
mod entry;
mod error;
mod math;
mod optimizer;
mod optimizers;
mod rules;
mod schedule;
mod state;
#[cfg(test)]
mod tests;
mod transform;
mod transforms;

pub use crate::schema::{
    Chosen as TransformSpec, Fallback, SettingKind, SettingSpec, SettingValue, Settings,
};
pub use chain::{Chain, chain};
pub use entry::{BuildContext, Built, OptimizerEntry, TransformEntry, Transforms};
pub use error::{OptimError, Result};
pub use math::global_norm;
pub use optimizer::{Optimizer, StepReport, StepVariances, load_state, save_state};
pub use optimizers::{
    Adafactor, AdafactorSettings, Adagrad, AdamW, EpsPlacement, Lamb, Lion, LoraFa, Momentum, Muon,
    MuonScale, RmsProp, ScheduleFreeAdamW, Sign,
};
pub use rules::{Placed, Role};
pub use schedule::{Decay, DecayShape, Schedule};
pub use transform::{GradientTransform, StepContext, Transformed};
pub use transforms::{
    Accumulate, AdaptiveScale, Centralize, ClipByGlobalNorm, ClipByUnitNorm, ClipByValue, Ema,
    Freeze, Galore, GradientMask, Group, LoraPlus, MaskRule, Riemannian, Sam, Scale, WeightDecay,
};
