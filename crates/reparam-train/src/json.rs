//! Values as JSON.

use std::path::Path;

use reparam_formats::{FormatError, file};
use serde::Serialize;
use serde_json::{Map, Value};

/// Returns the keys of an object; none of anything else.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(keys) => keys,
        _ => Map::new(),
    }
}

/// Returns the text of a file of JSON for people, with its last line ended.
pub(crate) fn text_of(path: &Path, value: &impl Serialize) -> Result<String, FormatError> {
    match serde_json::to_string_pretty(value) {
        Ok(text) => Ok(text + "\n"),
        Err(error) => Err(FormatError::io("write", path, error.into())),
    }
}

/// Reads a file of JSON, if there is one.
pub(crate) fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_str(&file::read_text(path).ok()?).ok()
}
