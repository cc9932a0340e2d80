//! What can go wrong between a file of rows and a batch, with the values that say why.

use thiserror::Error;

use crate::error::{DataError, list};
use crate::source::{DocumentSource, Fault, FieldsError, and_others};
use reparam_formats::shown;

mod hint;

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
    /// The choice of fields is none, or names one that the task does not have.
    #[error(transparent)]
    Fields(#[from] FieldsError),
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
    /// The rows of a format do not have a field that the task needs.
    #[error("{}rows in the format `{format}` have no field `{field}`", of_file(path.as_deref()))]
    FormatWithoutField {
        /// The file whose name says the format, if it was not chosen.
        path: Option<std::path::PathBuf>,
        /// The format.
        format: &'static str,
        /// The field.
        field: &'static str,
        /// The formats that may have it.
        usable: Vec<&'static str>,
    },
    /// The JSON of a file is not that of SQuAD.
    #[error("{}:{line}: no file of SQuAD: {message}", path.display())]
    NotSquad {
        /// The file.
        path: std::path::PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },

    /// A file of sources has no file of targets.
    #[error("parallel files come in pairs, found {sources} of sources and {targets} of targets")]
    UnpairedFiles {
        /// Files of sources.
        sources: usize,
        /// Files of targets.
        targets: usize,
    },
    /// Two parallel files have not the same number of lines.
    #[error(
        "{} has {source_lines} lines, {} has {target_lines}",
        source_path.display(), target_path.display()
    )]
    LineCounts {
        /// The file of sources.
        source_path: std::path::PathBuf,
        /// Its lines.
        source_lines: usize,
        /// The file of targets.
        target_path: std::path::PathBuf,
        /// Its lines.
        target_lines: usize,
    },

    // Rows.
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
    /// A text that has to say something is blank.
    #[error("{place}: the field `{field}` is blank")]
    Blank {
        /// Where it stands.
        place: DocumentSource,
        /// The field.
        field: &'static str,
    },
    /// The same is wrong with several rows, or with one where such rows could be left out.
    #[error("{first}{}", and_others(*count, others))]
    Rows {
        /// What is wrong with the first.
        first: Box<RowError>,
        /// How many there are.
        count: usize,
        /// Where the first of the others stand.
        others: Vec<String>,
    },
    /// Every row was left out.
    #[error("none of {rows} rows can be read; the first: {first}")]
    NothingLeft {
        /// Rows of the files.
        rows: usize,
        /// What is wrong with the first one.
        first: Box<RowError>,
    },

    // Tags.
    /// A row has not as many tags as tokens.
    #[error("{place}: {tokens} tokens and {tags} tags")]
    TagCount {
        /// Where it stands.
        place: DocumentSource,
        /// The number of its tokens.
        tokens: usize,
        /// The number of its tags.
        tags: usize,
    },
    /// A row has no tags.
    #[error("{place}: no tags")]
    NoTags {
        /// Where it stands.
        place: DocumentSource,
    },
    /// A tag that the model does not have.
    #[error(
        "{place}: the model has no tag `{tag}`, which token {number}, `{token}`, has; its tags are {}",
        some(labels), tag = shown(tag), token = shown(token)
    )]
    UnknownTag {
        /// Where the row stands.
        place: DocumentSource,
        /// Which token of the row, from 1.
        number: usize,
        /// The token.
        token: String,
        /// The tag.
        tag: String,
        /// The tag most like it.
        nearest: Option<String>,
        /// All tags of the model.
        labels: Vec<String>,
    },

    // Answers.
    /// A row has not as many offsets as answers.
    #[error("{place}: {texts} answers and {starts} offsets")]
    AnswerCount {
        /// Where it stands.
        place: DocumentSource,
        /// The number of texts.
        texts: usize,
        /// The number of offsets.
        starts: usize,
    },
    /// An answer does not stand at its offset.
    #[error(
        "{place}: the answer `{answer}` is not at character {start} of the context, {}",
        stands(found), answer = shown(answer)
    )]
    AnswerNotThere {
        /// Where it stands.
        place: DocumentSource,
        /// The answer.
        answer: String,
        /// Its offset in code points.
        start: i64,
        /// As much of what is there as the answer is long; nothing if it is outside.
        found: String,
        /// The character at which the answer first occurs.
        occurs: Option<usize>,
    },
    /// An answer without an offset does not occur in the context.
    #[error("{place}: the answer `{answer}` does not occur in the context", answer = shown(answer))]
    AnswerNotFound {
        /// Where it stands.
        place: DocumentSource,
        /// The answer.
        answer: String,
    },

    // Pairs.
    /// A row is neither a pair with a score nor an anchor with a positive.
    #[error(
        "{place}: neither `text`, `text_pair` and `score` nor `anchor` and `positive`: no {}",
        list(missing)
    )]
    NoPair {
        /// Where it stands.
        place: DocumentSource,
        /// The fields that would make it the one or the other.
        missing: Vec<&'static str>,
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

impl Fault for RowError {
    fn row(&self) -> Option<(DocumentSource, String)> {
        let (place, kind) = match self {
            Self::Read(error) => return error.row(),
            Self::NoColumn { place, field, .. } => (place, format!("missing {field}")),
            Self::WrongType { place, field, .. } => (place, format!("type {field}")),
            Self::Blank { place, field } => (place, format!("blank {field}")),
            Self::TagCount { place, .. } => (place, "tag count".to_owned()),
            Self::NoTags { place } => (place, "no tags".to_owned()),
            Self::UnknownTag { place, .. } => (place, "unknown tag".to_owned()),
            Self::AnswerCount { place, .. } => (place, "answer count".to_owned()),
            Self::AnswerNotThere { place, .. } => (place, "answer not there".to_owned()),
            Self::AnswerNotFound { place, .. } => (place, "answer not found".to_owned()),
            Self::NoPair { place, .. } => (place, "no pair".to_owned()),
            Self::NoLabel { place } => (place, "no label".to_owned()),
            Self::TwoLabels { place } => (place, "two labels".to_owned()),
            Self::SeveralLabels { place, .. } => (place, "several labels".to_owned()),
            Self::UnknownLabel { place, .. } => (place, "unknown label".to_owned()),
            Self::AmbiguousLabel { place, .. } => (place, "ambiguous label".to_owned()),
            _ => return None,
        };
        Some((place.clone(), kind))
    }

    fn of_rows(first: Self, count: usize, others: Vec<String>) -> Self {
        Self::Rows {
            first: Box::new(first),
            count,
            others,
        }
    }
}

/// What is at a character.
fn stands(found: &str) -> String {
    match found {
        "" => "which has none there".to_owned(),
        found => format!("where `{}` stands", shown(found)),
    }
}

/// The file that an error is in, before what it says.
fn of_file(path: Option<&std::path::Path>) -> String {
    path.map_or_else(String::new, |path| format!("{}: ", path.display()))
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
