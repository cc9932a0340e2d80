//! Rows that cannot be read: left out and counted, or all of one kind in one error.

use std::fmt::Display;

use serde::{Deserialize, Serialize};

use super::DocumentSource;

/// How many places an error or a report names.
const NAMED: usize = 10;
/// How many rows that were left out are quoted.
const QUOTED: usize = 3;

/// What to do with a row that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// Stop with an error.
    #[default]
    #[serde(rename = "error")]
    Stop,
    /// Leave it out and count it.
    Skip,
}

impl OnError {
    /// What can be done, with the words that run files and the program use.
    pub const WORDS: [(&'static str, Self); 2] = [("error", Self::Stop), ("skip", Self::Skip)];
}

/// The rows that were left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// How many.
    pub count: usize,
    /// Where the first of them stand and what is wrong with them.
    pub first: Vec<String>,
}

impl Skipped {
    fn add(&mut self, error: &impl Display) {
        self.count += 1;
        if self.first.len() < QUOTED {
            self.first.push(error.to_string());
        }
    }

    /// Counts those of another part of the data, too.
    pub fn append(&mut self, other: Self) {
        self.count += other.count;
        self.first.extend(other.first);
        self.first.truncate(QUOTED);
    }
}

/// An error that may be that of a row.
pub(crate) trait Fault: Display + Sized {
    /// Where the row stands, and a word for what is wrong with it.
    fn row(&self) -> Option<(DocumentSource, String)>;

    /// The error for `count` rows with the same fault, of which the first and the places of some others are given.
    fn of_rows(first: Self, count: usize, others: Vec<String>) -> Self;
}

/// Collects what is wrong with rows.
#[derive(Debug)]
pub(crate) struct Faults<E> {
    on_error: OnError,
    /// The first, where it stands and what it is.
    first: Option<(E, DocumentSource, String)>,
    /// How many are of the same kind.
    count: usize,
    others: Vec<String>,
    skipped: Skipped,
}

impl<E: Fault> Faults<E> {
    pub(crate) fn new(on_error: OnError) -> Self {
        Self {
            on_error,
            first: None,
            count: 0,
            others: Vec::new(),
            skipped: Skipped::default(),
        }
    }

    /// Notes the fault of a row.
    ///
    /// # Errors
    ///
    /// The error itself, if it is not that of a row.
    pub(crate) fn add(&mut self, error: E) -> Result<(), E> {
        let Some((place, kind)) = error.row() else {
            return Err(error);
        };
        if self.on_error == OnError::Skip {
            self.skipped.add(&error);
        }
        match &self.first {
            None => {
                self.count = 1;
                self.first = Some((error, place, kind));
            }
            Some((_, first, of_first)) if *of_first == kind => {
                self.count += 1;
                if self.others.len() + 1 < NAMED {
                    self.others.push(other(&place, first));
                }
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Whether rows are only read on to count what is wrong with them.
    pub(crate) fn failed(&self) -> bool {
        self.on_error == OnError::Stop && self.first.is_some()
    }

    /// Ends the reading.
    ///
    /// # Errors
    ///
    /// With [`OnError::Stop`] the first fault with all others of its kind; with [`OnError::Skip`] that of
    /// `nothing_left`, which is given the number of rows and the first fault, if `rows_left` is 0.
    pub(crate) fn finish(
        self,
        rows_left: usize,
        nothing_left: impl FnOnce(usize, E) -> E,
    ) -> Result<Skipped, E> {
        match (self.on_error, self.first) {
            (_, None) => Ok(self.skipped),
            (OnError::Stop, Some((first, ..))) => Err(E::of_rows(first, self.count, self.others)),
            (OnError::Skip, Some((first, ..))) if rows_left == 0 => {
                Err(nothing_left(self.skipped.count, first))
            }
            (OnError::Skip, _) => Ok(self.skipped),
        }
    }
}

/// Where a row stands, seen from the first.
fn other(place: &DocumentSource, first: &DocumentSource) -> String {
    match place.item {
        _ if place.path != first.path => place.to_string(),
        Some(item) => format!("item {item}"),
        None => format!("line {}", place.line),
    }
}

/// Says how many rows have the same fault, after the first.
pub(crate) fn and_others(count: usize, others: &[String]) -> String {
    if others.is_empty() {
        return String::new();
    }
    let named = others.join(", ");
    let rest = match count.saturating_sub(1 + others.len()) {
        0 => String::new(),
        rest => format!(" and {rest} more"),
    };
    format!(" ({count} such rows: also {named}{rest})")
}
