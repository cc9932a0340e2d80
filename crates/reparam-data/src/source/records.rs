//! The records of a file of cells: CSV or tab-separated values.

use std::path::{Path, PathBuf};

use csv::{Reader, ReaderBuilder, StringRecord};

use super::DocumentSource;
use crate::error::{DataError, Result};

/// How cells are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dialect {
    /// What stands between cells.
    pub(crate) delimiter: u8,
    /// Whether cells are in double quotes where they need them, as in RFC 4180; otherwise a quote is a character like any
    /// other.
    quoting: bool,
}

impl Dialect {
    /// RFC 4180: commas, and double quotes around cells that need them.
    pub(crate) const CSV: Self = Self::separated_by(b',');

    /// Tabs and line ends.
    pub(crate) const TSV: Self = Self {
        delimiter: b'\t',
        quoting: false,
    };

    const fn separated_by(delimiter: u8) -> Self {
        Self {
            delimiter,
            quoting: true,
        }
    }

    /// Finds out what separates the cells of a file that is called CSV: spreadsheets write semicolons where the comma is in
    /// numbers, and others write tabs or bars.
    ///
    /// It is what divides the first line; if that are several, the one that divides all of the next lines into as many
    /// cells; else the comma.
    pub(crate) fn of_csv(text: &str) -> Self {
        let all = [b',', b';', b'\t', b'|'].map(Self::separated_by);
        let divides = |dialect: &&Self| dialect.widths(text).next().is_some_and(|width| width > 1);
        let dividing: Vec<&Self> = all.iter().filter(divides).collect();
        let is_even = |dialect: &&&Self| {
            let mut widths = dialect.widths(text).take(SNIFFED);
            let first = widths.next();
            widths.all(|width| Some(width) == first)
        };
        let even: Vec<&Self> = dividing.iter().filter(is_even).copied().collect();
        match (&even[..], &dividing[..]) {
            ([only], _) | (_, [only]) => **only,
            ([first, ..], _) | (_, [first, ..]) => **first,
            _ => Self::CSV,
        }
    }

    fn widths(self, text: &str) -> impl Iterator<Item = usize> {
        let records = self.reader(text).into_records();
        records.map_while(|record| record.ok().map(|record| record.len()))
    }

    fn reader(self, text: &str) -> Reader<&[u8]> {
        // Lengths are compared elsewhere, for the reader's own error does not say the right line after a blank one.
        ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(self.delimiter)
            .quoting(self.quoting)
            .from_reader(text.as_bytes())
    }
}

/// How many lines are looked at to find out what separates cells.
const SNIFFED: usize = 50;

/// Finds a column by its name, which only one may have.
pub(crate) fn column(
    header: &[impl AsRef<str>],
    name: &str,
    place: &DocumentSource,
) -> Result<Option<usize>> {
    let mut columns = (0..header.len()).filter(|column| header[*column].as_ref() == name);
    match (columns.next(), columns.next()) {
        (Some(first), Some(second)) => Err(DataError::DuplicateColumn {
            place: place.clone(),
            column: name.to_owned(),
            first: first + 1,
            second: second + 1,
        }),
        (column, _) => Ok(column),
    }
}

/// Checks that a record has as many cells as the header.
pub(crate) fn check_width(
    record: &StringRecord,
    expected: usize,
    place: &DocumentSource,
) -> Result<()> {
    match record.len() {
        found if found == expected => Ok(()),
        found => Err(DataError::Ragged {
            place: place.clone(),
            expected,
            found,
        }),
    }
}

/// The records of a text, and where they begin.
pub(crate) struct Records<'a> {
    path: PathBuf,
    text: &'a str,
    dialect: Dialect,
    reader: Reader<&'a [u8]>,
    record: StringRecord,
    /// Byte at which the last record begins.
    begin: usize,
    /// Line on which the last record begins, counted from 1.
    line: usize,
}

impl<'a> Records<'a> {
    pub(crate) fn new(path: &Path, text: &'a str, dialect: Dialect) -> Self {
        Self {
            path: path.to_owned(),
            text,
            dialect,
            reader: dialect.reader(text),
            record: StringRecord::new(),
            begin: 0,
            line: 1,
        }
    }

    /// Returns the next record that is not blank, and the line on which it begins.
    pub(crate) fn next(&mut self) -> Result<Option<(usize, &StringRecord)>> {
        loop {
            let read = self.reader.read_record(&mut self.record);
            let read = read.map_err(|error| DataError::Unreadable {
                path: self.path.clone(),
                source: error.into(),
            })?;
            if !read {
                return Ok(None);
            }
            let at = self.record.position().map_or(0, csv::Position::byte) as usize;
            // The reader says where the record before ended; line ends follow.
            let ends = self.text.as_bytes()[at..].iter();
            let at = at
                + ends
                    .take_while(|byte| matches!(byte, b'\r' | b'\n'))
                    .count();
            self.line += line_ends(&self.text.as_bytes()[self.begin..at]);
            self.begin = at;
            let end = (self.reader.position().byte() as usize).max(at);
            let (path, line) = (&self.path, self.line);
            let record = &self.text.as_bytes()[at..end];
            let fault = self
                .dialect
                .quoting
                .then(|| quote_fault(record, self.dialect.delimiter));
            match fault.flatten() {
                Some(QuoteFault::Open) => {
                    return Err(DataError::OpenQuote {
                        path: path.clone(),
                        line,
                    });
                }
                Some(QuoteFault::TextAfter) => {
                    return Err(DataError::TextAfterQuote {
                        path: path.clone(),
                        line,
                    });
                }
                None => {}
            }
            // A line of nothing but white space; the reader skips those without any.
            if self.record.len() > 1 || !self.record.get(0).unwrap_or_default().trim().is_empty() {
                return Ok(Some((self.line, &self.record)));
            }
        }
    }
}

/// Counts the line ends `\n`, `\r\n` and `\r`, as the reader understands them.
pub(super) fn line_ends(bytes: &[u8]) -> usize {
    let returns = bytes.iter().enumerate();
    let returns = returns.filter(|(at, byte)| **byte == b'\r' && bytes.get(at + 1) != Some(&b'\n'));
    returns.count() + bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// How the quotes of a record can be wrong.
enum QuoteFault {
    /// A quoted cell is never closed.
    Open,
    /// Text follows the quote that closes a cell.
    TextAfter,
}

/// Finds what the reader forgives. Both faults are mostly a quote forgotten somewhere, and make one cell of all rows
/// up to the next quote, so that rows would be lost in silence.
fn quote_fault(record: &[u8], delimiter: u8) -> Option<QuoteFault> {
    enum State {
        /// At the beginning of a cell, the only place where a quote opens one.
        Begin,
        Plain,
        Quoted,
        /// After a quote in a quoted cell, which is its end or the first of a pair.
        Quote,
        /// After the end of a quoted cell and white space.
        Ended,
    }
    let mut state = State::Begin;
    for byte in record {
        state = match (state, byte) {
            (State::Begin, b'"') => State::Quoted,
            (State::Quoted, b'"') => State::Quote,
            (State::Quoted, _) => State::Quoted,
            (State::Quote, b'"') => State::Quoted,
            (_, byte) if *byte == delimiter => State::Begin,
            (State::Quote | State::Ended, b' ' | b'\t' | b'\r' | b'\n') => State::Ended,
            (State::Quote | State::Ended, _) => return Some(QuoteFault::TextAfter),
            (State::Begin | State::Plain, _) => State::Plain,
        };
    }
    matches!(state, State::Quoted).then_some(QuoteFault::Open)
}
