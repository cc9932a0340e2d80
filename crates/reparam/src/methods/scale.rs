//! The constant scale.

use burn::module::{Module, Param, Reparameterization};
use burn::tensor::Tensor;

use super::attach::{Start, attach_trained};
use super::targets::{BIAS, Selection, TARGET_MODULES};
use super::{
    AttachMethod, AttachReport, Method, MethodError, ParameterName, Setting, WeightLayout,
    matrix::dense,
};
use crate::ForwardContext;
use crate::optim;

pub(super) const METHOD: Method = Method {
    kind: "scale",
    summary: "A constant scale: the effective weight is a fixed multiple of the trained one",
    formula: "W = s V,  s > 0 constant",
    settings: &[
        Setting {
            key: "scale",
            default: "\"horizon\"",
            meaning: "s: a positive number, or horizon for sqrt(lambda) with lambda = 1 / sqrt(steps)",
        },
        TARGET_MODULES,
        BIAS,
    ],
    mergeable: true,
    source: "arXiv 2205.15242, with a single branch",
    parameters: &[ParameterName {
        inner: "",
        public: "weight_v",
        meaning: "V, of the weight's shape",
    }],
    run,
    after_step: None,
};

/// The settings of a constant scale.
///
/// ```text
/// W = s V,   V starts at W0 / s
/// ```
///
/// # The square-root law
///
/// The gradient of `V` is `s dL/dW`, so a step of gradient descent on `V` moves `W` by
/// `-eta s^2 dL/dW`. With `s = sqrt(lambda)` that is gradient descent on `W` with the gradient scaled
/// by `lambda`: what [`optim::Scale`] does. It holds with momentum and with L2 decay too,
/// because both are linear; it does not hold with Adam, which divides the factor out of the gradient
/// of `V` and so moves `W` by `s` times as much as without the scale.
///
/// # References
///
/// Ding et al., *Re-parameterizing Your Optimizers rather than Architectures* (arXiv 2205.15242):
/// the case of one branch.
///
/// # Cost
///
/// That of full training and one product of the weight's size a forward pass.
#[derive(Debug, Clone, PartialEq)]
pub struct ScaleConfig {
    /// `s`, positive.
    pub scale: f64,
    /// Which layers are trained.
    pub selection: Selection,
}

impl ScaleConfig {
    /// Creates a configuration with a given `s`.
    pub fn new(scale: f64) -> Self {
        Self {
            scale,
            selection: Selection::default(),
        }
    }

    /// Creates a configuration with `s = sqrt(lambda)`, where `lambda = 1/sqrt(horizon)` and `horizon` is the
    /// planned number of steps.
    pub fn by_horizon(horizon: u64) -> Self {
        Self::new(optim::Scale::ByHorizon.lambda(horizon).sqrt())
    }

    /// Sets which layers are trained.
    pub fn with_selection(self, selection: Selection) -> Self {
        Self { selection, ..self }
    }
}

impl AttachMethod for ScaleConfig {
    const KIND: &'static str = METHOD.kind;

    fn attach<M: Module>(&self, model: M, seed: u64) -> Result<(M, AttachReport), MethodError> {
        attach_scale(model, self, seed)
    }
}

/// The constant scale of one weight; the stored weight is `V`.
#[derive(Module, Debug)]
pub struct Scale {
    /// `s`.
    pub scale: f64,
    /// Whether the base is stored `[d_in, d_out]`.
    transposed: bool,
}

impl Reparameterization for Scale {
    const NAME: &'static str = METHOD.kind;

    /// Returns `s V`.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        base * self.scale
    }
}

fn run(x: &Tensor<2>, weight: &Param<Tensor<2>>, _context: &ForwardContext) -> Option<Tensor<2>> {
    let scale = weight.reparameterization::<Scale>()?;
    Some(dense(x, weight, scale.transposed))
}

/// Attaches a constant scale to a model's selected linear layers and freezes everything else.
///
/// The effective weights are the old ones to one rounding of the division and one of the product;
/// exactly, if `s` is a power of two. Nothing is random: `seed` is there because every method takes
/// one.
///
/// # Errors
///
/// Fails when `s` is not a positive, finite number, nothing is selected, a method is attached
/// already, or biases are to be trained and there are none.
pub fn attach_scale<M: Module>(
    model: M,
    config: &ScaleConfig,
    _seed: u64,
) -> Result<(M, AttachReport), MethodError> {
    let scale = config.scale;
    MethodError::require_positive("scale", scale)?;
    let transposed = config.selection.weight_layout == WeightLayout::InOut;
    attach_trained(model, METHOD.kind, &config.selection, |_, base| {
        Ok(Start {
            base: base / scale,
            state: Scale { scale, transposed },
            scaling: Some(scale),
        })
    })
}
