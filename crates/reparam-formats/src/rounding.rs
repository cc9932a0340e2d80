//! Numbers of `f64` rounded once to a smaller type.

use half::{bf16, f16};

use crate::FormatError;
use crate::checkpoint::Dtype;

/// Adds the bytes of numbers, little-endian, each rounded once to the nearest of a floating point type (ties to even).
///
/// # Errors
///
/// [`FormatError::NotFloat`] for a type of integers.
pub fn append(values: &[f64], dtype: Dtype, bytes: &mut Vec<u8>) -> Result<(), FormatError> {
    bytes.reserve(values.len() * dtype.size());
    match dtype {
        Dtype::F64 => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Dtype::F32 => bytes.extend(values.iter().flat_map(|v| (*v as f32).to_le_bytes())),
        Dtype::BF16 => bytes.extend(values.iter().flat_map(|v| to_bf16(*v).to_le_bytes())),
        Dtype::F16 => bytes.extend(values.iter().flat_map(|v| to_f16(*v).to_le_bytes())),
        dtype => return Err(FormatError::NotFloat { dtype }),
    }
    Ok(())
}

/// Returns what a number becomes in a floating point type; others leave it as it is.
pub fn rounded(value: f64, dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => f64::from(value as f32),
        Dtype::BF16 => to_bf16(value).to_f64(),
        Dtype::F16 => to_f16(value).to_f64(),
        _ => value,
    }
}

pub(crate) fn to_bf16(value: f64) -> bf16 {
    bf16::from_f32(to_odd_f32(value))
}

pub(crate) fn to_f16(value: f64) -> f16 {
    f16::from_f32(to_odd_f32(value))
}

/// Rounds to one of the two neighbours in `f32`, to the one whose last bit is set unless the number is exact.
///
/// What is rounded so can be rounded again to a type of at most 22 bits as if it had been rounded once: a tie there stays apart
/// from what is next to one (Boldo and Melquiond, *Emulation of FMA and correctly rounded sums*, 2008). The conversions of `half`
/// from `f64` leave out the last 32 bits.
fn to_odd_f32(value: f64) -> f32 {
    let near = value as f32;
    let exact = f64::from(near);
    if exact == value || !near.is_finite() || near.to_bits() & 1 == 1 {
        return near;
    }
    match exact < value {
        true => near.next_up(),
        false => near.next_down(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nearest of a type by its definition: among all neighbours, ties to the even one.
    fn nearest(value: f64, all: impl Iterator<Item = (u16, f64)>) -> u16 {
        let mut best: Option<(u16, f64)> = None;
        for (bits, candidate) in all {
            let distance = (candidate - value).abs();
            let is_better = match best {
                None => true,
                Some((known, least)) => {
                    distance < least || (distance == least && bits & 1 == 0 && known & 1 == 1)
                }
            };
            if is_better {
                best = Some((bits, distance));
            }
        }
        best.expect("a candidate").0
    }

    #[test]
    fn one_rounding_is_that_to_the_nearest() {
        let tie = 1.0 + 2.0_f64.powi(-8);
        let above = tie + 2.0_f64.powi(-45);
        let below = tie - 2.0_f64.powi(-45);
        let half_tie = 1.0 + 2.0_f64.powi(-11);
        let values = [
            0.0,
            1.0,
            tie,
            above,
            below,
            half_tie,
            half_tie + 1e-13,
            half_tie - 1e-13,
            0.1,
            -0.1,
            -above,
            3.0e-8,
            65504.0,
            1e-40,
        ];
        let all = |from: fn(u16) -> f64| {
            (0..=u16::MAX)
                .map(move |bits| (bits, from(bits)))
                .filter(|(_, value)| value.is_finite())
        };
        for value in values {
            let brain = nearest(value, all(|bits| bf16::from_bits(bits).to_f64()));
            assert_eq!(
                to_bf16(value).to_f64(),
                bf16::from_bits(brain).to_f64(),
                "{value}"
            );
            let half = nearest(value, all(|bits| f16::from_bits(bits).to_f64()));
            assert_eq!(
                to_f16(value).to_f64(),
                f16::from_bits(half).to_f64(),
                "{value}"
            );
        }
        // Two roundings lose what is next to a tie.
        assert_ne!(bf16::from_f32(above as f32), to_bf16(above));
    }

    #[test]
    fn bytes_are_those_of_the_rounded_numbers() {
        for dtype in [Dtype::F64, Dtype::F32, Dtype::BF16, Dtype::F16] {
            let mut bytes = Vec::new();
            append(&[0.1, -3.0], dtype, &mut bytes).expect("a floating point type");
            assert_eq!(bytes.len(), 2 * dtype.size());
            assert_eq!(rounded(-3.0, dtype), -3.0);
        }
        assert!(append(&[1.0], Dtype::I8, &mut Vec::new()).is_err());
    }
}
