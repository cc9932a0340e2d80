//! The linear layer that runs a method's plan.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::ForwardContext;
use crate::phi;

/// A linear layer `y = x W' + b` whose weight may be reparameterized.
///
/// Unlike Burn's own layer, the weight is `[d_out, d_in]`, as in PyTorch's checkpoints, and the
/// forward pass asks the attached method for its plan: a LoRA'd layer never forms its effective
/// weight, nor a dense gradient of it.
#[derive(Module, Debug)]
pub struct Linear {
    /// `W`, `[d_out, d_in]`.
    pub weight: Param<Tensor<2>>,
    /// `b`, `[d_out]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// Creates a layer with trainable parameters of the given values.
    pub fn new(weight: Tensor<2>, bias: Option<Tensor<1>>) -> Self {
        Self {
            weight: Param::from_tensor(weight),
            bias: bias.map(Param::from_tensor),
        }
    }

    /// Applies the layer.
    ///
    /// # Shapes
    ///
    /// - x: `[N, d_in]`
    /// - output: `[N, d_out]`
    pub fn forward(&self, x: Tensor<2>, context: &ForwardContext) -> Tensor<2> {
        let y = phi::linear(x, &self.weight, context);
        match &self.bias {
            Some(bias) => y + bias.val().unsqueeze::<2>(),
            None => y,
        }
    }
}
