//! Linear over-parameterization: a weight as a sum of branches, folded into one for use.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::method::{NewTensor, selected};
use super::targets::{BIAS, EXCLUDE_MODULES, Selection, TARGET_MODULES};
use super::{
    Layer, LinearModule, Method, MethodConfig, MethodError, MethodSpec, Result, Start, TensorSpec,
    Theta, init,
};
use crate::schema::{Fallback, MOST, Range, SettingKind, SettingSpec, flag};

pub(super) static SPEC: MethodSpec = MethodSpec {
    kind: "overparameterized",
    summary: "Linear over-parameterization: several scaled branches, a product and a diagonal are trained and folded",
    formula: "W = s_1 V_1 + s_2 V_2 + ... + B A + diag(d)",
    source: "arXiv 2101.03697 and 2205.15242 for the branches, arXiv 1802.06509 for the product",
    settings: &[
        SettingSpec {
            key: "branches",
            kind: SettingKind::Numbers(Range::Positive),
            fallback: Fallback::Numbers(&[1.0]),
            meaning: "the constant scales s_1, s_2, ... of the dense branches",
        },
        SettingSpec {
            key: "product_width",
            kind: SettingKind::Count {
                least: 0,
                most: MOST,
            },
            fallback: Fallback::Count(0),
            meaning: "inner width of the product branch B A; 0 for none",
        },
        flag("diagonal", false, "add a diagonal branch to square weights"),
        TARGET_MODULES,
        EXCLUDE_MODULES,
        BIAS,
    ],
    tensors: &[
        TensorSpec::new(
            "weight_branch_#",
            "V_1 and so on from number 0, of the weight's shape",
        ),
        TensorSpec::new(PRODUCT_A, "A, [product_width, d_in]"),
        TensorSpec::new(PRODUCT_B, "B, [d_out, product_width]"),
        TensorSpec::new(DIAGONAL, "d, [d_out]"),
    ],
    base_name: Some("weight_branch_0"),
    build: |settings, _| {
        Ok(Arc::new(OverparameterizedConfig {
            branches: settings.numbers("branches")?.to_vec(),
            product_width: settings.size("product_width")?,
            diagonal: settings.flag("diagonal")?,
            selection: Selection::from_settings(settings)?,
        }))
    },
    ..MethodSpec::DEFAULT
};

const PRODUCT_A: &str = "weight_product_a";
const PRODUCT_B: &str = "weight_product_b";
const DIAGONAL: &str = "weight_diagonal";

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
    fn validate(&self) -> Result<()> {
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

impl MethodConfig for OverparameterizedConfig {
    selected!(SPEC, selection);

    fn check(&self, layers: &[&LinearModule]) -> Result<()> {
        self.validate()?;
        let is_square = |layer: &&LinearModule| layer.shape[0] == layer.shape[1];
        if self.diagonal && !layers.iter().any(is_square) {
            return Err(MethodError::NoSquareWeight);
        }
        Ok(())
    }

    fn least_numbers(&self, layers: &[&LinearModule]) -> Result<Option<(&'static str, u128)>> {
        let sizes = layers.iter().flat_map(|layer| layer.shape);
        let sizes: u128 = sizes.map(|size| size as u128).sum();
        let numbers = (self.product_width as u128).saturating_mul(sizes);
        Ok(Some(("product_width", numbers)))
    }

    fn start(&self, layer: &Layer<'_>) -> Result<Start> {
        let (d_out, d_in, width) = (layer.d_out, layer.d_in, self.product_width);
        let base = layer.base();
        let method = Overparameterized {
            scales: self.branches.clone(),
        };
        let mut start = Start::new(method).with_base(base.clone() / self.branches[0]);
        for branch in 1..self.branches.len() {
            start = start.with(NewTensor::matrix(branch_name(branch), base.zeros_like()));
        }
        if width > 0 {
            let name = layer.module.tensor_name(PRODUCT_A);
            let bound = 1.0 / (d_in as f64).sqrt();
            let a = init::uniform(width * d_in, bound, layer.place.seed, &name);
            let b = vec![0.0; d_out * width];
            start = start
                .with(NewTensor::matrix(
                    PRODUCT_A,
                    layer.place.tensor(a, [width, d_in]),
                ))
                .with(NewTensor::matrix(
                    PRODUCT_B,
                    layer.place.tensor(b, [d_out, width]),
                ));
        }
        if self.diagonal && d_out == d_in {
            let d = layer.place.tensor(vec![0.0; d_out], [d_out]);
            start = start.with(NewTensor::vector(DIAGONAL, d));
        }
        Ok(start)
    }
}

fn branch_name(branch: usize) -> String {
    format!("weight_branch_{branch}")
}

/// The branches of one weight; the stored weight is the first.
#[derive(Debug)]
struct Overparameterized {
    /// The scales, that of the stored weight first.
    scales: Vec<f64>,
}

impl Method for Overparameterized {
    /// Returns the sum of all branches.
    fn weight(&self, base: Tensor<2>, theta: &Theta<'_>) -> Tensor<2> {
        let mut w = base * self.scales[0];
        for (branch, scale) in self.scales.iter().enumerate().skip(1) {
            w = w + theta.matrix(&branch_name(branch)) * *scale;
        }
        if theta.has(PRODUCT_A) {
            w = w + theta.matrix(PRODUCT_B).matmul(theta.matrix(PRODUCT_A));
        }
        if theta.has(DIAGONAL) {
            let d = theta.vector(DIAGONAL);
            let eye = Tensor::<2>::eye(d.dims()[0], &d.device()).cast(d.dtype());
            w = w + eye * d.unsqueeze::<2>();
        }
        w
    }
}
