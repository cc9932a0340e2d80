//! In which precision a model computes.

use burn::tensor::{DType, Tensor};
use reparam_ops::fused::PackedDType;

/// What a model's frozen weights and activations are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32-bit floating point throughout. Any method can be attached.
    F32,
    /// Frozen weights are packed as bf16 and what fused operations keep lies in memory as bf16; sums are `f32`. Heads of encoders,
    /// the table and head of encoder-decoders, and what no fused operation has (dropout, attention to a source, scores by
    /// distance, clipping, norms with weights for each head, recurrent and state-space layers) compute in `f32` between layers with packed weights. Low-rank methods can be attached, whose
    /// factors, gradients and optimizer state stay `f32`.
    Bf16,
    /// As [`Precision::Bf16`], with frozen weights of 8-bit integers and a scale for each of their rows: half the memory, and
    /// up to twice the speed of decoding. For inference.
    Int8,
}

impl Precision {
    /// The name: `f32`, `bf16` or `int8`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// What frozen weights are packed as, if they are.
    pub(crate) fn packed(self) -> Option<PackedDType> {
        match self {
            Self::F32 => None,
            Self::Bf16 => Some(PackedDType::Bf16),
            Self::Int8 => Some(PackedDType::Int8),
        }
    }
}

/// Makes `f32` of bf16, for what computes in no less.
pub(crate) fn widened(h: Tensor<2>) -> Tensor<2> {
    match h.dtype() {
        DType::BF16 => h.cast(DType::F32),
        _ => h,
    }
}

/// Makes bf16 of `f32`, for fused operations.
pub(crate) fn narrowed(h: Tensor<2>) -> Tensor<2> {
    match h.dtype() {
        DType::F32 => h.cast(DType::BF16),
        _ => h,
    }
}

/// Returns the number of bf16 that is nearest to a finite one, of two the even one.
pub(crate) fn rounded_to_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    let half = 0x7fff + ((bits >> 16) & 1);
    f32::from_bits(bits.wrapping_add(half) & 0xffff_0000)
}
