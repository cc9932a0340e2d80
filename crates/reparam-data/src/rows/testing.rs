//! What the tests of rows share.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
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

/// The measures of a text or a corpus in the golden file.
#[derive(Deserialize)]
pub(super) struct Measures {
    /// By tokenizer: the score, four precisions and the brevity penalty.
    pub(super) bleu: BTreeMap<String, [f64; 6]>,
    pub(super) chrf: f64,
    pub(super) chrf_plus_plus: f64,
    pub(super) rouge: [f64; 3],
}

/// A generated text.
#[derive(Clone, Deserialize)]
pub(super) struct Generated {
    pub(super) text: String,
    pub(super) references: Vec<String>,
    /// By tokenizer: the words, with spaces between them.
    pub(super) words: BTreeMap<String, String>,
}

impl Generated {
    pub(super) fn references(&self) -> Vec<&str> {
        self.references.iter().map(String::as_str).collect()
    }
}

/// A text with its measures, or the indices of a corpus's texts with theirs.
#[derive(Deserialize)]
struct Measured<T> {
    #[serde(flatten)]
    of: T,
    #[serde(flatten)]
    measures: Measures,
}

#[derive(Deserialize)]
struct Corpus {
    name: String,
    rows: Vec<usize>,
}

/// What the golden file says of texts: a name, the texts and their measures, first of every text by itself, then of corpora.
pub(super) fn measured() -> Vec<(String, Vec<Generated>, Measures)> {
    let texts: Vec<Measured<Generated>> = golden("text_measures.json", "rows");
    let corpora: Vec<Measured<Corpus>> = golden("text_measures.json", "corpora");
    let corpora = corpora.into_iter().map(|corpus| {
        let rows = corpus.of.rows.iter().map(|row| texts[*row].of.clone());
        (corpus.of.name, rows.collect(), corpus.measures)
    });
    let corpora: Vec<_> = corpora.collect();
    let alone = texts.into_iter();
    let alone = alone.map(|text| (format!("{:?}", text.of.text), vec![text.of], text.measures));
    alone.chain(corpora).collect()
}

/// Both sides sum the same few numbers in another order.
const TOLERANCE: f64 = 1e-9;

/// Compares a measure with that of a golden file.
pub(super) fn close(found: f64, expected: f64, what: &str) {
    assert!(
        (found - expected).abs() <= TOLERANCE,
        "{what}: {found}, expected {expected}"
    );
}
