//! Reparameterizations: how an effective weight depends on what is trained.
//!
//! A method is one file here and one line in [`METHODS`]. It says what it means, as a Burn
//! [`Reparameterization`](burn::module::Reparameterization) that returns the effective weight, and
//! that alone makes it correct on any Burn module. It may also say how to run fast, as a plan for
//! the linear layer.

mod error;
mod init;
mod lora;
mod lora_peft;
mod targets;
#[cfg(test)]
mod tests;

use burn::module::Param;
use burn::tensor::Tensor;
use reparam_ops::LinearPlan;

pub use error::PhiError;
pub use lora::{
    AttachReport, AttachedModule, FactorInit, Lora, LoraConfig, WeightLayout, attach_lora,
};
pub use lora_peft::{attach_adapter, to_adapter};
pub use targets::{LinearModule, linear_modules};

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
    /// The trainable tensors: what a path inside the module ends in, and what that is in PEFT.
    parameters: &'static [(&'static str, &'static str)],
    /// Runs the linear layer if this method is attached to the weight.
    run: fn(&Tensor<2>, &Param<Tensor<2>>, &ForwardContext) -> Option<Tensor<2>>,
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

/// Every method.
pub static METHODS: &[Method] = &[lora::METHOD];

/// Applies a linear layer `y = x W'` by the plan of the method attached to its weight.
///
/// Without a method, or with one that has no plan (a user's own), the effective weight is formed.
pub fn linear(x: Tensor<2>, weight: &Param<Tensor<2>>, context: &ForwardContext) -> Tensor<2> {
    METHODS
        .iter()
        .find_map(|method| (method.run)(&x, weight, context))
        .unwrap_or_else(|| reparam_ops::linear(x, weight.val(), LinearPlan::Dense))
}

/// Returns the public name of a parameter, given its path through the module.
///
/// Methods live inside the weight they transform (`q_proj.weight.lora.lora_a`); checkpoints and
/// PEFT put them beside it (`q_proj.lora_A.weight`).
pub(crate) fn parameter_name(path: &str) -> String {
    METHODS
        .iter()
        .flat_map(|method| method.parameters)
        .find_map(|(inner, public)| Some(format!("{}{public}", path.strip_suffix(inner)?)))
        .unwrap_or_else(|| path.to_owned())
}
