//! Weight normalization that starts from a batch of data.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};

use super::matrix::matrix;
use super::weight_norm::{self, row_norms};
use super::{MethodError, WeightLayout, linear_modules};

/// Initializes a weight-normalized linear layer so that its outputs over a batch have mean 0 and
/// variance 1.
///
/// ```text
/// t = v x / |v|,   g = 1 / std(t),   b = -mean(t) / std(t)
/// ```
///
/// with the mean and the standard deviation over the rows of `x`; the deviation divides by their
/// number. `v` stays as it is. The effective weight is another than before: this is for training
/// from scratch, layer after layer, each with the outputs of those before it.
///
/// `layer` is the layer itself, this crate's or Burn's, with
/// [`attach_weight_norm`](super::attach_weight_norm) done.
///
/// # Shapes
///
/// - x: `[N, d_in]`
///
/// # Errors
///
/// Fails when the layer has no weight normalization or no bias, the batch has another width, or an
/// output does not vary over it.
///
/// # References
///
/// Salimans and Kingma, *Weight Normalization* (arXiv 1602.07868), section 3.
pub fn initialize_from_data<M: Module>(
    layer: M,
    x: Tensor<2>,
    layout: WeightLayout,
) -> Result<M, MethodError> {
    let linears = linear_modules(&layer);
    let is_normalized = |linear: &super::LinearModule| {
        linear.path.is_empty() && linear.method.as_deref() == Some(weight_norm::METHOD.kind)
    };
    let Some(linear) = linears.into_iter().find(is_normalized) else {
        return Err(MethodError::NotInitializable {
            missing: "weight normalization of its own weight",
        });
    };
    let mut find = Find::default();
    layer.visit(&mut find);
    let Some(v) = find.v else {
        return Err(MethodError::NotInitializable { missing: "weight" });
    };
    if !find.has_bias {
        return Err(MethodError::NotInitializable { missing: "bias" });
    }
    let (_, d_in) = linear.dims(layout);
    if x.dims()[1] != d_in {
        return Err(MethodError::BatchWidth {
            expected: d_in,
            found: x.dims()[1],
        });
    }
    let v = match layout {
        WeightLayout::OutIn => v.transpose(),
        WeightLayout::InOut => v,
    };
    // `[d_in, d_out]` now, so that the outputs are the columns.
    let norms = row_norms(v.clone(), true);
    let t = x.inner().matmul(v) / norms;
    let (g, b) = moments(&t)?;
    Ok(layer.map(&mut Set {
        path: Vec::new(),
        g,
        b,
    }))
}

/// Returns `1 / std` and `-mean / std` of each column, computed in `f64`.
fn moments(t: &Tensor<2>) -> Result<(Vec<f64>, Vec<f64>), MethodError> {
    let [rows, cols] = t.dims();
    let data = t.to_data().convert::<f64>();
    let values: Vec<f64> = data.iter::<f64>().collect();
    let column = |output: usize| values.iter().skip(output).step_by(cols);
    let mut g = Vec::with_capacity(cols);
    let mut b = Vec::with_capacity(cols);
    for output in 0..cols {
        let mean = column(output).sum::<f64>() / rows as f64;
        let squares = column(output).map(|value| (value - mean).powi(2));
        let deviation = (squares.sum::<f64>() / rows as f64).sqrt();
        if !(deviation.is_finite() && deviation > 0.0) {
            return Err(MethodError::NoDeviation { output, deviation });
        }
        g.push(1.0 / deviation);
        b.push(-mean / deviation);
    }
    Ok((g, b))
}

/// Finds the tensors of a single layer.
#[derive(Default)]
struct Find {
    path: Vec<String>,
    v: Option<Tensor<2>>,
    has_bias: bool,
}

impl ModuleVisitor for Find {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        match self.path.join(".").as_str() {
            "weight" if D == 2 => self.v = Some(matrix(param.base().inner())),
            "bias" => self.has_bias = true,
            _ => {}
        }
    }
}

/// Replaces the lengths and the bias.
struct Set {
    path: Vec<String>,
    g: Vec<f64>,
    b: Vec<f64>,
}

impl ModuleMapper for Set {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let values = match self.path.join(".").as_str() {
            "weight.weight_norm.g" => &self.g,
            "bias" => &self.b,
            _ => return param,
        };
        param.map(|old| {
            let data = TensorData::new(values.clone(), old.dims()).convert_dtype(old.dtype());
            let new = Tensor::from_data(data, (&old.device(), old.dtype()));
            new.set_require_grad(old.is_require_grad())
        })
    }
}
