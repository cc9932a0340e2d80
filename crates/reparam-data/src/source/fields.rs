//! Which column of a file holds which field.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use reparam_formats::{nearest, shown};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::error::list;

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
/// A column is a key of JSON objects or a name in the header of a table. A field that is not named is in the column of its own name. If the columns are numbers, a table has no header, and only
/// the fields that are named are there. Numbers count from 1; if one of them is 0, they count from 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "BTreeMap<String, String>")]
pub struct Fields {
    /// The columns as they are written, by field.
    columns: BTreeMap<String, String>,
    /// Whether the columns are numbers.
    numbered: bool,
}

/// What is wrong with a choice of fields.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FieldsError {
    /// A part is not of the form `field=column`.
    #[error("expected field=column, found `{part}`", part = shown(part))]
    Syntax {
        /// The part.
        part: String,
    },
    /// A field is given two columns.
    #[error("the field `{field}` is named twice", field = shown(field))]
    Twice {
        /// The field.
        field: String,
    },
    /// Some columns are numbers and some are names.
    #[error("the columns of `{fields}` are numbers as well as names", fields = shown(fields))]
    NumbersAndNames {
        /// The fields as they were given.
        fields: String,
    },
    /// A field that nothing reads.
    #[error("no field `{field}`, the fields are {}", list(known), field = shown(field))]
    Unknown {
        /// The field.
        field: String,
        /// The field most like it.
        nearest: Option<String>,
        /// The fields that there are.
        known: Vec<String>,
    },
}

impl FieldsError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Syntax { .. } => "write fields as text=review,label=kind".to_owned(),
            Self::Twice { .. } => "name each field once".to_owned(),
            Self::NumbersAndNames { .. } => {
                "name all columns if the file has a header, number all if it has none".to_owned()
            }
            Self::Unknown {
                nearest: Some(name),
                ..
            } => format!("did you mean `{name}`?"),
            Self::Unknown { .. } => {
                "the field comes first, then the column: text=review".to_owned()
            }
        }
    }
}

impl Fields {
    /// Makes a choice of pairs of field and column.
    ///
    /// # Errors
    ///
    /// [`FieldsError`], but for [`FieldsError::Unknown`]: what is known is known where rows are read.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, FieldsError> {
        let mut columns = BTreeMap::new();
        for (field, column) in pairs {
            if field.is_empty() || column.is_empty() {
                let part = format!("{field}={column}");
                return Err(FieldsError::Syntax { part });
            }
            if columns.insert(field.clone(), column).is_some() {
                return Err(FieldsError::Twice { field });
            }
        }
        let is_number = |column: &&String| column.parse::<usize>().is_ok();
        let numbers = columns.values().filter(is_number).count();
        let fields = Self {
            numbered: numbers != 0,
            columns,
        };
        if numbers != 0 && numbers != fields.columns.len() {
            let fields = fields.to_string();
            return Err(FieldsError::NumbersAndNames { fields });
        }
        Ok(fields)
    }

    /// Refuses a field that is none of `known`.
    pub(crate) fn check<'a>(
        &self,
        known: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<(), FieldsError> {
        let mut unknown = self
            .named()
            .filter(|field| !known.clone().any(|one| one == *field));
        match unknown.next() {
            None => Ok(()),
            Some(field) => Err(FieldsError::Unknown {
                field: field.to_owned(),
                nearest: nearest(field, known.clone()).map(str::to_owned),
                known: known.map(str::to_owned).collect(),
            }),
        }
    }

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
    pub(crate) fn first_number(&self) -> usize {
        let is_zero = |column: &String| column.parse() == Ok(0usize);
        usize::from(!self.columns.values().any(is_zero))
    }
}

impl FromStr for Fields {
    type Err = FieldsError;

    fn from_str(text: &str) -> Result<Self, FieldsError> {
        let pair = |part: &str| match part.split_once('=') {
            Some((field, column)) => Ok((field.trim().to_owned(), column.trim().to_owned())),
            None => Err(FieldsError::Syntax {
                part: part.trim().to_owned(),
            }),
        };
        let pairs: Vec<_> = text.split(',').map(pair).collect::<Result<_, _>>()?;
        Self::new(pairs)
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

/// What is read: a table, or the text that the program's flags take.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Table(BTreeMap<String, String>),
}

impl TryFrom<Written> for Fields {
    type Error = FieldsError;

    fn try_from(written: Written) -> Result<Self, FieldsError> {
        match written {
            Written::Text(text) if text.is_empty() => Ok(Self::default()),
            Written::Text(text) => text.parse(),
            Written::Table(columns) => Self::new(columns),
        }
    }
}

impl From<Fields> for BTreeMap<String, String> {
    fn from(fields: Fields) -> Self {
        fields.columns
    }
}
