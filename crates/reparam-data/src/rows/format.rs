//! How rows are written in a file, and which tasks can read it.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::{Result, RowError};
use super::read::Schema;
use crate::source::{Format, extension};

#[cfg(test)]
mod tests;

/// How rows are written in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowFormat {
    /// One JSON object a line; in a file that is not named `.jsonl` also one array of objects.
    Jsonl,
    /// RFC 4180: cells between commas, in double quotes where they need them.
    Csv,
    /// Cells between tabs. Quotes are characters like any other.
    Tsv,
    /// A table with typed columns.
    Parquet,
    /// Every line is a `text`, or a `source` without a target; a blank one too.
    Lines,
    /// One token a line with its tag, blank lines between sentences: `.conll`, `.bio`, `.bmes`. The token is in the first
    /// column and the tag in the last one, unless fields give their numbers.
    Conll,
    /// The JSON of SQuAD, versions 1 and 2: articles of paragraphs of questions. A `.json` file that is one is recognized.
    Squad,
    /// Two files of text for each path of sources: line `n` of the second is the target of line `n` of the first.
    Parallel,
    /// A source and its target in one line, between them `||`; no line names the columns.
    Bars,
}

impl RowFormat {
    /// All formats, in the order in which they are listed to the user.
    pub const ALL: [Self; 9] = [
        Self::Jsonl,
        Self::Csv,
        Self::Tsv,
        Self::Parquet,
        Self::Lines,
        Self::Conll,
        Self::Squad,
        Self::Parallel,
        Self::Bars,
    ];

    /// The extensions of sentences of tagged tokens.
    const CONLL: [&str; 3] = ["conll", "bio", "bmes"];

    /// What a line may be.
    pub(super) const LINE: [&str; 2] = ["text", "source"];

    /// The name that run files and the program use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Tsv => "tsv",
            Self::Parquet => "parquet",
            Self::Lines => "lines",
            Self::Conll => "conll",
            Self::Squad => "squad",
            Self::Parallel => "parallel",
            Self::Bars => "bars",
        }
    }

    /// The fields of its rows, or `None` where each file has its own.
    const fn fields(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Jsonl | Self::Csv | Self::Tsv | Self::Parquet => None,
            Self::Lines => Some(&Self::LINE),
            Self::Conll => Some(&["tokens", "tags"]),
            Self::Squad => Some(&["context", "question", "answers", "id"]),
            Self::Parallel | Self::Bars => Some(&["source", "target"]),
        }
    }

    /// The first field of a schema that its rows cannot have: one that is required, or any if it has none of them.
    pub(super) fn lacks(self, schema: &Schema) -> Option<&'static str> {
        let fields = self.fields()?;
        if !fields.iter().any(|field| schema.reads(field)) {
            return schema.read().next();
        }
        let mut required = schema.required.iter().copied();
        required.find(|field| !fields.contains(field))
    }

    /// Refuses a schema that its rows do not have the fields of. `path` is the file whose name says the format.
    pub(super) fn check(self, schema: &Schema, path: Option<&Path>) -> Result<()> {
        match self.lacks(schema) {
            None => Ok(()),
            Some(field) => Err(RowError::FormatWithoutField {
                path: path.map(Path::to_owned),
                format: self.name(),
                field,
                usable: Self::of_schema(schema),
            }),
        }
    }

    /// The names of the formats that rows of a schema can be written in.
    pub(super) fn of_schema(schema: &Schema) -> Vec<&'static str> {
        let usable = Self::ALL.into_iter();
        let usable = usable.filter(|format| format.lacks(schema).is_none());
        usable.map(Self::name).collect()
    }

    /// The format that a file's name says; that of a text says nothing of rows.
    pub(super) fn of(path: &Path) -> Option<Self> {
        if extension(path).is_some_and(|extension| Self::CONLL.contains(&extension.as_str())) {
            return Some(Self::Conll);
        }
        match Format::of_name(path)? {
            Format::Jsonl => Some(Self::Jsonl),
            Format::Csv => Some(Self::Csv),
            Format::Tsv => Some(Self::Tsv),
            Format::Parquet => Some(Self::Parquet),
            _ => None,
        }
    }
}

impl fmt::Display for RowFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for RowFormat {
    type Err = RowError;

    fn from_str(name: &str) -> Result<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|format| format.name() == name)
            .ok_or_else(|| RowError::UnknownFormat {
                name: name.to_owned(),
                known: Self::ALL.map(Self::name).to_vec(),
            })
    }
}
