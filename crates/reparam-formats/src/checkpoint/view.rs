//! A look at a tensor in memory.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::Dtype;
use crate::FormatError;

/// How many 16-bit numbers are converted at a time; they and their results fit the first-level cache.
const CHUNK: usize = 2048;

/// The bytes, element type and shape of a tensor as a file stores it.
///
/// The bytes are little-endian and row-major, and need not be aligned: a safetensors file may place
/// a tensor anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorView<'a> {
    /// The element type.
    pub dtype: Dtype,
    /// The shape; empty for a scalar.
    pub shape: &'a [usize],
    /// The stored bytes, `shape.product() * dtype.size()` of them.
    pub bytes: &'a [u8],
}

impl TensorView<'_> {
    /// Returns the number of elements.
    pub fn n_elements(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    /// Returns the elements as `f32`.
    ///
    /// BF16 and F16 convert exactly (NaNs become quiet), F64 rounds to the nearest `f32`.
    ///
    /// # Errors
    ///
    /// [`FormatError::NotFloat`] for integers and booleans.
    pub fn to_f32_vec(&self) -> Result<Vec<f32>, FormatError> {
        let mut values = vec![0.0; self.n_elements()];
        self.read_f32(&mut values)?;
        Ok(values)
    }

    /// Writes all elements as `f32`.
    pub(super) fn read_f32(&self, to: &mut [f32]) -> Result<(), FormatError> {
        let bytes = self.bytes;
        match self.dtype {
            Dtype::F32 => {
                for (to, word) in to.iter_mut().zip(words(bytes)) {
                    *to = f32::from_le_bytes(word);
                }
            }
            Dtype::F64 => {
                for (to, word) in to.iter_mut().zip(words(bytes)) {
                    *to = f64::from_le_bytes(word) as f32;
                }
            }
            Dtype::BF16 => convert_halves(bytes, bf16::from_bits, to),
            Dtype::F16 => convert_halves(bytes, f16::from_bits, to),
            dtype => return Err(FormatError::NotFloat { dtype }),
        }
        Ok(())
    }

    /// Returns the flat index and the value of the first NaN or infinity.
    ///
    /// Tensors of integers have none.
    pub fn first_non_finite(&self) -> Option<(usize, f64)> {
        // A number is NaN or infinite exactly if all bits of its exponent are set. Testing that on
        // the stored bits needs no conversion and is vectorized by the compiler.
        match self.dtype {
            Dtype::F32 => {
                let index = words(self.bytes)
                    .position(|word| has(u32::from_le_bytes(word), 0x7f80_0000))?;
                let value = f32::from_le_bytes(words(self.bytes).nth(index)?);
                Some((index, f64::from(value)))
            }
            Dtype::F64 => {
                let mut words = words(self.bytes).map(f64::from_le_bytes).enumerate();
                words.find(|(_, value)| !value.is_finite())
            }
            Dtype::BF16 => {
                let index =
                    words(self.bytes).position(|word| has(u16::from_le_bytes(word), 0x7f80))?;
                let value = bf16::from_le_bytes(words(self.bytes).nth(index)?);
                Some((index, value.to_f64()))
            }
            Dtype::F16 => {
                let index =
                    words(self.bytes).position(|word| has(u16::from_le_bytes(word), 0x7c00))?;
                let value = f16::from_le_bytes(words(self.bytes).nth(index)?);
                Some((index, value.to_f64()))
            }
            _ => None,
        }
    }
}

/// Iterates over the elements' bytes.
fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

/// Converts 16-bit numbers through `half`, which uses the machine's own conversion.
fn convert_halves<H, F>(bytes: &[u8], from_bits: F, values: &mut [f32])
where
    H: Copy,
    F: Fn(u16) -> H,
    [H]: HalfFloatSliceExt,
{
    // Copying through a small aligned buffer costs little and is right for any alignment and
    // byte order.
    let mut buffer = [from_bits(0); CHUNK];
    let sources = bytes.chunks(2 * CHUNK);
    for (target, source) in values.chunks_mut(CHUNK).zip(sources) {
        let halves = &mut buffer[..target.len()];
        for (half, word) in halves.iter_mut().zip(source.as_chunks::<2>().0) {
            *half = from_bits(u16::from_le_bytes(*word));
        }
        halves.convert_to_f32_slice(target);
    }
}

/// Returns whether all bits of `mask` are set in `bits`.
fn has<T: Copy + PartialEq + std::ops::BitAnd<Output = T>>(bits: T, mask: T) -> bool {
    bits & mask == mask
}
