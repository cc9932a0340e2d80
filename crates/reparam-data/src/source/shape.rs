//! What the rows of a file are: which of their fields make a document, and how.

use std::borrow::Cow;
use std::fmt;

use reparam_formats::nearest;
use serde_json::{Map, Value};

use super::conversation::{ChatForm, ChatOptions};
use super::preference::{PAIR, pair_fields};
use super::{Document, DocumentSource, Format, ReadOptions, Template, json_type};
use crate::error::{DataError, Result, Unlearnable};

/// The fields that a row must have to be of a format.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Form {
    format: Format,
    /// The field of an example that is given; a document has none.
    prompt: Option<&'static str>,
    /// The field that is learned.
    response: &'static str,
    /// A field that may be missing.
    optional: Option<&'static str>,
}

const FORMS: [Form; 5] = [
    Form::new(Format::Jsonl, None, "text", None),
    Form::new(Format::PromptCompletion, Some("prompt"), "completion", None),
    Form::new(Format::PromptCompletion, Some("prompt"), "response", None),
    Form::new(Format::PromptCompletion, Some("question"), "answer", None),
    Form::new(Format::Alpaca, Some("instruction"), "output", Some("input")),
];

impl Form {
    const fn new(
        format: Format,
        prompt: Option<&'static str>,
        response: &'static str,
        optional: Option<&'static str>,
    ) -> Self {
        Self {
            format,
            prompt,
            response,
            optional,
        }
    }

    fn fields(&self) -> impl Iterator<Item = &'static str> + Clone + use<> {
        self.prompt.into_iter().chain([self.response])
    }

    /// Whether rows of this form may be read with these options.
    fn is_allowed(&self, options: &ReadOptions) -> bool {
        let known = || self.fields().chain(self.optional);
        let is_known = |field: &str| known().any(|known| known == field);
        let of_format = match options.format {
            Some(format) if format.is_of_rows() => self.format == format,
            _ => true,
        };
        of_format && options.fields.named().all(is_known)
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

/// How rows become documents.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape<'a> {
    /// By fields of a known form, each in the column that the options say.
    Form(&'static Form, &'a ReadOptions),
    /// By a template of fields.
    Template(&'a Template, &'a ReadOptions),
    /// As messages, by a chat template.
    Conversation(ChatForm, &'a ReadOptions, &'a ChatOptions),
    /// Two answers, of which one is preferred.
    Pair(&'a ReadOptions),
}

impl<'a> Shape<'a> {
    /// Checks that the options fit together.
    pub(super) fn check(options: &ReadOptions) -> Result<()> {
        let fields = &options.fields;
        if options.learn.is_some() && options.format != Some(Format::Preference) {
            return Err(DataError::LearnWithoutPairs);
        }
        if let Some(template) = &options.template {
            return match options.format.filter(|format| format.is_of_rows()) {
                Some(format) => Err(DataError::TemplateAndFormat { format }),
                None => Ok(fields.check(template.fields())?),
            };
        }
        if let Some(format) = options.format.filter(|format| format.is_of_conversations())
            && options.chat.is_none()
        {
            return Err(DataError::NoConversations { format });
        }
        if options.format == Some(Format::Preference) {
            return match options.learn {
                Some(_) => Ok(fields.check(pair_fields())?),
                None => Err(DataError::LearnOfPairs),
            };
        }
        let chat_forms = || ChatForm::ALL.into_iter().filter(|form| form.is_of(options));
        if FORMS.iter().any(|form| form.is_allowed(options))
            || chat_forms().any(|form| form.has_named(&options.fields))
        {
            return Ok(());
        }
        let of_format = FORMS.iter().filter(|form| match options.format {
            Some(format) if format.is_of_rows() => form.format == format,
            _ => true,
        });
        let mut known: Vec<&str> = of_format
            .flat_map(|form| form.fields().chain(form.optional))
            .chain(chat_forms().flat_map(ChatForm::fields))
            .collect();
        known.sort_unstable();
        known.dedup();
        fields.check(known.into_iter())?;
        // Each is known, but no form has them all.
        Err(DataError::FieldsOfNoForm {
            fields: fields.to_string(),
        })
    }

    /// Finds out what the rows are of which this is the first.
    pub(super) fn of_row(
        row: &Map<String, Value>,
        options: &'a ReadOptions,
        place: &DocumentSource,
    ) -> Result<Self> {
        let keys: Vec<&str> = row.keys().map(String::as_str).collect();
        if options.format == Some(Format::Preference) {
            return Self::of(&keys, options, place);
        }
        let chat = options.chat.as_ref().filter(|_| options.template.is_none());
        let found = chat.and_then(|chat| Some((ChatForm::of(row, options)?, chat)));
        let Some((form, chat)) = found else {
            return Self::of(&keys, options, place);
        };
        let conversation = Self::Conversation(form, options, chat);
        if options.format == Some(form.format()) || form.takes_precedence() {
            return Ok(conversation);
        }
        // A row may have the text of its messages beside them.
        match Self::of(&keys, options, place) {
            Err(_) => Ok(conversation),
            Ok(other) if options.format.is_some() => Ok(other),
            Ok(other) => {
                let container = Format::container(&place.path, None).unwrap_or(Format::Jsonl);
                let forms = match other {
                    Self::Form(form, _) => form.to_string(),
                    _ => "a text".to_owned(),
                };
                Err(DataError::AmbiguousFields {
                    place: place.clone(),
                    forms: vec![forms, form.to_string()],
                    formats: vec![other.format(container), form.format()],
                })
            }
        }
    }

    /// Finds out what the rows are whose first one, or header, has these keys.
    pub(super) fn of(
        keys: &[&str],
        options: &'a ReadOptions,
        place: &DocumentSource,
    ) -> Result<Self> {
        if let Some(template) = &options.template {
            let shape = Self::Template(template, options);
            shape.check_keys(keys, place)?;
            return Ok(shape);
        }
        if options.format == Some(Format::Preference) {
            let shape = Self::Pair(options);
            shape.check_keys(keys, place)?;
            return Ok(shape);
        }
        let key = |field: &'static str| options.fields.key(field);
        let allowed: Vec<&Form> = FORMS
            .iter()
            .filter(|form| form.is_allowed(options))
            .collect();
        let has = |field| keys.contains(&key(field));
        let container = || Format::container(&place.path, options.format).unwrap_or(Format::Jsonl);
        let fits = |form: &&Form| form.fields().all(has);
        let mut fitting: Vec<&Form> = allowed.iter().copied().filter(fits).collect();
        // A format that says how rows are written is chosen for its texts, where there are such.
        if options.format.is_some_and(|format| !format.is_of_rows())
            && let Some(text) = fitting.iter().position(|form| form.prompt.is_none())
        {
            fitting = vec![fitting[text]];
        }
        match (&fitting[..], &allowed[..]) {
            ([form], _) => Ok(Self::Form(form, options)),
            ([], _) if let Some(what) = Unlearnable::of(keys) => Err(DataError::Unlearnable {
                place: place.clone(),
                what,
            }),
            ([], [form]) => Err(Self::Form(form, options)
                .check_keys(keys, place)
                .err()
                .unwrap_or_else(|| unknown(keys, options, &allowed, place))),
            ([], _) => Err(unknown(keys, options, &allowed, place)),
            _ => Err(DataError::AmbiguousFields {
                place: place.clone(),
                forms: fitting.iter().map(ToString::to_string).collect(),
                // Texts are chosen by how the file is written.
                formats: fitting
                    .iter()
                    .map(|form| Self::Form(form, options).format(container()))
                    .collect(),
            }),
        }
    }

    /// The keys that are read, and whether each must be there.
    pub(super) fn keys(self) -> Vec<(&'a str, bool)> {
        match self {
            Self::Template(template, options) => {
                let fields = template.fields();
                fields
                    .map(|field| (options.fields.key(field), true))
                    .collect()
            }
            Self::Conversation(form, options, _) => {
                let fields = form.fields();
                fields
                    .map(|field| (options.fields.key(field), false))
                    .collect()
            }
            Self::Pair(options) => {
                let is_required =
                    |field| matches!(field, "chosen" | "rejected") || options.fields.names(field);
                pair_fields()
                    .map(|field| (options.fields.key(field), is_required(field)))
                    .collect()
            }
            Self::Form(form, options) => {
                let required = form.fields().map(|field| (options.fields.key(field), true));
                let optional = form.optional.into_iter();
                let is_named = |field| options.fields.names(field);
                let optional = optional.map(|field| (options.fields.key(field), is_named(field)));
                required.chain(optional).collect()
            }
        }
    }

    /// The format that is read, of a file that is written as `container`.
    pub(super) fn format(self, container: Format) -> Format {
        match self {
            Self::Form(form, _) if form.format.is_of_rows() => form.format,
            Self::Conversation(form, ..) => form.format(),
            Self::Pair(_) => Format::Preference,
            _ => container,
        }
    }

    fn check_keys(self, keys: &[&str], place: &DocumentSource) -> Result<()> {
        let is_missing = |(key, required): &(&str, bool)| *required && !keys.contains(key);
        match self.keys().into_iter().find(is_missing) {
            None => Ok(()),
            Some((field, _)) => {
                let others = keys.iter().copied().filter(|key| !is_field(key));
                Err(DataError::MissingField {
                    place: place.clone(),
                    nearest: nearest(field, others).map(str::to_owned),
                    field: field.to_owned(),
                    keys: shown(keys),
                })
            }
        }
    }

    /// Makes a document of a row, which must have the fields of this shape; others are ignored.
    pub(super) fn document(
        self,
        mut row: Map<String, Value>,
        source: DocumentSource,
    ) -> Result<Document> {
        {
            let keys: Vec<&str> = row.keys().map(String::as_str).collect();
            self.check_keys(&keys, &source)?;
        }
        let (text, prompt_len, response) = match self {
            Self::Template(template, options) => {
                let value = |field: &str| printed(&row, options.fields.key(field), &source);
                let (text, prompt_len) = template.fill(value)?;
                (text, prompt_len, template.response().unwrap_or_default())
            }
            Self::Form(form, options) => {
                let (text, prompt_len) = form.fill(&mut row, options, &source)?;
                (text, prompt_len, form.response)
            }
            // It may be one of messages.
            Self::Pair(_) => {
                return Err(DataError::Unlearnable {
                    place: source,
                    what: Unlearnable::Preference { has_prompt: true },
                });
            }
            // A template makes documents of these.
            Self::Conversation(form, ..) => {
                return Err(DataError::Unlearnable {
                    place: source,
                    what: Unlearnable::Messages(form.to_string()),
                });
            }
        };
        if prompt_len.is_some_and(|prompt| text[prompt..].trim().is_empty()) {
            let (Self::Template(_, options)
            | Self::Form(_, options)
            | Self::Pair(options)
            | Self::Conversation(_, options, _)) = self;
            return Err(DataError::EmptyResponse {
                place: source,
                field: options.fields.key(response).to_owned(),
            });
        }
        Ok(Document {
            text,
            prompt_len,
            turns: None,
            source,
        })
    }
}

impl Form {
    /// Takes the text of a row, and how many bytes of it are the prompt.
    fn fill(
        &self,
        row: &mut Map<String, Value>,
        options: &ReadOptions,
        place: &DocumentSource,
    ) -> Result<(String, Option<usize>)> {
        let mut take = |field| string(row, options.fields.key(field), place);
        let Some(prompt) = self.prompt else {
            return Ok((take(self.response)?, None));
        };
        let mut text = take(prompt)?;
        let response = take(self.response)?;
        if let Some(optional) = self.optional {
            let input = match row.get(options.fields.key(optional)) {
                None | Some(Value::Null) => String::new(),
                Some(_) => string(row, options.fields.key(optional), place)?,
            };
            text = alpaca_prompt(&text, &input);
        }
        let prompt_len = Some(text.len());
        text.push_str(&response);
        Ok((text, prompt_len))
    }
}

/// Returns whether a key of an object is that of a field, so that the object is a row.
pub(super) fn is_key_of_field(key: &str, options: &ReadOptions) -> bool {
    if let Some(template) = &options.template {
        return template
            .fields()
            .any(|field| options.fields.key(field) == key);
    }
    let fields = FORMS
        .iter()
        .flat_map(|form| form.fields().chain(form.optional));
    let mut fields = fields.chain(ChatForm::ALL.into_iter().filter_map(ChatForm::list));
    let is_pair = options.format == Some(Format::Preference);
    fields.any(|field| options.fields.key(field) == key)
        || (is_pair && PAIR.iter().any(|field| options.fields.key(field) == key))
}

/// Returns whether what a row has by this key may be a part of its document.
pub(super) fn may_be_read(key: &str, options: &ReadOptions) -> bool {
    let of_chat = || ChatForm::ALL.into_iter().flat_map(ChatForm::fields);
    is_key_of_field(key, options)
        || options.template.is_none() && of_chat().any(|field| options.fields.key(field) == key)
}

/// Lists what the fields of a row may be, for hints.
pub(crate) fn known_fields(format: Option<Format>) -> String {
    let options = ReadOptions {
        format,
        ..ReadOptions::default()
    };
    let allowed = FORMS.iter().filter(|form| form.is_allowed(&options));
    let forms = allowed.map(ToString::to_string);
    let chat = ChatForm::ALL.into_iter();
    let chat = chat.filter(|form| format.is_none_or(|format| format == form.format()));
    let forms: Vec<String> = forms.chain(chat.map(|form| form.to_string())).collect();
    forms.join("; ")
}

fn unknown(
    keys: &[&str],
    options: &ReadOptions,
    allowed: &[&Form],
    place: &DocumentSource,
) -> DataError {
    let fields = allowed.iter().flat_map(|form| form.fields());
    let mut fields = fields.filter(|field| !keys.contains(field));
    let others = || keys.iter().copied().filter(|key| !is_field(key));
    DataError::UnknownFields {
        place: place.clone(),
        format: options.format.filter(|format| format.is_of_rows()),
        keys: shown(keys),
        nearest: fields.find_map(|field| Some((nearest(field, others())?.to_owned(), field))),
    }
}

/// Whether a key is a field already, and so no misspelled one.
fn is_field(key: &str) -> bool {
    FORMS
        .iter()
        .any(|form| form.fields().any(|field| field == key))
}

/// The first keys, at most ten.
fn shown(keys: &[&str]) -> Vec<String> {
    keys.iter().take(10).map(|key| (*key).to_owned()).collect()
}

/// Takes a field that is there, which must be a string.
fn string(row: &mut Map<String, Value>, key: &str, place: &DocumentSource) -> Result<String> {
    match row.get_mut(key).map(Value::take).unwrap_or_default() {
        Value::String(text) => Ok(text),
        other => Err(not_text(&other, key, place)),
    }
}

/// Writes a field that is there into a template: numbers and truth values as JSON writes them.
fn printed<'r>(
    row: &'r Map<String, Value>,
    key: &str,
    place: &DocumentSource,
) -> Result<Cow<'r, str>> {
    match row.get(key).unwrap_or(&Value::Null) {
        Value::String(text) => Ok(text.into()),
        value @ (Value::Number(_) | Value::Bool(_)) => Ok(value.to_string().into()),
        other => Err(not_text(other, key, place)),
    }
}

fn not_text(value: &Value, key: &str, place: &DocumentSource) -> DataError {
    let of_messages = value.as_array().and_then(|list| list.first()?.as_object());
    if of_messages.is_some_and(|message| message.contains_key("content")) {
        return DataError::Unlearnable {
            place: place.clone(),
            what: Unlearnable::Messages(key.to_owned()),
        };
    }
    DataError::FieldNotString {
        place: place.clone(),
        field: key.to_owned(),
        found: json_type(value),
    }
}

/// The prompt of <https://github.com/tatsu-lab/stanford_alpaca>, `PROMPT_DICT` of its `train.py`.
pub(super) fn alpaca_prompt(instruction: &str, input: &str) -> String {
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
