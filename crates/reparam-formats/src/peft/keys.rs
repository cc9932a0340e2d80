//! The keys of `adapter_config.json`, as a table for each method.

use serde_json::{Map, Value};

use super::{PEFT_VERSION, PeftError};
use crate::config::JsonObject;

/// A key that PEFT writes for a method.
#[derive(Debug)]
pub struct KeySpec {
    /// The key.
    pub key: &'static str,
    /// PEFT's default, as JSON.
    pub default: &'static str,
    /// What becomes of it when an adapter is read.
    pub usage: KeyUsage,
}

/// What becomes of a key when an adapter is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUsage {
    /// Its value is taken over.
    Honoured,
    /// It changes nothing once the adapter is trained.
    WithoutEffect,
    /// Any value but the default is an error, for this reason.
    Refused(&'static str),
}

/// The keys of every configuration of PEFT.
const COMMON: [&str; 7] = [
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "peft_type",
    "peft_version",
    "revision",
    "task_type",
];

/// Refuses everything that cannot be honoured: a key that is unknown, or whose value asks for something that is
/// not there. Unknown keys with an empty value ask for nothing.
///
/// # Errors
///
/// [`PeftError::UnsupportedFeature`] and [`PeftError::UnknownKey`].
pub fn check_keys(config: &JsonObject, keys: &[KeySpec]) -> Result<(), PeftError> {
    for (key, value) in config.map() {
        if COMMON.contains(&key.as_str()) {
            continue;
        }
        let path = || config.path().to_path_buf();
        match keys.iter().find(|spec| spec.key == key) {
            None if asks_for_nothing(value) => {}
            None => {
                return Err(PeftError::UnknownKey {
                    path: path(),
                    key: key.clone(),
                    value: value.to_string(),
                });
            }
            Some(KeySpec {
                usage: KeyUsage::Refused(reason),
                default,
                ..
            }) if !means(value, &parsed(default)) => {
                return Err(PeftError::UnsupportedFeature {
                    path: path(),
                    key: key.clone(),
                    value: value.to_string(),
                    reason,
                });
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn means(value: &Value, default: &Value) -> bool {
    value.is_null() || value == default || (asks_for_nothing(value) && asks_for_nothing(default))
}

fn asks_for_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// Returns a configuration as PEFT writes it: every key of the table, with the given values in place of the defaults.
pub fn config_of(
    peft_type: &str,
    keys: &[KeySpec],
    given: Map<String, Value>,
) -> Map<String, Value> {
    let mut config = Map::new();
    for key in COMMON {
        config.insert(key.to_owned(), Value::Null);
    }
    config.insert("inference_mode".to_owned(), Value::Bool(true));
    config.insert("peft_type".to_owned(), peft_type.into());
    config.insert("peft_version".to_owned(), PEFT_VERSION.into());
    for spec in keys {
        config.insert(spec.key.to_owned(), parsed(spec.default));
    }
    config.extend(given);
    config
}

/// A default is a constant of this program; tests parse all of them.
fn parsed(default: &str) -> Value {
    serde_json::from_str(default).unwrap_or(Value::Null)
}
