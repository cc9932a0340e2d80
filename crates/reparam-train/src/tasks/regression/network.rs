//! The models of a regression.

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};
use reparam::methods::{self, MethodError, WeightLayout};
use reparam::{ForwardContext, Linear};

use crate::config::{Activation, RegressionModelKind};

/// Linear layers with an activation between each two; a linear model is one layer.
///
/// ```text
/// h_0 = x,   h_{k+1} = act(h_k W_k' + b_k),   y = h_n W_n' + b_n
/// ```
#[derive(Module, Debug)]
pub struct Network {
    pub(crate) layers: Vec<Linear>,
}

/// Everything is computed in `f64`: tables are small, and the exact solution is the yardstick.
const DTYPE: DType = DType::F64;

/// Returns the widths of a network: inputs, hidden layers, one output.
pub(crate) fn widths(kind: &RegressionModelKind, n_features: usize) -> Vec<usize> {
    let hidden: &[usize] = match kind {
        RegressionModelKind::Linear => &[],
        RegressionModelKind::Mlp { hidden, .. } => hidden,
    };
    let ends = ([n_features], [1]);
    [&ends.0[..], hidden, &ends.1[..]].concat()
}

/// Returns what is between two layers; a linear model has no place for it.
pub(crate) fn activation(kind: &RegressionModelKind) -> Activation {
    match kind {
        RegressionModelKind::Linear => Activation::Tanh,
        RegressionModelKind::Mlp { activation, .. } => *activation,
    }
}

/// Makes a tensor of numbers, on a device without autodiff.
pub(crate) fn tensor<const D: usize>(values: &[f64], shape: [usize; D]) -> Tensor<D> {
    let data = TensorData::new(values.to_vec(), shape);
    Tensor::from_data(data, (&Device::flex(), DTYPE))
}

/// Returns the numbers of a tensor.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    let data = tensor.into_data().convert::<f64>();
    data.as_slice::<f64>().unwrap_or_default().to_vec()
}

fn act(x: Tensor<2>, activation: Activation) -> Tensor<2> {
    match activation {
        Activation::Tanh => x.tanh(),
        Activation::Relu => burn::tensor::activation::relu(x),
    }
}

impl Network {
    /// Creates a network without autodiff, with random weights.
    pub(crate) fn random(widths: &[usize], seed: u64) -> Self {
        let device = Device::flex();
        let layers = widths.windows(2).enumerate();
        Self {
            layers: layers
                .map(|(place, pair)| {
                    let name = format!("layers.{place}");
                    Linear::random(pair[0], pair[1], seed, &name, (&device, DTYPE))
                })
                .collect(),
        }
    }

    /// Predicts, `[n, 1]`, from rows `[n, n_features]`.
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        activation: Activation,
        context: &ForwardContext,
    ) -> Tensor<2> {
        let last = self.layers.len() - 1;
        let layers = self.layers.iter().enumerate();
        layers.fold(x, |x, (place, layer)| {
            let y = layer.forward(x, context);
            if place == last { y } else { act(y, activation) }
        })
    }

    /// Starts the weight-normalized layers from data, each from what those before it make of the rows.
    pub(crate) fn initialize_from_data(
        self,
        mut x: Tensor<2>,
        activation: Activation,
    ) -> Result<Self, MethodError> {
        let mut layers = Vec::with_capacity(self.layers.len());
        for layer in self.layers {
            let is_normalized = methods::linear_modules(&layer)
                .iter()
                .any(reparam::methods::LinearModule::is_reparameterized);
            let layer = if is_normalized {
                methods::initialize_from_data(layer, x.clone(), WeightLayout::OutIn)?
            } else {
                layer
            };
            x = act(layer.forward(x, &ForwardContext::inference()), activation);
            layers.push(layer);
        }
        Ok(Self { layers })
    }
}
