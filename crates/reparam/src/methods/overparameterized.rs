//! Linear over-parameterization: a weight as a sum of branches, folded into one for use.

use burn::module::{Module, Param, Reparameterization};
use burn::tensor::{Tensor, TensorData};

use super::attach::{Start, attach_trained};
use super::matrix::{dense, like, matrix};
use super::targets::{BIAS, LinearModule, Selection, TARGET_MODULES};
use super::{
    AttachMethod, AttachReport, Method, MethodError, ParameterName, Setting, WeightLayout, init,
};
use crate::ForwardContext;

pub(super) const METHOD: Method = Method {
    kind: "overparameterized",
    summary: "Linear over-parameterization: several scaled branches, a product and a diagonal are trained and folded",
    formula: "W = s_1 V_1 + s_2 V_2 + ... + B A + diag(d)",
    settings: &[
        Setting {
            key: "branches",
            default: "[1.0]",
            meaning: "the constant scales s_1, s_2, ... of the dense branches",
        },
        Setting {
            key: "product_width",
            default: "0",
            meaning: "inner width of the product branch B A; 0 for none",
        },
        Setting {
            key: "diagonal",
            default: "false",
            meaning: "whether square weights have a diagonal branch",
        },
        TARGET_MODULES,
        BIAS,
    ],
    mergeable: true,
    source: "arXiv 2101.03697 and 2205.15242 for the branches, arXiv 1802.06509 for the product",
    parameters: &[
        ParameterName {
            inner: "",
            public: "weight_branch_0",
            meaning: "V_1, of the weight's shape",
        },
        ParameterName {
            inner: "branches.#",
            public: "weight_branch_#",
            meaning: "V_2 and so on, of the weight's shape",
        },
        ParameterName {
            inner: "product_a",
            public: "weight_product_a",
            meaning: "A, [product_width, d_in]",
        },
        ParameterName {
            inner: "product_b",
            public: "weight_product_b",
            meaning: "B, [d_out, product_width]",
        },
        ParameterName {
            inner: "diagonal",
            public: "weight_diagonal",
            meaning: "d, [d_out]",
        },
    ],
    run,
    after_step: None,
};

/// The settings of linear over-parameterization.
///
/// ```text
/// W = sum_k s_k V_k + B A + diag(d)
/// ```
///
/// `s_k` are positive constants; all `V_k`, and `A`, `B` and `d` where they exist, are trained. `V_1`
/// starts at `W0 / s_1`; the other branches, `B` and `d` start at zero, `A` uniform in
/// `[-1/sqrt(d_in), 1/sqrt(d_in)]`. So `W` starts at `W0`, exactly if `s_1` is a power of two.
/// Merging (`Module::materialize`) folds everything into one weight.
///
/// With the default settings there is a single branch of scale one: full training.
///
/// # The mask of a folded weight
///
/// Each branch's gradient is `s_k dL/dW`. With gradient descent, momentum and L2 decay included, the
/// sum of branches moves as one weight whose gradient is multiplied by `sum_k s_k^2`; with a
/// diagonal branch, by one more on the diagonal. That mask on the gradient is RepOptimizers
/// (arXiv 2205.15242), which drops the branches and keeps the mask. A product has no
/// such constant mask.
///
/// # References
///
/// Ding et al., *RepVGG* (arXiv 2101.03697), section 3, and *RepOptimizers* (arXiv 2205.15242),
/// section 3, without their batch normalization; Arora et al., *On the Optimization of Deep
/// Networks: Implicit Acceleration by Overparameterization* (arXiv 1802.06509), for the product.
///
/// # Cost
///
/// A weight's worth of trained numbers and one sum of its size for each branch; the product costs
/// `d_out * product_width * d_in` multiplications a forward pass, however many rows the input has.
#[derive(Debug, Clone, PartialEq)]
pub struct OverparameterizedConfig {
    /// The scales of the dense branches, at least one, each positive.
    pub branches: Vec<f64>,
    /// The inner width of the product branch; zero for none.
    pub product_width: usize,
    /// Whether the square weights among the selected ones have a diagonal branch.
    pub diagonal: bool,
    /// Which layers are trained.
    pub selection: Selection,
}

impl Default for OverparameterizedConfig {
    fn default() -> Self {
        Self {
            branches: vec![1.0],
            product_width: 0,
            diagonal: false,
            selection: Selection::default(),
        }
    }
}

impl OverparameterizedConfig {
    fn validate(&self) -> Result<(), MethodError> {
        if self.branches.is_empty() {
            return Err(MethodError::Setting {
                setting: "branches",
                expected: "at least one scale",
                found: "none".into(),
            });
        }
        for scale in &self.branches {
            MethodError::require_positive("branches", *scale)?;
        }
        Ok(())
    }
}

impl AttachMethod for OverparameterizedConfig {
    const KIND: &'static str = METHOD.kind;

    fn attach<M: Module>(&self, model: M, seed: u64) -> Result<(M, AttachReport), MethodError> {
        attach_overparameterized(model, self, seed)
    }
}

/// The branches of one weight; the stored weight is the first.
#[derive(Module, Debug)]
pub struct Overparameterized {
    /// The dense branches from the second on, in the base's layout.
    pub branches: Vec<Param<Tensor<2>>>,
    /// `A`, `[product_width, d_in]`.
    pub product_a: Option<Param<Tensor<2>>>,
    /// `B`, `[d_out, product_width]`.
    pub product_b: Option<Param<Tensor<2>>>,
    /// `d`, `[d_out]`.
    pub diagonal: Option<Param<Tensor<1>>>,
    /// The scales, that of the stored weight first.
    scales: Vec<f64>,
    /// Whether the base is stored `[d_in, d_out]`.
    transposed: bool,
}

impl Reparameterization for Overparameterized {
    const NAME: &'static str = METHOD.kind;

    /// Returns the sum of all branches, in the base's layout.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let shape = base.shape();
        let (first, others) = match self.scales.split_first() {
            Some((first, others)) => (*first, others),
            None => (1.0, [].as_slice()),
        };
        let mut w = matrix(base) * first;
        for (branch, scale) in self.branches.iter().zip(others) {
            w = w + branch.val() * *scale;
        }
        if let (Some(a), Some(b)) = (&self.product_a, &self.product_b) {
            let product = b.val().matmul(a.val());
            w = w + if self.transposed {
                product.transpose()
            } else {
                product
            };
        }
        if let Some(diagonal) = &self.diagonal {
            let d = diagonal.val();
            let eye = Tensor::<2>::eye(d.dims()[0], &d.device()).cast(d.dtype());
            w = w + eye * d.unsqueeze::<2>();
        }
        like(w, shape)
    }
}

fn run(x: &Tensor<2>, weight: &Param<Tensor<2>>, _context: &ForwardContext) -> Option<Tensor<2>> {
    let state = weight.reparameterization::<Overparameterized>()?;
    Some(dense(x, weight, state.transposed))
}

/// Attaches branches to a model's selected linear layers and freezes everything else.
///
/// `A` starts from `seed` and each module's name.
///
/// # Errors
///
/// Fails when a setting is out of range, `diagonal` is set and no selected weight is square, nothing
/// is selected, a method is attached already, or biases are to be trained and there are none.
pub fn attach_overparameterized<M: Module>(
    model: M,
    config: &OverparameterizedConfig,
    seed: u64,
) -> Result<(M, AttachReport), MethodError> {
    config.validate()?;
    let mut n_square = 0;
    let attached = attach_trained(model, METHOD.kind, &config.selection, |linear, base| {
        let start = start(config, linear, base, seed);
        n_square += usize::from(start.state.diagonal.is_some());
        Ok(start)
    })?;
    if config.diagonal && n_square == 0 {
        return Err(MethodError::NoSquareWeight);
    }
    Ok(attached)
}

fn start(
    config: &OverparameterizedConfig,
    linear: &LinearModule,
    base: Tensor<2>,
    seed: u64,
) -> Start<Overparameterized> {
    let layout = config.selection.weight_layout;
    let (d_out, d_in) = linear.dims(layout);
    let (device, dtype) = (base.device(), base.dtype());
    let given = |values: Vec<f32>, dims: [usize; 2]| {
        let data = TensorData::new(values, dims).convert_dtype(dtype);
        Param::from_tensor(Tensor::<2>::from_data(data, (&device, dtype)))
    };
    let width = config.product_width;
    let has_product = width > 0;
    let a = || {
        let name = linear.tensor_name("weight_product_a");
        init::uniform(width * d_in, 1.0 / (d_in as f64).sqrt(), seed, &name)
    };
    let zeros = |_: &f64| Param::from_tensor(base.zeros_like());
    let state = Overparameterized {
        branches: config.branches[1..].iter().map(zeros).collect(),
        product_a: has_product.then(|| given(a(), [width, d_in])),
        product_b: has_product.then(|| given(vec![0.0; d_out * width], [d_out, width])),
        diagonal: (config.diagonal && d_out == d_in)
            .then(|| Param::from_tensor(Tensor::<1>::zeros([d_out], (&device, dtype)))),
        scales: config.branches.clone(),
        transposed: layout == WeightLayout::InOut,
    };
    Start {
        base: base / config.branches[0],
        state,
        scaling: None,
    }
}
