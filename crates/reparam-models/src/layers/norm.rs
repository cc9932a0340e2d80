//! Norms.

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};
use reparam_ops::fused::{FusedNorm, norm};
use reparam_ops::{layer_norm, rms_norm};

use crate::architecture::NormKind;

/// A norm over the rows of a matrix.
#[derive(Module, Debug)]
pub struct Norm {
    /// `[d]`.
    pub weight: Param<Tensor<1>>,
    /// `[d]`, if the norm shifts.
    pub bias: Option<Param<Tensor<1>>>,
    /// What it computes.
    #[module(skip)]
    pub kind: NormKind,
    /// What is added to the mean square.
    pub eps: f64,
}

impl Norm {
    /// Normalizes rows in `f32` or bf16.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        if x.dtype() == DType::BF16 {
            return norm(x, self.fused());
        }
        let eps = self.eps as f32;
        match &self.bias {
            None => rms_norm(x, self.scale(), eps),
            Some(bias) => layer_norm(x, self.scale(), bias.val(), eps),
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
            shift: self.bias.as_ref().map(Param::val),
            eps: self.eps as f32,
        }
    }

    /// What normalized rows are multiplied by.
    fn scale(&self) -> Tensor<1> {
        match self.kind {
            NormKind::Rms | NormKind::Layer => self.weight.val(),
            NormKind::RmsPlusOne => self.weight.val() + 1.0,
        }
    }
}
