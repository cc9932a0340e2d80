//! Errors of reading and writing PEFT adapters.

use std::path::PathBuf;

use crate::FormatError;
use crate::config::ConfigError;
use crate::{shown, shown_sentence};

/// Says why an adapter could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeftError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FormatError),
    /// A value in `adapter_config.json` is missing or impossible.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The directory has no `adapter_config.json`.
    #[error("{} is not an adapter: it has no adapter_config.json", path.display())]
    NotAnAdapter {
        /// The directory.
        path: PathBuf,
    },
    /// The directory has an adapter of MLX.
    #[error("{} is an adapter of MLX, not of PEFT", path.display())]
    OfMlx {
        /// The directory.
        path: PathBuf,
    },
    /// The adapter is of a method that is not implemented.
    #[error("{} is of the type '{peft_type}', which is not supported", path.display(), peft_type = shown(peft_type))]
    UnsupportedType {
        /// The configuration file.
        path: PathBuf,
        /// The value of `peft_type`.
        peft_type: String,
    },
    /// The adapter uses a feature that would be lost.
    #[error("{} sets '{key}' to {value}, which is not supported: {reason}", path.display(), key = shown(key), value = shown(value))]
    UnsupportedFeature {
        /// The configuration file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What the feature does.
        reason: &'static str,
    },
    /// The configuration has a key that this version does not know, with a value that may matter.
    #[error("{} sets the unknown key '{key}' to {value}", path.display(), key = shown(key), value = shown(value))]
    UnknownKey {
        /// The configuration file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// Two settings contradict each other.
    #[error("{reason}")]
    Contradiction {
        /// Which, and why.
        reason: &'static str,
    },
    /// A regular expression cannot be used.
    #[error("invalid pattern '{pattern}' in {option}: {detail}", pattern = shown(pattern), detail = shown_sentence(detail))]
    InvalidPattern {
        /// The option it is from, such as `target_modules`.
        option: &'static str,
        /// The pattern.
        pattern: String,
        /// What the regular expression engine says.
        detail: String,
    },
    /// A pattern, name or layer index matches no module of the model.
    #[error("'{pattern}' in {option} matches no module", pattern = shown(pattern))]
    NoMatch {
        /// The option it is from, such as `target_modules`.
        option: &'static str,
        /// The pattern, name or index.
        pattern: String,
        /// The most similar name in the model, if one is similar.
        nearest: Option<String>,
    },
    /// Every module that `target_modules` matches is taken out again.
    #[error("no module is left: all {n_matched} that target_modules matches are excluded")]
    NothingSelected {
        /// The number of modules that `target_modules` alone matches.
        n_matched: usize,
    },
    /// The file contains a tensor that does not belong to a LoRA adapter.
    #[error("unexpected tensor '{name}': {reason}", name = shown(name))]
    UnexpectedTensor {
        /// The tensor's name in the file.
        name: String,
        /// What it is, or why it should not be there.
        reason: &'static str,
    },
    /// The adapter has a weight of its base, and it is not that of the base at hand.
    #[error("the adapter has the weight '{name}' of its base, but {problem}", name = shown(name))]
    OtherBase {
        /// The weight's name in the base.
        name: String,
        /// What the base has instead.
        problem: &'static str,
    },
    /// A module has only one of its two factors.
    #[error("module '{module}' has no {missing}", module = shown(module))]
    IncompletePair {
        /// The module.
        module: String,
        /// The factor that is missing, `lora_A` or `lora_B`.
        missing: &'static str,
    },
    /// The factors do not have the rank that the configuration says.
    #[error(
        "module '{module}' has rank {expected} by the configuration, but lora_A has shape \
         {a_shape:?} and lora_B {b_shape:?}", module = shown(module)
    )]
    WrongRank {
        /// The module.
        module: String,
        /// The rank by `r` and `rank_pattern`.
        expected: usize,
        /// The shape of `lora_A`, which has to be rank x in.
        a_shape: Vec<usize>,
        /// The shape of `lora_B`, which has to be out x rank.
        b_shape: Vec<usize>,
    },
    /// A tensor's shape and its number of elements disagree, or it has the wrong number of dimensions.
    #[error("tensor '{name}' has {n_elements} elements and shape {shape:?}: {reason}", name = shown(name))]
    BadTensor {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// The number of elements.
        n_elements: usize,
        /// What was expected.
        reason: &'static str,
    },
    /// The adapter has factors for a module that its configuration does not target.
    #[error("the adapter has factors for '{module}', which its target_modules does not match", module = shown(module))]
    NotTargeted {
        /// The module.
        module: String,
    },
    /// A module has factors for more or fewer parameters than `target_parameters` match.
    #[error(
        "the adapter has factors for {found} parameters of '{module}', of which its target_parameters match {expected}",
        module = shown(module)
    )]
    WrongParameters {
        /// The module.
        module: String,
        /// How many are targeted.
        expected: usize,
        /// How many have factors.
        found: usize,
    },
    /// The adapter adapts nothing.
    #[error("the adapter has no lora_A and lora_B for any module")]
    Empty,
    /// The patterns mean something else once PEFT's sorted order is applied.
    #[error(
        "the patterns of {option} overlap at module '{module}', and their order cannot be written", module = shown(module)
    )]
    PatternOrder {
        /// `rank_pattern` or `alpha_pattern`.
        option: &'static str,
        /// The first module for which the order matters.
        module: String,
    },
}

impl PeftError {
    /// Returns what the user can do about the error, where that is known.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::File(error) => return error.hint(),
            Self::Config(error) => return error.hint(),
            Self::NotAnAdapter { .. } => {
                "give the directory that PEFT's save_pretrained wrote".to_owned()
            }
            Self::OfMlx { path } => format!(
                "write it as one of PEFT first: reparam convert --adapter {} --to peft --output DIR",
                shown(&path.display().to_string())
            ),
            Self::UnsupportedType { .. } => {
                "merge it into the base model with PEFT (merge_and_unload) and use the result as a \
                 model"
                    .to_owned()
            }
            Self::UnsupportedFeature { key, .. } if key == "init_lora_weights" => {
                "save the adapter with PEFT's path_initial_model_for_weight_conversion, or merge it \
                 into its base with merge_and_unload"
                    .to_owned()
            }
            Self::OtherBase { .. } => {
                "give the base that the adapter was trained on, or merge the adapter into it with PEFT \
                 (merge_and_unload) and use the result as a model"
                    .to_owned()
            }
            Self::UnsupportedFeature { .. } => {
                "merge the adapter into its base with PEFT (merge_and_unload) where PEFT can".to_owned()
            }
            Self::UnknownKey { key, .. } => {
                format!("if '{key}' does not change what the adapter computes, remove it from the file")
            }
            Self::NoMatch { nearest: Some(nearest), .. } => format!("did you mean '{nearest}'?"),
            Self::NoMatch { option: "target_modules", .. } => {
                "a name in a list has to be the end of a module's path after a dot; a single string is \
                 a regular expression that has to match the whole path"
                    .to_owned()
            }
            Self::NothingSelected { .. } => {
                "relax exclude_modules or layers_to_transform".to_owned()
            }
            Self::PatternOrder { .. } => {
                "PEFT sorts the patterns when it writes them; make each module match only one"
                    .to_owned()
            }
            Self::WrongRank { .. }
            | Self::IncompletePair { .. }
            | Self::NotTargeted { .. }
            | Self::WrongParameters { .. } => {
                "adapter_config.json and adapter_model.safetensors are of different adapters, or one \
                 was edited"
                    .to_owned()
            }
            _ => return None,
        };
        Some(text)
    }
}
