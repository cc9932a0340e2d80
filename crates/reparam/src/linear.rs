//! The linear layer that runs a method's plan.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};

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

    /// Creates a layer as `torch.nn.Linear` does: weight and bias uniform in `+-1/sqrt(d_in)`.
    ///
    /// The numbers follow from `seed` and `name` alone, which is best the path that the layer will
    /// have.
    pub fn random(
        d_in: usize,
        d_out: usize,
        seed: u64,
        name: &str,
        (device, dtype): (&Device, DType),
    ) -> Self {
        let bound = 1.0 / (d_in as f64).sqrt();
        let tensor = |len: usize, what: &str| {
            let values = phi::uniform(len, bound, seed, &format!("{name}.{what}"));
            let data = TensorData::new(values, [len]).convert_dtype(dtype);
            Tensor::<1>::from_data(data, (device, dtype))
        };
        let weight = tensor(d_out * d_in, "weight").reshape([d_out, d_in]);
        Self::new(weight, Some(tensor(d_out, "bias")))
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
