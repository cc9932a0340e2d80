//! Rows of a text, or a pair of texts, with labels.

use serde_json::Value;

use super::error::{Result, RowError};
use super::read::{Row, Rows, Schema};
use crate::source::{DocumentSource, json_type};

#[cfg(test)]
mod tests;

/// The fields of texts with labels, to learn from and to measure on.
pub const LABELLED_TEXT: Schema = Schema {
    required: &["text"],
    optional: &["text_pair", "label", "labels"],
    unread: &[],
};

/// The fields of texts to predict from; labels may be there and are not read.
pub const TEXT: Schema = Schema {
    required: &["text"],
    optional: &["text_pair"],
    unread: &["label", "labels"],
};

/// A text with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextRow {
    /// The text.
    pub text: String,
    /// The second text of a pair.
    pub text_pair: Option<String>,
    /// The labels, if there are any.
    pub labels: Option<RowLabels>,
    /// Where it stands.
    pub place: DocumentSource,
}

/// The labels of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowLabels {
    /// `label`: one of several that exclude one another.
    One(LabelValue),
    /// `labels`: any number, none included.
    Several(Vec<LabelValue>),
}

impl RowLabels {
    /// The labels as a list.
    #[must_use]
    pub fn values(&self) -> &[LabelValue] {
        match self {
            Self::One(label) => std::slice::from_ref(label),
            Self::Several(labels) => labels,
        }
    }
}

/// A label as it is written: a class's name or its index, which only the model's labels can tell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelValue(String);

impl LabelValue {
    /// A label of this name or index.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// As it is written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// As an index: decimal digits and nothing else.
    #[must_use]
    pub fn index(&self) -> Option<usize> {
        let digits = self.0.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| self.0.parse().ok()).flatten()
    }

    /// As a finite number.
    pub(super) fn number(&self) -> Option<f64> {
        self.0
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite())
    }
}

/// Takes the texts and the labels of rows.
///
/// `label` is a string, a number, or true or false; `labels` an array of such, or in a table's cell a JSON array or names
/// between commas. White space around a table's labels is no part of them. A blank cell of `label` is no label, one of
/// `labels` an empty list.
#[must_use]
pub fn text_rows(rows: Rows<Row>) -> Rows<TextRow> {
    rows.and_then(|row| {
        let text = row.text("text")?;
        let text = text.ok_or_else(|| row.wrong_type("text", "a string", "null".to_owned()))?;
        Ok(TextRow {
            text,
            text_pair: row.text("text_pair")?,
            labels: labels(&row)?,
            place: row.place,
        })
    })
}

fn labels(row: &Row) -> Result<Option<RowLabels>> {
    let one = match row.value("label") {
        None => None,
        Some(Value::String(text)) if text.trim().is_empty() => None,
        Some(value) => {
            let wrong =
                || row.wrong_type("label", "a name or an index", json_type(value).to_owned());
            Some(RowLabels::One(label(value).ok_or_else(wrong)?))
        }
    };
    let several = match row.value("labels") {
        None => None,
        // Beside a column of single labels, a blank cell says nothing.
        Some(Value::String(text)) if text.trim().is_empty() && row.value("label").is_some() => None,
        Some(value) => Some(RowLabels::Several(list(row, "labels", value)?)),
    };
    match (one, several) {
        (Some(_), Some(_)) => Err(RowError::TwoLabels {
            place: row.place.clone(),
        }),
        (one, several) => Ok(one.or(several)),
    }
}

fn label(value: &Value) -> Option<LabelValue> {
    match value {
        Value::String(text) => Some(LabelValue::new(text.trim())),
        Value::Number(number) => Some(LabelValue(number.to_string())),
        Value::Bool(value) => Some(LabelValue(value.to_string())),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The labels of a field that has any number of them.
pub(super) fn list(row: &Row, field: &'static str, value: &Value) -> Result<Vec<LabelValue>> {
    let wrong = |found: String| row.wrong_type(field, "a list of names or indices", found);
    let parsed;
    let entries = match value {
        Value::Array(entries) => entries,
        Value::String(text) if text.trim_start().starts_with('[') => {
            parsed = serde_json::from_str::<Vec<Value>>(text);
            parsed.as_ref().map_err(|_| wrong(format!("\"{text}\"")))?
        }
        Value::String(text) => {
            let names = text
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty());
            return Ok(names.map(LabelValue::new).collect());
        }
        other => return Err(wrong(json_type(other).to_owned())),
    };
    let labels = entries.iter().map(|entry| {
        label(entry).ok_or_else(|| wrong(format!("a list with {}", json_type(entry))))
    });
    labels.collect()
}
