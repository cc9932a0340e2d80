//! The normalization at the head of a fused operation.

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use reparam_kernels::{Bf16, rms_norm};

use super::buffer::Buffer;
use crate::native::{primitive, run, values};
use crate::profile::{self, Work};

/// A frozen root mean square normalization.
#[derive(Debug, Clone)]
pub struct FusedNorm {
    /// `[d]`, `f32`.
    pub weight: Tensor<1>,
    /// What is added to the mean square.
    pub eps: f32,
}

/// The normalization on slices.
#[derive(Debug, Clone)]
pub(super) struct Norm {
    weight: FlexTensor,
    eps: f32,
}

impl Norm {
    pub(super) fn new(norm: FusedNorm) -> Self {
        Self {
            weight: primitive(norm.weight),
            eps: norm.eps,
        }
    }

    fn width(&self) -> usize {
        values(&self.weight).len()
    }

    /// The tokens of hidden states.
    pub(super) fn n_tokens(&self, h: &[Bf16]) -> usize {
        h.len() / self.width()
    }

    /// The normalized rows and the inverse root mean square of each.
    pub(super) fn forward(&self, h: &[Bf16]) -> (Buffer<Bf16>, Buffer<f32>) {
        let mut x = Buffer::dirty(h.len());
        let mut inv_rms = Buffer::dirty(self.n_tokens(h));
        profile::measure(Work::Norm, 0.0, || {
            run(rms_norm::rms_norm_forward(
                h,
                values(&self.weight),
                self.eps,
                &mut x,
                &mut inv_rms,
            ));
        });
        (x, inv_rms)
    }

    /// Adds the gradient of the rows to `dh`.
    pub(super) fn backward_add(&self, dx: &[Bf16], h: &[Bf16], inv_rms: &[f32], dh: &mut [Bf16]) {
        profile::measure(Work::Norm, 0.0, || {
            let weight = values(&self.weight);
            run(rms_norm::rms_norm_backward_add(dx, h, weight, inv_rms, dh));
        });
    }
}
