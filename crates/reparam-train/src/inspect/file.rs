//! Files that are neither a model nor an adapter.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use reparam_formats::FormatError;
use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::file;
use reparam_formats::identify::Kind as Found;
use serde_json::{Value, json};

use super::{Description, Kind, tensors};
use crate::Result;

/// Describes a safetensors file.
pub(super) fn tensors_of(path: &Path) -> Description {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut properties = vec![("files", json!([name]))];
    let (tensors, problem) = match tensors::list(path) {
        // What is damaged behind the header is seen by who would read it.
        Ok(tensors) => (tensors, Checkpoint::open_file(path).err().map(Into::into)),
        Err(error) => (Vec::new(), Some(error)),
    };
    properties.extend(problem.map(super::model::problem));
    Description {
        kind: Kind::Tensors,
        properties,
        tensors,
    }
}

/// Describes a file, or a directory that is nothing known.
pub(super) fn describe(path: &Path, kind: &Found) -> Result<Description> {
    let mut properties: Vec<(&'static str, Value)> = Vec::new();
    if path.is_dir() {
        properties.push(("files", json!(names(path)?)));
    } else if path.is_file() {
        let metadata =
            fs::metadata(path).map_err(|source| FormatError::io("read", path, source))?;
        properties.push(("bytes", json!(metadata.len())));
        properties.extend(text_properties(path, kind)?);
    }
    properties.extend(kind.hint().map(|hint| ("hint", json!(hint))));
    Ok(Description {
        kind: Kind::Other(kind.noun()),
        properties,
        tensors: Vec::new(),
    })
}

/// Counts the lines of a text, and names the columns of a table.
fn text_properties(path: &Path, kind: &Found) -> Result<Vec<(&'static str, Value)>> {
    let separator = match kind {
        Found::Table(separator) => Some(*separator),
        Found::Text | Found::Json | Found::JsonLines | Found::Html => None,
        _ => return Ok(Vec::new()),
    };
    let failed = |source| FormatError::io("read", path, source);
    let file = file::open_stream(path)?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut first = Vec::new();
    let mut lines = u64::from(reader.read_until(b'\n', &mut first).map_err(failed)? > 0);
    let mut last = first.last().copied();
    loop {
        let bytes = reader.fill_buf().map_err(failed)?;
        let Some(end) = bytes.last().copied() else {
            break;
        };
        let ends = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        // A line begins where another ended.
        lines += ends + u64::from(last == Some(b'\n')) - u64::from(end == b'\n');
        last = Some(end);
        let read = bytes.len();
        reader.consume(read);
    }
    let mut properties = vec![("lines", json!(lines))];
    if let Some(separator) = separator {
        let first = String::from_utf8_lossy(&first);
        let columns = first
            .trim_end()
            .trim_start_matches('\u{feff}')
            .split(separator);
        let columns: Vec<&str> = columns.map(|column| column.trim_matches('"')).collect();
        properties.push(("separator", json!(separator.to_string())));
        properties.push(("first_line", json!(columns)));
    }
    Ok(properties)
}

/// The names of what is in a directory, sorted, hidden ones left out; none if there is no such directory.
pub(super) fn names(directory: &Path) -> Result<Vec<String>> {
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let failed = |source| FormatError::io("read", directory, source);
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with('.') {
            names.push(name.into_owned());
        }
    }
    names.sort();
    Ok(names)
}
