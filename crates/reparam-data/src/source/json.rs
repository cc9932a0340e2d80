//! The objects of a JSON Lines file or of a JSON array, each with its place.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::{DocumentSource, extension, json_type};
use crate::error::{DataError, Result, Unlearnable};

mod tokens;

use tokens::{field_before, without_nan};

/// What is handed over for each object, or for what stands in its place.
type Object = Result<Map<String, Value>>;

/// Reads the objects of a file: the elements of an array, the lines of a file of lines, or objects one behind the other. An
/// object that holds nothing but one array of objects, and values that are none, stands for the array, unless one of its keys
/// `is_field` of a row.
///
/// `each` is given what stands in the place of an object, too: a line that is no JSON, or JSON that is no object. A fault
/// behind which it cannot be said where the next object begins ends the reading.
pub(crate) fn objects(
    path: &Path,
    text: &str,
    is_field: impl Fn(&str) -> bool,
    each: impl FnMut(Object, DocumentSource) -> Result<()>,
) -> Result<()> {
    let start = text.trim_start();
    if start.starts_with('[') {
        let text = without_nan(text);
        return Cursor::new(path, &text).array(each);
    }
    let first = start.lines().next().unwrap_or_default();
    // One line may be an object around an array.
    let is_lines = || start.trim_end().contains('\n') && parse(first).is_ok();
    if extension(path).as_deref() == Some("jsonl") || first.is_empty() || is_lines() {
        return lines(path, text, each);
    }
    let text = without_nan(text);
    match Cursor::new(path, &text).wrapped(is_field) {
        Some(array) => array.array(each),
        None => Cursor::new(path, &text).values(each),
    }
}

fn lines(
    path: &Path,
    text: &str,
    mut each: impl FnMut(Object, DocumentSource) -> Result<()>,
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
        each(object_of_line(content, &place), place)?;
    }
    Ok(())
}

/// Reads the object that a line is.
pub(crate) fn object_of_line(content: &str, place: &DocumentSource) -> Object {
    match parse(content) {
        Ok(value) => object(value, place),
        Err(error) => Err(invalid(&place.path, (place.line, 0), content, &error)),
    }
}

/// Whether a text is one value.
pub(super) fn is_value(content: &str) -> bool {
    parse(content).is_ok()
}

/// Reads a value; one that is not a number, as Python writes them, is null.
fn parse(content: &str) -> serde_json::Result<Value> {
    serde_json::from_str(content).or_else(|error| match without_nan(content) {
        Cow::Owned(content) => serde_json::from_str(&content),
        Cow::Borrowed(_) => Err(error),
    })
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
/// stand, and would hold all of them.
#[derive(Clone)]
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

    fn value<T: serde::de::DeserializeOwned>(&mut self) -> Result<T> {
        let mut values = serde_json::Deserializer::from_str(self.rest).into_iter();
        match values.next() {
            Some(Ok(value)) => {
                let bytes = values.byte_offset();
                self.advance(bytes);
                Ok(value)
            }
            Some(Err(error)) => {
                let begin = (self.line, self.column);
                Err(invalid(self.path, begin, self.rest, &error))
            }
            None => Err(self.error("EOF while parsing a list")),
        }
    }

    /// Reads the elements of an array, which ends the text.
    fn array(mut self, mut each: impl FnMut(Object, DocumentSource) -> Result<()>) -> Result<()> {
        let shared: Arc<Path> = Arc::from(self.path);
        self.next("`[`", &['['])?;
        if self.peek() == Some(']') {
            return Err(DataError::EmptyArray {
                path: self.path.to_owned(),
            });
        }
        for item in 1.. {
            self.skip_space();
            let place = DocumentSource {
                path: Arc::clone(&shared),
                line: self.line,
                item: Some(item),
            };
            each(object(self.value()?, &place), place)?;
            if self.next("`,` or `]`", &[',', ']'])? == ']' {
                break;
            }
        }
        // Behind a wrapped array, what is around it has been read before.
        self.skip_space();
        match self.rest {
            "" => Ok(()),
            _ => Err(self.error("trailing characters")),
        }
    }

    /// Reads values one behind the other, each over any number of lines.
    fn values(mut self, mut each: impl FnMut(Object, DocumentSource) -> Result<()>) -> Result<()> {
        let shared: Arc<Path> = Arc::from(self.path);
        while self.peek().is_some() {
            let place = DocumentSource {
                path: Arc::clone(&shared),
                line: self.line,
                item: None,
            };
            each(object(self.value()?, &place), place)?;
        }
        Ok(())
    }

    /// Finds the array of an object that has one array of objects, and values that are none. The cursor that is returned ends
    /// with it.
    fn wrapped(mut self, is_field: impl Fn(&str) -> bool) -> Option<Self> {
        let mut found = None;
        self.next("`{`", &['{']).ok()?;
        loop {
            self.skip_space();
            let key: String = self.value().ok()?;
            if is_field(&key) {
                return None;
            }
            self.next("`:`", &[':']).ok()?;
            self.skip_space();
            let begin = self.clone();
            self.value::<IgnoredAny>().ok()?;
            let length = begin.rest.len() - self.rest.len();
            let inside = begin.rest[..length].strip_prefix('[').map(str::trim_start);
            if inside.is_some_and(|inside| inside.starts_with('{')) {
                // The messages of one conversation are no rows.
                if found.is_some() || Unlearnable::of(&[&key]).is_some() {
                    return None;
                }
                let rest = &begin.rest[..length];
                found = Some(Self { rest, ..begin });
            }
            if self.next("`,` or `}`", &[',', '}']).ok()? == '}' {
                break;
            }
        }
        found.filter(|_| self.peek().is_none())
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

/// An error of the parser, which saw `content`, which begins on `line` behind `column` bytes.
fn invalid(
    path: &Path,
    (line, column): (usize, usize),
    content: &str,
    error: &serde_json::Error,
) -> DataError {
    // Its own "at line L column N" counts from where it began to read.
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    let before = content.lines().take(error.line().max(1) - 1);
    let before: usize = before.map(|line| line.len() + 1).sum();
    let field = field_before(content, before + error.column());
    let of_field = field.map_or_else(String::new, |field| format!(" (field `{field}`)"));
    DataError::InvalidJson {
        path: path.to_owned(),
        line: line + error.line().max(1) - 1,
        column: error.column() + if error.line() <= 1 { column } else { 0 },
        message: format!("{message}{of_field}"),
    }
}
