//! The parameters of the rotary position embedding.

use super::{ConfigError, JsonObject};

/// How positions are turned into rotation angles.
///
/// With `d` the head dimension, pair `i` of `d / 2` turns by `position * f_i`, where
/// `f_i = theta^(-2i/d)`, changed by the scaling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeParameters {
    /// The base `theta` of the frequencies.
    pub theta: f64,
    /// How the frequencies are stretched for longer contexts.
    pub scaling: RopeScaling,
}

/// A change of the rotary frequencies `f_i`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// The frequencies are used as they are.
    Default,
    /// All frequencies are divided by `factor`.
    Linear {
        /// The ratio of the new context length to the old one.
        factor: f64,
    },
    /// Llama 3.1: waves longer than `original / low_freq_factor` positions are divided by
    /// `factor`, those shorter than `original / high_freq_factor` are kept, and the ones between
    /// are interpolated.
    Llama3 {
        /// The ratio of the new context length to the old one.
        factor: f64,
        /// Bounds the long waves.
        low_freq_factor: f64,
        /// Bounds the short waves; larger than `low_freq_factor`.
        high_freq_factor: f64,
        /// The context length `original` of the first training, in tokens.
        original_max_position_embeddings: usize,
    },
}

impl RopeScaling {
    /// The values of `rope_type` that are supported.
    pub const TYPES: [&'static str; 3] = ["default", "linear", "llama3"];
}

/// The base of the frequencies where a configuration gives none.
const DEFAULT_THETA: f64 = 10_000.0;

/// Reads `rope_parameters`, or the older `rope_theta` and `rope_scaling`.
///
/// As in transformers 5, `rope_scaling` wins where both are given, and a `rope_theta` inside of
/// the object wins over one beside it.
pub(super) fn read(config: &JsonObject) -> Result<RopeParameters, ConfigError> {
    let scaling = config
        .object("rope_scaling")?
        .filter(|object| !object.map().is_empty());
    let object = match scaling {
        Some(object) => Some(object),
        None => config
            .object("rope_parameters")?
            .filter(|object| !object.map().is_empty()),
    };
    reject_partial(config)?;
    let outer_theta = theta(config)?;
    let Some(object) = object else {
        let theta = outer_theta.unwrap_or(DEFAULT_THETA);
        return Ok(RopeParameters {
            theta,
            scaling: RopeScaling::Default,
        });
    };
    reject_partial(&object)?;
    if object.map().values().any(serde_json::Value::is_object) {
        return Err(ConfigError::UnsupportedRope {
            path: object.path().to_path_buf(),
            rope_type: "one per layer type".to_owned(),
        });
    }
    let theta = theta(&object)?.or(outer_theta).unwrap_or(DEFAULT_THETA);
    let rope_type = match object.str("rope_type")? {
        Some(rope_type) => rope_type,
        None => object.str("type")?.unwrap_or("default"),
    };
    let scaling = match rope_type {
        "default" => RopeScaling::Default,
        "linear" => RopeScaling::Linear {
            factor: positive(&object, "factor")?,
        },
        "llama3" => llama3(config, &object)?,
        other => {
            return Err(ConfigError::UnsupportedRope {
                path: object.path().to_path_buf(),
                rope_type: other.to_owned(),
            });
        }
    };
    Ok(RopeParameters { theta, scaling })
}

fn llama3(config: &JsonObject, object: &JsonObject) -> Result<RopeScaling, ConfigError> {
    let key = "original_max_position_embeddings";
    // A value beside the object wins; without any, the model's own context length is meant.
    let original = match config.usize(key)? {
        Some(original) => original,
        None => match object.usize(key)? {
            Some(original) => original,
            None => config
                .usize("max_position_embeddings")?
                .unwrap_or(super::DEFAULT_CONTEXT),
        },
    };
    if original == 0 {
        return Err(object.invalid(key, "it has to be at least 1"));
    }
    let low_freq_factor = positive(object, "low_freq_factor")?;
    let high_freq_factor = positive(object, "high_freq_factor")?;
    if high_freq_factor <= low_freq_factor {
        let reason =
            format!("it has to be larger than low_freq_factor, which is {low_freq_factor}");
        return Err(object.invalid("high_freq_factor", reason));
    }
    Ok(RopeScaling::Llama3 {
        factor: positive(object, "factor")?,
        low_freq_factor,
        high_freq_factor,
        original_max_position_embeddings: original,
    })
}

fn theta(object: &JsonObject) -> Result<Option<f64>, ConfigError> {
    match object.f64("rope_theta")? {
        Some(theta) if theta <= 0.0 => {
            Err(object.invalid("rope_theta", "it has to be larger than 0"))
        }
        theta => Ok(theta),
    }
}

fn positive(object: &JsonObject, key: &str) -> Result<f64, ConfigError> {
    let value = object.f64(key)?.ok_or_else(|| object.missing(key))?;
    if value > 0.0 {
        Ok(value)
    } else {
        Err(object.invalid(key, "it has to be larger than 0"))
    }
}

/// Refuses models that rotate a part of each head only.
fn reject_partial(object: &JsonObject) -> Result<(), ConfigError> {
    match object.f64("partial_rotary_factor")? {
        Some(factor) if factor != 1.0 => Err(object.invalid(
            "partial_rotary_factor",
            "rotating only a part of each head is not supported",
        )),
        _ => Ok(()),
    }
}
