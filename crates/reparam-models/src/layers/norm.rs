//! Norms.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};
use reparam_ops::fused::{FusedNorm, norm};
use reparam_ops::{layer_norm, rms_norm};

use crate::architecture::{NormKind, NormSpec};
use crate::named::Named;

/// A norm over the rows of a matrix.
#[derive(Module, Debug)]
pub struct Norm {
    /// `[d]`, if the norm has one.
    pub weight: Option<Param<Tensor<1>>>,
    /// `[d]`, if the norm has one.
    pub bias: Option<Param<Tensor<1>>>,
    /// What it computes.
    #[module(skip)]
    pub kind: NormKind,
    /// The number of elements that are normalized together.
    pub width: usize,
    /// What is added to the mean square.
    pub eps: f64,
}

impl Norm {
    /// A norm that changes no scale, and does not shift.
    pub(crate) fn new(path: String, spec: &NormSpec, device: &Device) -> Named<Self> {
        let vector = |x: Tensor<1>| Param::from_tensor(x).set_require_grad(false);
        let width = [spec.width];
        let norm = Self {
            weight: match spec.kind {
                NormKind::RmsPlusOne => Some(vector(Tensor::zeros(width, device))),
                NormKind::LayerWithoutWeight => None,
                NormKind::Rms | NormKind::Layer | NormKind::LayerWithoutBias => {
                    Some(vector(Tensor::ones(width, device)))
                }
            },
            bias: (spec.kind == NormKind::Layer).then(|| vector(Tensor::zeros(width, device))),
            kind: spec.kind,
            width: spec.width,
            eps: spec.eps,
        };
        Named::new(path, norm)
    }

    /// Normalizes rows in `f32` or bf16.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        if x.dtype() == DType::BF16 {
            return norm(x, self.fused());
        }
        let eps = self.eps as f32;
        let Some(scale) = self.scale() else {
            return without_weight(x, self.kind, eps);
        };
        match (&self.bias, self.kind) {
            (Some(bias), _) => layer_norm(x, scale, bias.val(), eps),
            (None, NormKind::LayerWithoutBias) => {
                let shift = scale.zeros_like();
                layer_norm(x, scale, shift, eps)
            }
            (None, _) => rms_norm(x, scale, eps),
        }
    }

    /// Normalizes each of the heads that lie side by side in a row.
    pub(crate) fn forward_heads(&self, x: Tensor<2>) -> Tensor<2> {
        let [n, width] = x.dims();
        let heads = x.reshape([n * (width / self.width), self.width]);
        self.forward(heads).reshape([n, width])
    }

    pub(crate) fn fused(&self) -> FusedNorm {
        // Fused operations run on this device alone.
        let weight = self.scale();
        let weight = weight.unwrap_or_else(|| Tensor::ones([self.width], &Device::flex()));
        FusedNorm {
            shift: match (&self.bias, self.kind) {
                (None, NormKind::LayerWithoutBias | NormKind::LayerWithoutWeight) => {
                    Some(weight.zeros_like())
                }
                (bias, _) => bias.as_ref().map(Param::val),
            },
            weight,
            eps: self.eps as f32,
        }
    }

    /// What normalized rows are multiplied by.
    fn scale(&self) -> Option<Tensor<1>> {
        let weight = self.weight.as_ref()?.val();
        Some(match self.kind {
            NormKind::RmsPlusOne => weight + 1.0,
            NormKind::Rms
            | NormKind::Layer
            | NormKind::LayerWithoutBias
            | NormKind::LayerWithoutWeight => weight,
        })
    }
}

/// Normalizes rows in `f32` and does no more.
pub(super) fn without_weight(x: Tensor<2>, kind: NormKind, eps: f32) -> Tensor<2> {
    let [_, width] = x.dims();
    let ones = Tensor::ones([width], (&x.device(), x.dtype()));
    match kind {
        NormKind::Rms | NormKind::RmsPlusOne => rms_norm(x, ones, eps),
        NormKind::Layer | NormKind::LayerWithoutBias | NormKind::LayerWithoutWeight => {
            let zeros = ones.zeros_like();
            layer_norm(x, ones, zeros, eps)
        }
    }
}
