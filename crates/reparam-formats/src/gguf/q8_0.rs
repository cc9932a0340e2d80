//! Q8_0: blocks of 32 numbers, `x = d q` with `d` in f16 and `q` in -127..=127.

use half::f16;

/// The numbers of a block.
pub(super) const BLOCK: usize = 32;
/// Its bytes: the scale, then a byte a number.
pub(super) const BYTES: usize = 2 + BLOCK;

/// Adds whole blocks.
///
/// # Numerics
///
/// The steps are those of `quantize_row_q8_0_ref` of ggml in f32, so the bytes are the same: the numbers are divided by the scale
/// before that is rounded to f16, and rounded away from zero at ties.
pub(super) fn append(values: &[f64], bytes: &mut Vec<u8>) {
    for block in values.as_chunks::<BLOCK>().0 {
        let block = block.map(|value| value as f32);
        let largest = block
            .iter()
            .fold(0.0_f32, |most, value| most.max(value.abs()));
        let scale = largest / 127.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        bytes.extend(f16::from_f32(scale).to_le_bytes());
        // `round` is away from zero at ties, as `roundf`; the cast keeps to the bounds of the type.
        bytes.extend(block.map(|value| ((value * inverse).round() as i8).cast_unsigned()));
    }
}

/// Returns the numbers of whole blocks as they are read back.
pub(super) fn rounded(values: &[f64]) -> Vec<f64> {
    let mut bytes = Vec::with_capacity(values.len() / BLOCK * BYTES);
    append(values, &mut bytes);
    let blocks = bytes.as_chunks::<BYTES>().0.iter();
    let numbers = blocks.flat_map(|[low, high, numbers @ ..]| {
        let scale = f16::from_le_bytes([*low, *high]).to_f32();
        // In f32, as ggml multiplies.
        numbers.map(|number| f64::from(f32::from(number.cast_signed()) * scale))
    });
    numbers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_those_of_the_reference() {
        let mut values = [0.0; BLOCK];
        values[0] = 127.0;
        values[1] = 0.5;
        values[2] = -0.5;
        values[3] = -127.0;
        values[4] = 1.49;
        let mut bytes = Vec::new();
        append(&values, &mut bytes);
        append(&[0.0; BLOCK], &mut bytes);
        assert_eq!(bytes.len(), 2 * BYTES);
        // A scale of 1, and halves away from zero.
        let begin: [u8; 7] = [0x00, 0x3c, 127, 1, 255, 129, 1];
        assert_eq!(bytes[..7], begin);
        assert!(bytes[BYTES..].iter().all(|byte| *byte == 0));
        let read = rounded(&values);
        assert_eq!(read[..5], [127.0, 1.0, -1.0, -127.0, 1.0]);
        assert_eq!(rounded(&read), read);
    }
}
