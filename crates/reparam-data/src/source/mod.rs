//! Reading documents and examples from files of text, JSON and tables.
//!
//! A *document* is a text to learn as a whole. An *example* is a prompt with its response: the prompt is given, the
//! response is learned. A *conversation* is a text that a chat template makes of messages; the assistant's turns are learned.
//!
//! - Paths may be files, directories and patterns; how a file is written, its name says: see [`Format`].
//! - What a row of JSON or of a table is, the fields of the file's first one say, or [`ReadOptions`] with a format, with
//!   [`Fields`], or with a [`Template`]. Every later row must have the same fields; those beside them are ignored.
//! - A row that cannot be read is an error, with all others of its kind in the file, or left out and counted: [`OnError`].
//!
//! The bytes of a text are kept as they are, white space and Unicode form included, because the tokenizer decides what
//! they mean, unless [`ReadOptions::text`] says what is done to them. Two things say how a file is written and are no part of its text: a byte order mark at its start is removed, and
//! line ends `\r\n` are read as `\n`. Strings of JSON and cells of tables are kept to the
//! byte.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::chat::Rendered;
use crate::error::{DataError, Result};
use crate::preprocess::{Preprocessor, Segment, TextOptions, TextReport};
use crate::watch::{Phase, Watch};

mod content;
mod conversation;
mod faults;
mod fields;
mod format;
mod input;
pub(crate) mod json;
mod line_ends;
pub(crate) mod parquet;
pub(crate) mod paths;
mod preference;
mod records;
mod shape;
mod template;
#[cfg(test)]
mod tests;

pub(crate) use content::{read_file, utf8};
pub use conversation::{ChatOptions, TurnCount};
pub(crate) use faults::{Fault, Faults, and_others};
pub use faults::{OnError, Skipped};
pub use fields::{Column, Fields, FieldsError};
pub use format::Format;
pub(crate) use input::{digest, expanded_name, read_data};
pub(crate) use paths::Files;
pub use preference::{Learn, PreferencePair};
use records::Opened;
pub(crate) use records::{Dialect, Records, check_width, column};
pub(crate) use shape::known_fields;
pub use template::Template;

use content::{Lines, into_utf8};
use conversation::Compiled;
use line_ends::unix_line_ends;
use preference::Chosen;
use shape::{Shape, is_key_of_field, may_be_read};

/// A text to learn from or to score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The text, as it is in the file; of an example the prompt followed by the response.
    pub text: String,
    /// How many bytes of the text, from its start, are the prompt of an example: given, not to be predicted. A
    /// document has none.
    pub prompt_len: Option<usize>,
    /// Of a conversation, what of the text is the assistant's. The text is whole then: it has its special tokens.
    pub turns: Option<LearnedTurns>,
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

/// What the assistant says in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LearnedTurns {
    /// The bytes of it, in their order.
    pub parts: Vec<Range<usize>>,
    /// Whether the template marks them, so that they end where it says and not before what separates two turns.
    pub marked: bool,
}

/// Where a document stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentSource {
    /// The file, shared by all its documents.
    pub path: Arc<Path>,
    /// The line that it begins on, counted from 1; of a Parquet file its row.
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
        Self {
            path: path.to_owned(),
            bytes: bytes.len() as u64,
            sha256: hex(&Sha256::digest(bytes)),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How documents are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// The format of all files, or `None` to tell each from its name and its first row.
    pub format: Option<Format>,
    /// Which columns hold the fields of the format, or those of the template.
    pub fields: Fields,
    /// What makes a text of a row's fields, instead of a format.
    pub template: Option<Template>,
    /// What is done with a row that cannot be read.
    pub on_error: OnError,
    /// What is done to the text of each document; of an example to its prompt and to its response.
    pub text: TextOptions,
    /// How conversations become texts; `None` where there is no use for them.
    pub chat: Option<ChatOptions>,
    /// What is learned of pairs of answers, which [`Format::Preference`] has to be asked for; `None` refuses them.
    pub learn: Option<Learn>,
}

impl ReadOptions {
    /// Returns the options for what is measured: no document is left out, however short.
    #[must_use]
    pub fn measured(mut self) -> Self {
        self.text.min_length = 0;
        self
    }

    /// Reads files of this format.
    #[must_use]
    pub fn of(format: Format) -> Self {
        Self {
            format: Some(format),
            ..Self::default()
        }
    }

    /// Checks that the options fit together.
    ///
    /// # Errors
    ///
    /// [`DataError::Fields`], [`DataError::FieldsOfNoForm`], [`DataError::TemplateAndFormat`], [`DataError::Text`].
    pub fn check(&self) -> Result<()> {
        self.text.check()?;
        Shape::check(self)
    }
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReadReport {
    /// One digest a file, in the order in which the files were read.
    pub files: Vec<FileDigest>,
    /// The line ends `\r\n` of texts that were read as `\n`.
    pub line_ends: usize,
    /// The formats of the files, each once.
    pub formats: Vec<Format>,
    /// The rows that were left out.
    pub skipped: Skipped,
    /// Files of directories and patterns that were left out, for their names do not say that they hold data.
    pub left_out: Vec<PathBuf>,
    /// What was done to texts, if something was to be done.
    pub text: Option<TextReport>,
    /// The turns of the assistant in conversations.
    pub turns: TurnCount,
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
    read_watched(paths, options, Watch::never())
}

/// [`read_documents`], which ends between two files if it is asked to, and tells how many it has read.
///
/// # Errors
///
/// As that; [`DataError::Interrupted`].
pub fn read_watched(paths: &[PathBuf], options: &ReadOptions, watch: Watch<'_>) -> Result<Source> {
    options.check()?;
    let mut documents = Vec::new();
    let told = (watch, true);
    let report = visit(&find(paths)?, options, told, &mut |document| {
        documents.push(document);
        Ok(())
    })?;
    Ok(Source { documents, report })
}

/// Reads the documents of `paths` in order, and hands over each as soon as it is read, so that they need not be in
/// memory together. A path is a file, a directory, or a pattern such as `data/**/*.jsonl`.
///
/// # Errors
///
/// The first error of `each`, which ends the reading. Else it stops at the first file that cannot be read in full, with its
/// path and, where there is one, the line: see the first group of variants of [`DataError`]. A file that gives nothing to
/// learn from (no bytes, only blank lines, only empty documents) is an error too; a single empty document among others is
/// not. A response that is empty or white space is the fault of its row, for from its example nothing can be learned.
///
/// # Cost
///
/// Of lines, JSON Lines and tables, one line or row at a time is in memory beside the document that is handed over; of Parquet one
/// page of each column; of a text the text, which is handed over; of a JSON array the file.
pub fn visit_documents(
    paths: &[PathBuf],
    options: &ReadOptions,
    each: &mut dyn FnMut(Document) -> Result<()>,
) -> Result<ReadReport> {
    options.check()?;
    visit_files(&find(paths)?, options, Watch::never(), each)
}

/// Finds the files of texts that paths stand for.
pub(crate) fn find(paths: &[PathBuf]) -> Result<Files> {
    paths::find(paths, |path| Format::of_name(path).is_some())
}

/// [`visit_documents`] of files that were found, which ends between two of them if it is asked to.
pub(crate) fn visit_files(
    files: &Files,
    options: &ReadOptions,
    watch: Watch<'_>,
    each: &mut dyn FnMut(Document) -> Result<()>,
) -> Result<ReadReport> {
    visit(files, options, (watch, false), each)
}

/// Reads files; `tells` is whether it is told how many have been read.
fn visit(
    found: &Files,
    options: &ReadOptions,
    (watch, tells): (Watch<'_>, bool),
    each: &mut dyn FnMut(Document) -> Result<()>,
) -> Result<ReadReport> {
    let tell = |done: u64, total: u64| {
        if tells {
            watch.at(Phase::Reading, done, total);
        }
    };
    let steps = match options.text.is_nothing() {
        true => None,
        false => Some(Preprocessor::new(&options.text)?),
    };
    let mut of_texts = TextReport::new(SHOWN_TEXTS);
    let mut report = ReadReport {
        left_out: found.left_out.clone(),
        ..ReadReport::default()
    };
    let total = found.files.len() as u64;
    for (path, done) in found.files.iter().zip(0..) {
        watch.check()?;
        tell(done, total);
        let container = Format::container(path, options.format);
        let container =
            container.ok_or_else(|| DataError::UnknownExtension { path: path.clone() })?;
        let mut reading = Reading {
            path: Arc::from(path.as_path()),
            container,
            options,
            shape: None,
            faults: Faults::new(options.on_error),
            documents: 0,
            is_blank: true,
            line_ends: 0,
            turns: TurnCount::default(),
            templates: Compiled::default(),
            steps: steps.as_ref(),
            of_texts: &mut of_texts,
            each: &mut *each,
        };
        let digest = reading.read()?;
        report.line_ends += reading.line_ends;
        report.turns.add(reading.turns);
        let (format, skipped) = reading.finish()?;
        report.files.push(digest);
        report.skipped.append(skipped);
        if !report.formats.contains(&format) {
            report.formats.push(format);
        }
    }
    tell(total, total);
    report.text = steps.map(|_| of_texts);
    Ok(report)
}

/// The texts that a report shows.
const SHOWN_TEXTS: usize = 3;

/// A file whose documents are being read.
struct Reading<'a> {
    path: Arc<Path>,
    container: Format,
    options: &'a ReadOptions,
    /// What its rows are, once the first has said it.
    shape: Option<Shape<'a>>,
    faults: Faults<DataError>,
    documents: usize,
    /// Whether all documents so far are white space.
    is_blank: bool,
    /// The line ends of a text that were changed.
    line_ends: usize,
    turns: TurnCount,
    templates: Compiled,
    /// What is done to texts.
    steps: Option<&'a Preprocessor>,
    of_texts: &'a mut TextReport,
    each: &'a mut dyn FnMut(Document) -> Result<()>,
}

impl Reading<'_> {
    fn read(&mut self) -> Result<FileDigest> {
        let path = Arc::clone(&self.path);
        match self.container {
            Format::Lines => return self.lines(Lines::open(&path)?),
            Format::Jsonl => {
                let mut lines = Lines::open(&path)?;
                let is_jsonl = extension(&path).as_deref() == Some("jsonl");
                if !lines.is_array()? && (is_jsonl || lines.are_values()?) {
                    return self.lines(Lines::open(&path)?);
                }
            }
            Format::Csv => return self.table(Records::open(&path, None)?),
            Format::Tsv => return self.table(Records::open(&path, Some(Dialect::TSV))?),
            Format::Parquet => {
                let options = self.options;
                let is_wanted = |key: &str| may_be_read(key, options);
                return parquet::rows(&path, is_wanted, |row, place| self.row(row, place));
            }
            _ => {}
        }
        let (bytes, digest) = read_data(&path)?;
        let text = into_utf8(&path, bytes)?;
        if text.is_empty() {
            return Err(self.empty_file());
        }
        match self.container {
            Format::Text | Format::Lines => {
                let (text, line_ends) = unix_line_ends(text);
                self.line_ends = line_ends;
                self.text(text, 1)?;
            }
            Format::Csv
            | Format::Tsv
            | Format::Jsonl
            | Format::Parquet
            | Format::PromptCompletion
            | Format::Alpaca
            | Format::Messages
            | Format::Sharegpt
            | Format::AlpacaChat
            | Format::Preference => {
                let options = self.options;
                let is_field = |key: &str| is_key_of_field(key, options);
                json::objects(&path, &text, is_field, |object, place| {
                    self.row(object, place)
                })?;
            }
        }
        Ok(digest)
    }

    /// Reads a file of which every line is a row.
    fn lines(&mut self, mut lines: Lines) -> Result<FileDigest> {
        if lines.is_empty()? {
            return Err(self.empty_file());
        }
        let mut n_lines = 0;
        let mut has_rows = false;
        while let Some((line, text)) = lines.next()? {
            n_lines = line;
            if text.trim().is_empty() {
                continue;
            }
            has_rows = true;
            if self.container == Format::Lines {
                self.text(text.to_owned(), line)?;
            } else {
                let place = self.place(line);
                self.row(json::object_of_line(text, &place), place)?;
            }
        }
        if has_rows {
            return lines.finish();
        }
        Err(DataError::NoDocuments {
            path: self.path.to_path_buf(),
            lines: n_lines,
        })
    }

    /// Takes a text, which has no fields; a template calls it `text`.
    fn text(&mut self, text: String, line: usize) -> Result<()> {
        let source = self.place(line);
        if self.options.template.is_some() {
            let row = Map::from_iter([("text".to_owned(), Value::String(text))]);
            return self.row(Ok(row), source);
        }
        self.document(Ok(Document {
            text,
            prompt_len: None,
            turns: None,
            source,
        }))
    }

    /// Reads a file of cells, whose first row names its columns unless they have numbers.
    fn table(&mut self, mut records: Records<Opened>) -> Result<FileDigest> {
        let fields = &self.options.fields;
        let Some((line, header)) = records.next()? else {
            return Err(self.empty_file());
        };
        let names: Vec<String> = if fields.numbered() {
            let numbers = (fields.first_number()..).take(header.len());
            numbers.map(|number| number.to_string()).collect()
        } else {
            header.iter().map(|name| name.trim().to_owned()).collect()
        };
        let first = fields.numbered().then(|| (line, header.clone()));
        let place = self.place(line);
        let known: Vec<&str> = names
            .iter()
            .map(String::as_str)
            .filter(|name| !name.is_empty())
            .collect();
        let shape = Shape::of(&known, self.options, &place)?;
        self.shape = Some(shape);
        let mut columns = Vec::new();
        for (key, _) in shape.keys() {
            if let Some(column) = column(&names, key, &place)? {
                columns.push((key, column));
            }
        }
        let mut n_rows = 0;
        let mut next = first;
        loop {
            let (line, record) = match next.take() {
                Some(first) => first,
                None => match records.next()? {
                    Some((line, record)) => (line, record.clone()),
                    None => break,
                },
            };
            n_rows += 1;
            let place = self.place(line);
            let row = check_width(&record, names.len(), &place).map(|()| {
                let cell = |column: usize| Value::from(record.get(column).unwrap_or_default());
                let cells = columns
                    .iter()
                    .map(|(key, column)| ((*key).to_owned(), cell(*column)));
                cells.collect()
            });
            self.row(row, place)?;
        }
        match n_rows {
            0 => Err(DataError::NoRows {
                path: self.path.to_path_buf(),
            }),
            _ => records.finish(),
        }
    }

    /// Takes a row, or what is wrong with it.
    fn row(&mut self, row: Result<Map<String, Value>>, place: DocumentSource) -> Result<()> {
        let document = row.and_then(|row| {
            let shape = match self.shape {
                Some(shape) => shape,
                None => {
                    let shape = Shape::of_row(&row, self.options, &place)?;
                    *self.shape.insert(shape)
                }
            };
            match shape {
                Shape::Conversation(form, options, chat) => {
                    let rendered = form
                        .conversation(row, &options.fields)
                        .and_then(|conversation| self.templates.render(&conversation, chat));
                    match rendered {
                        Ok(rendered) => Ok(self.conversation(rendered, place)),
                        Err(error) => Err(DataError::Chat { place, error }),
                    }
                }
                Shape::Pair(options) => self.pair(row, options, place),
                _ => shape.document(row, place),
            }
        });
        self.document(document)
    }

    /// Makes a document of the answer of a pair that is learned.
    fn pair(
        &mut self,
        row: Map<String, Value>,
        options: &ReadOptions,
        place: DocumentSource,
    ) -> Result<Document> {
        let pair = PreferencePair::of_row(row, &options.fields, &place)?;
        let in_chat = |error| DataError::Chat {
            place: place.clone(),
            error,
        };
        let (prompt, chosen) = match pair.chosen().map_err(in_chat)? {
            Chosen::Text(prompt, chosen) => (prompt, chosen),
            Chosen::Conversation(conversation) => {
                let Some(chat) = &options.chat else {
                    return Err(DataError::NoConversations {
                        format: Format::Preference,
                    });
                };
                let rendered = self.templates.render(&conversation, chat);
                return Ok(self.conversation(rendered.map_err(in_chat)?, place));
            }
        };
        if chosen.trim().is_empty() {
            let field = options.fields.key("chosen").to_owned();
            return Err(DataError::EmptyResponse { place, field });
        }
        Ok(Document {
            prompt_len: Some(prompt.len()),
            text: prompt + &chosen,
            turns: None,
            source: place,
        })
    }

    fn conversation(&mut self, rendered: Rendered, source: DocumentSource) -> Document {
        self.turns.add(TurnCount {
            conversations: 1,
            learned: rendered.learned.len(),
            not_located: rendered.not_located,
        });
        Document {
            text: rendered.text,
            prompt_len: None,
            turns: Some(LearnedTurns {
                parts: rendered.learned,
                marked: rendered.marked,
            }),
            source,
        }
    }

    fn document(&mut self, document: Result<Document>) -> Result<()> {
        let document = match document {
            Ok(document) => document,
            // The first row says what all of them are.
            Err(error) if self.shape.is_none() && self.options.on_error == OnError::Stop => {
                return Err(error);
            }
            Err(error) => return self.faults.add(error),
        };
        self.documents += 1;
        self.is_blank &= document.text.trim().is_empty();
        if self.faults.failed() {
            return Ok(());
        }
        match self.steps {
            None => (self.each)(document),
            Some(steps) => match prepared(document, steps, self.of_texts) {
                Ok(Some(document)) => (self.each)(document),
                Ok(None) => Ok(()),
                Err(error) => self.faults.add(error),
            },
        }
    }

    /// Returns the format that the file was found to have, and what was left out.
    fn finish(self) -> Result<(Format, Skipped)> {
        let path = self.path.to_path_buf();
        let nothing_left = |rows, first| DataError::NothingLeft {
            path: path.clone(),
            rows,
            first: Box::new(first),
        };
        let skipped = self.faults.finish(self.documents, nothing_left)?;
        if self.is_blank {
            return Err(DataError::OnlyEmptyDocuments {
                path,
                documents: self.documents,
            });
        }
        let format = self.shape.map(|shape| shape.format(self.container));
        Ok((format.unwrap_or(self.container), skipped))
    }

    fn place(&self, line: usize) -> DocumentSource {
        DocumentSource {
            path: Arc::clone(&self.path),
            line,
            item: None,
        }
    }

    fn empty_file(&self) -> DataError {
        DataError::EmptyFile {
            path: self.path.to_path_buf(),
        }
    }
}

/// Does the steps to a text; `None` if it is too short to be learned.
///
/// # Errors
///
/// [`DataError::NothingOfResponse`]; [`DataError::TextOfConversation`].
fn prepared(
    document: Document,
    steps: &Preprocessor,
    report: &mut TextReport,
) -> Result<Option<Document>> {
    let Document {
        text,
        prompt_len,
        turns,
        source,
    } = document;
    if turns.is_some() {
        return Err(DataError::TextOfConversation { place: source });
    }
    let Some(len) = prompt_len else {
        return Ok(steps.apply_row(&text, report).map(|text| Document {
            text: text.into_owned(),
            prompt_len,
            turns,
            source,
        }));
    };
    let (prompt, response) = text.split_at(len);
    let both = steps
        .apply_row(prompt, report)
        .zip(steps.apply_row(response, report));
    let Some((prompt, response)) = both else {
        return Ok(None);
    };
    if response.trim().is_empty() {
        return Err(DataError::NothingOfResponse { place: source });
    }
    let mut text = prompt.into_owned();
    let prompt_len = Some(text.len());
    // Words have one space between them, here too. Tokenizers make one token of it and the word behind it, which is learned.
    if steps.options().segment != Segment::None && !text.is_empty() {
        text.push(' ');
    }
    text.push_str(&response);
    Ok(Some(Document {
        text,
        prompt_len,
        turns,
        source,
    }))
}

/// The extension in lower case; of a compressed file the one before that of the compression.
pub(crate) fn extension(path: &Path) -> Option<String> {
    let path = input::expanded_name(path);
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
