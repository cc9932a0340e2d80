//! What can go wrong when a method is attached.

use reparam_formats::FormatError;
use reparam_formats::config::ConfigError;
use reparam_formats::peft::PeftError;
use thiserror::Error;

use super::LinearModule;
use reparam_formats::shown;

/// What attaching a method, or what comes of it, gives.
pub type Result<T, E = MethodError> = std::result::Result<T, E>;

/// Why a method could not be attached to a model, or its state not be saved or loaded.
#[derive(Debug, Error)]
pub enum MethodError {
    /// A setting, or the selection of target modules, is wrong.
    #[error(transparent)]
    Peft(#[from] PeftError),
    /// A method or one of its settings is unknown, missing or out of its range.
    #[error(transparent)]
    Schema(#[from] crate::schema::SchemaError),
    /// The module already carries a method.
    #[error(
        "`{module}` already carries `{attached}`, so `{method}` cannot be attached to the model", module = shown(module)
    )]
    AlreadyAttached {
        /// The module's path.
        module: String,
        /// The method that it carries.
        attached: String,
        /// The method that was to be attached.
        method: &'static str,
    },
    /// The method needs the weight itself, which is packed for fused operations.
    #[error("`{method}` cannot run on the packed weight of `{module}`", module = shown(module))]
    PackedWeight {
        /// The module's path.
        module: String,
        /// The method.
        method: &'static str,
    },
    /// The method acts on a bias, and the layer's fields are in an order in which it does not reach it.
    #[error("`{method}` acts on the bias of `{module}`, which comes before its weight", module = shown(module))]
    BiasFirst {
        /// The module's path.
        module: String,
        /// The method.
        method: &'static str,
    },
    /// An adapter has a module whole whose weight is packed for fused operations.
    #[error("the adapter has `{module}` whole, and its weight is packed in this precision", module = shown(module))]
    PackedModule {
        /// The module's path.
        module: String,
    },
    /// A method that drops out inputs stands under another one, which forms the whole weight.
    #[error("`{method}` has dropout, which `{above}` on top of it cannot apply")]
    DropoutBelow {
        /// The method with dropout.
        method: &'static str,
        /// The method over it.
        above: &'static str,
    },
    /// Parameters that are no linear layer's are to be adapted by one of several methods.
    #[error("`{method}` is one of several methods, and has target_parameters")]
    ParametersBeside {
        /// The method.
        method: &'static str,
    },
    /// A method without factors of experts was to adapt parameters that are no linear layer's.
    #[error("`{method}` cannot adapt target_parameters: it has no factors of experts")]
    NoParameters {
        /// The method.
        method: &'static str,
    },
    /// PEFT does not have the method.
    #[error("PEFT has no adapter file for `{method}`")]
    NoAdapterFile {
        /// The method.
        method: &'static str,
    },
    /// Rows of a table cannot be trained.
    #[error("rows of `{module}` cannot be trained: {problem}", module = shown(module))]
    TokenRows {
        /// The path of the table.
        module: String,
        /// Why.
        problem: &'static str,
    },
    /// PEFT's adapters of the method have no place for rows of tokens.
    #[error("an adapter of `{method}` has no place for the vectors of new tokens")]
    NoTokens {
        /// The method.
        method: &'static str,
    },
    /// A setting is outside its range.
    #[error("`{setting}` must be {expected}, got {found}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// What it has to be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A row of a weight has no direction.
    #[error(
        "the weight of `{module}` has no direction in row {row}: its norm is zero or not finite", module = shown(module)
    )]
    ZeroRow {
        /// The module's path.
        module: String,
        /// The output that the row belongs to, from zero.
        row: usize,
    },
    /// A weight has no spectral norm to divide by.
    #[error("the weight of `{module}` has no spectral norm: it is zero or not finite", module = shown(module))]
    ZeroWeight {
        /// The module's path.
        module: String,
    },
    /// A diagonal branch was asked for where no weight is square.
    #[error("`diagonal = true` has no effect: none of the selected weights is square")]
    NoSquareWeight,
    /// A layer lacks what an initialization from data sets.
    #[error("the layer has no {missing} to initialize from data")]
    NotInitializable {
        /// What is missing.
        missing: &'static str,
    },
    /// A batch does not fit a layer.
    #[error("the batch has rows of {found} numbers, the layer takes {expected}")]
    BatchWidth {
        /// The layer's number of inputs.
        expected: usize,
        /// The batch's.
        found: usize,
    },
    /// An output does not vary over a batch.
    #[error("output {output} has the standard deviation {deviation} over the batch")]
    NoDeviation {
        /// The output, from zero.
        output: usize,
        /// Zero, or not a finite number.
        deviation: f64,
    },
    /// A model's trained state was asked for, and nothing in it requires a gradient.
    #[error("the model has no trained state: no parameter requires a gradient")]
    NothingTrained,
    /// A file of trained state could not be written or read.
    #[error(transparent)]
    File(#[from] FormatError),
    /// Biases are to be trained, and there are none.
    #[error("`bias = \"{bias}\"` has no effect: {} no bias", if *bias == "all" { "the model has" } else { "the adapted layers have" })]
    NoBias {
        /// The setting.
        bias: &'static str,
    },
    /// A loaded factor does not fit its layer.
    #[error("`{name}` has shape {found:?}, the layer needs {expected:?}", name = shown(name))]
    FactorShape {
        /// The tensor's name.
        name: String,
        /// The shape that fits.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// An adapter was trained through another class, whose names have another beginning.
    #[error(
        "the adapter does not fit the model: its names begin with `base_model.model.{found}`, \
         those of this model with `base_model.model.{expected}`",
        found = shown(found),
        expected = shown(expected)
    )]
    AdapterPrefix {
        /// What is before the part that agrees.
        found: String,
        /// What the model has there.
        expected: String,
    },
    /// An adapter has tensors for modules that the model does not have, or lacks some.
    #[error("the adapter does not fit the model: {problem} ({})", joined(names))]
    AdapterMismatch {
        /// What is wrong.
        problem: &'static str,
        /// The first ten names.
        names: Vec<String>,
    },
}

fn joined(names: &[String]) -> String {
    let shown = names.iter().map(|name| shown(name).to_string());
    shown.collect::<Vec<_>>().join(", ")
}

impl From<ConfigError> for MethodError {
    fn from(error: ConfigError) -> Self {
        Self::Peft(error.into())
    }
}

impl MethodError {
    pub(super) fn already_attached(
        linear: &LinearModule,
        attached: &str,
        method: &'static str,
    ) -> Self {
        Self::AlreadyAttached {
            module: linear.path.clone(),
            attached: attached.to_owned(),
            method,
        }
    }

    /// Checks that a setting is a positive, finite number.
    pub(super) fn require_positive(setting: &'static str, value: f64) -> Result<(), Self> {
        if value.is_finite() && value > 0.0 {
            return Ok(());
        }
        Err(Self::Setting {
            setting,
            expected: "a positive number",
            found: value.to_string(),
        })
    }

    /// Says what to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Peft(error) => error.hint(),
            Self::Schema(error) => error.hint(),
            Self::AlreadyAttached { .. } => Some(
                "start from the base model and attach all methods in one list; only some, such as weight \
                 normalization, can go on top of another"
                    .into(),
            ),
            Self::PackedWeight { .. } | Self::PackedModule { .. } => Some("load the model in f32".into()),
            Self::BiasFirst { .. } => {
                Some("put `weight` before `bias` in the layer's struct".into())
            }
            Self::ParametersBeside { .. } => Some("attach it alone, or leave out target_parameters".into()),
            Self::NoParameters { .. } => Some("use the method `lora`, or leave out target_parameters".into()),
            Self::NoAdapterFile { .. } => Some("save the whole model instead".into()),
            Self::TokenRows { .. } => {
                Some("the adapter was trained on another base model, or leave its method off the output head".into())
            }
            Self::NoTokens { .. } => Some(
                "use the method `lora` or `dora`, or `full`, which trains the table itself".into(),
            ),
            Self::DropoutBelow { method, .. } => {
                Some(format!("set the dropout of `{method}` to 0"))
            }
            Self::Setting { .. } => None,
            Self::ZeroRow { module, .. } | Self::ZeroWeight { module } => {
                Some(format!("exclude `{module}`, or give it another weight"))
            }
            Self::NoSquareWeight => {
                Some("leave `diagonal` out, or target layers with as many inputs as outputs".into())
            }
            Self::NotInitializable { .. } => {
                Some("attach `weight_norm` to a single linear layer with a bias".into())
            }
            Self::BatchWidth { .. } => Some("give the inputs of this layer, one a row".into()),
            Self::NoDeviation { .. } => {
                Some("give more rows, and rows that are not all the same".into())
            }
            Self::NothingTrained => Some(
                "attach a method, and pass the model as it is trained, not a copy without autodiff"
                    .into(),
            ),
            Self::File(FormatError::Mismatch(_)) => Some(
                "the file was written by another model, or with other settings of the method"
                    .into(),
            ),
            Self::File(error) => error.hint(),
            Self::NoBias { .. } => Some("leave `bias` at \"none\"".into()),
            Self::AdapterPrefix { .. } => Some(
                "it was trained through another class of transformers; train it through the class with the head \
                 (AutoModelForCausalLM), or rename its tensors"
                    .into(),
            ),
            Self::FactorShape { .. } | Self::AdapterMismatch { .. } => {
                Some("the adapter was trained on another base model, or the file is damaged".into())
            }
        }
    }
}
