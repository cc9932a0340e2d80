//! The objects of a JSON Lines file or of a JSON array, each with its place.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{DocumentSource, extension, json_type};
use crate::error::{DataError, Result};

/// Reads the objects of a file: of a `.jsonl` the lines, of any other name the elements if it begins with a bracket,
/// else the lines. `each` is given what stands in the place of an object, too: a line that is no JSON, or JSON that
/// is no object. A fault behind which it cannot be said where the next object begins ends the reading.
pub(crate) fn objects(
    path: &Path,
    text: &str,
    each: impl FnMut(Result<Map<String, Value>>, DocumentSource) -> Result<()>,
) -> Result<()> {
    let is_array =
        extension(path).as_deref() != Some("jsonl") && text.trim_start().starts_with('[');
    if is_array {
        array(path, text, each)
    } else {
        lines(path, text, each)
    }
}

fn lines(
    path: &Path,
    text: &str,
    mut each: impl FnMut(Result<Map<String, Value>>, DocumentSource) -> Result<()>,
) -> Result<()> {
    let shared: Arc<Path> = Arc::from(path);
    let mut lines = text
        .lines()
        .zip(1..)
        .filter(|(line, _)| !line.trim().is_empty())
        .peekable();
    if lines.peek().is_none() {
        return Err(DataError::NoDocuments {
            path: path.to_owned(),
            lines: text.lines().count(),
        });
    }
    for (content, line) in lines {
        let place = DocumentSource {
            path: Arc::clone(&shared),
            line,
            item: None,
        };
        let value = serde_json::from_str(content).map_err(|error| invalid(path, (line, 0), &error));
        each(value.and_then(|value| object(value, &place)), place)?;
    }
    Ok(())
}

fn array(
    path: &Path,
    text: &str,
    mut each: impl FnMut(Result<Map<String, Value>>, DocumentSource) -> Result<()>,
) -> Result<()> {
    let shared: Arc<Path> = Arc::from(path);
    let mut cursor = Cursor::new(path, text);
    cursor.next("`[`", &['['])?;
    if cursor.peek() == Some(']') {
        return Err(DataError::EmptyArray {
            path: path.to_owned(),
        });
    }
    for item in 1.. {
        cursor.skip_space();
        let place = DocumentSource {
            path: Arc::clone(&shared),
            line: cursor.line,
            item: Some(item),
        };
        each(object(cursor.value()?, &place), place)?;
        if cursor.next("`,` or `]`", &[',', ']'])? == ']' {
            break;
        }
    }
    cursor.skip_space();
    match cursor.rest {
        "" => Ok(()),
        _ => Err(cursor.error("trailing characters")),
    }
}

fn object(value: Value, place: &DocumentSource) -> Result<Map<String, Value>> {
    match value {
        Value::Object(object) => Ok(object),
        other => Err(DataError::NotAnObject {
            place: place.clone(),
            found: json_type(&other),
        }),
    }
}

/// A place in a text that is read value by value, because the parser of a whole array does not say where its elements
/// stand.
struct Cursor<'a> {
    path: &'a Path,
    rest: &'a str,
    /// The line, counted from 1.
    line: usize,
    /// The bytes before it on the line.
    column: usize,
}

impl<'a> Cursor<'a> {
    fn new(path: &'a Path, rest: &'a str) -> Self {
        Self {
            path,
            rest,
            line: 1,
            column: 0,
        }
    }

    fn advance(&mut self, bytes: usize) {
        let (passed, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        self.line += passed.matches('\n').count();
        self.column = match passed.rfind('\n') {
            Some(end) => bytes - end - 1,
            None => self.column + bytes,
        };
    }

    fn skip_space(&mut self) {
        let rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
        self.advance(self.rest.len() - rest.len());
    }

    /// The next character that is no space.
    fn peek(&mut self) -> Option<char> {
        self.skip_space();
        self.rest.chars().next()
    }

    /// Takes the next character that is no space, which must be one of `expected`.
    fn next(&mut self, name: &str, expected: &[char]) -> Result<char> {
        match self.peek() {
            Some(found) if expected.contains(&found) => {
                self.advance(found.len_utf8());
                Ok(found)
            }
            Some(_) => Err(self.error(&format!("expected {name}"))),
            None => Err(self.error("EOF while parsing a list")),
        }
    }

    fn value(&mut self) -> Result<Value> {
        let mut values = serde_json::Deserializer::from_str(self.rest).into_iter();
        match values.next() {
            Some(Ok(value)) => {
                let bytes = values.byte_offset();
                self.advance(bytes);
                Ok(value)
            }
            Some(Err(error)) => Err(invalid(self.path, (self.line, self.column), &error)),
            None => Err(self.error("EOF while parsing a list")),
        }
    }

    fn error(&self, message: &str) -> DataError {
        DataError::InvalidJson {
            path: self.path.to_owned(),
            line: self.line,
            column: self.column + 1,
            message: message.to_owned(),
        }
    }
}

/// An error of the parser, which saw what begins on `line` behind `column` bytes.
fn invalid(path: &Path, (line, column): (usize, usize), error: &serde_json::Error) -> DataError {
    // Its own "at line L column N" counts from where it began to read.
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    DataError::InvalidJson {
        path: path.to_owned(),
        line: line + error.line().max(1) - 1,
        column: error.column() + if error.line() <= 1 { column } else { 0 },
        message: message.to_owned(),
    }
}
