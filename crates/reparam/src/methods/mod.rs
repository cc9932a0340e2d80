//! Reparameterizations: how an effective weight depends on what is trained.
//!
//! A method is one file here and one line in the list that makes [`METHODS`] and [`AnyMethod`]. It
//! says what it means, as a Burn [`Reparameterization`](burn::module::Reparameterization) that
//! returns the effective weight, and that alone makes it correct on any Burn module. It may also say
//! how to run fast, as a plan for the linear layer.
//!
//! Each has its settings, a type that ends in `Config`, and a function that attaches it. Either
//! freezes all that the method does not train. [`AnyMethod`] holds one of them as a value:
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use reparam::methods::{self, AnyMethod, WeightNormConfig};
//! use reparam::{Linear, parameters};
//!
//! let device = Device::flex().autodiff();
//! let layer = Linear::new(Tensor::<2>::ones([3, 4], &device), None);
//! let method: AnyMethod = WeightNormConfig::default().into();
//! let (layer, _report) = method.attach(layer, 0)?;
//! let names: Vec<String> = parameters::trainable(&layer)
//!     .into_iter()
//!     .map(|tensor| tensor.name)
//!     .collect();
//! assert_eq!(names, ["weight_v", "weight_g"]);
//!
//! // After every step of the optimizer, for methods that follow the training:
//! let layer = methods::after_step(layer);
//! # let _ = layer;
//! # Ok::<(), methods::MethodError>(())
//! ```
//!
//! One weight carries one method, with one exception: weight normalization may be attached to a
//! model that carries LoRA, and then both are trained ([`Chain`]).

mod after_step;
mod attach;
mod chain;
mod constant;
mod error;
mod identity;
mod init;
mod lora;
mod lora_peft;
mod matrix;
mod names;
mod overparameterized;
mod scale;
mod sigma_reparam;
mod targets;
#[cfg(test)]
mod tests;
mod theta_file;
mod weight_norm;
mod weight_norm_data;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use reparam_ops::LinearPlan;
use reparam_ops::fused::FusedLowRank;

pub use after_step::after_step;
pub use attach::{AttachReport, AttachedModule};
pub use chain::Chain;
pub use constant::Constant;
pub use error::MethodError;
pub use identity::{Identity, IdentityConfig, attach_identity};
pub(crate) use init::uniform;
pub use lora::{FactorInit, Lora, LoraConfig, attach_lora};
pub use lora_peft::{attach_adapter, to_adapter};
pub use names::ParameterName;
pub(crate) use names::{base_name, parameter_name};
pub use overparameterized::{Overparameterized, OverparameterizedConfig, attach_overparameterized};
pub use scale::{Scale, ScaleConfig, attach_scale};
pub use sigma_reparam::{GammaInit, SigmaReparam, SigmaReparamConfig, attach_sigma_reparam};
pub(crate) use targets::REPARAMETERIZATION;
pub use targets::{Biases, LinearModule, Selection, WeightLayout, linear_modules};
pub use theta_file::{load_theta, save_theta};
pub use weight_norm::{WeightNorm, WeightNormConfig, attach_weight_norm};
pub use weight_norm_data::initialize_from_data;

use crate::ForwardContext;

/// What the program knows about a method.
#[derive(Debug)]
pub struct Method {
    /// The name in a run file.
    pub kind: &'static str,
    /// One line that says what it is.
    pub summary: &'static str,
    /// The effective weight.
    pub formula: &'static str,
    /// The settings of a run file's `[method]` section that matter most.
    pub settings: &'static [Setting],
    /// Whether the effective weight can be stored in place of the base.
    pub mergeable: bool,
    /// Where it comes from.
    pub source: &'static str,
    /// The tensors it trains or keeps, and their names in gradients, states and files.
    pub parameters: &'static [ParameterName],
    /// Runs the linear layer if this method is attached to the weight.
    run: fn(&Tensor<2>, &Param<Tensor<2>>, &ForwardContext) -> Option<Tensor<2>>,
    /// Advances what it keeps but does not train, once after each step.
    after_step: Option<after_step::AfterStep>,
}

/// A key of a run file's `[method]` section.
#[derive(Debug)]
pub struct Setting {
    /// The key.
    pub key: &'static str,
    /// The value without the key, as TOML.
    pub default: &'static str,
    /// What it says, in a line.
    pub meaning: &'static str,
}

/// The settings of a method, which know how to attach it.
pub trait AttachMethod {
    /// The method's name in [`METHODS`].
    const KIND: &'static str;

    /// Attaches the method to a model and freezes what it does not train.
    ///
    /// Random initial values come from `seed` and the tensors' names.
    ///
    /// # Errors
    ///
    /// Fails when a setting is out of range, nothing is selected, or the model carries a method that
    /// this one cannot be composed with.
    fn attach<M: Module>(&self, model: M, seed: u64) -> Result<(M, AttachReport), MethodError>;
}

/// Makes the table, [`AnyMethod`] and its dispatch from one line a method.
macro_rules! methods {
    ($($(#[$doc:meta])* $variant:ident($config:ty) in $module:ident;)*) => {
        /// Every method.
        pub static METHODS: &[Method] = &[$($module::METHOD),*];

        /// The settings of some method: a method as one value.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum AnyMethod {
            $($(#[$doc])* $variant($config),)*
        }

        impl AnyMethod {
            /// Returns the method's entry in the table.
            pub fn method(&self) -> &'static Method {
                match self {
                    $(Self::$variant(_) => const { &$module::METHOD },)*
                }
            }

            /// Attaches the method: see [`AttachMethod::attach`].
            ///
            /// # Errors
            ///
            /// As the method's own function does.
            pub fn attach<M: Module>(
                &self,
                model: M,
                seed: u64,
            ) -> Result<(M, AttachReport), MethodError> {
                match self {
                    $(Self::$variant(config) => AttachMethod::attach(config, model, seed),)*
                }
            }
        }

        $(impl From<$config> for AnyMethod {
            fn from(config: $config) -> Self {
                Self::$variant(config)
            }
        })*
    };
}

methods! {
    /// Full training of the selected weights.
    Identity(IdentityConfig) in identity;
    /// A constant scale.
    Scale(ScaleConfig) in scale;
    /// Length and direction apart.
    WeightNorm(WeightNormConfig) in weight_norm;
    /// The spectral norm as a trained number.
    SigmaReparam(SigmaReparamConfig) in sigma_reparam;
    /// A sum of branches.
    Overparameterized(OverparameterizedConfig) in overparameterized;
    /// A low-rank product.
    Lora(LoraConfig) in lora;
}

/// Applies a linear layer `y = x W'` by the plan of the method attached to its weight.
///
/// Without a method, or with one that has no plan (a user's own), the effective weight is formed,
/// `[d_out, d_in]`.
pub fn linear(x: Tensor<2>, weight: &Param<Tensor<2>>, context: &ForwardContext) -> Tensor<2> {
    METHODS
        .iter()
        .find_map(|method| (method.run)(&x, weight, context))
        .or_else(|| chain::run(&x, weight, context))
        .unwrap_or_else(|| reparam_ops::linear(x, weight.val(), LinearPlan::Dense))
}

/// Returns the low-rank factors that are attached to a packed weight; `None` if nothing is.
///
/// No other method can be attached to such a weight.
pub(crate) fn fused_low_rank(
    weight: &Param<Tensor<2>>,
    context: &ForwardContext,
) -> Option<FusedLowRank> {
    lora::fused(weight, context)
}
