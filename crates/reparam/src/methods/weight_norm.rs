//! Weight normalization: the length and the direction of each row apart.

use burn::module::{Module, Param, Reparameterization};
use burn::tensor::Tensor;

use super::attach::{Start, attach_trained};
use super::matrix::{dense, like, matrix};
use super::targets::{self, BIAS, Selection, TARGET_MODULES};
use super::{
    AttachMethod, AttachReport, Method, MethodError, ParameterName, Setting, WeightLayout, chain,
};
use crate::ForwardContext;

pub(super) const METHOD: Method = Method {
    kind: "weight_norm",
    summary: "Weight normalization: the length and the direction of each output's weights are trained apart",
    formula: "W = g v / |v|  for each row;  on LoRA  W = g (W0 + s B A) / |W0 + s B A|",
    settings: &[
        Setting {
            key: "init",
            default: "\"weights\"",
            meaning: "how it starts: weights, or data (outputs of mean 0 and variance 1)",
        },
        TARGET_MODULES,
        BIAS,
    ],
    mergeable: true,
    source: "arXiv 1602.07868, equation 2",
    parameters: &[
        ParameterName {
            inner: "",
            public: "weight_v",
            meaning: "v, of the weight's shape; not trained, and the base itself, on LoRA",
        },
        ParameterName {
            inner: "g",
            public: "weight_g",
            meaning: "g, [d_out, 1]",
        },
    ],
    run,
    after_step: None,
};

/// The settings of weight normalization.
///
/// ```text
/// W_i = g_i v_i / |v_i|   for each output i,   v starts at W0, g at |W0|
/// ```
///
/// The gradient of `v_i` is orthogonal to `v_i`, so that a step never shortens it.
///
/// On a model that carries LoRA it composes: `W = g (W0 + s B A) / |W0 + s B A|` with `W0` frozen,
/// `A`, `B` and `g` trained. That is DoRA (arXiv 2402.09353, equation 5) without its approximation:
/// the norm is differentiated.
///
/// # References
///
/// Salimans and Kingma, *Weight Normalization* (arXiv 1602.07868), equation 2; the names are those
/// of `torch.nn.utils.weight_norm`. Differs from the paper: the start is the given weight;
/// [`initialize_from_data`](super::initialize_from_data) does what section 3 says.
///
/// # Cost
///
/// That of full training, `d_out` numbers more, and two products of the weight's size a forward pass.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WeightNormConfig {
    /// Which layers are trained; on a model with LoRA, which of the layers that carry it.
    pub selection: Selection,
}

impl AttachMethod for WeightNormConfig {
    const KIND: &'static str = METHOD.kind;

    fn attach<M: Module>(&self, model: M, seed: u64) -> Result<(M, AttachReport), MethodError> {
        attach_weight_norm(model, self, seed)
    }
}

/// The lengths of one weight's rows; the stored weight is `v`.
#[derive(Module, Debug)]
pub struct WeightNorm {
    /// `g`, `[d_out, 1]`.
    pub g: Param<Tensor<2>>,
    /// Whether the base is stored `[d_in, d_out]`.
    transposed: bool,
}

impl WeightNorm {
    /// Starts with the lengths of a weight's rows, without autodiff.
    ///
    /// # Errors
    ///
    /// [`MethodError::ZeroRow`] for a row without a direction.
    pub(super) fn of(v: &Tensor<2>, transposed: bool, module: &str) -> Result<Self, MethodError> {
        let norms = row_norms(v.clone(), transposed);
        let values = norms.to_data().convert::<f64>();
        let is_bad = |norm: f64| !(norm.is_finite() && norm > 0.0);
        if let Some(row) = values.iter::<f64>().position(is_bad) {
            return Err(MethodError::ZeroRow {
                module: module.to_owned(),
                row,
            });
        }
        let g = if transposed { norms.transpose() } else { norms };
        Ok(Self {
            g: Param::from_tensor(g),
            transposed,
        })
    }
}

/// Returns the norm of each output's weights: `[d_out, 1]`, or `[1, d_out]` if stored transposed.
pub(super) fn row_norms(v: Tensor<2>, transposed: bool) -> Tensor<2> {
    let dim = usize::from(!transposed);
    (v.clone() * v).sum_dim(dim).sqrt()
}

impl Reparameterization for WeightNorm {
    const NAME: &'static str = METHOD.kind;

    /// Returns `v (g / |v|)`, in the base's layout.
    ///
    /// In this order the start is exact: `g / |v|` is one.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let shape = base.shape();
        let v = matrix(base);
        let g = self.g.val();
        let g = if self.transposed { g.transpose() } else { g };
        like(v.clone() * (g / row_norms(v, self.transposed)), shape)
    }
}

fn run(x: &Tensor<2>, weight: &Param<Tensor<2>>, _context: &ForwardContext) -> Option<Tensor<2>> {
    let norm = weight.reparameterization::<WeightNorm>()?;
    Some(dense(x, weight, norm.transposed))
}

/// Attaches weight normalization to a model's selected linear layers and freezes everything else.
///
/// On a model that carries LoRA, the layers are chosen among those that do, `A` and `B` stay
/// trained, and so do the biases that were. Nothing is random: `seed` is there because every method
/// takes one.
///
/// # Errors
///
/// Fails when a row's norm is zero, nothing is selected, a method other than LoRA is attached
/// already, LoRA has dropout, or biases are to be trained and there are none.
pub fn attach_weight_norm<M: Module>(
    model: M,
    config: &WeightNormConfig,
    _seed: u64,
) -> Result<(M, AttachReport), MethodError> {
    let linears = targets::linear_modules(&model);
    if linears.iter().any(|linear| linear.is_reparameterized()) {
        return chain::normalize_lora(model, &linears, config);
    }
    let transposed = config.selection.weight_layout == WeightLayout::InOut;
    attach_trained(model, METHOD.kind, &config.selection, |linear, base| {
        Ok(Start {
            state: WeightNorm::of(&base, transposed, &linear.path)?,
            base,
            scaling: None,
        })
    })
}
