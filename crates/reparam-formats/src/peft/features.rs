//! What a LoRA configuration of PEFT can ask for beyond plain LoRA, and what becomes of it.
//!
//! The rule: a key that changes what the adapter computes is either honoured or refused by name.

use serde_json::Value;

use super::PeftError;
use crate::config::JsonObject;

/// Keys that [`super::LoraAdapterConfig`] holds.
const HONOURED: [&str; 23] = [
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "r",
    "rank_pattern",
    "revision",
    "target_modules",
    "target_parameters",
    "task_type",
    "use_dora",
    "use_rslora",
];

/// Keys that change nothing once the adapter is trained, or only through another key that is
/// checked here.
const WITHOUT_EFFECT: [&str; 7] = [
    // These describe how the factors were initialized; `init_lora_weights` decides.
    "corda_config",
    "eva_config",
    "loftq_config",
    "lora_ga_config",
    // Used only together with `megatron_config` and `use_qalora`.
    "megatron_core",
    "qalora_group_size",
    // Never saved by PEFT, and dropped by it when found.
    "runtime_config",
];

/// A feature that is refused when it is used.
struct Feature {
    key: &'static str,
    /// Whether an empty list or object means that the feature is off, as `null` does.
    empty_is_off: bool,
    reason: &'static str,
}

const fn feature(key: &'static str, empty_is_off: bool, reason: &'static str) -> Feature {
    Feature {
        key,
        empty_is_off,
        reason,
    }
}

const REFUSED: [Feature; 12] = [
    feature(
        "alora_invocation_tokens",
        false,
        "activated LoRA applies only after certain tokens",
    ),
    feature(
        "arrow_config",
        false,
        "Arrow routes between several adapters",
    ),
    feature(
        "ensure_weight_tying",
        false,
        "the adapters of tied layers would be tied too",
    ),
    feature(
        "kasa_config",
        false,
        "KaSA changes the base and adds a diagonal",
    ),
    feature(
        "layer_replication",
        true,
        "the model would get copies of its layers",
    ),
    feature("lora_bias", false, "lora_B has a bias of its own"),
    feature("megatron_config", true, "the layers are Megatron's"),
    feature("monteclora_config", false, "MonteCLoRA samples its factors"),
    feature(
        "trainable_token_indices",
        true,
        "rows of the embedding are replaced",
    ),
    feature("use_bdlora", false, "the factors are block-diagonal"),
    feature("use_qalora", false, "QA-LoRA pools the input in groups"),
    feature(
        "velora_config",
        false,
        "VeLoRA stores an additional embedding",
    ),
];

/// Initializations that leave the base as it is.
const BASE_KEEPING_INITS: [&str; 4] = ["gaussian", "eva", "orthogonal", "mica"];

/// Refuses everything that cannot be honoured.
pub(super) fn check(config: &JsonObject) -> Result<(), PeftError> {
    let path = || config.path().to_path_buf();
    for (key, value) in config.map() {
        if let Some(feature) = REFUSED.iter().find(|feature| feature.key == key) {
            let is_off = match value {
                Value::Null | Value::Bool(false) => true,
                value => feature.empty_is_off && is_empty(value),
            };
            if !is_off {
                return Err(PeftError::UnsupportedFeature {
                    path: path(),
                    key: key.clone(),
                    value: value.to_string(),
                    reason: feature.reason,
                });
            }
        } else if !HONOURED.contains(&key.as_str())
            && !WITHOUT_EFFECT.contains(&key.as_str())
            && !matches!(value, Value::Null | Value::Bool(false))
            && !is_empty(value)
        {
            return Err(PeftError::UnknownKey {
                path: path(),
                key: key.clone(),
                value: value.to_string(),
            });
        }
    }
    Ok(())
}

/// Refuses initializations that change the base, because the adapter is then not one of the base
/// that its configuration names.
pub(super) fn check_init(config: &JsonObject, name: &str) -> Result<(), PeftError> {
    let lower = name.to_lowercase();
    if BASE_KEEPING_INITS.contains(&lower.as_str()) {
        return Ok(());
    }
    let reason = if lower.starts_with("pissa") {
        "PiSSA takes the principal components out of the base weights"
    } else if lower.starts_with("corda") {
        "CorDA takes components out of the base weights"
    } else {
        match lower.as_str() {
            "olora" => "OLoRA subtracts an orthonormal factor from the base weights",
            "lora_ga" => "LoRA-GA subtracts the initial factors from the base weights",
            "loftq" => "LoftQ replaces the base weights by quantized ones",
            _ => "it is an unknown initialization, which may change the base weights",
        }
    };
    Err(PeftError::UnsupportedFeature {
        path: config.path().to_path_buf(),
        key: "init_lora_weights".to_owned(),
        value: format!("\"{name}\""),
        reason,
    })
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}
