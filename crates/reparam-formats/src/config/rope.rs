//! The parameters of the rotary position embedding.

mod scaling;

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
            && object.map().values().any(serde_json::Value::is_object)
        {
            return Err(ConfigError::UnsupportedRope {
                path: object.path().to_path_buf(),
                rope_type: "one per layer type".to_owned(),
            });
        }
        read_object(config, object.as_ref(), "rope_theta", defaults)
    }

    /// Reads the parameters of the layers of one type, where each type has its own: the object of that name in
    /// `rope_parameters`, or the older `theta_key` and, if `takes_scaling`, `rope_scaling`.
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
            Some(all) => filled(&all, layer_type)?,
            None => None,
        };
        let scaling = match takes_scaling {
            true => filled(config, "rope_scaling")?,
            false => None,
        };
        read_object(config, scaling.or(own).as_ref(), theta_key, defaults)
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
    defaults: RopeDefaults,
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
        scaling = RopeScaling::read(rope_type, config, object, defaults)?;
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
