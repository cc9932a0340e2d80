//! Element types.

use std::fmt;

use super::q8_0;
use crate::checkpoint::Dtype;
use crate::rounding;

/// The element type of a tensor in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GgufDtype {
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point.
    F16,
    /// The upper half of `f32`.
    BF16,
    /// Blocks of 32 numbers of 8 bits that share a scale.
    Q8_0,
}

impl GgufDtype {
    /// The types, by what the program calls them.
    pub const WORDS: [(&'static str, Self); 4] = [
        ("f32", Self::F32),
        ("f16", Self::F16),
        ("bf16", Self::BF16),
        ("q8_0", Self::Q8_0),
    ];

    /// Returns the type that rounds nothing of a stored one, or `None` if there is none.
    pub fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::BF16),
            _ => None,
        }
    }

    /// Returns what the program calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::Q8_0 => "q8_0",
        }
    }

    /// Returns the number of the type in a tensor's entry.
    pub(super) fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 8,
            Self::BF16 => 30,
        }
    }

    /// Returns the number that says of a whole file that most of it has this type.
    pub(super) fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 7,
            Self::BF16 => 32,
        }
    }

    /// Returns how many numbers are stored together; rows are whole blocks.
    pub(super) fn block(self) -> usize {
        match self {
            Self::Q8_0 => q8_0::BLOCK,
            _ => 1,
        }
    }

    /// Returns the bytes of a number of elements, whole blocks; `None` if there are too many.
    pub(super) fn n_bytes(self, n_elements: usize) -> Option<usize> {
        let of_block = match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q8_0 => q8_0::BYTES,
        };
        (n_elements / self.block()).checked_mul(of_block)
    }

    /// Returns the largest magnitude that it holds.
    pub(super) fn largest(self) -> f64 {
        match self {
            Self::F32 => f64::from(f32::MAX),
            Self::F16 => half::f16::MAX.to_f64(),
            Self::BF16 => half::bf16::MAX.to_f64(),
            // Its scale is an f16, and its numbers reach to 127 times that.
            Self::Q8_0 => half::f16::MAX.to_f64() * 127.0,
        }
    }

    /// Returns numbers, whole blocks, as they are read back.
    pub(super) fn rounded(self, values: &[f64]) -> Vec<f64> {
        let each = |of: fn(f64) -> f64| values.iter().map(|value| of(*value)).collect();
        match self {
            Self::F32 => each(|value| f64::from(value as f32)),
            Self::F16 => each(|value| rounding::to_f16(value).to_f64()),
            Self::BF16 => each(|value| rounding::to_bf16(value).to_f64()),
            Self::Q8_0 => q8_0::rounded(values),
        }
    }

    /// Adds the bytes of numbers, whole blocks, each rounded once.
    pub(super) fn append(self, values: &[f64], bytes: &mut Vec<u8>) {
        match self {
            Self::F32 => bytes.extend(values.iter().flat_map(|v| (*v as f32).to_le_bytes())),
            Self::F16 => {
                bytes.extend(
                    values
                        .iter()
                        .flat_map(|v| rounding::to_f16(*v).to_le_bytes()),
                );
            }
            Self::BF16 => {
                bytes.extend(
                    values
                        .iter()
                        .flat_map(|v| rounding::to_bf16(*v).to_le_bytes()),
                );
            }
            Self::Q8_0 => q8_0::append(values, bytes),
        }
    }
}

impl fmt::Display for GgufDtype {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
