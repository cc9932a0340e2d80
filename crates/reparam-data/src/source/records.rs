//! The records of a file of cells: CSV or tab-separated values.

use std::path::{Path, PathBuf};

use csv::{Reader, ReaderBuilder, StringRecord};

use crate::error::{DataError, Result};

/// How cells are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// RFC 4180: commas, and double quotes around cells that need them.
    Csv,
    /// Tabs and line ends; a quote is a character like any other.
    Tsv,
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
        // Lengths are compared here, for the reader's own error does not say the right line after a blank one.
        let mut builder = ReaderBuilder::new();
        builder.has_headers(false).flexible(true);
        if dialect == Dialect::Tsv {
            builder.delimiter(b'\t').quoting(false);
        }
        let reader = builder.from_reader(text.as_bytes());
        Self {
            path: path.to_owned(),
            text,
            dialect,
            reader,
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
            let fault = match self.dialect {
                Dialect::Csv => quote_fault(&self.text.as_bytes()[at..end]),
                Dialect::Tsv => None,
            };
            match fault {
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
fn quote_fault(record: &[u8]) -> Option<QuoteFault> {
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
            (_, b',') => State::Begin,
            (State::Quote | State::Ended, b' ' | b'\t' | b'\r' | b'\n') => State::Ended,
            (State::Quote | State::Ended, _) => return Some(QuoteFault::TextAfter),
            (State::Begin | State::Plain, _) => State::Plain,
        };
    }
    matches!(state, State::Quoted).then_some(QuoteFault::Open)
}
