//! The formats of a file, and the fields by which an object says which it has.

use std::fmt;
use std::str::FromStr;

use reparam_formats::nearest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Document, DocumentSource, json_type};
use crate::error::{DataError, Result};

/// How documents and examples are written in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The whole file is one document.
    Text,
    /// JSON objects, each with a document in its field `text`.
    #[serde(rename = "jsonl")]
    Documents,
    /// JSON objects with `prompt` and `completion`, `prompt` and `response`, or `question` and `answer`: the text is
    /// the first followed by the second exactly as they are.
    PromptCompletion,
    /// JSON objects with `instruction`, `output` and, if there is more to say, `input`. The prompt is the one that
    /// Stanford published with Alpaca, which has two forms and ends in `### Response:` without a line end; the
    /// response is `output` as it is.
    Alpaca,
}

impl Format {
    /// All formats, in the order in which they are listed to the user.
    pub const ALL: [Self; 4] = [
        Self::Text,
        Self::Documents,
        Self::PromptCompletion,
        Self::Alpaca,
    ];

    /// The name that run files and the program use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Documents => "jsonl",
            Self::PromptCompletion => "prompt_completion",
            Self::Alpaca => "alpaca",
        }
    }

    /// Returns a prompt as the examples of this format have it: Alpaca's as an instruction without input, every other as it is.
    #[must_use]
    pub fn prompt(self, prompt: &str) -> String {
        match self {
            Self::Alpaca => alpaca_prompt(prompt, ""),
            Self::Text | Self::Documents | Self::PromptCompletion => prompt.to_owned(),
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

/// The fields that an object must have to be of a format.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Form {
    format: Format,
    /// The field of an example that is given; a document has none.
    prompt: Option<&'static str>,
    /// The field that is learned.
    response: &'static str,
}

const FORMS: [Form; 5] = [
    Form::new(Format::Documents, None, "text"),
    Form::new(Format::PromptCompletion, Some("prompt"), "completion"),
    Form::new(Format::PromptCompletion, Some("prompt"), "response"),
    Form::new(Format::PromptCompletion, Some("question"), "answer"),
    Form::new(Format::Alpaca, Some("instruction"), "output"),
];

impl Form {
    const fn new(format: Format, prompt: Option<&'static str>, response: &'static str) -> Self {
        Self {
            format,
            prompt,
            response,
        }
    }

    fn fields(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.prompt.into_iter().chain([self.response])
    }

    /// Finds the one form, of `format` if that is given, whose fields `object` has.
    pub(super) fn of(
        object: &Map<String, Value>,
        format: Option<Format>,
        place: &DocumentSource,
    ) -> Result<&'static Self> {
        let allowed: Vec<&Self> = allowed(format).collect();
        let fits = |form: &&Self| form.fields().all(|field| object.contains_key(field));
        let fitting: Vec<&Self> = allowed.iter().copied().filter(fits).collect();
        match (&fitting[..], &allowed[..]) {
            ([form], _) => Ok(form),
            ([], [form]) => Err(form.missing(object, place)),
            ([], _) => Err(DataError::UnknownFields {
                place: place.clone(),
                format,
                keys: keys(object),
                nearest: misspelled(object, allowed.iter().flat_map(|form| form.fields())),
            }),
            _ => Err(DataError::AmbiguousFields {
                place: place.clone(),
                forms: fitting.iter().map(ToString::to_string).collect(),
                formats: fitting.iter().map(|form| form.format).collect(),
            }),
        }
    }

    /// Makes a document of an object, which must have the fields of this form; others are ignored.
    pub(super) fn document(
        &self,
        mut object: Map<String, Value>,
        source: DocumentSource,
    ) -> Result<Document> {
        if !self.fields().all(|field| object.contains_key(field)) {
            return Err(self.missing(&object, &source));
        }
        let Some(prompt) = self.prompt else {
            return Ok(Document {
                text: string(&mut object, self.response, &source)?,
                prompt_len: None,
                source,
            });
        };
        let mut text = string(&mut object, prompt, &source)?;
        if self.format == Format::Alpaca {
            let input = match object.get("input") {
                None | Some(Value::Null) => String::new(),
                Some(_) => string(&mut object, "input", &source)?,
            };
            text = alpaca_prompt(&text, &input);
        }
        let prompt_len = Some(text.len());
        let response = string(&mut object, self.response, &source)?;
        if response.trim().is_empty() {
            return Err(DataError::EmptyResponse {
                place: source,
                field: self.response,
            });
        }
        text.push_str(&response);
        Ok(Document {
            text,
            prompt_len,
            source,
        })
    }

    fn missing(&self, object: &Map<String, Value>, place: &DocumentSource) -> DataError {
        let missing = self.fields().find(|field| !object.contains_key(*field));
        let field = missing.unwrap_or(self.response);
        DataError::MissingField {
            place: place.clone(),
            field,
            keys: keys(object),
            nearest: misspelled(object, [field]).map(|(key, _)| key),
        }
    }
}

/// Names the fields, for messages.
impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prompt {
            None => write!(f, "`{}`", self.response),
            Some(prompt) => write!(f, "`{prompt}` and `{}`", self.response),
        }
    }
}

/// The forms of a format, or all.
fn allowed(format: Option<Format>) -> impl Iterator<Item = &'static Form> {
    let is_allowed = move |form: &&Form| format.is_none_or(|format| form.format == format);
    FORMS.iter().filter(is_allowed)
}

/// Lists what the fields of an object may be, for hints.
pub(crate) fn known_fields(format: Option<Format>) -> String {
    let forms: Vec<String> = allowed(format).map(ToString::to_string).collect();
    forms.join("; ")
}

/// The first fields, at most ten.
fn keys(object: &Map<String, Value>) -> Vec<String> {
    object.keys().take(10).cloned().collect()
}

/// The first of `fields` that a key seems to be meant for, with the key; one that is a field already is none.
fn misspelled(
    object: &Map<String, Value>,
    fields: impl IntoIterator<Item = &'static str>,
) -> Option<(String, &'static str)> {
    let is_field = |key: &str| FORMS.iter().any(|form| form.fields().any(|one| one == key));
    let keys = || {
        object
            .keys()
            .map(String::as_str)
            .filter(|key| !is_field(key))
    };
    let mut fields = fields
        .into_iter()
        .filter(|field| !object.contains_key(*field));
    fields.find_map(|field| nearest(field, keys()).map(|key| (key.to_owned(), field)))
}

/// Takes a field that is there, which must be a string.
fn string(
    object: &mut Map<String, Value>,
    field: &'static str,
    place: &DocumentSource,
) -> Result<String> {
    match object.remove(field).unwrap_or_default() {
        Value::String(text) => Ok(text),
        other => Err(DataError::FieldNotString {
            place: place.clone(),
            field,
            found: json_type(&other),
        }),
    }
}

/// The prompt of <https://github.com/tatsu-lab/stanford_alpaca>, `PROMPT_DICT` of its `train.py`.
fn alpaca_prompt(instruction: &str, input: &str) -> String {
    if input.is_empty() {
        format!(
            "Below is an instruction that describes a task. \
             Write a response that appropriately completes the request.\n\n\
             ### Instruction:\n{instruction}\n\n### Response:"
        )
    } else {
        format!(
            "Below is an instruction that describes a task, paired with an input that provides further context. \
             Write a response that appropriately completes the request.\n\n\
             ### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
        )
    }
}
