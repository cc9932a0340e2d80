//! What the tests of rows share.

use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;

use super::{Result, Row, RowError, RowFormat, Rows, RowsOptions, Schema, read_rows};

/// Reads a file of this name and content.
pub(super) fn read(
    name: &str,
    content: &str,
    schema: &Schema,
    format: Option<RowFormat>,
    fields: &str,
) -> Result<Rows<Row>> {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, content).unwrap();
    let fields = serde_json::from_value(Value::from(fields)).unwrap();
    read_rows(&[path], schema, &RowsOptions { format, fields })
}

/// The message of an error, without the directory.
pub(super) fn short(error: &RowError) -> String {
    let message = error.to_string();
    match message.find("/t.") {
        Some(at) => message[at + 1..].to_owned(),
        None => message,
    }
}

/// What rows say, or their errors.
pub(super) fn told<T>(
    rows: Rows<T>,
    tell: impl Fn(T) -> String,
) -> Vec<std::result::Result<String, String>> {
    let rows = rows.rows.into_iter();
    rows.map(|row| row.map(&tell).map_err(|error| short(&error)))
        .collect()
}

/// A list of a golden file of rows.
pub(super) fn golden<T: DeserializeOwned>(name: &str, key: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/rows");
    let bytes = fs::read(path.join(name)).unwrap();
    let mut golden: Value = serde_json::from_slice(&bytes).unwrap();
    serde_json::from_value(golden[key].take()).unwrap()
}
