//! What can go wrong between a path and a batch, with the values that say why.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use reparam_formats::identify::Kind;
use reparam_formats::{FormatError, shown, shown_sentence};
use thiserror::Error;

use crate::chat::ChatError;
use crate::dataset::Weights;
use crate::preprocess::PreprocessError;
use crate::source::{DocumentSource, Fault, FieldsError, Format, and_others};
use crate::watch::Interrupted;

mod hint;

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, DataError>;

/// An error in the data, the tokenizer, or the request to pack or order them.
///
/// The message says what is wrong; [`DataError::hint`] says what to do about it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    // Choosing.
    /// The choice of fields is none.
    #[error(transparent)]
    Fields(#[from] FieldsError),
    /// Fields are named that never are in the same row.
    #[error("no form of a row has all fields of `{fields}`", fields = shown(fields))]
    FieldsOfNoForm {
        /// The fields as they were given.
        fields: String,
    },
    /// A template is none.
    #[error("the template \"{}\" {problem}", shown(template))]
    Template {
        /// The template as it was given.
        template: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A format says what rows are, and a template says it, too.
    #[error("the format `{format}` and a template both say what becomes of a row")]
    TemplateAndFormat {
        /// The format.
        format: Format,
    },

    /// The options of texts do not fit together.
    #[error(transparent)]
    Text(#[from] PreprocessError),
    /// Something is to be done to the texts of a file of conversations, whose texts a chat template makes.
    #[error("{place}: `text` has no effect on a conversation")]
    TextOfConversation {
        /// The row.
        place: DocumentSource,
    },
    /// A format of conversations is chosen where they are of no use.
    #[error("the format `{format}` is one of conversations, which this task does not learn from")]
    NoConversations {
        /// The format.
        format: Format,
    },
    /// What is done to texts leaves nothing of a response.
    #[error("{place}: nothing is left of the response when `text` is done to it")]
    NothingOfResponse {
        /// The row.
        place: DocumentSource,
    },

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
    /// A directory has no file of data, or a pattern matches none.
    #[error("{}", no_files(path, *is_directory, others))]
    NoFiles {
        /// The directory or the pattern.
        path: PathBuf,
        /// Whether it is a directory.
        is_directory: bool,
        /// What is there instead, at most ten.
        others: Vec<String>,
    },
    /// A pattern is none.
    #[error("{pattern} is no pattern of file names: {message}", pattern = shown(pattern))]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        message: String,
    },
    /// The file is recognized as something else than text.
    #[error("{} is {}, not text", path.display(), kind.name())]
    OtherKind {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: Kind,
    },
    /// The file has zero bytes.
    #[error("{} is not text: it has zero bytes", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused to read the file.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A compressed file cannot be expanded: it is cut short, or not what was written.
    #[error("{} cannot be expanded: {compression}: {message}", path.display(), message = shown_sentence(message))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it is compressed.
        compression: &'static str,
        /// What the decoder says.
        message: String,
    },
    /// A Parquet file cannot be read.
    #[error("cannot read {} as Parquet: {message}", path.display(), message = shown_sentence(message))]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        message: String,
    },
    /// A compressed file has more in it than is held in memory.
    #[error("{} expands to more than {limit} bytes that would have to be in memory at once", path.display())]
    ExpandedTooLarge {
        /// The file.
        path: PathBuf,
        /// The most bytes.
        limit: u64,
    },
    /// There is no memory for a file that is read as a whole.
    #[error("{} has {bytes} bytes that would have to be in memory at once", path.display())]
    NoMemory {
        /// The file.
        path: PathBuf,
        /// Its size, as the file system says it.
        bytes: u64,
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
    #[error("{}:{line}: invalid UTF-8 at byte {offset} of the file{}", path.display(), looks_like(*encoding))]
    InvalidUtf8 {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The first byte that is not UTF-8, counted from 0 at the start of the file.
        offset: usize,
        /// The encoding that it seems to be in, by the name that `iconv` has for it.
        encoding: Option<&'static str>,
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
    /// A table has nothing but a header.
    #[error("{} has no rows", path.display())]
    NoRows {
        /// The file.
        path: PathBuf,
    },
    /// Two columns of a header have the name that is asked for.
    #[error("{place}: columns {first} and {second} are both named `{column}`", column = shown(column))]
    DuplicateColumn {
        /// Where the header stands.
        place: DocumentSource,
        /// The name.
        column: String,
        /// The first column of that name, counted from 1.
        first: usize,
        /// The second.
        second: usize,
    },
    /// A record has another number of cells than the one before.
    #[error("{place}: expected {expected} cells, found {found}")]
    Ragged {
        /// Where it stands.
        place: DocumentSource,
        /// Cells of the header, or of the first record where there is none.
        expected: usize,
        /// Cells of this record.
        found: usize,
    },
    /// The same is wrong with several rows, or with one where such rows could be left out.
    #[error("{first}{}", and_others(*count, others))]
    Rows {
        /// What is wrong with the first.
        first: Box<DataError>,
        /// How many there are.
        count: usize,
        /// Where the first of the others stand.
        others: Vec<String>,
    },
    /// Every row of a file was left out.
    #[error("none of the {rows} rows of {} can be read; the first: {first}", path.display())]
    NothingLeft {
        /// The file.
        path: PathBuf,
        /// Its rows.
        rows: usize,
        /// What is wrong with the first one.
        first: Box<DataError>,
    },
    /// A row holds what cannot be learned from yet.
    #[error("{place}: {what} cannot be learned from yet")]
    Unlearnable {
        /// Where it stands.
        place: DocumentSource,
        /// What it is.
        what: Unlearnable,
    },
    /// A conversation, or what its template makes of it.
    #[error("{place}: {error}")]
    Chat {
        /// Where it stands.
        place: DocumentSource,
        /// What is wrong.
        error: ChatError,
    },
    /// A pair of answers has no prompt, and begins with nothing alike.
    #[error("{place}: there is no `prompt`, and `chosen` and `rejected` begin with nothing alike")]
    Pair {
        /// Where it stands.
        place: DocumentSource,
    },
    /// Pairs of answers are to be read, and nothing says what is learned of them.
    #[error("nothing says what is to be learned of pairs of `chosen` and `rejected` answers")]
    LearnOfPairs,
    /// It is said what is learned of pairs where there are none.
    #[error("`learn` has no effect: the format is not `preference`")]
    LearnWithoutPairs,
    /// A chat template that no row asks for.
    #[error(transparent)]
    ChatTemplate(#[from] ChatError),
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
    #[error("{place}: no field `{field}`, found {}", list(keys), field = shown(field))]
    MissingField {
        /// Where it stands.
        place: DocumentSource,
        /// The field, as the file should have it.
        field: String,
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
    #[error("{place}: the field `{field}` is {found}, not a string", field = shown(field))]
    FieldNotString {
        /// Where it stands.
        place: DocumentSource,
        /// The field, as the file has it.
        field: String,
        /// The JSON type that is there.
        found: &'static str,
    },
    /// The response of an example is empty or white space.
    #[error("{place}: the response in `{field}` is empty", field = shown(field))]
    EmptyResponse {
        /// Where it stands.
        place: DocumentSource,
        /// The field of the response, as the file has it.
        field: String,
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
    /// A tokenizer of the time before `tokenizer.json` cannot be read.
    #[error("cannot make a tokenizer of {}: {message}", path.display(), message = shown_sentence(message))]
    OlderTokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A token to be added is no text.
    #[error("a new token is empty, or white space alone")]
    EmptyToken,
    /// The model directory has no tokenizer.
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
    /// The id that a new token would get is that of another one.
    #[error("{}: the new token `{token}` would get id {id}, which is that of `{other}`",
        path.display(), token = shown(token), other = shown(other))]
    TokenIdTaken {
        /// The file.
        path: PathBuf,
        /// The new token.
        token: String,
        /// The number of tokens that there are.
        id: u32,
        /// Which token has it.
        other: String,
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
    /// Question and template leave no room for windows of a context that overlap.
    #[error(
        "a window of {max_length} tokens has no room for more than the {stride} that it shares with the next one: \
         the question and the template have {before}"
    )]
    NoWindow {
        /// The most tokens of a window.
        max_length: usize,
        /// The tokens of the question and of the template.
        before: usize,
        /// The tokens that two windows have in common.
        stride: usize,
    },
    /// A text has no token, nor has the tokenizer's template.
    #[error("the text has no token")]
    NoTokens,
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
        "the text has the token `{token}` with id {id}, but the model's embedding has {rows} rows",
        token = shown(token)
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
    /// There is more than can be counted.
    #[error("{count} {what} are too many: there may be {}", u32::MAX)]
    CorpusTooLarge {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        count: usize,
    },
    /// Tokens cannot be kept in the cache.
    #[error("cannot keep tokens in the cache: {0}")]
    Cache(FormatError),
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
    /// Examples cannot be read as streams.
    #[error(
        "{examples} of the documents have a prompt and a response, which are not read as streams"
    )]
    StreamsOfExamples {
        /// How many.
        examples: usize,
    },
    /// There are more streams than tokens.
    #[error("{tokens} tokens that have a next one cannot be read as {n_streams} streams")]
    TooFewForStreams {
        /// The tokens.
        tokens: usize,
        /// The streams.
        n_streams: usize,
    },
    /// Weights are not as many as paths.
    #[error("{weights} weights for {paths} paths")]
    Weights {
        /// The weights.
        weights: usize,
        /// The paths.
        paths: usize,
    },
    /// A weight is none.
    #[error(
        "the weight {weight} is not greater than 0 and at most {}",
        Weights::MAX
    )]
    Weight {
        /// It.
        weight: f64,
    },
    /// Streams are asked for, and weights.
    #[error("streams have no weights: a stream goes on from one document to the next")]
    WeightsOfStreams,
    /// Examples are longer than a piece may be.
    #[error(
        "{count} examples are longer than the {sequence_length} tokens of a sequence; the first is at {first}, with {tokens}"
    )]
    ExamplesTooLong {
        /// How many there are.
        count: usize,
        /// Where the first stands.
        first: DocumentSource,
        /// Its tokens.
        tokens: usize,
        /// The most tokens of a piece.
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

    /// A setting of conversations, where there are none.
    #[error("{key} has no effect: the data have no conversations")]
    NoTurns {
        /// The setting.
        key: &'static str,
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

/// Rows that are known and not learned from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unlearnable {
    /// The messages of a conversation, in the field of this name.
    Messages(String),
    /// Two responses, of which one is preferred.
    Preference {
        /// Whether a `prompt` stands beside them; else they hold it.
        has_prompt: bool,
    },
}

impl Unlearnable {
    /// Tells by its keys what a row is.
    pub(crate) fn of(keys: &[&str]) -> Option<Self> {
        let has = |key: &str| keys.contains(&key);
        let of_messages = ["messages", "conversations", "conversation"];
        match of_messages.into_iter().find(|key| has(key)) {
            Some(key) => Some(Self::Messages(key.to_owned())),
            None => (has("chosen") && has("rejected")).then_some(Self::Preference {
                has_prompt: has("prompt"),
            }),
        }
    }
}

impl Display for Unlearnable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Messages(field) => {
                write!(f, "the messages of a conversation (`{}`)", shown(field))
            }
            Self::Preference { .. } => f.write_str("a pair of `chosen` and `rejected` responses"),
        }
    }
}

impl Fault for DataError {
    fn row(&self) -> Option<(DocumentSource, String)> {
        let (place, kind) = match self {
            Self::InvalidJson { path, line, .. } => {
                let place = DocumentSource {
                    path: path.as_path().into(),
                    line: *line,
                    item: None,
                };
                return Some((place, "json".to_owned()));
            }
            Self::NotAnObject { place, .. } => (place, "object".to_owned()),
            Self::MissingField { place, field, .. } => (place, format!("missing {field}")),
            Self::UnknownFields { place, .. } => (place, "fields".to_owned()),
            Self::AmbiguousFields { place, .. } => (place, "ambiguous".to_owned()),
            Self::FieldNotString { place, field, .. } => (place, format!("type {field}")),
            Self::EmptyResponse { place, field } => (place, format!("empty {field}")),
            Self::NothingOfResponse { place } => (place, "nothing left".to_owned()),
            // Without a template, no row can be read.
            Self::Chat {
                error: ChatError::NoTemplate | ChatError::Syntax { .. } | ChatError::TooLong { .. },
                ..
            } => return None,
            Self::Chat { place, error } => {
                (place, format!("chat {:?}", std::mem::discriminant(error)))
            }
            Self::Pair { place } => (place, "pair".to_owned()),
            Self::Ragged { place, .. } => (place, "ragged".to_owned()),
            Self::Unlearnable { place, .. } => (place, "unlearnable".to_owned()),
            Self::Document { place, .. } => (place, "encode".to_owned()),
            _ => return None,
        };
        Some((place.clone(), kind))
    }

    fn of_rows(first: Self, count: usize, others: Vec<String>) -> Self {
        Self::Rows {
            first: Box::new(first),
            count,
            others,
        }
    }
}

fn no_files(path: &Path, is_directory: bool, others: &[String]) -> String {
    let path = path.display();
    match (is_directory, others) {
        (true, []) => format!("{path} has no files"),
        (false, []) => format!("no file matches {path}"),
        (true, others) => format!(
            "{path} has no file that can be read, but {}",
            others.join(", ")
        ),
        (false, others) => format!(
            "no file that matches {path} can be read: {}",
            others.join(", ")
        ),
    }
}

fn looks_like(encoding: Option<&str>) -> String {
    encoding.map_or_else(String::new, |encoding| {
        format!("; it looks like {encoding}")
    })
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
