//! The linear layer that runs a method's plan.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use reparam_ops::fused::{FrozenWeight, FusedLinear};

use crate::ForwardContext;
use crate::methods;

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
    /// `W` in bf16, for fused operations, if that is where it is: see [`Linear::frozen`].
    #[module(skip)]
    pub frozen: Option<FrozenWeight>,
}

impl Linear {
    /// Creates a layer with trainable parameters of the given values.
    pub fn new(weight: Tensor<2>, bias: Option<Tensor<1>>) -> Self {
        Self {
            weight: Param::from_tensor(weight),
            bias: bias.map(Param::from_tensor),
            frozen: None,
        }
    }

    /// Creates a layer whose weight is frozen and packed for the fused operations: see [`Linear::fused`].
    ///
    /// The parameter `weight` has the right shape, so that methods can be attached to it, and takes no memory. It is full of
    /// NaN: whoever computes with it by mistake notices.
    pub fn frozen(weight: FrozenWeight, bias: Option<Tensor<1>>, device: &Device) -> Self {
        let absent = Tensor::<2>::full([1, 1], f32::NAN, (device, DType::F32));
        let frozen = |tensor| Param::from_tensor(tensor).set_require_grad(false);
        Self {
            weight: frozen(absent.expand(weight.dims())),
            bias: bias.map(|bias| Param::from_tensor(bias).set_require_grad(false)),
            frozen: Some(weight),
        }
    }

    /// Returns the layer as fused operations take it, with the low-rank factors of the method that is attached.
    ///
    /// `None` if the weight is an ordinary parameter.
    pub fn fused(&self, context: &ForwardContext) -> Option<FusedLinear> {
        let weight = self.frozen.clone()?;
        Some(FusedLinear {
            weight,
            bias: self.bias.as_ref().map(Param::val),
            low_rank: methods::fused_low_rank(&self.weight, context),
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

    /// Applies the layer.
    ///
    /// # Shapes
    ///
    /// - x: `[N, d_in]`
    /// - output: `[N, d_out]`
    ///
    /// # Panics
    ///
    /// Panics when the weight is packed: such a layer is part of a fused operation.
    pub fn forward(&self, x: Tensor<2>, context: &ForwardContext) -> Tensor<2> {
        assert!(
            self.frozen.is_none(),
            "a packed weight runs in fused operations only"
        );
        let y = methods::linear(x, &self.weight, context);
        match &self.bias {
            Some(bias) => y + bias.val().unsqueeze::<2>(),
            None => y,
        }
    }
}
