//! In which precision a model computes.

use reparam_ops::fused::PackedDType;

/// What a model's frozen weights and activations are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32-bit floating point throughout. Any method can be attached.
    F32,
    /// Frozen weights are packed as bf16 and activations lie in memory as bf16; sums are `f32`. Low-rank methods can be
    /// attached, whose factors, gradients and optimizer state stay `f32`.
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
