//! Reading documents from text and JSON Lines files.
//!
//! - `.txt`: the whole file is one document.
//! - `.jsonl`: one JSON object a line; its field `text` is the document, other fields are ignored, blank lines
//!   are skipped.
//!
//! The bytes of a document are kept as they are, line ends (`\r\n` too), white space and Unicode form included,
//! because the tokenizer decides what they mean. The one exception is a byte order mark at the start of the
//! file: it says how the file is written and is no part of the text, so it is removed.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::{DataError, Result, nearest};

#[cfg(test)]
mod tests;

/// How documents are written in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Format {
    /// The whole file is one document.
    #[serde(rename = "text")]
    Text,
    /// One JSON object a line, with the document in its field `text`.
    #[serde(rename = "jsonl")]
    JsonLines,
}

impl Format {
    /// Tells the format from the file's extension (`txt` or `jsonl`, in any case).
    ///
    /// # Errors
    ///
    /// [`DataError::UnknownExtension`] for any other extension or none.
    pub fn detect(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("txt") => Ok(Self::Text),
            Some("jsonl") => Ok(Self::JsonLines),
            _ => Err(DataError::UnknownExtension {
                path: path.to_owned(),
            }),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::JsonLines => "jsonl",
        })
    }
}

impl FromStr for Format {
    type Err = DataError;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "text" => Ok(Self::Text),
            "jsonl" => Ok(Self::JsonLines),
            _ => Err(DataError::UnknownFormat {
                name: name.to_owned(),
            }),
        }
    }
}

/// A text to learn from or to score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The text, as it is in the file.
    pub text: String,
    /// Where it stands.
    pub source: DocumentSource,
}

/// Where a document stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentSource {
    /// The file, shared by all its documents.
    pub path: Arc<Path>,
    /// The line that it begins on, counted from 1.
    pub line: usize,
}

/// What a file was when it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// The path as it was given.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// SHA-256 of its bytes in lower-case hexadecimal.
    pub sha256: String,
}

impl FileDigest {
    /// Digests `bytes`, the content of `path`.
    #[must_use]
    pub fn of(path: &Path, bytes: &[u8]) -> Self {
        let sha256 = Sha256::digest(bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self {
            path: path.to_owned(),
            bytes: bytes.len() as u64,
            sha256,
        }
    }
}

/// What a list of files holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The documents, in the order of the paths and, in a file, of its lines.
    pub documents: Vec<Document>,
    /// One digest a file, in the order of the paths.
    pub files: Vec<FileDigest>,
}

/// Reads the documents of `paths` in order.
///
/// # Arguments
///
/// - `format`: the format of all files, or `None` to tell each from its extension.
///
/// # Errors
///
/// Stops at the first file that cannot be read in full, with its path and, where there is one, the line: see
/// the first group of variants of [`DataError`]. A file that gives nothing to learn from (no bytes, only blank
/// lines, only empty documents) is an error too; a single empty document among others is not.
///
/// # Cost
///
/// One file at a time is in memory beside its documents.
pub fn read_documents(paths: &[PathBuf], format: Option<Format>) -> Result<Source> {
    if paths.is_empty() {
        return Err(DataError::NoPaths);
    }
    let mut source = Source {
        documents: Vec::new(),
        files: Vec::with_capacity(paths.len()),
    };
    for path in paths {
        let bytes = read_file(path)?;
        // After the read, so that a mistyped name is reported as such and not as an unknown format.
        let format = format.map_or_else(|| Format::detect(path), Ok)?;
        source.files.push(FileDigest::of(path, &bytes));
        let first = source.documents.len();
        parse(path, bytes, format, &mut source.documents)?;
        let documents = &source.documents[first..];
        if documents
            .iter()
            .all(|document| document.text.trim().is_empty())
        {
            let documents = documents.len();
            return Err(DataError::OnlyEmptyDocuments {
                path: path.clone(),
                documents,
            });
        }
    }
    Ok(source)
}

/// Reads a file, or says precisely why not.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    // Asked for first because opening a directory succeeds on some systems and fails oddly on others.
    if path.is_dir() {
        return Err(DataError::IsDirectory {
            path: path.to_owned(),
        });
    }
    fs::read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => not_found(path),
        _ => DataError::Unreadable {
            path: path.to_owned(),
            source,
        },
    })
}

fn not_found(path: &Path) -> DataError {
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("."),
    };
    // The outermost missing directory is the one that was mistyped.
    let missing_directory = parent
        .ancestors()
        .filter(|ancestor| !ancestor.as_os_str().is_empty());
    let missing_directory = missing_directory
        .filter(|ancestor| !ancestor.exists())
        .last();
    let siblings: Vec<String> = fs::read_dir(parent)
        .map(|entries| {
            let names = entries.flatten().map(|entry| entry.file_name());
            names.filter_map(|name| name.into_string().ok()).collect()
        })
        .unwrap_or_default();
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    DataError::NotFound {
        path: path.to_owned(),
        nearest: nearest(&name, siblings.iter().map(String::as_str)).map(str::to_owned),
        missing_directory: missing_directory.map(Path::to_owned),
    }
}

/// Appends the documents in `bytes` to `documents`.
fn parse(path: &Path, bytes: Vec<u8>, format: Format, documents: &mut Vec<Document>) -> Result<()> {
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes();
        DataError::InvalidUtf8 {
            path: path.to_owned(),
            line: 1 + bytes[..offset]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count(),
            offset,
            utf16: bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]),
        }
    })?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    if text.is_empty() {
        return Err(DataError::EmptyFile {
            path: path.to_owned(),
        });
    }
    let shared: Arc<Path> = Arc::from(path);
    match format {
        Format::Text => {
            documents.push(Document {
                text,
                source: DocumentSource {
                    path: shared,
                    line: 1,
                },
            });
        }
        Format::JsonLines => {
            let before = documents.len();
            for (index, content) in text.lines().enumerate() {
                if content.trim().is_empty() {
                    continue;
                }
                let line = index + 1;
                let text = text_field(path, line, content)?;
                let source = DocumentSource {
                    path: Arc::clone(&shared),
                    line,
                };
                documents.push(Document { text, source });
            }
            if documents.len() == before {
                let lines = text.lines().count();
                return Err(DataError::NoDocuments {
                    path: path.to_owned(),
                    lines,
                });
            }
        }
    }
    Ok(())
}

/// Returns the field `text` of one line.
fn text_field(path: &Path, line: usize, content: &str) -> Result<String> {
    let value: Value = serde_json::from_str(content).map_err(|error| {
        // The parser saw one line only; its own "at line 1 column N" would contradict ours.
        let message = error.to_string();
        let message = message
            .split(" at line ")
            .next()
            .unwrap_or_default()
            .to_owned();
        DataError::InvalidJson {
            path: path.to_owned(),
            line,
            column: error.column(),
            message,
        }
    })?;
    let mut object = match value {
        Value::Object(object) => object,
        other => {
            let found = json_type(&other);
            return Err(DataError::NotAnObject {
                path: path.to_owned(),
                line,
                found,
            });
        }
    };
    match object.remove("text") {
        Some(Value::String(text)) => Ok(text),
        Some(other) => {
            let found = json_type(&other);
            Err(DataError::TextNotString {
                path: path.to_owned(),
                line,
                found,
            })
        }
        None => {
            let nearest = nearest("text", object.keys().map(String::as_str)).map(str::to_owned);
            let keys = object.keys().take(10).cloned().collect();
            Err(DataError::MissingText {
                path: path.to_owned(),
                line,
                keys,
                nearest,
            })
        }
    }
}

/// Names a JSON value's type for a message.
pub(crate) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
