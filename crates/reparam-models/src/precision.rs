//! In which precision a model computes.

/// What a model's frozen weights and activations are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32-bit floating point throughout. Any method can be attached.
    F32,
    /// Frozen weights are packed as bf16 and activations lie in memory as bf16; sums are `f32`. Low-rank methods can be
    /// attached, whose factors, gradients and optimizer state stay `f32`.
    Bf16,
}

impl Precision {
    /// The name: `f32` or `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}
