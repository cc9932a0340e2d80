//! sigma-Reparam: the spectral norm of a weight as a trained number.

use std::sync::Arc;

use burn::tensor::{DType, Tensor, TensorData};

use super::method::{NewTensor, selected};
use super::targets::{BIAS, EXCLUDE_MODULES, Selection, TARGET_MODULES};
use super::{
    Layer, Method, MethodConfig, MethodError, MethodSpec, Result, Start, StateTensors, TensorSpec,
    Theta, init,
};
use crate::schema::word;

pub(super) static SPEC: MethodSpec = MethodSpec {
    kind: "sigma_reparam",
    summary: "sigma-Reparam: the weight is divided by its spectral norm and multiplied by a trained number",
    formula: "W = (gamma / sigma) V,  sigma = u' V v",
    source: "arXiv 2303.06296",
    settings: &[
        word(
            "gamma_init",
            &["sigma", "one"],
            "sigma",
            "how gamma starts: sigma, which keeps the weight, or one, as in the paper",
        ),
        TARGET_MODULES,
        EXCLUDE_MODULES,
        BIAS,
    ],
    tensors: &[
        TensorSpec::new("weight_orig", "V, of the weight's shape"),
        TensorSpec::new(GAMMA, "gamma, [1]"),
        TensorSpec::new(U, "u, [d_out]; state, not trained").frozen(),
        TensorSpec::new(V, "v, [d_in]; state, not trained").frozen(),
    ],
    base_name: Some("weight_orig"),
    after_step: Some(after_step),
    build: |settings, _| {
        Ok(Arc::new(SigmaReparamConfig {
            gamma_init: settings.choice(
                "gamma_init",
                &[("sigma", GammaInit::Sigma), ("one", GammaInit::One)],
            )?,
            selection: Selection::from_settings(settings)?,
        }))
    },
    ..MethodSpec::DEFAULT
};

const GAMMA: &str = "weight_gamma";
const U: &str = "weight_u";
const V: &str = "weight_v";

/// Iterations at attachment, at most.
///
/// Where the two largest singular values are so close that this many do not part them, `sigma` is
/// between the two.
const MAX_ITERATIONS: usize = 1000;

/// How `gamma` starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GammaInit {
    /// At `sigma(W0)`: the effective weight is the old one.
    #[default]
    Sigma,
    /// At one, the paper's choice for training from scratch: the effective weight is
    /// `W0 / sigma(W0)`, another than `W0`.
    One,
}

/// The settings of sigma-Reparam.
///
/// ```text
/// W = (gamma / sigma) V,   sigma = u' V v,   V starts at W0
/// ```
///
/// `V` and the number `gamma` are trained. `u` and `v` are the singular vectors of the largest
/// singular value, followed by one power iteration a step ([`after_step`](super::after_step)):
///
/// ```text
/// v <- V' u / |V' u|,   u <- V v / |V v|
/// ```
///
/// They are constants of the backward pass; `sigma` is differentiated with respect to `V`.
///
/// # References
///
/// Zhai et al., *Stabilizing Transformer Training by Preventing Attention Entropy Collapse*
/// (arXiv 2303.06296); the names are those of
/// `torch.nn.utils.spectral_norm`. Differs from the paper: the iteration runs after a step instead of
/// in every forward pass of training, so that a step's micro-batches see one weight, and starts
/// converged.
///
/// # Cost
///
/// That of full training; two products of the matrix with a vector and one of its size a forward
/// pass, and two products with a vector a step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SigmaReparamConfig {
    /// How `gamma` starts.
    pub gamma_init: GammaInit,
    /// Which layers are trained.
    pub selection: Selection,
}

impl MethodConfig for SigmaReparamConfig {
    selected!(SPEC, selection);

    fn start(&self, layer: &Layer<'_>) -> Result<Start> {
        let base = layer.base();
        let name = layer.module.tensor_name(U);
        let (u, v) =
            converged(&base, layer.place.seed, &name).ok_or_else(|| MethodError::ZeroWeight {
                module: layer.module.path.clone(),
            })?;
        let sigma = sigma(base.clone(), u.clone(), v.clone());
        let gamma = match self.gamma_init {
            GammaInit::Sigma => sigma,
            GammaInit::One => sigma.ones_like(),
        };
        Ok(Start::new(SigmaReparam)
            .with_base(base)
            .with(NewTensor::vector(GAMMA, gamma))
            .with(NewTensor::vector(U, u).frozen())
            .with(NewTensor::vector(V, v).frozen()))
    }
}

/// The spectral norm of one weight; the stored weight is `V`.
#[derive(Debug)]
struct SigmaReparam;

impl Method for SigmaReparam {
    /// Returns `V (gamma / sigma)`.
    ///
    /// In this order a start with `gamma = sigma` is exact.
    fn weight(&self, base: Tensor<2>, theta: &Theta<'_>) -> Tensor<2> {
        let sigma = sigma(base.clone(), theta.vector(U), theta.vector(V));
        let factor = theta.vector(GAMMA) / sigma;
        base * factor.unsqueeze::<2>()
    }
}

/// Returns `u' V v` as a tensor of one element.
fn sigma(matrix: Tensor<2>, u: Tensor<1>, v: Tensor<1>) -> Tensor<1> {
    let row = u.unsqueeze_dim::<2>(0).matmul(matrix);
    row.matmul(v.unsqueeze_dim::<2>(1)).reshape([1])
}

/// One power iteration.
fn after_step(base: &Tensor<2>, state: &StateTensors) -> Vec<(&'static str, Tensor<1>)> {
    let Some(u) = state.get(U) else {
        return Vec::new();
    };
    match iterate(base, u.clone()) {
        Some((u, v)) => vec![(U, u), (V, v)],
        // `V` maps `u` to nothing; the old vectors are as good as any.
        None => Vec::new(),
    }
}

/// Returns the next `u` and `v`, or `None` when a product vanishes or is not finite.
fn iterate(matrix: &Tensor<2>, u: Tensor<1>) -> Option<(Tensor<1>, Tensor<1>)> {
    let v = unit(u.unsqueeze_dim::<2>(0).matmul(matrix.clone()))?;
    let u = unit(matrix.clone().matmul(v.clone().unsqueeze_dim::<2>(1)))?;
    Some((u, v))
}

/// Returns a row or column as a vector of norm one.
fn unit(vector: Tensor<2>) -> Option<Tensor<1>> {
    let len = vector.dims().iter().product::<usize>();
    let vector = vector.reshape([len]);
    let norm = (vector.clone() * vector.clone()).sum().sqrt();
    let value = number(&norm);
    (value.is_finite() && value > 0.0).then(|| vector / norm)
}

fn number(tensor: &Tensor<1>) -> f64 {
    tensor.clone().into_scalar::<f64>()
}

/// Iterates from a random vector until `sigma` stands still.
fn converged(matrix: &Tensor<2>, seed: u64, name: &str) -> Option<(Tensor<1>, Tensor<1>)> {
    // Halves would stand still long before they are right.
    let dtype = match matrix.dtype() {
        DType::F64 => DType::F64,
        _ => DType::F32,
    };
    let epsilon = if dtype == DType::F64 {
        f64::EPSILON
    } else {
        f64::from(f32::EPSILON)
    };
    let wide = matrix.clone().cast(dtype);
    let rows = wide.dims()[0];
    let start = TensorData::new(init::normal(rows, 1.0, seed, name), [rows]).convert_dtype(dtype);
    let mut u = Tensor::<1>::from_data(start, (&wide.device(), dtype));
    let mut previous = 0.0;
    let mut v = None;
    for _ in 0..MAX_ITERATIONS {
        let (next_u, next_v) = iterate(&wide, u)?;
        let found = number(&sigma(wide.clone(), next_u.clone(), next_v.clone()));
        u = next_u;
        v = Some(next_v);
        if (found - previous).abs() <= epsilon * found {
            break;
        }
        previous = found;
    }
    Some((u.cast(matrix.dtype()), v?.cast(matrix.dtype())))
}
