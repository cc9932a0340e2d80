//! Pieces of an update that are no whole optimizers.

pub(crate) mod accumulate;
pub(crate) mod adaptive_scale;
pub(crate) mod agc;
pub(crate) mod centralize;
pub(crate) mod clip;
pub(crate) mod ema;
pub(crate) mod freeze;
pub(crate) mod galore;
pub(crate) mod group;
pub(crate) mod lora_plus;
pub(crate) mod mask;
pub(crate) mod riemannian;
pub(crate) mod sam;
pub(crate) mod scale;
pub(crate) mod weight_decay;

pub use accumulate::Accumulate;
pub use adaptive_scale::AdaptiveScale;
pub use agc::ClipByUnitNorm;
pub use centralize::Centralize;
pub use clip::{ClipByGlobalNorm, ClipByValue};
pub use ema::Ema;
pub use freeze::Freeze;
pub use galore::Galore;
pub use group::Group;
pub use lora_plus::LoraPlus;
pub use mask::{GradientMask, MaskRule};
pub use riemannian::Riemannian;
pub use sam::Sam;
pub use scale::Scale;
pub use weight_decay::WeightDecay;
pub(crate) use weight_decay::l2;
