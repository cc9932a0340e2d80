//! Why work on a model could not be done.

use std::io::ErrorKind;
use std::path::PathBuf;

use reparam::phi::PhiError;
use reparam::update::UpdateError;
use reparam_data::DataError;
use reparam_formats::FormatError;
use reparam_formats::config::ConfigError as ModelConfigError;
use reparam_formats::hub::HubError;
use reparam_formats::peft::PeftError;
use reparam_models::ModelError;
use thiserror::Error;

use crate::config::ConfigError;
use crate::event::{Failure, FailureKind};

/// Why a run, an evaluation or a generation failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The run file cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model was not found.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A file is missing, damaged or cannot be written.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The model's configuration cannot be used.
    #[error(transparent)]
    ModelConfig(#[from] ModelConfigError),
    /// The adapter cannot be used.
    #[error(transparent)]
    Peft(#[from] PeftError),
    /// The data or the tokenizer cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model cannot be loaded or run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The method cannot be attached.
    #[error(transparent)]
    Phi(#[from] PhiError),
    /// The update's settings cannot be used.
    #[error(transparent)]
    Update(UpdateError),
    /// The output directory is taken.
    #[error("{} already holds a run", directory.display())]
    OutputTaken {
        /// The directory.
        directory: PathBuf,
    },
    /// The output directory cannot be made or written.
    #[error("cannot put a run into {}", directory.display())]
    Output {
        /// The directory.
        directory: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// There is no adapter directory where one was named.
    #[error("no such adapter directory: {}", directory.display())]
    NoSuchAdapter {
        /// The path.
        directory: PathBuf,
    },
    /// A run directory was given instead of the adapter in it.
    #[error("{} is a run directory, not an adapter", directory.display())]
    RunInsteadOfAdapter {
        /// The directory of the run.
        directory: PathBuf,
    },
    /// The output head cannot be adapted.
    #[error("training an adapter on the output head `{module}` is not supported")]
    HeadTarget {
        /// The head's path.
        module: String,
    },
    /// A measured loss is not finite.
    #[error("the loss is not finite")]
    LossNotFinite,
    /// The warm-up is longer than the run.
    #[error("the warm-up takes {warmup_steps} steps, the run has {max_steps}")]
    Warmup {
        /// Its length.
        warmup_steps: u64,
        /// The run's length.
        max_steps: u64,
    },
    /// Every gradient is zero, so no further step could change anything.
    #[error(
        "every gradient is zero at step {step}, with a loss of {loss:.4} \
         (learning rate {learning_rate:e})"
    )]
    Vanished {
        /// The step that was being made.
        step: u64,
        /// Its loss.
        loss: f64,
        /// Its learning rate.
        learning_rate: f64,
        /// The last saved adapter, if there is one.
        last_saved: Option<PathBuf>,
    },
    /// The loss or a gradient is not finite.
    #[error("{what} is not finite at step {step} (learning rate {learning_rate:e})")]
    Diverged {
        /// The loss, or a gradient with its name.
        what: String,
        /// The step that was being made.
        step: u64,
        /// Its learning rate.
        learning_rate: f64,
        /// The last saved adapter, if there is one.
        last_saved: Option<PathBuf>,
    },
}

impl TrainError {
    /// Says what to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint(),
            Self::Hub(error) => error.hint(),
            Self::Format(FormatError::Io { source, .. })
            | Self::Peft(PeftError::File(FormatError::Io { source, .. }))
                if source.kind() == ErrorKind::FileTooLarge =>
            {
                Some("raise the limit on the size of files (ulimit -f)".into())
            }
            Self::Format(error) => error.hint(),
            Self::ModelConfig(error) => error.hint(),
            Self::Peft(error) => error.hint(),
            Self::Data(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::Phi(error) => error.hint(),
            Self::Update(error) => error.hint(),
            Self::OutputTaken { .. } => {
                Some("choose another directory with --output, or remove this one".into())
            }
            Self::Warmup { .. } => {
                Some("shorten the warm-up, or lengthen the run with train.max_steps".into())
            }
            Self::HeadTarget { .. } => {
                Some("leave the head out of target_modules; \"all-linear\" does".into())
            }
            Self::LossNotFinite => {
                Some("the weights or the adapter are damaged, or the adapter diverged".into())
            }
            Self::Output { .. } => {
                Some("give a directory that can be written, with --output or output.dir".into())
            }
            Self::NoSuchAdapter { .. } => Some(
                "give the directory that has adapter_config.json, such as runs/a/adapter".into(),
            ),
            Self::RunInsteadOfAdapter { directory } => Some(format!(
                "the run's adapter is {}",
                directory.join("adapter").display()
            )),
            Self::Diverged { last_saved, .. } | Self::Vanished { last_saved, .. } => {
                let saved = match last_saved {
                    Some(path) => format!("; the last saved adapter is {}", path.display()),
                    None => String::new(),
                };
                Some(format!(
                    "lower the learning rate, warm it up, or clip the gradients{saved}"
                ))
            }
        }
    }

    /// Returns the class of the error.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Config(_)
            | Self::HeadTarget { .. }
            | Self::Update(_)
            | Self::OutputTaken { .. }
            | Self::Warmup { .. } => FailureKind::Config,
            Self::Diverged { .. } | Self::Vanished { .. } => FailureKind::Diverged,
            Self::Output { .. }
            | Self::Format(
                FormatError::Io { .. }
                | FormatError::DiskFull { .. }
                | FormatError::Permission { .. },
            )
            | Self::Peft(PeftError::File(
                FormatError::Io { .. }
                | FormatError::DiskFull { .. }
                | FormatError::Permission { .. },
            )) => FailureKind::Io,
            _ => FailureKind::Data,
        }
    }

    /// Returns the error as an event carries it.
    pub fn to_failure(&self) -> Failure {
        Failure {
            message: self.to_string(),
            kind: self.kind(),
            hints: self.hint().into_iter().collect(),
        }
    }
}
