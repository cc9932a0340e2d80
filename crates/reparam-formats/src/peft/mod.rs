//! Adapter directories of PEFT: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! The format is that of PEFT 0.21.2. What is written has the keys and values that PEFT writes; what
//! PEFT writes is read if every setting in it can be honoured, and refused by name if not.

mod adapter;
mod config;
mod error;
mod features;
mod files;
mod keys;
mod parameters;
mod rules;
mod targets;
mod tokens;

pub use adapter::{LoraPair, PeftAdapter, Tensor};
pub use config::{Bias, InitLoraWeights, LayerIndices, LoraAdapterConfig, PEFT_VERSION};
pub use error::PeftError;
pub use files::AdapterFiles;
pub use keys::{KeySpec, KeyUsage, check_keys, config_of};
pub use parameters::{parameter_places, targets_parameter};
pub(crate) use rules::most_common;
pub use rules::{LoraNumbers, LoraRules};
pub use targets::{
    EntryMatches, ModuleMatcher, TargetModules, TargetReport, is_inside, target_matches,
};
pub use tokens::{TOKEN_INDICES, TOKEN_ROWS, TokenRows, TrainedTokens};

/// What programs call adapters with low-rank factors, as a format to write.
pub const LORA: &str = "lora";

/// The name of the configuration file in an adapter directory.
pub const CONFIG_FILE: &str = "adapter_config.json";

/// The name of the file of tensors in an adapter directory.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
