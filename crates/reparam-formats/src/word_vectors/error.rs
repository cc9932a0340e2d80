//! What can be wrong with word vectors.

use std::path::PathBuf;

use super::Layout;
use crate::{FormatError, shown};

/// Says why word vectors could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WordVectorError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FormatError),
    /// The file has no vectors.
    #[error("{} has no word vectors", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The first line is not that of word2vec.
    #[error("{}:1: expected the numbers of words and of dimensions, found \"{}\"", path.display(), shown(found))]
    Header {
        /// The file.
        path: PathBuf,
        /// The line.
        found: String,
    },
    /// The header promises more than the file can hold.
    #[error(
        "{}: {words} words of {dim} dimensions need at least {needed} bytes, the file has {found}",
        path.display()
    )]
    TooShort {
        /// The file.
        path: PathBuf,
        /// Words, by the header.
        words: u64,
        /// Dimensions, by the header.
        dim: u64,
        /// Bytes that they need, header included.
        needed: u64,
        /// Bytes of the file.
        found: u64,
    },
    /// A row is none.
    #[error("{}:{line}: {problem}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1; in a binary file the row, the header being the first.
        line: u64,
        /// What is wrong.
        problem: RowProblem,
    },
    /// There are not as many rows as the header says.
    #[error("{}: the header says {expected} words, the file has {found}", path.display())]
    Count {
        /// The file.
        path: PathBuf,
        /// Words, by the header.
        expected: u64,
        /// Rows.
        found: u64,
    },
    /// A vector has a number that is none.
    #[error(
        "dimension {dimension} of the vector of \"{}\" is not finite",
        shown(word)
    )]
    NotFinite {
        /// The word.
        word: String,
        /// The dimension, from 0.
        dimension: usize,
    },
    /// Words and numbers do not make a table.
    #[error("{values} numbers are no table of {words} words of {dim} dimensions")]
    Shape {
        /// Words.
        words: usize,
        /// Numbers a word.
        dim: usize,
        /// Numbers.
        values: usize,
    },
    /// A word would be read as something else.
    #[error("the word \"{}\" cannot be written: {problem}", shown(word))]
    Unwritable {
        /// The word.
        word: String,
        /// Why.
        problem: &'static str,
    },
}

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowProblem {
    /// Another number of numbers than in the first row, or than the header says.
    #[error("expected a word and {expected} numbers, found {found} numbers")]
    Fields {
        /// Numbers that there should be.
        expected: u64,
        /// Numbers that there are.
        found: u64,
    },
    /// What should be a number is none.
    #[error("\"{}\" is no number", shown(text))]
    Number {
        /// What is there.
        text: String,
    },
    /// A number is infinite or none, or too large for f32.
    #[error("number {index} is not finite")]
    NotFinite {
        /// Which, counted from 1.
        index: usize,
    },
    /// There is no word.
    #[error("there is no word before the numbers")]
    NoWord,
    /// A word is not UTF-8.
    #[error("the word is not UTF-8")]
    NotUtf8,
    /// A line or a word is longer than any should be.
    #[error("it is longer than {limit} bytes")]
    TooLong {
        /// The most bytes that are read.
        limit: usize,
    },
    /// The file ends in the middle of it.
    #[error("the file ends in the middle of it")]
    CutShort,
}

impl WordVectorError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::File(error) => return error.hint(),
            Self::Empty { .. } => {
                "write a line a word: the word, then its numbers, parted by spaces"
            }
            Self::Header { .. } => "a file without this line is GloVe's; name that layout",
            Self::TooShort { .. } | Self::Count { .. } => {
                "the download or copy was cut short; fetch the file again"
            }
            Self::Row {
                problem: RowProblem::NotUtf8,
                ..
            } => "convert the file to UTF-8, as with `iconv`, or leave the word out",
            Self::Row {
                problem: RowProblem::CutShort,
                ..
            } => "the download or copy was cut short; fetch the file again",
            Self::Row { .. } => {
                "each row is a word and the same number of numbers, parted by single spaces"
            }
            Self::NotFinite { .. } => "leave the word out",
            Self::Shape { .. } => "give as many numbers to each word, at least one",
            Self::Unwritable { .. } => "leave the word out, or write it without white space",
        };
        Some(hint.to_owned())
    }
}

impl Layout {
    /// The layout in words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Glove => "GloVe text",
            Self::Word2vecText => "word2vec text",
            Self::Word2vecBinary => "word2vec binary",
        }
    }
}
