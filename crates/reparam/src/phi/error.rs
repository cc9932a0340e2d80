//! What can go wrong when a method is attached.

use reparam_formats::peft::PeftError;
use thiserror::Error;

/// Why a method could not be attached to a model.
#[derive(Debug, Error)]
pub enum PhiError {
    /// A setting, or the selection of target modules, is wrong.
    #[error(transparent)]
    Peft(#[from] PeftError),
    /// The module already carries a method.
    #[error("`{module}` is already reparameterized")]
    AlreadyAttached {
        /// The module's path.
        module: String,
    },
    /// Biases are to be trained, and there are none.
    #[error("`bias = \"{bias}\"` has no effect: {} no bias", if *bias == "all" { "the model has" } else { "the adapted layers have" })]
    NoBias {
        /// The setting.
        bias: &'static str,
    },
    /// A loaded factor does not fit its layer.
    #[error("`{name}` has shape {found:?}, the layer needs {expected:?}")]
    FactorShape {
        /// The tensor's name.
        name: String,
        /// The shape that fits.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// An adapter has tensors for modules that the model does not have, or lacks some.
    #[error("the adapter does not fit the model: {problem} ({})", names.join(", "))]
    AdapterMismatch {
        /// What is wrong.
        problem: &'static str,
        /// The first ten names.
        names: Vec<String>,
    },
}

impl PhiError {
    /// Says what to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Peft(error) => error.hint(),
            Self::AlreadyAttached { .. } => {
                Some("methods cannot be nested; start from the base model".into())
            }
            Self::NoBias { .. } => Some("leave `bias` at \"none\"".into()),
            Self::FactorShape { .. } | Self::AdapterMismatch { .. } => {
                Some("the adapter was trained on another base model, or the file is damaged".into())
            }
        }
    }
}
