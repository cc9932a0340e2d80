//! The identity: full training of the selected weights.

use burn::module::{Module, Param, Reparameterization};
use burn::tensor::Tensor;

use super::attach::{Start, attach_trained};
use super::targets::{BIAS, Selection, TARGET_MODULES};
use super::{
    AttachMethod, AttachReport, Method, MethodError, ParameterName, WeightLayout, matrix::dense,
};
use crate::ForwardContext;

pub(super) const METHOD: Method = Method {
    kind: "identity",
    summary: "Full training: the selected weights themselves are trained",
    formula: "W = theta",
    settings: &[TARGET_MODULES, BIAS],
    mergeable: true,
    source: "ordinary training, as a reparameterization",
    parameters: &[ParameterName {
        inner: "",
        public: "weight",
        meaning: "theta, the layer's weight",
    }],
    run,
    after_step: None,
};

/// The settings of full training.
///
/// ```text
/// W = theta,   theta starts at W0
/// ```
///
/// # Cost
///
/// One number trained for each of the selected weights' elements.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct IdentityConfig {
    /// Which layers are trained.
    pub selection: Selection,
}

impl AttachMethod for IdentityConfig {
    const KIND: &'static str = METHOD.kind;

    fn attach<M: Module>(&self, model: M, seed: u64) -> Result<(M, AttachReport), MethodError> {
        attach_identity(model, self, seed)
    }
}

/// Marks a weight as trained by itself.
#[derive(Module, Debug)]
pub struct Identity {
    /// Whether the base is stored `[d_in, d_out]`.
    transposed: bool,
}

impl Reparameterization for Identity {
    const NAME: &'static str = METHOD.kind;

    /// Returns the base.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        base
    }
}

fn run(x: &Tensor<2>, weight: &Param<Tensor<2>>, _context: &ForwardContext) -> Option<Tensor<2>> {
    let identity = weight.reparameterization::<Identity>()?;
    Some(dense(x, weight, identity.transposed))
}

/// Makes a model's selected linear layers trainable and freezes everything else.
///
/// Nothing is random: `seed` is there because every method takes one.
///
/// # Errors
///
/// Fails when nothing is selected, a method is attached already, or biases are to be trained and
/// there are none.
pub fn attach_identity<M: Module>(
    model: M,
    config: &IdentityConfig,
    _seed: u64,
) -> Result<(M, AttachReport), MethodError> {
    let transposed = config.selection.weight_layout == WeightLayout::InOut;
    attach_trained(model, METHOD.kind, &config.selection, |_, base| {
        Ok(Start {
            base,
            state: Identity { transposed },
            scaling: None,
        })
    })
}
