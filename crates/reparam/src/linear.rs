//! The linear layer that runs a method's plan.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use reparam_ops::fused::{FusedLinear, PackedWeight, packed_linear};

use crate::methods;
use crate::{ForwardContext, Weight};

/// A linear layer `y = x W' + b` whose weight may be reparameterized.
///
/// Unlike Burn's own layer, the weight is `[d_out, d_in]`, as in PyTorch's checkpoints, and the
/// forward pass asks what is attached for its plan: a LoRA'd layer never forms its effective
/// weight, nor a dense gradient of it.
#[derive(Module, Debug)]
pub struct Linear {
    /// `W`, `[d_out, d_in]`.
    pub weight: Weight,
    /// `b`, `[d_out]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// Creates a layer with trainable parameters of the given values.
    pub fn new(weight: Tensor<2>, bias: Option<Tensor<1>>) -> Self {
        Self {
            weight: weight.into(),
            bias: bias.map(Param::from_tensor),
        }
    }

    /// Creates a layer whose weight is frozen and packed for the fused operations: see [`Linear::fused`].
    pub fn packed(weight: PackedWeight, bias: Option<Tensor<1>>, device: &Device) -> Self {
        Self {
            weight: Weight::packed(weight, device),
            bias: bias.map(|bias| Param::from_tensor(bias).set_require_grad(false)),
        }
    }

    /// Returns the layer as fused operations take it, with the plan of what is attached.
    ///
    /// `None` if the weight is an ordinary parameter.
    pub fn fused(&self, context: &ForwardContext) -> Option<FusedLinear> {
        Some(FusedLinear {
            bias: self.bias.as_ref().map(Param::val),
            ..self.weight.fused(context)?
        })
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
            let values = methods::uniform(len, bound, seed, &format!("{name}.{what}"));
            let data = TensorData::new(values, [len]).convert_dtype(dtype);
            Tensor::<1>::from_data(data, (device, dtype))
        };
        let weight = tensor(d_out * d_in, "weight").reshape([d_out, d_in]);
        Self::new(weight, Some(tensor(d_out, "bias")))
    }

    /// Creates a layer as transformers does for a new head: weights normal with standard deviation `std`, biases 0.
    ///
    /// As with [`random`](Self::random), the numbers follow from `seed` and `name` alone.
    pub fn normal(
        d_in: usize,
        d_out: usize,
        std: f64,
        (seed, name): (u64, &str),
        device: &Device,
    ) -> Self {
        let values = methods::normal(d_out * d_in, std, seed, &format!("{name}.weight"));
        let weight = Tensor::from_data(TensorData::new(values, [d_out, d_in]), device);
        Self::new(weight, Some(Tensor::zeros([d_out], device)))
    }

    /// Applies the layer.
    ///
    /// # Shapes
    ///
    /// - x: `[N, d_in]`
    /// - output: `[N, d_out]`
    ///
    /// # Numerics
    ///
    /// With a packed weight, those of [`packed_linear`].
    pub fn forward(&self, x: Tensor<2>, context: &ForwardContext) -> Tensor<2> {
        if let Some(layer) = self.fused(context) {
            return packed_linear(x, layer);
        }
        let y = methods::linear(x, self.weight.param(), context);
        match &self.bias {
            Some(bias) => y + bias.val().unsqueeze::<2>(),
            None => y,
        }
    }
}
