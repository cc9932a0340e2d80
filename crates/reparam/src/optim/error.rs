//! What can go wrong in an update.

use reparam_formats::shown;
use thiserror::Error;

use crate::schema::SchemaError;

/// What a part of an update gives.
pub type Result<T, E = OptimError> = std::result::Result<T, E>;

/// Why an update could not be made.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum OptimError {
    /// A transform or one of its settings is unknown, missing or out of its range.
    #[error(transparent)]
    Schema(#[from] SchemaError),
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
    /// A transform works on the product of two factors, and these are those of several experts.
    #[error("`{transform}` cannot work on `{name}`, which has the factors of all experts", name = shown(name))]
    OfExperts {
        /// The transform.
        transform: &'static str,
        /// The factor.
        name: String,
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
}

impl OptimError {
    /// Says what to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Schema(error) => error.hint(),
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
            Self::OfExperts { .. } => {
                Some("choose another optimizer, or leave out `target_parameters`".into())
            }
            Self::Singular { .. } => {
                Some("a factor is not finite or its damping is too small".into())
            }
            Self::NoSingularVectors { .. } => Some("lower the learning rate".into()),
            Self::NotProbed { .. } => Some(
                "call `Optimizer::probe_list` with the gradients, and step with those at the point it \
                 returns"
                    .into(),
            ),
        }
    }
}
