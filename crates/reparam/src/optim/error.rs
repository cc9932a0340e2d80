//! What can go wrong in an update.

use thiserror::Error;

/// Why an update could not be made.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum OptimError {
    /// A setting is outside its range.
    #[error("{setting} must be {expected}, got {found}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// What it has to be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A gradient holds NaN or infinity.
    #[error("the gradient of `{name}` is not finite")]
    NonFinite {
        /// The first such parameter.
        name: String,
    },
    /// The update made a parameter NaN, infinite or too large to square.
    #[error("the parameter `{name}` is not finite after the update")]
    NonFiniteParameter {
        /// The first such parameter.
        name: String,
    },
    /// A saved state does not belong to this chain of transforms and parameters.
    #[error("`{transform}` has no state `{name}`")]
    UnexpectedState {
        /// The transform.
        transform: &'static str,
        /// The tensor's name.
        name: String,
    },
    /// A saved state lacks a tensor.
    #[error("the state of `{transform}` lacks `{name}`")]
    MissingState {
        /// The transform.
        transform: &'static str,
        /// The tensor's name.
        name: String,
    },
    /// A file with a saved state cannot be written, read or understood.
    #[error("the optimizer's state cannot be kept in a file: {message}")]
    StateFile {
        /// What is wrong.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Transforms are in an order that breaks what one of them promises.
    #[error("`{first}` cannot come before `{second}`: {reason}")]
    Order {
        /// The earlier transform.
        first: &'static str,
        /// The later one.
        second: &'static str,
        /// The law that would not hold.
        reason: &'static str,
        /// What to do.
        fix: &'static str,
    },
    /// A transform of matrices was given something else.
    #[error("`{transform}` updates matrices only, and `{name}` has shape {shape:?}")]
    NotAMatrix {
        /// The transform.
        transform: &'static str,
        /// The parameter.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A transform finds nothing among the parameters to work on.
    #[error("`{transform}` has no effect: {problem}")]
    NoEffect {
        /// The transform.
        transform: &'static str,
        /// What is missing.
        problem: String,
    },
    /// A matrix of rank factors cannot be inverted.
    #[error("`{transform}` cannot invert the Gram matrix of `{name}`")]
    Singular {
        /// The transform.
        transform: &'static str,
        /// The factor.
        name: String,
    },
    /// A gradient's singular vectors could not be found.
    #[error("`{transform}` found no singular vectors of the gradient of `{name}`")]
    NoSingularVectors {
        /// The transform.
        transform: &'static str,
        /// The parameter.
        name: String,
    },
    /// A step was made without the second gradient that a transform needs.
    #[error("`{transform}` needs the gradient at its probe point before a step")]
    NotProbed {
        /// The transform.
        transform: &'static str,
    },
    /// There is no transform of this name.
    #[error("there is no transform `{kind}`")]
    UnknownTransform {
        /// The name.
        kind: String,
    },
    /// A transform has no setting of this name.
    #[error("`{transform}` has no setting `{setting}`")]
    UnknownSetting {
        /// The transform.
        transform: &'static str,
        /// The setting.
        setting: String,
    },
    /// A pattern of parameter names is not a regular expression.
    #[error("`{pattern}` is not a regular expression: {message}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        message: String,
    },
    /// A setting that has no default is missing.
    #[error("`{transform}` needs the setting `{setting}`")]
    MissingSetting {
        /// The transform.
        transform: &'static str,
        /// The setting.
        setting: &'static str,
    },
}

impl OptimError {
    /// Says what to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Setting { .. } => None,
            Self::NonFinite { .. } | Self::NonFiniteParameter { .. } => {
                Some("lower the learning rate, warm it up, or clip the gradients".into())
            }
            Self::UnexpectedState { .. } | Self::MissingState { .. } => {
                Some("continue with the optimizer settings that the run was started with".into())
            }
            Self::StateFile { hint, .. } => hint.clone(),
            Self::Order { fix, .. } => Some((*fix).to_owned()),
            Self::NotAMatrix { .. } => Some(
                "give the other parameters an optimizer of their own, each in a `group` with a \
                 pattern"
                    .into(),
            ),
            Self::NoEffect { .. } => Some("leave the transform out".into()),
            Self::Singular { .. } => {
                Some("a factor is not finite or its damping is too small".into())
            }
            Self::NoSingularVectors { .. } => Some("lower the learning rate".into()),
            Self::NotProbed { .. } => Some(
                "call `Optimizer::probe` with the gradients, and step with those at the point it \
                 returns"
                    .into(),
            ),
            Self::UnknownTransform { .. } => Some("`reparam methods` lists the transforms".into()),
            Self::UnknownSetting { transform, .. } => {
                let entry = super::transform_entry(transform);
                let keys: Vec<&str> = entry
                    .map(|entry| entry.settings.iter().map(|setting| setting.key).collect())
                    .unwrap_or_default();
                Some(format!("its settings are: {}", keys.join(", ")))
            }
            Self::Pattern { .. } => Some("write a pattern such as `.*lora_B.*`".into()),
            Self::MissingSetting { setting, .. } => Some(format!("give `{setting}`")),
        }
    }
}
