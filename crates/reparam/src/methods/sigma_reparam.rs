//! sigma-Reparam: the spectral norm of a weight as a trained number.

use burn::module::{Module, Param, Reparameterization};
use burn::tensor::{DType, Shape, Tensor, TensorData};

use super::after_step::{StateTensors, StateUpdates};
use super::attach::{Start, attach_trained};
use super::matrix::{dense, matrix};
use super::targets::{BIAS, LinearModule, Selection, TARGET_MODULES};
use super::{
    AttachMethod, AttachReport, Method, MethodError, ParameterName, Setting, WeightLayout, init,
};
use crate::ForwardContext;

pub(super) const METHOD: Method = Method {
    kind: "sigma_reparam",
    summary: "sigma-Reparam: the weight is divided by its spectral norm and multiplied by a trained number",
    formula: "W = (gamma / sigma) V,  sigma = u' V v",
    settings: &[
        Setting {
            key: "gamma_init",
            default: "\"sigma\"",
            meaning: "how gamma starts: sigma, which keeps the weight, or one, as in the paper",
        },
        TARGET_MODULES,
        BIAS,
    ],
    mergeable: true,
    source: "arXiv 2303.06296",
    parameters: &[
        ParameterName {
            inner: "",
            public: "weight_orig",
            meaning: "V, of the weight's shape",
        },
        ParameterName {
            inner: "gamma",
            public: "weight_gamma",
            meaning: "gamma, [1]",
        },
        ParameterName {
            inner: "u",
            public: "weight_u",
            meaning: "u, as long as the stored matrix is high; state, not trained",
        },
        ParameterName {
            inner: "v",
            public: "weight_v",
            meaning: "v, as long as the stored matrix is wide; state, not trained",
        },
    ],
    run,
    after_step: Some(after_step),
};

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

impl AttachMethod for SigmaReparamConfig {
    const KIND: &'static str = METHOD.kind;

    fn attach<M: Module>(&self, model: M, seed: u64) -> Result<(M, AttachReport), MethodError> {
        attach_sigma_reparam(model, self, seed)
    }
}

/// The spectral norm of one weight; the stored weight is `V`.
#[derive(Module, Debug)]
pub struct SigmaReparam {
    /// `gamma`, `[1]`.
    pub gamma: Param<Tensor<1>>,
    /// The left singular vector of the matrix as it is stored.
    pub u: Param<Tensor<1>>,
    /// The right one.
    pub v: Param<Tensor<1>>,
    /// Whether the base is stored `[d_in, d_out]`.
    transposed: bool,
}

impl Reparameterization for SigmaReparam {
    const NAME: &'static str = METHOD.kind;

    /// Returns `V (gamma / sigma)`.
    ///
    /// In this order a start with `gamma = sigma` is exact.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let sigma = sigma(matrix(base.clone()), self.u.val(), self.v.val());
        let factor = self.gamma.val() / sigma;
        base * factor.reshape(Shape::from(vec![1; D]))
    }
}

/// Returns `u' V v` as a tensor of one element.
fn sigma(matrix: Tensor<2>, u: Tensor<1>, v: Tensor<1>) -> Tensor<1> {
    let row = u.unsqueeze_dim::<2>(0).matmul(matrix);
    row.matmul(v.unsqueeze_dim::<2>(1)).reshape([1])
}

fn run(x: &Tensor<2>, weight: &Param<Tensor<2>>, _context: &ForwardContext) -> Option<Tensor<2>> {
    let state = weight.reparameterization::<SigmaReparam>()?;
    Some(dense(x, weight, state.transposed))
}

/// One power iteration.
fn after_step(base: &Tensor<2>, state: &StateTensors) -> StateUpdates {
    let Some(u) = state.get("u") else {
        return StateUpdates::new();
    };
    match iterate(base, u.clone()) {
        Some((u, v)) => vec![("u", u), ("v", v)],
        // `V` maps `u` to nothing; the old vectors are as good as any.
        None => StateUpdates::new(),
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

/// Attaches sigma-Reparam to a model's selected linear layers and freezes everything else.
///
/// The power iteration starts from `seed` and each module's name, and runs until `sigma` stands still.
///
/// # Errors
///
/// Fails when a weight is zero, nothing is selected, a method is attached already, or biases are to
/// be trained and there are none.
pub fn attach_sigma_reparam<M: Module>(
    model: M,
    config: &SigmaReparamConfig,
    seed: u64,
) -> Result<(M, AttachReport), MethodError> {
    let transposed = config.selection.weight_layout == WeightLayout::InOut;
    let start = |linear: &LinearModule, base: Tensor<2>| {
        let name = linear.tensor_name("weight_u");
        let (u, v) = converged(&base, seed, &name).ok_or_else(|| MethodError::ZeroWeight {
            module: linear.path.clone(),
        })?;
        let sigma = sigma(base.clone(), u.clone(), v.clone());
        let gamma = match config.gamma_init {
            GammaInit::Sigma => sigma,
            GammaInit::One => sigma.ones_like(),
        };
        let constant = |vector: Tensor<1>| Param::from_tensor(vector).set_require_grad(false);
        Ok(Start {
            base,
            state: SigmaReparam {
                gamma: Param::from_tensor(gamma),
                u: constant(u),
                v: constant(v),
                transposed,
            },
            scaling: None,
        })
    };
    attach_trained(model, METHOD.kind, &config.selection, start)
}
