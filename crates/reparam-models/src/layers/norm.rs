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
    /// `[d]`.
    pub weight: Param<Tensor<1>>,
    /// `[d]`, if the norm has one.
    pub bias: Option<Param<Tensor<1>>>,
    /// What it computes.
    #[module(skip)]
    pub kind: NormKind,
    /// What is added to the mean square.
    pub eps: f64,
}

impl Norm {
    /// A norm that changes no scale, and does not shift.
    pub(crate) fn new(path: String, spec: &NormSpec, device: &Device) -> Named<Self> {
        let vector = |x: Tensor<1>| Param::from_tensor(x).set_require_grad(false);
        let width = [spec.width];
        let norm = Self {
            weight: vector(match spec.kind {
                NormKind::RmsPlusOne => Tensor::zeros(width, device),
                _ => Tensor::ones(width, device),
            }),
            bias: (spec.kind == NormKind::Layer).then(|| vector(Tensor::zeros(width, device))),
            kind: spec.kind,
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
        match (&self.bias, self.kind) {
            (Some(bias), _) => layer_norm(x, self.scale(), bias.val(), eps),
            (None, NormKind::LayerWithoutBias) => {
                layer_norm(x, self.scale(), self.weight.val().zeros_like(), eps)
            }
            (None, _) => rms_norm(x, self.scale(), eps),
        }
    }

    /// Normalizes each of the heads that lie side by side in a row.
    pub(crate) fn forward_heads(&self, x: Tensor<2>) -> Tensor<2> {
        let [n, width] = x.dims();
        let head_dim = self.weight.lazy_shape()[0];
        let heads = x.reshape([n * (width / head_dim), head_dim]);
        self.forward(heads).reshape([n, width])
    }

    pub(crate) fn fused(&self) -> FusedNorm {
        FusedNorm {
            weight: self.scale(),
            shift: match (&self.bias, self.kind) {
                (None, NormKind::LayerWithoutBias) => Some(self.weight.val().zeros_like()),
                (bias, _) => bias.as_ref().map(Param::val),
            },
            eps: self.eps as f32,
        }
    }

    /// What normalized rows are multiplied by.
    fn scale(&self) -> Tensor<1> {
        match self.kind {
            NormKind::Rms | NormKind::Layer | NormKind::LayerWithoutBias => self.weight.val(),
            NormKind::RmsPlusOne => self.weight.val() + 1.0,
        }
    }
}
