//! What can go wrong between a file of rows and a batch, with the values that say why.

use thiserror::Error;

use crate::error::{DataError, list};
use crate::source::DocumentSource;
use reparam_formats::shown;

/// The result of this module's fallible functions.
pub type Result<T> = std::result::Result<T, RowError>;

/// An error in rows, in the choice of their fields, or in their labels.
///
/// The message says what is wrong; [`RowError::hint`] says what to do about it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RowError {
    /// The file cannot be read, is not what its name says, or a text cannot be encoded.
    #[error(transparent)]
    Read(#[from] DataError),

    // The request.
    /// A part of the fields is not of the form `field=column`.
    #[error("expected field=column, found `{part}`", part = shown(part))]
    FieldsSyntax {
        /// The part.
        part: String,
    },
    /// A field is given two columns.
    #[error("the field `{field}` is named twice", field = shown(field))]
    FieldTwice {
        /// The field.
        field: String,
    },
    /// Some columns are numbers and some are names.
    #[error("the columns of `{fields}` are numbers as well as names", fields = shown(fields))]
    NumbersAndNames {
        /// The fields as they were given.
        fields: String,
    },
    /// A field that the task does not have.
    #[error("no field `{field}`, the fields are {}", list(known), field = shown(field))]
    UnknownField {
        /// The field.
        field: String,
        /// The field most like it.
        nearest: Option<String>,
        /// The fields of the task.
        known: Vec<&'static str>,
    },
    /// A format name that does not exist.
    #[error("unknown format of rows `{name}`, the formats are {}", list(known), name = shown(name))]
    UnknownFormat {
        /// The name given.
        name: String,
        /// The formats.
        known: Vec<&'static str>,
    },
    /// The name of a file does not say how it is written.
    #[error("cannot tell the format of {} from its name", path.display())]
    NoFormat {
        /// The file.
        path: std::path::PathBuf,
        /// The formats.
        known: Vec<&'static str>,
    },

    // Rows.
    /// A table has nothing but a header.
    #[error("{} has no rows", path.display())]
    NoRows {
        /// The file.
        path: std::path::PathBuf,
    },
    /// A row or a header lacks the column of a field.
    #[error(
        "{place}: no `{column}` for the field `{field}`, found {}",
        list(columns), column = shown(column)
    )]
    NoColumn {
        /// Where it stands.
        place: DocumentSource,
        /// The field.
        field: &'static str,
        /// The name of the column, or its number as it was given.
        column: String,
        /// The columns that are there, at most ten.
        columns: Vec<String>,
        /// The column most like it.
        nearest: Option<String>,
    },
    /// Two columns of a header have the name that is asked for.
    #[error("{place}: columns {first} and {second} are both named `{column}`", column = shown(column))]
    DuplicateColumn {
        /// Where the header stands.
        place: DocumentSource,
        /// The name.
        column: String,
        /// The first column of that name, counted from 1.
        first: usize,
        /// The second.
        second: usize,
    },
    /// A record has another number of cells than the one before.
    #[error("{place}: expected {expected} cells, found {found}")]
    Ragged {
        /// Where it stands.
        place: DocumentSource,
        /// Cells of the header, or of the first record where there is none.
        expected: usize,
        /// Cells of this record.
        found: usize,
    },
    /// A field holds something else.
    #[error("{place}: the field `{field}` is {found}, not {expected}", found = shown(found))]
    WrongType {
        /// Where it stands.
        place: DocumentSource,
        /// The field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// Every row was left out.
    #[error("none of {rows} rows can be read; the first: {first}")]
    NothingLeft {
        /// Rows of the files.
        rows: usize,
        /// What is wrong with the first one.
        first: Box<RowError>,
    },

    // Labels.
    /// A row has no label.
    #[error("{place}: no label")]
    NoLabel {
        /// Where it stands.
        place: DocumentSource,
    },
    /// A row has both `label` and `labels`.
    #[error("{place}: both `label` and `labels` are given")]
    TwoLabels {
        /// Where it stands.
        place: DocumentSource,
    },
    /// A row has several labels, and the model tells classes apart that exclude one another.
    #[error("{place}: {count} labels, but the model gives each row one")]
    SeveralLabels {
        /// Where it stands.
        place: DocumentSource,
        /// How many.
        count: usize,
    },
    /// A label that the model does not have.
    #[error(
        "{place}: the model has no label `{label}`, its labels are {}",
        some(labels), label = shown(label)
    )]
    UnknownLabel {
        /// Where it stands.
        place: DocumentSource,
        /// The label.
        label: String,
        /// The label most like it.
        nearest: Option<String>,
        /// All labels of the model.
        labels: Vec<String>,
    },
    /// A label can be meant as a name or as an index.
    #[error(
        "{place}: the label `{label}` is the name of one class and the index of another, and the rows have names as well as indices", label = shown(label)
    )]
    AmbiguousLabel {
        /// Where it stands.
        place: DocumentSource,
        /// The label.
        label: String,
    },
    /// All rows have the same label.
    #[error("nothing to tell apart: every row has the label `{label}`", label = shown(label))]
    OneLabel {
        /// The label.
        label: String,
    },
    /// There are no labels at all.
    #[error("there are no labels")]
    NoLabels,
    /// Two classes of a model have the same name.
    #[error("two classes are named `{name}`", name = shown(name))]
    RepeatedName {
        /// The name.
        name: String,
    },
}

impl RowError {
    /// What the user can do about it, if there is something to say beyond the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Read(DataError::NotAnObject { .. }) => {
                r#"write each row as {"text": "...", "label": "..."}"#.to_owned()
            }
            Self::Read(error) => return error.hint(),
            Self::FieldsSyntax { .. } => "write fields as text=review,label=kind".to_owned(),
            Self::FieldTwice { .. } => "name each field once".to_owned(),
            Self::NumbersAndNames { .. } => {
                "name all columns if the file has a header, number all if it has none".to_owned()
            }
            Self::UnknownField { nearest: Some(name), .. } => format!("did you mean `{name}`?"),
            Self::UnknownField { .. } => {
                "the field comes first, then the column: text=review".to_owned()
            }
            Self::UnknownFormat { .. } => return None,
            Self::NoFormat { known, .. } => {
                format!("set format (or --format) to one of {}", list(known))
            }
            Self::NoRows { .. } => "the first line names the columns, every further line is a row; \
                where no line names them, set fields to their numbers, as in text=2,label=1"
                .to_owned(),
            Self::NoColumn { nearest: Some(name), field, .. } => {
                format!("set fields (or --fields) to {field}={name}")
            }
            Self::NoColumn { field, .. } => format!(
                "say which column it is with fields (or --fields), as in {field}=NAME; \
                 by number, as in {field}=1, if no line names the columns"
            ),
            Self::DuplicateColumn { .. } => "rename one of the two columns".to_owned(),
            Self::Ragged { expected, found, .. } if found > expected => {
                "put a cell that has a comma in it into double quotes, or set format to tsv if cells \
                 stand between tabs"
                    .to_owned()
            }
            Self::Ragged { .. } => "write a missing value as an empty cell".to_owned(),
            Self::WrongType { field, expected, .. } => format!("put {expected} into `{field}`"),
            Self::NothingLeft { first, .. } => return first.hint(),
            Self::NoLabel { .. } => {
                "give it a `label` (or `labels`), leave it out, or set on_error to skip".to_owned()
            }
            Self::TwoLabels { .. } => "keep the one that is meant".to_owned(),
            Self::SeveralLabels { .. } => {
                "keep one label, or train a model for several with `labels` in every row".to_owned()
            }
            Self::UnknownLabel { nearest: Some(name), .. } => format!("did you mean `{name}`?"),
            Self::UnknownLabel { .. } => "write a label's name, or its index from 0".to_owned(),
            Self::AmbiguousLabel { .. } => "write the names of all labels".to_owned(),
            Self::OneLabel { .. } => "add rows of another class".to_owned(),
            Self::NoLabels => "give each row a `label` or `labels`".to_owned(),
            Self::RepeatedName { .. } => "give each class a name of its own in id2label".to_owned(),
        };
        Some(hint)
    }
}

/// The first ten names.
fn some(names: &[String]) -> String {
    let listed = list(&names[..names.len().min(10)]);
    if names.len() > 10 {
        format!("{listed} and {} more", names.len() - 10)
    } else {
        listed
    }
}
