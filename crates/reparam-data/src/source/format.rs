//! The formats of a file.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::extension;
use super::shape::alpaca_prompt;
use crate::error::{DataError, Result};

/// How documents and examples are written in a file.
///
/// Without one, the name of a file says how it is written, also where `.gz` or `.zst` stands behind it, and the fields of its first row what it holds. Those behind
/// the tables say what the rows hold; how they are written, the name says then, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The whole file is one document: `.txt`, `.text`, `.md`.
    Text,
    /// Every line is a document, blank ones aside.
    Lines,
    /// JSON objects, one a line or in one array: `.jsonl`, `.json`.
    Jsonl,
    /// A table with a header: cells between commas, semicolons, tabs or bars, whichever its first line has, in double
    /// quotes where they need them: `.csv`.
    Csv,
    /// A table with a header, cells between tabs. Quotes are characters like any other: `.tsv`, `.tab`.
    Tsv,
    /// A table with typed columns: `.parquet`.
    Parquet,
    /// Rows with `prompt` and `completion`, `prompt` and `response`, or `question` and `answer`: the text is the first
    /// followed by the second exactly as they are.
    PromptCompletion,
    /// Rows with `instruction`, `output` and, if there is more to say, `input`. The prompt is the one that Stanford
    /// published with Alpaca, which has two forms and ends in `### Response:` without a line end; the response is `output`
    /// as it is.
    Alpaca,
    /// Rows with `messages`, a list of objects with `role` and `content`, and with `tools` where there are some; or with
    /// `prompt` and `completion` that are such lists. A chat template makes texts of them.
    Messages,
    /// Rows with `conversations`, a list of objects with `from` and `value`, and with `system` and `tools` where there are some.
    Sharegpt,
    /// Rows with `instruction`, `output` and, if there is more to say, `input`, `system` and `history`, a list of pairs, as
    /// conversations.
    AlpacaChat,
    /// Rows with `chosen` and `rejected` answers to a `prompt`, or to what both begin with; texts, or lists of messages.
    Preference,
}

impl Format {
    /// All formats, in the order in which they are listed to the user.
    pub const ALL: [Self; 12] = [
        Self::Text,
        Self::Lines,
        Self::Jsonl,
        Self::Csv,
        Self::Tsv,
        Self::Parquet,
        Self::PromptCompletion,
        Self::Alpaca,
        Self::Messages,
        Self::Sharegpt,
        Self::AlpacaChat,
        Self::Preference,
    ];

    /// The extensions that say how a file is written.
    const EXTENSIONS: [(&str, Self); 9] = [
        ("txt", Self::Text),
        ("text", Self::Text),
        ("md", Self::Text),
        ("jsonl", Self::Jsonl),
        ("json", Self::Jsonl),
        ("csv", Self::Csv),
        ("tsv", Self::Tsv),
        ("tab", Self::Tsv),
        ("parquet", Self::Parquet),
    ];

    /// The name that run files and the program use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Lines => "lines",
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Tsv => "tsv",
            Self::Parquet => "parquet",
            Self::PromptCompletion => "prompt_completion",
            Self::Alpaca => "alpaca",
            Self::Messages => "messages",
            Self::Sharegpt => "sharegpt",
            Self::AlpacaChat => "alpaca_chat",
            Self::Preference => "preference",
        }
    }

    /// Returns a prompt as the examples of this format have it: Alpaca's as an instruction without input, every other as it is.
    #[must_use]
    pub fn prompt(self, prompt: &str) -> String {
        match self {
            Self::Alpaca => alpaca_prompt(prompt, ""),
            _ => prompt.to_owned(),
        }
    }

    /// Whether what a model is asked has to be written as the rows are: with Alpaca's words around it, or as a conversation.
    #[must_use]
    pub const fn is_of_examples(self) -> bool {
        matches!(self, Self::Alpaca) || self.is_of_conversations()
    }

    /// Whether it says what the rows are and not how they are written.
    #[must_use]
    pub const fn is_of_rows(self) -> bool {
        matches!(
            self,
            Self::PromptCompletion | Self::Alpaca | Self::Preference
        ) || self.is_of_conversations()
    }

    /// Whether a row is a conversation, which a chat template makes a text of.
    #[must_use]
    pub const fn is_of_conversations(self) -> bool {
        matches!(self, Self::Messages | Self::Sharegpt | Self::AlpacaChat)
    }

    /// How a file is written, by its name alone.
    pub(crate) fn of_name(path: &Path) -> Option<Self> {
        let extension = extension(path)?;
        let mut known = Self::EXTENSIONS.into_iter();
        known
            .find(|(known, _)| *known == extension)
            .map(|(_, format)| format)
    }

    /// How a file is written, given what was chosen; `None` if nothing says it.
    pub(super) fn container(path: &Path, chosen: Option<Self>) -> Option<Self> {
        match chosen {
            None => Self::of_name(path),
            // A text has no fields.
            Some(format) if format.is_of_rows() => match Self::of_name(path) {
                None | Some(Self::Text) => Some(Self::Jsonl),
                container => container,
            },
            chosen => chosen,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = DataError;

    fn from_str(name: &str) -> Result<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|format| format.name() == name)
            .ok_or_else(|| DataError::UnknownFormat {
                name: name.to_owned(),
            })
    }
}
