//! The parameters of the rotary position embedding.

mod scaling;

use serde_json::Value;

use self::scaling::Lengths;
use super::{ConfigError, JsonObject};

pub use self::scaling::{RopeScaling, YarnScaling};

/// How positions are turned into rotation angles.
///
/// With `d` the rotated part of a head, pair `i` of `d / 2` turns by `position * f_i`, where
/// `f_i = theta^(-2i/d)`, changed by the scaling.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeParameters {
    /// The base `theta` of the frequencies.
    pub theta: f64,
    /// Which part of each head is rotated, above 0 and up to 1: the first `share * head_dim` elements.
    pub share: f64,
    /// How the frequencies are stretched for longer contexts.
    pub scaling: RopeScaling,
}

/// What a family takes where its configuration says nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeDefaults {
    /// The base of the frequencies.
    pub theta: f64,
    /// Which part of each head is rotated.
    pub share: f64,
    /// The model's own context length, in tokens.
    pub max_positions: usize,
    /// The context length of the first training, in tokens, if the family has a default of its own.
    pub original_max_positions: Option<usize>,
    /// Other names that the family's files have for types of scaling.
    pub aliases: &'static [(&'static str, &'static str)],
}

impl RopeParameters {
    /// Reads `rope_parameters`, or the older `rope_theta` and `rope_scaling`.
    ///
    /// As in transformers 5, `rope_scaling` wins where both are given, and a `rope_theta` inside of
    /// the object wins over one beside it.
    ///
    /// # Errors
    ///
    /// [`ConfigError::UnsupportedRope`], [`ConfigError::InvalidValue`], [`ConfigError::MissingKey`],
    /// [`ConfigError::WrongType`].
    pub fn read(config: &JsonObject, defaults: RopeDefaults) -> Result<Self, ConfigError> {
        let object = match filled(config, "rope_scaling")? {
            Some(object) => Some(object),
            None => filled(config, "rope_parameters")?,
        };
        if let Some(object) = &object
            && object.map().values().any(Value::is_object)
        {
            return Err(unsupported(object, "one per layer type"));
        }
        let lengths = Lengths::beside(config, object.as_ref(), defaults)?;
        read_object(config, object.as_ref(), "rope_theta", (defaults, lengths))
    }

    /// Reads the parameters of the layers of one type, where each type has its own: the object of that name in
    /// `rope_parameters`, or the older `theta_key` and, if `takes_scaling`, `rope_scaling`, which changes what the object says.
    ///
    /// As transformers reads them, an `original_max_position_embeddings` of the model has no effect, and `truncate` is refused.
    ///
    /// # Errors
    ///
    /// Those of [`RopeParameters::read`].
    pub fn read_type(
        config: &JsonObject,
        layer_type: &str,
        theta_key: &str,
        takes_scaling: bool,
        defaults: RopeDefaults,
    ) -> Result<Self, ConfigError> {
        let own = match filled(config, "rope_parameters")? {
            Some(all) if all.map().values().all(|of| of.is_object() || of.is_null()) => {
                filled(&all, layer_type)?
            }
            Some(all) => return Err(unsupported(&all, "one for all layer types")),
            None => None,
        };
        let scaling = match takes_scaling {
            true => filled(config, "rope_scaling")?,
            false => None,
        };
        let theta = match (&own, &scaling) {
            (Some(own), Some(_)) => theta(own, "rope_theta")?,
            _ => None,
        };
        let defaults = RopeDefaults {
            theta: theta.unwrap_or(defaults.theta),
            ..defaults
        };
        let object = scaling.or(own);
        if let Some(object) = &object
            && object.bool("truncate")? == Some(false)
        {
            let reason =
                "it has no effect in transformers where layer types have parameters of their own";
            return Err(object.invalid("truncate", reason));
        }
        let lengths = Lengths::inside(config, object.as_ref(), defaults)?;
        read_object(config, object.as_ref(), theta_key, (defaults, lengths))
    }

    /// Returns how many elements of a head are rotated, the first ones.
    pub fn turned(&self, head_dim: usize) -> usize {
        (head_dim as f64 * self.share) as usize
    }
}

fn unsupported(object: &JsonObject, rope_type: &str) -> ConfigError {
    ConfigError::UnsupportedRope {
        path: object.path().to_path_buf(),
        rope_type: rope_type.to_owned(),
    }
}

/// Reads an object that is not empty.
fn filled(config: &JsonObject, key: &str) -> Result<Option<JsonObject>, ConfigError> {
    Ok(config
        .object(key)?
        .filter(|object| !object.map().is_empty()))
}

fn read_object(
    config: &JsonObject,
    object: Option<&JsonObject>,
    theta_key: &str,
    (defaults, lengths): (RopeDefaults, Lengths),
) -> Result<RopeParameters, ConfigError> {
    let (mut theta, mut share) = (theta(config, theta_key)?, share(config)?);
    let mut scaling = RopeScaling::Default;
    if let Some(object) = object {
        theta = self::theta(object, "rope_theta")?.or(theta);
        share = self::share(object)?.or(share);
        let rope_type = match object.str("rope_type")? {
            Some(rope_type) => rope_type,
            None => object.str("type")?.unwrap_or("default"),
        };
        let mut aliases = defaults.aliases.iter();
        let rope_type = match aliases.find(|(alias, _)| *alias == rope_type) {
            Some((_, rope_type)) => rope_type,
            None => rope_type,
        };
        scaling = RopeScaling::read(rope_type, object, lengths)?;
    }
    Ok(RopeParameters {
        theta: theta.unwrap_or(defaults.theta),
        share: share.unwrap_or(defaults.share),
        scaling,
    })
}

fn theta(object: &JsonObject, key: &str) -> Result<Option<f64>, ConfigError> {
    match object.f64(key)? {
        Some(theta) if theta <= 0.0 => Err(object.invalid(key, "it has to be larger than 0")),
        theta => Ok(theta),
    }
}

/// Reads which part of each head is rotated.
fn share(object: &JsonObject) -> Result<Option<f64>, ConfigError> {
    let key = "partial_rotary_factor";
    match object.f64(key)? {
        Some(share) if !(share > 0.0 && share <= 1.0) => {
            Err(object.invalid(key, "it has to be larger than 0 and at most 1"))
        }
        share => Ok(share),
    }
}
