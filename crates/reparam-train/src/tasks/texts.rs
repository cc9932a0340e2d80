//! How the texts of a run were read: what its result says of it, and how other files are read because of that.

use std::path::{Path, PathBuf};

use reparam_data::chat::Turns;
use reparam_data::preprocess::{Preprocessor, TextOptions};
use reparam_data::source::Learn;
use reparam_data::{ChatOptions, Fields, Format, ReadOptions, Template, read_watched};
use reparam_formats::chat_templates::ChatTemplates;
use reparam_formats::config::ModelJson;
use serde::{Deserialize, Serialize};

use crate::cards::{self, CARD_FILE};
use crate::session::adapter_directory;
use crate::task::{DataRequest, ModelRequest};
use crate::{Result, Stop};

/// How the texts of a run were read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct TextCard {
    task: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) format: Option<Format>,
    #[serde(default, skip_serializing_if = "Fields::is_empty")]
    fields: Fields,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    template: Option<Template>,
    /// The format of all examples where nothing but their fields said it; other data need not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) examples: Option<Format>,
    #[serde(default, skip_serializing_if = "is_default")]
    settings: CardSettings,
}

/// What a run file said of the task's own settings that a prediction needs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct CardSettings {
    #[serde(default)]
    text: TextOptions,
    /// Which turns of the assistant were learned.
    #[serde(default, skip_serializing_if = "is_default")]
    turns: Turns,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl TextCard {
    /// Reads what the adapter of a request says, else the model, and in which file.
    pub(super) fn of(
        request: &ModelRequest,
        json: &ModelJson,
        task: &str,
    ) -> Result<Option<(Self, PathBuf)>> {
        if let Some(directory) = &request.adapter
            && let Some(card) = cards::of_adapter(directory, task)?
        {
            return Ok(Some((card, directory.join(CARD_FILE))));
        }
        let json = &json.json;
        let card = cards::of_model(json.path(), json.map(), task)?;
        Ok(card.map(|card| (card, json.path().to_owned())))
    }

    /// Says how data were read, which had these formats.
    pub(super) fn new(task: &str, read: &ReadOptions, formats: &[Format]) -> Self {
        let told = match (read.format, formats) {
            (None, [format]) => Some(*format).filter(|format| format.is_of_examples()),
            _ => None,
        };
        Self {
            examples: told,
            task: task.to_owned(),
            format: read.format,
            fields: read.fields.clone(),
            template: read.template.clone(),
            settings: CardSettings {
                text: read.text.clone(),
                turns: read
                    .chat
                    .as_ref()
                    .map(|chat| chat.turns)
                    .unwrap_or_default(),
            },
        }
    }

    /// Returns what a run does to texts that says `own` of it: where it says nothing, that is what was done to those that its
    /// adapter, else its model, has learned from.
    pub(super) fn inherited(
        own: Option<TextOptions>,
        adapter: Option<&str>,
        json: &ModelJson,
        task: &str,
    ) -> Result<TextOptions> {
        if let Some(own) = own {
            return Ok(own);
        }
        let json = &json.json;
        let mut card: Option<Self> = match adapter {
            Some(directory) => cards::of_adapter(&adapter_directory(Path::new(directory)), task)?,
            None => None,
        };
        if card.is_none() {
            card = cards::of_model(json.path(), json.map(), task)?;
        }
        Ok(card.map(|card| card.settings.text).unwrap_or_default())
    }

    /// Returns what is done to a text, if something is.
    pub(super) fn steps(&self) -> Result<Option<Preprocessor>> {
        preprocessor(&self.settings.text)
    }

    /// Returns how files are read to be measured, conversations by `templates`, and which file says it if it was not asked for.
    pub(super) fn reading(
        card: Option<(Self, PathBuf)>,
        data: &DataRequest,
        templates: Option<ChatTemplates>,
    ) -> Result<(ReadOptions, Option<PathBuf>)> {
        let text = |card: &Self| card.settings.text.clone();
        let turns = card.as_ref().map(|(card, _)| card.settings.turns);
        let chat = templates.map(|templates| ChatOptions {
            templates,
            turns: turns.unwrap_or_default(),
        });
        let asked = ReadOptions {
            chat,
            text: card
                .as_ref()
                .map(|(card, _)| text(card))
                .unwrap_or_default(),
            format: data.format.as_deref().map(str::parse).transpose()?,
            fields: data.fields.clone().unwrap_or_default(),
            template: data.template.clone(),
            on_error: data.on_error,
            learn: None,
        };
        let by_default = ReadOptions {
            on_error: data.on_error,
            text: asked.text.clone(),
            chat: asked.chat.clone(),
            ..ReadOptions::default()
        };
        match card {
            Some((card, path)) if data.is_as_in_run() => {
                let remembered = ReadOptions {
                    // The chosen answers are all that is learned of pairs.
                    learn: (card.format == Some(Format::Preference)).then_some(Learn::Chosen),
                    format: card.format,
                    fields: card.fields,
                    template: card.template,
                    on_error: data.on_error,
                    text: asked.text,
                    chat: asked.chat,
                };
                let path = (remembered != by_default).then_some(path);
                Ok((remembered.measured(), path))
            }
            _ => Ok((asked.measured(), None)),
        }
    }
}

/// Prepares the steps that are asked for; `None` if there is nothing to do.
pub(super) fn preprocessor(options: &TextOptions) -> Result<Option<Preprocessor>> {
    match options.is_nothing() {
        true => Ok(None),
        false => Ok(Some(Preprocessor::new(options)?)),
    }
}

/// Reads the texts of documents, which the tokenizer of a new model is trained on.
pub(super) fn texts_of(
    paths: &[PathBuf],
    options: &ReadOptions,
    watch: Stop<'_>,
) -> Result<Vec<String>> {
    let documents = read_watched(paths, options, watch)?.documents.into_iter();
    Ok(documents.map(|document| document.text).collect())
}
