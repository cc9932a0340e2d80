//! What a file is made of: bytes of a text, or what they are instead.

use std::path::{Path, PathBuf};

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use reparam_formats::FormatError;
use reparam_formats::file;
use reparam_formats::identify::{HEAD_BYTES, Kind, kind_of_bytes};

use super::input::Input;
use super::paths::not_found;
use super::records::line_ends;
use super::{FileDigest, json};
use crate::error::{DataError, Result};

/// How many bytes of a file tell in which encoding it is.
const SAMPLE: usize = 1 << 16;

/// Says precisely why a file cannot be opened.
pub(super) fn not_opened(path: &Path, error: FormatError) -> DataError {
    match error {
        FormatError::NoSuchFile { .. } => not_found(path),
        FormatError::AnotherKind {
            path,
            kind: Kind::Directory,
            ..
        } => DataError::IsDirectory { path },
        error => DataError::File(error),
    }
}

/// Reads a whole file as it is; one of data is read by [`read_data`](super::read_data).
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    file::read(path).map_err(|error| not_opened(path, error))
}

/// Returns the text of a file without its byte order mark.
pub(crate) fn utf8<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a str> {
    refuse_other_kinds(path, bytes)?;
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let offset = error.valid_up_to();
        not_utf8(path, bytes, 1 + line_ends(&bytes[..offset]), offset)
    })?;
    refuse_zero_bytes(path, text)?;
    Ok(text.strip_prefix(MARK).unwrap_or(text))
}

/// As [`utf8`], without a copy.
pub(super) fn into_utf8(path: &Path, mut bytes: Vec<u8>) -> Result<String> {
    let mark = bytes.len() - utf8(path, &bytes)?.len();
    bytes.drain(..mark);
    // It has been checked.
    Ok(String::from_utf8(bytes).unwrap_or_default())
}

pub(super) const MARK: char = '\u{feff}';

/// Refuses what is recognized by its first bytes as something else than a text.
fn refuse_other_kinds(path: &Path, head: &[u8]) -> Result<()> {
    match kind_of_bytes(&head[..head.len().min(HEAD_BYTES)]) {
        None => Ok(()),
        Some(kind) => Err(DataError::OtherKind {
            path: path.to_owned(),
            kind,
        }),
    }
}

/// The error for bytes that are not UTF-8 from `offset` on.
fn not_utf8(path: &Path, bytes: &[u8], line: usize, offset: usize) -> DataError {
    let path = path.to_owned();
    let encoding = encoding(bytes, offset);
    let utf16 = matches!(encoding, Some("UTF-16" | "UTF-16LE" | "UTF-16BE"));
    if bytes.iter().take(SAMPLE).any(|byte| *byte == 0) && !utf16 {
        return DataError::NotText { path };
    }
    DataError::InvalidUtf8 {
        path,
        line,
        offset,
        encoding,
    }
}

/// Guesses in which encoding a text is that is not UTF-8 from `offset` on, by the name that `iconv` has for it.
fn encoding(bytes: &[u8], offset: usize) -> Option<&'static str> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Some("UTF-16");
    }
    // A long text in ASCII may come before what tells them apart.
    let sample = &bytes[offset - offset.min(SAMPLE / 2)..];
    let sample = &sample[..sample.len().min(SAMPLE)];
    if sample.contains(&0) {
        return None;
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(sample, sample.len() == bytes.len());
    let guess = detector.guess(None, Utf8Detection::Deny);
    Some(match guess.name() {
        // Which has all that GBK has.
        "GBK" => "GB18030",
        "Shift_JIS" => "CP932",
        "EUC-KR" => "CP949",
        "Big5" => "BIG5-HKSCS",
        name => name,
    })
}

/// Says so if a text is one of zero bytes between letters: UTF-16 without a mark is valid UTF-8 where it is ASCII.
fn refuse_zero_bytes(path: &Path, text: &str) -> Result<()> {
    let bytes = text.as_bytes();
    let sample = &bytes[..bytes.len().min(SAMPLE)];
    let zeros = |from: usize| {
        sample
            .iter()
            .skip(from)
            .step_by(2)
            .filter(|byte| **byte == 0)
            .count()
    };
    let (even, odd) = (zeros(0), zeros(1));
    let encoding = match sample.len() / 2 {
        half if half > 4 && even == 0 && odd > half / 2 => "UTF-16LE",
        half if half > 4 && odd == 0 && even > half / 2 => "UTF-16BE",
        _ => return Ok(()),
    };
    Err(DataError::InvalidUtf8 {
        path: path.to_owned(),
        line: 1,
        offset: usize::from(odd > 0),
        encoding: Some(encoding),
    })
}

/// The error for `bytes`, which stand `before` bytes behind the beginning of a file and are not UTF-8 from `valid` on.
pub(super) fn not_utf8_behind(
    path: &Path,
    bytes: &[u8],
    (line, valid): (usize, usize),
    before: usize,
) -> DataError {
    match not_utf8(path, bytes, line, valid) {
        DataError::InvalidUtf8 {
            path,
            line,
            offset,
            encoding,
        } => DataError::InvalidUtf8 {
            path,
            line,
            offset: before + offset,
            encoding,
        },
        error => error,
    }
}

/// Refuses what the beginning of a file shows to be no text in UTF-8.
pub(super) fn check_head(path: &Path, head: &[u8]) -> Result<()> {
    refuse_other_kinds(path, head)?;
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        // What is wrong behind it is said where it is read.
        Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(),
    };
    refuse_zero_bytes(path, valid)
}

/// Reads the lines of a file one after the other.
pub(super) struct Lines {
    path: PathBuf,
    input: Input,
    /// Bytes before the line.
    offset: usize,
    /// The last line that was read, counted from 1.
    line: usize,
    buffer: Vec<u8>,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let mut input = Input::open(path)?;
        check_head(path, input.head()?)?;
        Ok(Self {
            path: path.to_owned(),
            input,
            offset: 0,
            line: 0,
            buffer: Vec::new(),
        })
    }

    /// Whether the file begins with a bracket, as far as its beginning shows.
    pub(super) fn is_array(&mut self) -> Result<bool> {
        let head = self.input.head()?;
        let head = head.strip_prefix("\u{feff}".as_bytes()).unwrap_or(head);
        Ok(head.trim_ascii_start().starts_with(b"["))
    }

    /// Whether there is nothing in the file but perhaps a byte order mark.
    pub(super) fn is_empty(&mut self) -> Result<bool> {
        let head = self.input.head()?;
        Ok(head.is_empty() || head == "\u{feff}".as_bytes())
    }

    /// Whether every line is a value of its own: the first that is not blank is one, and others follow. Reads on to find out.
    pub(super) fn are_values(mut self) -> Result<bool> {
        let mut has_first = false;
        while let Some((_, text)) = self.next()? {
            match (text.trim().is_empty(), has_first) {
                (true, _) => {}
                (false, true) => return Ok(true),
                (false, false) if json::is_value(text) => has_first = true,
                (false, false) => return Ok(false),
            }
        }
        // A file of blank lines has no rows, and lines say it best.
        Ok(!has_first)
    }

    /// Returns the next line without its end, and its number.
    pub(super) fn next(&mut self) -> Result<Option<(usize, &str)>> {
        self.offset += self.buffer.len();
        self.buffer.clear();
        self.input.line(&mut self.buffer)?;
        if self.buffer.is_empty() {
            return Ok(None);
        }
        self.line += 1;
        if let Err(error) = std::str::from_utf8(&self.buffer) {
            return Err(self.not_utf8(error.valid_up_to()));
        }
        // It has been checked.
        let text = std::str::from_utf8(&self.buffer).unwrap_or_default();
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        let text = match self.line {
            1 => text.strip_prefix(MARK).unwrap_or(text),
            _ => text,
        };
        Ok(Some((self.line, text)))
    }

    fn not_utf8(&mut self, valid: usize) -> DataError {
        // More than a line tells the encoding better.
        while self.buffer.len() < valid + SAMPLE {
            let before = self.buffer.len();
            if self.input.line(&mut self.buffer).is_err() || self.buffer.len() == before {
                break;
            }
        }
        not_utf8_behind(&self.path, &self.buffer, (self.line, valid), self.offset)
    }

    /// Ends the reading after the last line.
    pub(super) fn finish(self) -> Result<FileDigest> {
        self.input.finish()
    }
}
