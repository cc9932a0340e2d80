//! Reading documents and examples from text and JSON files.
//!
//! A *document* is a text to learn as a whole. An *example* is a prompt with its response: the prompt is given, the
//! response is learned.
//!
//! - `.txt`: the whole file is one document.
//! - `.jsonl`: one JSON object a line; blank lines are skipped.
//! - `.json`: one array of JSON objects if it begins with `[`, else one object a line, too.
//!
//! What an object is, the fields of the file's first object say: see [`Format`]. Every later object must have the
//! same ones; fields beside them are ignored.
//!
//! The bytes of a text are kept as they are, white space and Unicode form included, because the tokenizer decides what
//! they mean. Two things say how a file is written and are no part of its text: a byte order mark at its start is removed, and
//! line ends `\r\n` are read as `\n`. Strings of JSON are kept to the byte.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reparam_formats::identify::Kind;
use reparam_formats::{FormatError, file, nearest};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::{DataError, Result};

mod format;
pub(crate) mod json;
mod line_ends;
mod records;
#[cfg(test)]
mod tests;

use format::Form;
pub use format::Format;
pub(crate) use format::known_fields;
pub(crate) use line_ends::unix_line_ends;
use records::line_ends;
pub(crate) use records::{Dialect, Records};

/// A text to learn from or to score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The text, as it is in the file; of an example the prompt followed by the response.
    pub text: String,
    /// How many bytes of the text, from its start, are the prompt of an example: given, not to be predicted. A
    /// document has none.
    pub prompt_len: Option<usize>,
    /// Where it stands.
    pub source: DocumentSource,
}

impl Document {
    /// Says of an error which document it is in.
    pub(crate) fn located(&self, error: DataError) -> DataError {
        DataError::Document {
            place: self.source.clone(),
            error: Box::new(error),
        }
    }
}

/// Where a document stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentSource {
    /// The file, shared by all its documents.
    pub path: Arc<Path>,
    /// The line that it begins on, counted from 1.
    pub line: usize,
    /// Which element of the file's array it is, counted from 1, if the file is one.
    pub item: Option<usize>,
}

impl fmt::Display for DocumentSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)?;
        match self.item {
            Some(item) => write!(f, " (item {item})"),
            None => Ok(()),
        }
    }
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

/// How documents are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// The format of all files, or `None` to tell each from its name and its first object.
    pub format: Option<Format>,
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReadReport {
    /// One digest a file, in the order in which the files were read.
    pub files: Vec<FileDigest>,
    /// The line ends `\r\n` of texts and tables that were read as `\n`.
    pub line_ends: usize,
}

/// What a list of files holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// The documents, in the order of the paths and, in a file, of its lines.
    pub documents: Vec<Document>,
    /// The files, and what is to be said of them.
    pub report: ReadReport,
}

/// Reads the documents of `paths` in order.
///
/// # Errors
///
/// Those of [`visit_documents`].
///
/// # Cost
///
/// The text of all documents, and that of one file beside them.
pub fn read_documents(paths: &[PathBuf], options: &ReadOptions) -> Result<Source> {
    let mut documents = Vec::new();
    let report = visit_documents(paths, options, &mut |document| {
        documents.push(document);
        Ok(())
    })?;
    Ok(Source { documents, report })
}

/// Reads the documents of `paths` in order, and hands over each as soon as it is read, so that they need not be in
/// memory together.
///
/// # Errors
///
/// The first error of `each`, which ends the reading. Else:
///
/// Stops at the first file that cannot be read in full, with its path and, where there is one, the line: see
/// the first group of variants of [`DataError`]. A file that gives nothing to learn from (no bytes, only blank
/// lines, only empty documents) is an error too; a single empty document among others is not. A response that is
/// empty or white space is, for from its example nothing can be learned.
///
/// # Cost
///
/// One file at a time is in memory beside the document that is handed over.
pub fn visit_documents(
    paths: &[PathBuf],
    options: &ReadOptions,
    each: &mut dyn FnMut(Document) -> Result<()>,
) -> Result<ReadReport> {
    if paths.is_empty() {
        return Err(DataError::NoPaths);
    }
    let mut report = ReadReport::default();
    for path in paths {
        let bytes = read_file(path)?;
        report.files.push(FileDigest::of(path, &bytes));
        let (mut documents, mut is_blank) = (0, true);
        report.line_ends += parse(path, &bytes, options.format, &mut |document| {
            documents += 1;
            is_blank &= document.text.trim().is_empty();
            each(document)
        })?;
        if is_blank {
            return Err(DataError::OnlyEmptyDocuments {
                path: path.clone(),
                documents,
            });
        }
    }
    Ok(report)
}

/// Reads a file, or says precisely why not.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    file::read(path).map_err(|error| match error {
        FormatError::NoSuchFile { .. } => not_found(path),
        FormatError::AnotherKind {
            path,
            kind: Kind::Directory,
            ..
        } => DataError::IsDirectory { path },
        error => DataError::File(error),
    })
}

/// Returns the text of a file without its byte order mark.
pub(crate) fn utf8<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a str> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let offset = error.valid_up_to();
        DataError::InvalidUtf8 {
            path: path.to_owned(),
            line: 1 + line_ends(&bytes[..offset]),
            offset,
            utf16: bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]),
        }
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
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
    let mut siblings: Vec<String> = fs::read_dir(parent)
        .map(|entries| {
            let names = entries.flatten().map(|entry| entry.file_name());
            names.filter_map(|name| name.into_string().ok()).collect()
        })
        .unwrap_or_default();
    // The order of a directory is arbitrary; the answer should not be.
    siblings.sort();
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

/// Reads the documents in `bytes`, and returns how many line ends were changed.
fn parse(
    path: &Path,
    bytes: &[u8],
    format: Option<Format>,
    each: &mut dyn FnMut(Document) -> Result<()>,
) -> Result<usize> {
    let text = utf8(path, bytes)?;
    if text.is_empty() {
        return Err(DataError::EmptyFile {
            path: path.to_owned(),
        });
    }
    if is_text(path, format)? {
        let (text, line_ends) = unix_line_ends(text.to_owned());
        each(Document {
            text,
            prompt_len: None,
            source: DocumentSource {
                path: Arc::from(path),
                line: 1,
                item: None,
            },
        })?;
        return Ok(line_ends);
    }
    let mut form = None;
    json::objects(path, text, |object, place| {
        let object = object?;
        let form = match form {
            Some(form) => form,
            None => *form.insert(Form::of(&object, format, &place)?),
        };
        each(form.document(object, place)?)
    })?;
    Ok(0)
}

/// Whether a file is one document; otherwise it is JSON.
fn is_text(path: &Path, format: Option<Format>) -> Result<bool> {
    if let Some(format) = format {
        return Ok(format == Format::Text);
    }
    match extension(path).as_deref() {
        Some("txt") => Ok(true),
        Some("jsonl" | "json") => Ok(false),
        _ => Err(DataError::UnknownExtension {
            path: path.to_owned(),
        }),
    }
}

/// The extension in lower case.
pub(crate) fn extension(path: &Path) -> Option<String> {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.map(str::to_ascii_lowercase)
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
