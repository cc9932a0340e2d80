//! What can go wrong between a path and a batch, with the values that say why.

use std::fmt::Display;
use std::io;
use std::path::PathBuf;

use reparam_formats::{FormatError, shown, shown_sentence};
use thiserror::Error;

use crate::source::{DocumentSource, Format, known_fields};
use crate::watch::Interrupted;

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, DataError>;

/// An error in the data, the tokenizer, or the request to pack or order them.
///
/// The message says what is wrong; [`DataError::hint`] says what to do about it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    // Reading.
    /// The list of paths is empty.
    #[error("no data file is given")]
    NoPaths,
    /// The path does not exist.
    #[error("no such file: {}", path.display())]
    NotFound {
        /// The path asked for.
        path: PathBuf,
        /// The name in the same directory that is most like it.
        nearest: Option<String>,
        /// The first directory on the way that does not exist, if it is not the file that is missing.
        missing_directory: Option<PathBuf>,
    },
    /// The path is a directory.
    #[error("expected a file, found a directory: {}", path.display())]
    IsDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The path is no file that can be read.
    #[error(transparent)]
    File(FormatError),
    /// What was read cannot be taken apart.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file has no bytes, or nothing but a byte order mark.
    #[error("{} is empty", path.display())]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// A JSON Lines file with nothing but blank lines.
    #[error("{} holds no document: every one of its {lines} lines is blank", path.display())]
    NoDocuments {
        /// The file.
        path: PathBuf,
        /// How many lines it has.
        lines: usize,
    },
    /// Every document of the file is empty or white space.
    #[error("{} holds only empty documents ({documents})", path.display())]
    OnlyEmptyDocuments {
        /// The file.
        path: PathBuf,
        /// How many documents it has.
        documents: usize,
    },
    /// The file is not UTF-8.
    #[error("{}:{line}: invalid UTF-8 at byte {offset} of the file", path.display())]
    InvalidUtf8 {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The first byte that is not UTF-8, counted from 0 at the start of the file.
        offset: usize,
        /// Whether the file begins with a UTF-16 byte order mark.
        utf16: bool,
    },
    /// What should be JSON is not.
    #[error("{}:{line}:{column}: invalid JSON: {message}", path.display(), message = shown_sentence(message))]
    InvalidJson {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The column in bytes, counted from 1.
        column: usize,
        /// What the parser says.
        message: String,
    },
    /// A quoted cell is never closed, so that it swallows the rest of the file.
    #[error("{}:{line}: a quoted cell of this record is never closed", path.display())]
    OpenQuote {
        /// The file.
        path: PathBuf,
        /// The line on which the record begins.
        line: usize,
    },
    /// Text follows the quote that closes a cell.
    #[error("{}:{line}: text follows a closing quote in this record", path.display())]
    TextAfterQuote {
        /// The file.
        path: PathBuf,
        /// The line on which the record begins.
        line: usize,
    },
    /// The array of a file is empty.
    #[error("{} holds no document: its array is empty", path.display())]
    EmptyArray {
        /// The file.
        path: PathBuf,
    },
    /// A line or an element of an array is JSON, but not an object.
    #[error("{place}: expected a JSON object, found {found}")]
    NotAnObject {
        /// Where it stands.
        place: DocumentSource,
        /// The JSON type that is there.
        found: &'static str,
    },
    /// An object lacks a field that the format, or the first object of the file, asks for.
    #[error("{place}: no field `{field}`, found {}", list(keys))]
    MissingField {
        /// Where it stands.
        place: DocumentSource,
        /// The field.
        field: &'static str,
        /// The fields that it has, at most ten.
        keys: Vec<String>,
        /// The field most like the missing one.
        nearest: Option<String>,
    },
    /// The first object of a file has the fields of no format, or not those of the format that is given.
    #[error("{place}: {}, found {}", not_of(*format), list(keys))]
    UnknownFields {
        /// Where it stands.
        place: DocumentSource,
        /// The format that is given.
        format: Option<Format>,
        /// The fields that it has, at most ten.
        keys: Vec<String>,
        /// A field that seems to be misspelled, and what it seems to mean.
        nearest: Option<(String, &'static str)>,
    },
    /// The first object of a file can be read in several ways.
    #[error("{place}: it has {}, and either could be meant", forms.join(" as well as "))]
    AmbiguousFields {
        /// Where it stands.
        place: DocumentSource,
        /// The fields of each form that fits.
        forms: Vec<String>,
        /// The format of each.
        formats: Vec<Format>,
    },
    /// A field is not a string.
    #[error("{place}: the field `{field}` is {found}, not a string")]
    FieldNotString {
        /// Where it stands.
        place: DocumentSource,
        /// The field.
        field: &'static str,
        /// The JSON type that is there.
        found: &'static str,
    },
    /// The response of an example is empty or white space.
    #[error("{place}: the response in `{field}` is empty")]
    EmptyResponse {
        /// Where it stands.
        place: DocumentSource,
        /// The field of the response.
        field: &'static str,
    },
    /// The extension does not tell the format.
    #[error("cannot tell the format of {} from its name", path.display())]
    UnknownExtension {
        /// The file.
        path: PathBuf,
    },
    /// A format name that does not exist.
    #[error("unknown data format `{name}`", name = shown(name))]
    UnknownFormat {
        /// The name given.
        name: String,
    },

    // Tokenizing.
    /// The model directory has no `tokenizer.json`.
    #[error("no tokenizer.json in {}", directory.display())]
    NoTokenizer {
        /// The model directory.
        directory: PathBuf,
        /// Files of other tokenizer formats that are there.
        others: Vec<String>,
    },
    /// A file of the tokenizer is something else than its name says.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// `tokenizer.json` cannot be understood.
    #[error("{} is not a tokenizer: {message}", path.display(), message = shown_sentence(message))]
    InvalidTokenizer {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        message: String,
    },
    /// `tokenizer_config.json` or `special_tokens_map.json` cannot be understood.
    #[error("{}: {message}", path.display(), message = shown_sentence(message))]
    InvalidTokenizerConfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The tokenizer drops merges at random, so that a text has no single encoding.
    #[error("the tokenizer {} drops merges at random (dropout = {dropout})", path.display())]
    Dropout {
        /// The file.
        path: PathBuf,
        /// The probability.
        dropout: f32,
    },
    /// The tokenizer's decoder has a step that cannot be run safely.
    #[error("the tokenizer {} has a decoder step that is not supported: {step}", path.display(), step = shown(step))]
    UnsupportedDecoder {
        /// The file.
        path: PathBuf,
        /// The step.
        step: String,
    },
    /// A special token is not in the vocabulary.
    #[error("{}: the {role} token `{token}` is not in the vocabulary", path.display(), token = shown(token))]
    UnknownSpecialToken {
        /// The file that names it.
        path: PathBuf,
        /// `bos` or `eos`.
        role: &'static str,
        /// The token.
        token: String,
    },
    /// A special token's id from the model configuration is not in the vocabulary.
    #[error("the {role} token id {id} of the model configuration is not in the vocabulary")]
    UnknownSpecialId {
        /// `bos`, `eos` or `pad`.
        role: &'static str,
        /// The id.
        id: u32,
    },
    /// A token that `tokenizer_config.json` adds has another id in the tokenizer.
    #[error("{}: token `{token}` should have id {expected}, but the tokenizer gives it {}",
        path.display(), found.map_or_else(|| "none".to_owned(), |id| id.to_string()), token = shown(token))]
    AddedTokenId {
        /// The file.
        path: PathBuf,
        /// The token.
        token: String,
        /// The id it should have.
        expected: u32,
        /// The id it has.
        found: Option<u32>,
    },
    /// A document must end with the end-of-text token, and none is known.
    #[error("the tokenizer of {} has no end-of-text (eos) token", directory.display())]
    NoEos {
        /// The model directory.
        directory: PathBuf,
    },
    /// The tokenizer failed on a text.
    #[error("cannot encode the text: {message}", message = shown_sentence(message))]
    Encode {
        /// What the tokenizer says.
        message: String,
    },
    /// The text has more white space in a row than the tokenizer's patterns can split.
    #[error(
        "the text has {characters} white-space characters in a row, the tokenizer can split {limit}"
    )]
    WhiteSpaceRun {
        /// Length of the run, in characters.
        characters: usize,
        /// The longest that is accepted.
        limit: usize,
    },
    /// The template alone is as long as a row may be.
    #[error("a row of {max_length} tokens has no room for a text: the template has {of_template}")]
    NoRoom {
        /// The most tokens of a row.
        max_length: usize,
        /// The tokens that the tokenizer's template adds.
        of_template: usize,
    },
    /// A document of a file cannot be encoded.
    #[error("{place}: {error}")]
    Document {
        /// Where it stands.
        place: DocumentSource,
        /// Why.
        error: Box<DataError>,
    },
    /// The tokenizer failed on ids.
    #[error("cannot decode the tokens: {message}", message = shown_sentence(message))]
    Decode {
        /// What the tokenizer says.
        message: String,
    },
    /// A text has a token that the embedding has no row for.
    #[error(
        "the text has the token `{token}` with id {id}, but the model's embedding has {rows} rows"
    )]
    TokenOutsideEmbedding {
        /// The token.
        token: String,
        /// Its id.
        id: u32,
        /// Rows of the embedding.
        rows: usize,
    },

    // Packing.
    /// A sequence shorter than two tokens predicts nothing.
    #[error("a sequence of {sequence_length} tokens has nothing to predict")]
    SequenceTooShort {
        /// The length asked for, in tokens.
        sequence_length: usize,
    },
    /// The loss mask does not match its document.
    #[error("document {document} has {tokens} tokens and a loss mask of {mask}")]
    LossMaskLength {
        /// Index of the document.
        document: usize,
        /// Its tokens.
        tokens: usize,
        /// Entries of its mask.
        mask: usize,
    },
    /// An id does not fit a label.
    #[error("token id {id} of document {document} is above {}", i32::MAX)]
    TokenIdTooLarge {
        /// Index of the document.
        document: usize,
        /// The id.
        id: u32,
    },
    /// A piece is longer than the blocks.
    #[error("piece {piece} has {tokens} tokens, a block at most {sequence_length}")]
    PieceTooLong {
        /// Index of the piece.
        piece: usize,
        /// Its tokens.
        tokens: usize,
        /// Most tokens of a block.
        sequence_length: usize,
    },
    /// Not one token is to be predicted.
    #[error(
        "nothing to learn: {documents} documents with {tokens} tokens, none of them to be predicted"
    )]
    NothingToLearn {
        /// Documents.
        documents: usize,
        /// Tokens of the documents.
        tokens: usize,
        /// Whether some document has a loss mask.
        masked: bool,
    },

    /// Prompts are to be predicted, and no document has one.
    #[error("train_on_prompt has no effect: none of {documents} documents has a prompt")]
    NoPrompts {
        /// Documents.
        documents: usize,
    },

    // Ordering.
    /// A plan over no blocks.
    #[error("there are no blocks to batch")]
    NoBlocks,
    /// A batch of no blocks.
    #[error("a batch must have at least one block")]
    ZeroBatchSize,
    /// The held-out fraction is not in `0 <= fraction < 1`.
    #[error("the evaluation fraction is {fraction}, outside 0 <= fraction < 1")]
    EvalFraction {
        /// The fraction.
        fraction: f64,
    },
    /// There is too little to hold something out.
    #[error("cannot hold out a part of {pieces} pieces: both parts need at least one")]
    TooFewToSplit {
        /// How many pieces there are.
        pieces: usize,
    },

    /// The work was asked to stop.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

impl DataError {
    /// What the user can do about it, if there is something to say beyond the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoPaths => "name at least one file".to_owned(),
            Self::NotFound { nearest: Some(name), .. } => format!("did you mean `{name}`?"),
            Self::NotFound { missing_directory: Some(directory), .. } => {
                format!("the directory {} does not exist", directory.display())
            }
            Self::IsDirectory { .. } => "list the files in it one by one".to_owned(),
            Self::InvalidUtf8 { utf16: true, .. } => {
                "the file looks like UTF-16; convert it, e.g. with `iconv -f UTF-16 -t UTF-8`".to_owned()
            }
            Self::InvalidUtf8 { .. } => {
                "convert the file to UTF-8, e.g. with `iconv -f LATIN1 -t UTF-8`".to_owned()
            }
            Self::InvalidJson { .. } => {
                "write one whole JSON object on each line, or in a .json file one array of objects".to_owned()
            }
            Self::OpenQuote { .. } | Self::TextAfterQuote { .. } => {
                "close the cell with a double quote; a quote inside it is written twice".to_owned()
            }
            Self::NotAnObject { .. } => {
                r#"write it as {"text": "..."} or {"prompt": "...", "completion": "..."}"#.to_owned()
            }
            Self::MissingField { nearest: Some(key), field, .. } => {
                format!("rename the field `{key}` to `{field}`")
            }
            Self::MissingField { field, .. } => {
                format!("each object of a file has the same form, so it needs a field `{field}`")
            }
            Self::UnknownFields { nearest: Some((key, field)), .. } => {
                format!("rename the field `{key}` to `{field}`")
            }
            Self::UnknownFields { format, .. } => {
                format!("an object has one of these: {}", known_fields(*format))
            }
            Self::AmbiguousFields { formats, .. } => match &formats[..] {
                [first, second, ..] if first != second => {
                    format!("set format to `{first}` or `{second}`")
                }
                _ => "remove the field that is not meant".to_owned(),
            },
            Self::FieldNotString { field, .. } => format!("put the text into `{field}` as one string"),
            Self::EmptyResponse { .. } => {
                "there is nothing to learn from it; write the response or leave the example out".to_owned()
            }
            Self::UnknownExtension { .. } => format!(
                "name the file .txt, .jsonl or .json, or set format to one of {}",
                list(&Format::ALL)
            ),
            Self::UnknownFormat { .. } => format!("the formats are {}", list(&Format::ALL)),
            Self::NoPrompts { .. } => {
                "remove it, or give the data as examples with a prompt and a response".to_owned()
            }
            Self::EmptyFile { .. }
            | Self::NoDocuments { .. }
            | Self::EmptyArray { .. }
            | Self::OnlyEmptyDocuments { .. } => {
                "put some text into it or leave it out of the list".to_owned()
            }
            Self::Format(error) => return error.hint(),
            Self::NoTokenizer { others, .. } if !others.is_empty() => format!(
                "{} is there, but only the tokenizer.json format is read; load the model with \
                 transformers' AutoTokenizer and call save_pretrained to write one",
                list(others)
            ),
            Self::NoTokenizer { .. } => {
                "copy the tokenizer.json that belongs to the model into its directory".to_owned()
            }
            Self::InvalidTokenizer { .. } => {
                "the file may be cut short, or written by a newer version of tokenizers; download it again"
                    .to_owned()
            }
            Self::Dropout { .. } => "set `model.dropout` to null in tokenizer.json".to_owned(),
            Self::UnknownSpecialToken { role, .. } => format!(
                "correct `{role}_token`, or add the token to tokenizer.json and a row to the embedding"
            ),
            Self::UnknownSpecialId { role, .. } => {
                format!("correct `{role}_token_id` in config.json or name `{role}_token` in tokenizer_config.json")
            }
            Self::AddedTokenId { .. } => {
                "tokenizer.json and tokenizer_config.json come from different versions of the model; \
                 download both again"
                    .to_owned()
            }
            Self::NoEos { .. } => {
                "name `eos_token` in tokenizer_config.json or set `eos_token_id` in config.json".to_owned()
            }
            Self::TokenOutsideEmbedding { .. } => {
                "take the token out of the text, use the tokenizer that belongs to the model, or enlarge the \
                 embedding"
                    .to_owned()
            }
            Self::WhiteSpaceRun { .. } => {
                "shorten it in the data".to_owned()
            }
            Self::NoRoom { of_template, .. } => {
                format!("set sequence_length to {} or more", of_template + 1)
            }
            Self::Document { error, .. } => return error.hint(),
            Self::File(error) => return error.hint(),
            Self::SequenceTooShort { .. } => "set sequence_length to 2 or more".to_owned(),
            Self::LossMaskLength { .. } => "give the mask one entry a token".to_owned(),
            Self::PieceTooLong { .. } => "cut the documents to the same sequence_length".to_owned(),
            Self::NothingToLearn { masked: true, .. } => {
                "the loss masks leave no token to predict; check them, or lengthen sequence_length".to_owned()
            }
            Self::NothingToLearn { .. } => {
                "a document needs at least two tokens: the first is not predicted".to_owned()
            }
            Self::NoBlocks => "give at least one document".to_owned(),
            Self::ZeroBatchSize => "set batch_size to 1 or more".to_owned(),
            Self::EvalFraction { .. } => "use 0.05 to hold out 5 %, or 0 for none".to_owned(),
            Self::TooFewToSplit { .. } => {
                "give an evaluation file of its own, or shorten sequence_length".to_owned()
            }
            Self::NotFound { .. }
            | Self::Interrupted(_)
            | Self::Unreadable { .. }
            | Self::InvalidTokenizerConfig { .. }
            | Self::UnsupportedDecoder { .. }
            | Self::Encode { .. }
            | Self::Decode { .. }
            | Self::TokenIdTooLarge { .. } => return None,
        };
        Some(hint)
    }
}

/// Says what an object is not.
fn not_of(format: Option<Format>) -> String {
    match format {
        None => "neither a document nor an example".to_owned(),
        Some(format) => format!("not of the format `{format}`"),
    }
}

/// Writes names as "`a`, `b`" for a message.
pub(crate) fn list(names: &[impl Display]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let quoted: Vec<_> = names
        .iter()
        .map(|name| format!("`{}`", shown(&name.to_string())))
        .collect();
    quoted.join(", ")
}
