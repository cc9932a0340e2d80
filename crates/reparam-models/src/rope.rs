//! The frequencies of rotary positions.

use reparam_formats::config::{JsonObject, RopeParameters, RopeScaling, YarnScaling};

use crate::ModelError;
use crate::architecture::{RotarySpec, StretchSpec};

impl RotarySpec {
    /// Makes the rotary positions of heads. `raw` is the configuration, for messages.
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidValue`](reparam_formats::config::ConfigError::InvalidValue) if there are other than one number for each
    /// pair, or frequencies are none that can be turned by.
    pub(crate) fn new(
        rope: &RopeParameters,
        head_dim: usize,
        raw: &JsonObject,
    ) -> Result<Self, ModelError> {
        let turned = rope.turned(head_dim);
        let pairs = turned.div_ceil(2);
        if let RopeScaling::LongRope {
            short_factor,
            long_factor,
            ..
        } = &rope.scaling
        {
            for (name, divisors) in [("short_factor", short_factor), ("long_factor", long_factor)] {
                if divisors.len() != pairs {
                    let found = divisors.len();
                    let reason = format!("{name} has {found} numbers for {pairs} pairs of a head");
                    return Err(invalid(raw, reason));
                }
            }
        }
        let made = Self {
            inverse_frequencies: inverse_frequencies(rope, turned),
            head_dim,
            attention_factor: rope.scaling.attention_factor(),
            interleaved: false,
            stretch: stretch(rope, turned),
            theta: rope.theta,
            scaling: rope.scaling.clone(),
        };
        let stretched = match &made.stretch {
            Some(StretchSpec::Fixed {
                inverse_frequencies,
                ..
            }) => &inverse_frequencies[..],
            _ => &[],
        };
        let mut frequencies = made.inverse_frequencies.iter().chain(stretched);
        if frequencies.any(|f| !f.is_finite()) {
            return Err(invalid(raw, "its frequencies are not finite".to_owned()));
        }
        let factor = made.attention_factor as f32;
        if !(factor.is_finite() && factor > 0.0) {
            let factor = made.attention_factor;
            return Err(invalid(raw, format!("its attention factor is {factor}")));
        }
        Ok(made)
    }
}

/// The error of settings that cannot be turned by, which may be of several keys.
fn invalid(raw: &JsonObject, reason: String) -> ModelError {
    let mut keys = ["rope_scaling", "rope_parameters"].into_iter();
    let key = keys.find(|key| raw.get(key).is_some_and(|value| !value.is_null()));
    raw.invalid(key.unwrap_or("rope_theta"), reason).into()
}

/// Returns the frequencies of the `turned` elements of a head, in radians a token and in pairs.
///
/// ```text
/// f_i = theta^(-2i / turned)
/// linear:    f_i / factor
/// llama3:    wavelengths above original/low_freq_factor are divided by factor, those below
///            original/high_freq_factor are kept, and what is between is interpolated
/// yarn:      r_i f_i / factor + (1 - r_i) f_i, with r_i from 0 to 1 between the pairs that turn beta_fast and beta_slow
///            times within original
/// longrope:  f_i / short_factor_i
/// dynamic:   f_i
/// ```
///
/// Computed in `f32` in the reference implementation's order of operations, so that the angles
/// agree to the last bit or two.
fn inverse_frequencies(rope: &RopeParameters, turned: usize) -> Vec<f32> {
    let plain = || frequencies(rope.theta, turned).into_iter();
    match &rope.scaling {
        RopeScaling::Default | RopeScaling::Dynamic { .. } => plain().collect(),
        RopeScaling::Linear { factor } => plain().map(|f| f / *factor as f32).collect(),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => {
            let original = *original_max_position_embeddings as f64;
            let settings = [*factor, *low_freq_factor, *high_freq_factor, original];
            let settings = settings.map(|value| value as f32);
            plain().map(|f| llama3(f, settings)).collect()
        }
        RopeScaling::Yarn(settings) => yarn(rope.theta, turned, settings),
        RopeScaling::LongRope { short_factor, .. } => divided(rope.theta, turned, short_factor),
    }
}

/// Returns what long sequences are turned by, if that is something else.
fn stretch(rope: &RopeParameters, turned: usize) -> Option<StretchSpec> {
    match &rope.scaling {
        RopeScaling::LongRope {
            long_factor,
            original_max_position_embeddings,
            ..
        } => Some(StretchSpec::Fixed {
            beyond: *original_max_position_embeddings,
            inverse_frequencies: divided(rope.theta, turned, long_factor),
        }),
        RopeScaling::Dynamic {
            factor,
            max_position_embeddings,
        } => Some(StretchSpec::Dynamic {
            beyond: *max_position_embeddings,
            theta: rope.theta,
            factor: *factor,
        }),
        _ => None,
    }
}

/// Returns `theta^(-2i / turned)`.
pub(crate) fn frequencies(theta: f64, turned: usize) -> Vec<f32> {
    powers(theta, turned).map(|power| 1.0 / power).collect()
}

/// Returns the base of a sequence that is `ratio` times as long as the context of the first training:
///
/// ```text
/// theta (factor ratio - (factor - 1))^(turned / (turned - 2))
/// ```
pub(crate) fn dynamic_theta(theta: f64, factor: f64, ratio: f64, turned: usize) -> f64 {
    let turned = turned as f64;
    theta * (factor * ratio - (factor - 1.0)).powf(turned / (turned - 2.0))
}

/// `theta^(2i / turned)`
fn powers(theta: f64, turned: usize) -> impl Iterator<Item = f32> {
    let theta = theta as f32;
    let power = move |i: usize| theta.powf((2 * i) as f32 / turned as f32);
    (0..turned.div_ceil(2)).map(power)
}

fn divided(theta: f64, turned: usize, divisors: &[f64]) -> Vec<f32> {
    let pairs = powers(theta, turned).zip(divisors);
    pairs
        .map(|(power, divisor)| 1.0 / (*divisor as f32 * power))
        .collect()
}

fn llama3(frequency: f32, [factor, low, high, original]: [f32; 4]) -> f32 {
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

fn yarn(theta: f64, turned: usize, settings: &YarnScaling) -> Vec<f32> {
    // The pair that turns so many times within the original length.
    let pair = |turns: f64| {
        let original = settings.original_max_position_embeddings as f64;
        let log = (original / (turns * 2.0 * std::f64::consts::PI)).ln();
        turned as f64 * log / (2.0 * theta.ln())
    };
    let (mut first, mut last) = (pair(settings.beta_fast), pair(settings.beta_slow));
    if settings.truncate {
        (first, last) = (first.floor(), last.ceil());
    }
    (first, last) = (first.max(0.0), last.min(turned as f64 - 1.0));
    if first == last {
        last += 0.001;
    }
    let (first, width) = (first as f32, (last - first) as f32);
    let factor = settings.factor as f32;
    let pairs = powers(theta, turned).enumerate();
    pairs
        .map(|(i, power)| {
            let kept = 1.0 - ((i as f32 - first) / width).clamp(0.0, 1.0);
            1.0 / (factor * power) * (1.0 - kept) + 1.0 / power * kept
        })
        .collect()
}
