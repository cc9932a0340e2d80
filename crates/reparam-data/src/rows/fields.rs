//! Which column of a file holds which field.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::{Result, RowError};

#[cfg(test)]
mod tests;

/// A column of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Column {
    /// By its name in the header, or a key of the objects.
    Name(String),
    /// By its place, from 0, in a file without a header.
    Number(usize),
}

/// Which columns hold the fields: `text=review,label=Label`.
///
/// A field that is not named is in the column of its own name. If the columns are numbers, a table has no header, and only
/// the fields that are named are there. Numbers count from 1; if one of them is 0, they count from 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fields {
    /// The columns as they are written, by field.
    columns: BTreeMap<String, String>,
    /// Whether the columns are numbers.
    numbered: bool,
}

impl Fields {
    /// Whether tables have no header.
    #[must_use]
    pub fn numbered(&self) -> bool {
        self.numbered
    }

    /// Whether nothing is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// The fields that are named.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        self.columns.keys().map(String::as_str)
    }

    /// Whether a field is named.
    #[must_use]
    pub fn names(&self, field: &str) -> bool {
        self.columns.contains_key(field)
    }

    /// The column of a field in a table: its name if tables have a header, else its place, from 0.
    #[must_use]
    pub fn table_column(&self, field: &str) -> Option<Column> {
        match self.columns.get(field) {
            Some(column) if self.numbered => {
                let number: usize = column.parse().ok()?;
                Some(Column::Number(number - self.first_number()))
            }
            Some(column) => Some(Column::Name(column.clone())),
            None if self.numbered => None,
            None => Some(Column::Name(field.to_owned())),
        }
    }

    /// The key of a field in a JSON object, where a number is a key like any other.
    #[must_use]
    pub fn key<'a>(&'a self, field: &'a str) -> &'a str {
        self.columns.get(field).map_or(field, String::as_str)
    }

    /// The number of the first column: 0 if a column is 0.
    fn first_number(&self) -> usize {
        let is_zero = |column: &String| column.parse() == Ok(0usize);
        usize::from(!self.columns.values().any(is_zero))
    }
}

impl FromStr for Fields {
    type Err = RowError;

    fn from_str(text: &str) -> Result<Self> {
        let mut columns = BTreeMap::new();
        for part in text.split(',') {
            let Some((field, column)) = part.split_once('=') else {
                return Err(RowError::FieldsSyntax {
                    part: part.trim().to_owned(),
                });
            };
            let (field, column) = (field.trim(), column.trim());
            if field.is_empty() || column.is_empty() {
                return Err(RowError::FieldsSyntax {
                    part: part.trim().to_owned(),
                });
            }
            if columns
                .insert(field.to_owned(), column.to_owned())
                .is_some()
            {
                return Err(RowError::FieldTwice {
                    field: field.to_owned(),
                });
            }
        }
        let is_number = |column: &&String| column.parse::<usize>().is_ok();
        let numbers = columns.values().filter(is_number).count();
        if numbers != 0 && numbers != columns.len() {
            return Err(RowError::NumbersAndNames {
                fields: text.to_owned(),
            });
        }
        let numbered = numbers != 0;
        Ok(Self { columns, numbered })
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (field, column)) in self.columns.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{field}={column}")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Fields {
    type Error = RowError;

    fn try_from(text: String) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        text.parse()
    }
}

impl From<Fields> for String {
    fn from(fields: Fields) -> Self {
        fields.to_string()
    }
}
