//! Weight normalization: the length and the direction of each row apart.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::method::{NewTensor, selected};
use super::targets::{BIAS, EXCLUDE_MODULES, Selection, TARGET_MODULES};
use super::{
    Layer, Method, MethodConfig, MethodError, MethodSpec, Result, Start, TensorSpec, Theta,
};
use crate::schema::word;

pub(super) static SPEC: MethodSpec = MethodSpec {
    kind: "weight_norm",
    summary: "Weight normalization: the length and the direction of each output's weights are trained apart",
    formula: "W = g v / |v|  for each row;  on LoRA  W = g (W0 + s B A) / |W0 + s B A|",
    source: "arXiv 1602.07868, equation 2",
    settings: &[
        word(
            "init",
            &["weights", "data"],
            "weights",
            "how it starts: weights, or data (outputs of mean 0 and variance 1)",
        ),
        TARGET_MODULES,
        EXCLUDE_MODULES,
        BIAS,
    ],
    tensors: &[
        TensorSpec::new(
            "weight_v",
            "v, of the weight's shape; over LoRA the frozen base has its own name",
        ),
        TensorSpec::new(G, "g, [d_out, 1]"),
    ],
    base_name: Some("weight_v"),
    goes_over_others: true,
    build: |settings, _| {
        Ok(Arc::new(WeightNormConfig {
            starts_from_data: settings.word("init")? == "data",
            selection: Selection::from_settings(settings)?,
        }))
    },
    ..MethodSpec::DEFAULT
};

/// The name of the lengths.
pub(super) const G: &str = "weight_g";

/// The settings of weight normalization.
///
/// ```text
/// W_i = g_i v_i / |v_i|   for each output i,   v starts at W0, g at |W0|
/// ```
///
/// The gradient of `v_i` is orthogonal to `v_i`, so that a step never shortens it.
///
/// Over LoRA ([`attach_all`](super::attach_all)) it composes: `W = g (W0 + s B A) / |W0 + s B A|` with `W0` frozen,
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
    /// Whether the caller goes on with [`initialize_from_data`](super::initialize_from_data), layer by layer.
    pub starts_from_data: bool,
    /// Which layers are trained; over LoRA, which of the layers that carry it.
    pub selection: Selection,
}

impl MethodConfig for WeightNormConfig {
    selected!(SPEC, selection);

    fn starts_from_data(&self) -> bool {
        self.starts_from_data
    }

    fn start(&self, layer: &Layer<'_>) -> Result<Start> {
        let base = layer.base();
        let g = lengths(layer, base.clone())?;
        Ok(Start::new(WeightNorm)
            .with_base(base)
            .with(NewTensor::matrix(G, g)))
    }
}

/// Returns the norm of each row of a layer's weight, `[d_out, 1]`, if all of them have a direction.
pub(super) fn lengths(layer: &Layer<'_>, base: Tensor<2>) -> Result<Tensor<2>> {
    let norms = row_norms(base);
    let values = norms.to_data().convert::<f64>();
    let is_bad = |norm: f64| !(norm.is_finite() && norm > 0.0);
    match values.iter::<f64>().position(is_bad) {
        None => Ok(norms),
        Some(row) => Err(MethodError::ZeroRow {
            module: layer.module.path.clone(),
            row,
        }),
    }
}

/// Returns the norm of each row, `[d_out, 1]`.
pub(super) fn row_norms(v: Tensor<2>) -> Tensor<2> {
    (v.clone() * v).sum_dim(1).sqrt()
}

/// The lengths of one weight's rows; the stored weight is `v`.
#[derive(Debug)]
struct WeightNorm;

impl Method for WeightNorm {
    /// Returns `v (g / |v|)`.
    ///
    /// In this order the start is exact: `g / |v|` is one.
    fn weight(&self, base: Tensor<2>, theta: &Theta<'_>) -> Tensor<2> {
        let norms = row_norms(base.clone());
        base * (theta.matrix(G) / norms)
    }
}
