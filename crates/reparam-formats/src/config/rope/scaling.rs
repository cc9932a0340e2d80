//! The ways in which rotary positions are stretched for longer contexts.

use super::RopeDefaults;
use crate::config::{ConfigError, JsonObject};

/// A change of the rotary frequencies `f_i`.
///
/// Some also multiply cosines and sines by an attention factor, so that the products of queries and keys grow by its square.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// The frequencies are used as they are.
    Default,
    /// All frequencies are divided by `factor`.
    Linear {
        /// The ratio of the new context length to the old one.
        factor: f64,
    },
    /// Sequences of `L` tokens, more than `max_position_embeddings`, have a larger base:
    /// `theta (factor L / max - (factor - 1))^(d / (d - 2))`.
    Dynamic {
        /// The ratio of the new context length to the old one.
        factor: f64,
        /// The longest sequence, in tokens, whose frequencies are used as they are.
        max_position_embeddings: usize,
    },
    /// YaRN: slow frequencies are divided by `factor`, fast ones are kept, and between them is a ramp.
    Yarn(YarnScaling),
    /// LongRoPE (arXiv 2402.13753): each frequency is divided by a number of its own, in sequences of more than `original` tokens
    /// by another one.
    LongRope {
        /// The divisors up to `original` tokens, one for each pair.
        short_factor: Vec<f64>,
        /// The divisors beyond.
        long_factor: Vec<f64>,
        /// What cosines and sines are multiplied by.
        attention_factor: f64,
        /// The context length `original` of the first training, in tokens.
        original_max_position_embeddings: usize,
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

/// The settings of YaRN.
///
/// A frequency that turns less than `beta_slow` times within `original` positions is divided by `factor`, one that turns more than
/// `beta_fast` times is kept; between these pairs the share of the first rises linearly.
///
/// # References
///
/// Peng et al., *YaRN* (arXiv 2309.00071), equations 22 to 25.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct YarnScaling {
    /// The ratio of the new context length to the old one.
    pub factor: f64,
    /// Bounds the fast frequencies, in turns.
    pub beta_fast: f64,
    /// Bounds the slow frequencies, in turns.
    pub beta_slow: f64,
    /// Whether the ramp begins and ends at whole pairs.
    pub truncate: bool,
    /// What cosines and sines are multiplied by.
    pub attention_factor: f64,
    /// The context length `original` of the first training, in tokens.
    pub original_max_position_embeddings: usize,
}

impl RopeScaling {
    /// The values of `rope_type` that are supported.
    pub const TYPES: [&'static str; 6] =
        ["default", "linear", "dynamic", "yarn", "longrope", "llama3"];

    /// Reads the settings of a type from the object that names it.
    pub(super) fn read(
        rope_type: &str,
        object: &JsonObject,
        lengths: Lengths,
    ) -> Result<Self, ConfigError> {
        match rope_type {
            "default" => Ok(Self::Default),
            "linear" => Ok(Self::Linear {
                factor: required(object, "factor")?,
            }),
            "dynamic" => Ok(Self::Dynamic {
                factor: required(object, "factor")?,
                max_position_embeddings: lengths.max,
            }),
            "yarn" => yarn(object, lengths),
            "longrope" => longrope(object, lengths),
            "llama3" => llama3(object, lengths),
            other => Err(super::unsupported(object, other)),
        }
    }

    /// Returns what cosines and sines are multiplied by.
    pub fn attention_factor(&self) -> f64 {
        match self {
            Self::Yarn(yarn) => yarn.attention_factor,
            Self::LongRope {
                attention_factor, ..
            } => *attention_factor,
            _ => 1.0,
        }
    }
}

/// The lengths of contexts, in tokens, at least 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lengths {
    /// The model's own, `max_position_embeddings`.
    max: usize,
    /// That of the first training.
    original: usize,
}

const ORIGINAL: &str = "original_max_position_embeddings";

impl Lengths {
    /// Reads those of a model whose layers share their positions: what stands beside the object wins, the family's default included.
    pub(super) fn beside(
        config: &JsonObject,
        object: Option<&JsonObject>,
        defaults: RopeDefaults,
    ) -> Result<Self, ConfigError> {
        match config.size(ORIGINAL)?.or(defaults.original_max_positions) {
            Some(original) => Ok(Self {
                max: max_positions(config, defaults)?,
                original,
            }),
            None => Self::inside(config, object, defaults),
        }
    }

    /// Reads those of layers with positions of their own. Without an original length, that of the model is meant.
    pub(super) fn inside(
        config: &JsonObject,
        object: Option<&JsonObject>,
        defaults: RopeDefaults,
    ) -> Result<Self, ConfigError> {
        let max = max_positions(config, defaults)?;
        let original = match object {
            Some(object) => object.size(ORIGINAL)?,
            None => None,
        };
        Ok(Self {
            max,
            original: original.unwrap_or(max),
        })
    }

    /// How much longer the model's context is than that of the first training.
    fn ratio(self) -> f64 {
        self.max as f64 / self.original as f64
    }
}

fn max_positions(config: &JsonObject, defaults: RopeDefaults) -> Result<usize, ConfigError> {
    let found = config.size("max_position_embeddings")?;
    Ok(found.unwrap_or(defaults.max_positions))
}

fn yarn(object: &JsonObject, lengths: Lengths) -> Result<RopeScaling, ConfigError> {
    let factor = positive(object, "factor")?.unwrap_or(lengths.ratio());
    let scale = |weight: f64| match factor <= 1.0 {
        true => 1.0,
        false => 0.1 * weight * factor.ln() + 1.0,
    };
    // A weight of 0 counts as none.
    let weight = |key| Ok::<_, ConfigError>(object.f64(key)?.filter(|weight| *weight != 0.0));
    let inferred = match (weight("mscale")?, weight("mscale_all_dim")?) {
        (Some(weight), Some(all)) => scale(weight) / scale(all),
        _ => scale(1.0),
    };
    let [fast, slow] = ["beta_fast", "beta_slow"];
    let (beta_fast, beta_slow) = (
        positive(object, fast)?.unwrap_or(32.0),
        positive(object, slow)?.unwrap_or(1.0),
    );
    if beta_fast < beta_slow {
        let reason = format!("it has to be at least {slow}, which is {beta_slow}");
        return Err(object.invalid(fast, reason));
    }
    Ok(RopeScaling::Yarn(YarnScaling {
        factor,
        beta_fast,
        beta_slow,
        truncate: object.bool("truncate")?.unwrap_or(true),
        attention_factor: positive(object, "attention_factor")?.unwrap_or(inferred),
        original_max_position_embeddings: lengths.original,
    }))
}

fn longrope(object: &JsonObject, lengths: Lengths) -> Result<RopeScaling, ConfigError> {
    let divisors = |key| {
        let found = object.f64s(key)?.ok_or_else(|| object.missing(key))?;
        match found.iter().all(|divisor| *divisor > 0.0) {
            true => Ok(found),
            false => Err(object.invalid(key, "each number has to be larger than 0")),
        }
    };
    let factor = positive(object, "factor")?.unwrap_or(lengths.ratio());
    let original = lengths.original as f64;
    let inferred = match factor <= 1.0 || lengths.original == 1 {
        true => 1.0,
        false => (1.0 + factor.ln() / original.ln()).sqrt(),
    };
    Ok(RopeScaling::LongRope {
        short_factor: divisors("short_factor")?,
        long_factor: divisors("long_factor")?,
        attention_factor: positive(object, "attention_factor")?.unwrap_or(inferred),
        original_max_position_embeddings: lengths.original,
    })
}

fn llama3(object: &JsonObject, lengths: Lengths) -> Result<RopeScaling, ConfigError> {
    let low_freq_factor = required(object, "low_freq_factor")?;
    let high_freq_factor = required(object, "high_freq_factor")?;
    if high_freq_factor <= low_freq_factor {
        let reason =
            format!("it has to be larger than low_freq_factor, which is {low_freq_factor}");
        return Err(object.invalid("high_freq_factor", reason));
    }
    Ok(RopeScaling::Llama3 {
        factor: required(object, "factor")?,
        low_freq_factor,
        high_freq_factor,
        original_max_position_embeddings: lengths.original,
    })
}

fn required(object: &JsonObject, key: &str) -> Result<f64, ConfigError> {
    positive(object, key)?.ok_or_else(|| object.missing(key))
}

fn positive(object: &JsonObject, key: &str) -> Result<Option<f64>, ConfigError> {
    match object.f64(key)? {
        Some(value) if value.is_nan() || value <= 0.0 => {
            Err(object.invalid(key, "it has to be larger than 0"))
        }
        value => Ok(value),
    }
}
