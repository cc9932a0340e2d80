//! Reparameterizations: how an effective weight depends on what is trained.
//!
//! A method is one file here and one line in [`Methods::builtin`]. It says what it means, as a map from the stored weight
//! and its own tensors to the effective weight ([`Method::weight`]), and that alone makes it correct on any Burn module. It
//! may also say how to run fast, as a [plan](reparam_ops::LinearPlan) for the linear layer, which the f32 path and
//! the packed one read alike. Its [`MethodSpec`] says the rest once: settings with range and default, tensors, file format.
//!
//! Settings are a type that implements [`MethodConfig`]. [`attach`] puts the method on a model's linear layers and
//! freezes all that it does not train:
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use reparam::methods::{self, WeightNormConfig};
//! use reparam::{Linear, parameters};
//!
//! let device = Device::flex().autodiff();
//! let layer = Linear::new(Tensor::<2>::ones([3, 4], &device), None);
//! let (layer, _report) = methods::attach(layer, &WeightNormConfig::default(), 0)?;
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
//! Several methods on one weight are a list: [`attach_all`] puts each over what those before it return.
//!
//! Burn's traits for modules and reparameterizations are not object-safe. [`Attached`] is the one type that implements
//! them: it holds named tensors and an `Arc<dyn Method>` for each method.

mod after_step;
mod attach;
mod attached;
mod dora;
mod error;
mod factorize;
mod full;
mod ia3;
mod init;
mod lora;
mod low_rank;
mod merge;
mod method;
mod overparameterized;
mod peft;
mod scale;
mod sigma_reparam;
mod spec;
mod target_parameters;
mod targets;
#[cfg(test)]
mod tests;
mod theta_file;
mod token_rows;
mod vera;
mod weight_norm;
mod weight_norm_data;

use burn::module::Param;
use burn::tensor::Tensor;
use reparam_ops::LinearPlan;

pub use after_step::{AfterStep, StateTensors};
pub use attach::{AttachReport, AttachedModule, attach, attach_all, least_numbers};
pub(crate) use attached::FRAME;
pub use attached::{Attached, Theta};
pub use dora::DoraConfig;
pub use error::{MethodError, Result};
pub use factorize::{FactorSize, Factors, factorize};
pub use full::FullConfig;
pub use ia3::Ia3Config;
pub(crate) use init::name_key;
pub use init::{normal, uniform};
pub use lora::{FactorInit, LoraConfig};
pub use merge::Merge;
pub use method::{Base, Layer, Method, MethodConfig, NewTensor, Place, Start};
pub use overparameterized::OverparameterizedConfig;
pub use peft::{AdapterMeta, PeftFormat, attach_adapter, to_adapter};
pub use scale::ScaleConfig;
pub use sigma_reparam::{GammaInit, SigmaReparamConfig};
pub use spec::{Build, BuildContext, MethodSpec, Methods, TensorSpec, after_step};
pub use target_parameters::{ExpertParameter, TARGET_PARAMETERS};
pub use targets::{
    ADAPTER_BIAS, BIAS, Biases, EXCLUDE_MODULES, LAYERS_PATTERN, LAYERS_TO_TRANSFORM, LinearModule,
    Selection, TARGET_MODULES, WeightLayout, linear_modules,
};
pub use theta_file::{load_theta, save_theta};
pub use token_rows::{TrainableRows, attach_rows, trained_rows};
pub use vera::VeraConfig;
pub use weight_norm::WeightNormConfig;
pub use weight_norm_data::initialize_from_data;

use crate::ForwardContext;

/// Applies a linear layer `y = x W'` by the plan of what is attached to its weight, `[d_out, d_in]`.
///
/// Without a plan, the effective weight is formed.
pub fn linear(x: Tensor<2>, weight: &Param<Tensor<2>>, context: &ForwardContext) -> Tensor<2> {
    let (weight, plan) = planned(weight, context);
    reparam_ops::linear(x, weight, plan)
}

/// Returns what a layer multiplies with, `[d_out, d_in]`, and the plan of what is attached; without a plan, the effective
/// weight and nothing to add.
pub fn planned(weight: &Param<Tensor<2>>, context: &ForwardContext) -> (Tensor<2>, LinearPlan) {
    match weight.reparameterization::<Attached>() {
        Some(attached) => attached.planned(weight.base(), context),
        None => (weight.val(), LinearPlan::default()),
    }
}
