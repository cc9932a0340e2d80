//! The records of a file of cells: CSV or tab-separated values.

use std::path::{Path, PathBuf};

use csv::{Reader, ReaderBuilder, StringRecord};

use super::content::not_utf8_behind;
use super::{DocumentSource, FileDigest};
use crate::error::{DataError, Result};

mod window;

pub(crate) use window::Opened;
use window::{Source, Window};

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
        Self::of_head(text.as_bytes(), true)
    }

    /// [`of_csv`](Self::of_csv) of the beginning of a file, whose last record may go on behind it unless it `is_whole`.
    fn of_head(head: &[u8], is_whole: bool) -> Self {
        let all = [b',', b';', b'\t', b'|'].map(Self::separated_by);
        let widths = |dialect: &Self| -> Vec<usize> {
            let mut widths: Vec<usize> = dialect.widths(head).take(SNIFFED + 1).collect();
            if widths.len() <= SNIFFED && !is_whole {
                widths.pop();
            }
            widths.truncate(SNIFFED);
            widths
        };
        let divides = |dialect: &&Self| widths(dialect).first().is_some_and(|width| *width > 1);
        let dividing: Vec<&Self> = all.iter().filter(divides).collect();
        let is_even = |dialect: &&&Self| {
            let widths = widths(dialect);
            widths.iter().all(|width| *width == widths[0])
        };
        let even: Vec<&Self> = dividing.iter().filter(is_even).copied().collect();
        match (&even[..], &dividing[..]) {
            ([only], _) | (_, [only]) => **only,
            ([first, ..], _) | (_, [first, ..]) => **first,
            _ => Self::CSV,
        }
    }

    fn widths(self, head: &[u8]) -> impl Iterator<Item = usize> {
        let records = self.builder().from_reader(head).into_byte_records();
        records.map_while(|record| record.ok().map(|record| record.len()))
    }

    fn builder(self) -> ReaderBuilder {
        // Lengths are compared elsewhere, for the reader's own error does not say the right line after a blank one.
        let mut builder = ReaderBuilder::new();
        builder
            .has_headers(false)
            .flexible(true)
            .delimiter(self.delimiter)
            .quoting(self.quoting);
        builder
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

/// The records of a text or of a file, and where they begin.
pub(crate) struct Records<S> {
    path: PathBuf,
    dialect: Dialect,
    reader: Reader<Window<S>>,
    record: StringRecord,
    /// Line on which the last record begins, counted from 1.
    line: usize,
    /// The bytes before the first that is read.
    mark: usize,
}

impl<'a> Records<&'a [u8]> {
    pub(crate) fn new(path: &Path, text: &'a str, dialect: Dialect) -> Self {
        Self::of(path, (text.as_bytes(), 0), dialect)
    }
}

impl Records<Opened> {
    /// Opens a file of cells; what separates them is found out if no dialect is given.
    pub(super) fn open(path: &Path, dialect: Option<Dialect>) -> Result<Self> {
        let source = Opened::open(path)?;
        let (head, is_whole) = source.head();
        let dialect = dialect.unwrap_or_else(|| Dialect::of_head(head, is_whole));
        let mark = source.mark();
        Ok(Self::of(path, (source, mark), dialect))
    }

    /// Ends the reading behind the last record.
    pub(super) fn finish(self) -> Result<FileDigest> {
        self.reader.into_inner().source.finish()
    }
}

impl<S: Source> Records<S> {
    fn of(path: &Path, (source, mark): (S, usize), dialect: Dialect) -> Self {
        Self {
            path: path.to_owned(),
            dialect,
            reader: dialect.builder().from_reader(Window::new(source)),
            record: StringRecord::new(),
            line: 1,
            mark,
        }
    }

    /// Returns the next record that is not blank, and the line on which it begins.
    pub(crate) fn next(&mut self) -> Result<Option<(usize, &StringRecord)>> {
        loop {
            // Where the record before ended; line ends follow.
            let ended = self.reader.position().byte();
            let read = self.reader.read_record(&mut self.record);
            let is_read = match read {
                Ok(is_read) => is_read,
                Err(error) => return Err(self.failed(ended, error)),
            };
            if !is_read {
                return Ok(None);
            }
            let end = self.reader.position().byte();
            let window = self.reader.get_mut();
            let skipped = line_ends_before(window.between(ended, end));
            let at = ended + skipped as u64;
            self.line += line_ends(window.between(window.begin(), at));
            window.begin_at(at);
            let (path, line) = (&self.path, self.line);
            let record = window.between(at, end);
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

    /// Says why the record behind `ended` cannot be read.
    fn failed(&mut self, ended: u64, error: csv::Error) -> DataError {
        let window = self.reader.get_mut();
        if let Some(error) = window.failed.take() {
            return error;
        }
        let bytes = window.kept();
        let before = window.between(window.begin(), ended).len();
        if !matches!(error.kind(), csv::ErrorKind::Utf8 { .. }) {
            return DataError::Unreadable {
                path: self.path.clone(),
                source: error.into(),
            };
        }
        let valid = match std::str::from_utf8(bytes) {
            Ok(_) => before,
            Err(error) => error.valid_up_to(),
        };
        let line = self.line + line_ends(&bytes[..valid]);
        let offset = window.begin() as usize + self.mark;
        not_utf8_behind(&self.path, bytes, (line, valid), offset)
    }
}

/// How many bytes at the beginning are line ends.
fn line_ends_before(bytes: &[u8]) -> usize {
    let ends = bytes.iter();
    ends.take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .count()
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
