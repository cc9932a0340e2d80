//! What can go wrong in an update.

use thiserror::Error;

/// Why an update could not be made.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum UpdateError {
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
}

impl UpdateError {
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
        }
    }
}
