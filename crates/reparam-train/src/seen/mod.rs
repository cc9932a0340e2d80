//! What a model will really see of its data: lengths, what is learned, what is cut, duplicates, and the first rows decoded.
//!
//! A task makes a [`Seen`] of its rows with a [`Survey`], and shows rows as [`SeenRow`]s. Neither knows a task.

mod page;
mod rows;
mod survey;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::Serialize;

pub use self::page::page;
pub use self::rows::{SeenPart, SeenRow, Token};
pub use self::survey::{Survey, Surveyed};

use crate::preflight::Finding;
use reparam_data::TextTokenizer;

/// How much of the data is shown.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look<'a> {
    /// What decodes the rows that are shown.
    pub tokenizer: Option<&'a TextTokenizer>,
    /// How many of the first rows are shown.
    pub rows: usize,
}

/// What a model will see of what it learns from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Seen {
    /// What a row is called, in the plural: `documents`, `rows`.
    pub unit: &'static str,
    /// The rows, those included that nothing is learned of.
    pub rows: u64,
    /// Their tokens, special ones included.
    pub tokens: u64,
    /// The tokens that are predicted, of a task that predicts tokens.
    pub labelled_tokens: Option<u64>,
    /// The most tokens that the model sees at once.
    pub sequence_length: u64,
    /// The tokens of the rows.
    pub lengths: Lengths,
    /// Rows of which a part is cut off, or is not seen together with the rest.
    pub truncated: Noticed,
    /// Rows that are longer than the model sees at once and are left out; they are not among [`rows`](Self::rows).
    pub dropped: Noticed,
    /// The same of the rows of files that are measured on.
    pub held_out_dropped: Noticed,
    /// Rows that nothing is learned of, because nothing of them is predicted.
    pub masked: Noticed,
    /// Rows that say what an earlier one says.
    pub duplicates: Noticed,
    /// Held-out rows that are learned from, too.
    pub held_out_duplicates: Noticed,
    /// How full the blocks are that rows are packed into, from 0 to 1; a batch has no padding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fill: Option<f64>,
    /// The rows and tokens of each file.
    pub files: Vec<FileTokens>,
    /// How often each label is right, of a task with labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<LabelCount>,
    /// The first rows as the model sees them.
    pub examples: Vec<SeenRow>,
    /// What else the task has found; a part of the findings of the run.
    #[serde(skip)]
    pub findings: Vec<Finding>,
}

/// How long rows are, in tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Lengths {
    /// The shortest.
    pub min: u64,
    /// Half of the rows are not longer.
    pub median: u64,
    /// The mean.
    pub mean: f64,
    /// 95 % of the rows are not longer.
    pub p95: u64,
    /// The longest.
    pub max: u64,
    /// How many rows have which length.
    pub histogram: Vec<Bin>,
}

/// Rows of some lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bin {
    /// The least length.
    pub from: u64,
    /// The greatest.
    pub to: u64,
    /// The rows.
    pub rows: u64,
}

/// Rows that something is the matter with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct Noticed {
    /// How many.
    pub count: u64,
    /// Where the first ones stand.
    pub first: Vec<String>,
}

/// What a file has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileTokens {
    /// The file.
    pub file: PathBuf,
    /// Its rows.
    pub rows: u64,
    /// Their tokens.
    pub tokens: u64,
}

/// How often a label is right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LabelCount {
    /// Its name.
    pub label: String,
    /// The rows, words or texts that have it.
    pub count: u64,
}
