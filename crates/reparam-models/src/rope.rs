//! The frequencies of rotary positions.

use reparam_formats::config::{RopeParameters, RopeScaling};

/// Returns the frequencies of the rotated part of a head, in radians a token: `d = share * head_dim` elements, in pairs.
///
/// ```text
/// f_i = theta^(-2i / d)
/// linear:  f_i / factor
/// llama3:  wavelengths above original/low_freq_factor are divided by factor, those below
///          original/high_freq_factor are kept, and what is between is interpolated
/// ```
///
/// Computed in `f32` in the reference implementation's order of operations, so that the angles
/// agree to the last bit or two.
pub fn inverse_frequencies(rope: &RopeParameters, head_dim: usize) -> Vec<f32> {
    let turned = (head_dim as f64 * rope.share) as usize;
    let theta = rope.theta as f32;
    let frequency = |i: usize| 1.0 / theta.powf((2 * i) as f32 / turned as f32);
    (0..turned.div_ceil(2))
        .map(|i| scale(frequency(i), &rope.scaling))
        .collect()
}

fn scale(frequency: f32, scaling: &RopeScaling) -> f32 {
    match *scaling {
        RopeScaling::Default => frequency,
        RopeScaling::Linear { factor } => frequency / factor as f32,
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => {
            let (factor, low, high) = (
                factor as f32,
                low_freq_factor as f32,
                high_freq_factor as f32,
            );
            let original = original_max_position_embeddings as f32;
            let wavelength = 2.0 * std::f32::consts::PI / frequency;
            if wavelength > original / low {
                frequency / factor
            } else if wavelength < original / high {
                frequency
            } else {
                let smooth = (original / wavelength - low) / (high - low);
                (1.0 - smooth) * frequency / factor + smooth * frequency
            }
        }
    }
}
