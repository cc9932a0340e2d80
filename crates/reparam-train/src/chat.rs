//! Conversations with a loaded model: the chat template that is used, and what is said.

use std::ops::ControlFlow;
use std::path::Path;

use reparam_data::TextTokenizer;
use reparam_data::chat::{ChatError, ChatTemplate, Clock, Conversation, message, named_template};
use reparam_formats::chat_templates::{ChatTemplates, TEMPLATE_FILE, TemplateText};
use reparam_formats::file;
use reparam_models::{Sampling, TextRead};
use serde_json::{Map, Value};

use crate::generate::{FinishReason, Request};
use crate::{Generated, Result, Session, Stop, TrainError};

/// What the name of a file of a template ends with.
const EXTENSION: &str = ".jinja";

/// The most tokens of an answer, if nothing says it.
const MOST_TOKENS: usize = 512;

/// Checks that a word is the name of a template, or could be the path of one.
pub(crate) fn check_name(name: &str) -> Result<(), ChatError> {
    match name.ends_with(EXTENSION) || named_template(name).is_some() {
        true => Ok(()),
        false => Err(ChatError::UnknownTemplate {
            name: name.to_owned(),
        }),
    }
}

/// Returns the template that a name or a path stands for.
pub(crate) fn chosen_template(name: &str) -> Result<TemplateText> {
    check_name(name)?;
    if let Some(template) = named_template(name) {
        return Ok(template);
    }
    Ok(TemplateText {
        text: file::read_text(Path::new(name))?,
        from: name.into(),
    })
}

/// Returns the template that is beside an adapter, if there is one.
pub(crate) fn template_of_adapter(directory: &Path) -> Result<Option<TemplateText>> {
    let from = directory.join(TEMPLATE_FILE);
    Ok(match file::is_there(&from)? {
        true => Some(TemplateText {
            text: file::read_text(&from)?,
            from,
        }),
        false => None,
    })
}

/// Names the tokens that begin and end a text where the tokenizer's files do not, for a template that is not the model's.
fn with_tokens(templates: ChatTemplates, tokenizer: &TextTokenizer) -> ChatTemplates {
    let special = tokenizer.special_tokens();
    let token = |id: Option<u32>| id.and_then(|id| tokenizer.token(id));
    templates
        .with_token("bos_token", token(special.bos))
        .with_token("eos_token", token(special.eos))
}

impl Session {
    /// Returns the chat templates: the one that a name or a path stands for, else that of the adapter, else those of the model.
    ///
    /// # Errors
    ///
    /// An unknown name, and a file that cannot be read.
    pub fn chat_templates(&self, chosen: Option<&str>) -> Result<ChatTemplates> {
        let chosen = chosen.map(chosen_template).transpose()?;
        self.templates_with(chosen)
    }

    /// [`chat_templates`](Self::chat_templates) with a template that was read.
    pub(crate) fn templates_with(&self, chosen: Option<TemplateText>) -> Result<ChatTemplates> {
        let templates = self.files.chat_templates()?;
        Ok(match chosen.or_else(|| self.adapter_template.clone()) {
            Some(template) => with_tokens(templates.with(template), &self.tokenizer),
            None => templates,
        })
    }
}

/// A conversation with a model.
#[derive(Debug)]
pub struct Chat<'a> {
    session: &'a Session,
    template: ChatTemplate,
    messages: Vec<Map<String, Value>>,
    /// The tokens that end an answer.
    ends: Vec<u32>,
    /// The text that ends an answer, where that is no token.
    closing: Option<String>,
    /// What the model has read of the conversation.
    read: Option<TextRead>,
}

impl<'a> Chat<'a> {
    /// Begins a conversation; `chosen` is the name or the path of a template instead of the model's, and `system` what the model
    /// is told first.
    ///
    /// # Errors
    ///
    /// [`ChatError::NoTemplate`], and those of a template that cannot be read.
    pub fn new(session: &'a Session, chosen: Option<&str>, system: Option<&str>) -> Result<Self> {
        let templates = session.chat_templates(chosen)?;
        let template = ChatTemplate::of(&templates, false, Clock::System)?;
        let (more_ends, closing) = end_of_turn(&template, &session.tokenizer)?;
        let mut ends = session.end_of_text.clone();
        ends.extend(more_ends);
        let mut chat = Self {
            session,
            template,
            messages: Vec::new(),
            ends,
            closing,
            read: None,
        };
        chat.begin(system);
        Ok(chat)
    }

    /// Forgets what was said, and begins anew.
    pub fn begin(&mut self, system: Option<&str>) {
        let system = system.map(|text| message("system", text));
        self.messages = system.into_iter().collect();
    }

    /// What was said.
    #[must_use]
    pub fn messages(&self) -> &[Map<String, Value>] {
        &self.messages
    }

    /// What the model is told first, if something is.
    #[must_use]
    pub fn system(&self) -> Option<&str> {
        let first = self.messages.first()?;
        let is_system = first.get("role").and_then(Value::as_str) == Some("system");
        first.get("content")?.as_str().filter(|_| is_system)
    }

    /// Says something, and hands out the answer piece by piece until it is told to break off; the first piece is empty, as that of
    /// [`Session::generate`]. Both become part of the
    /// conversation, unless there is an error, or the answer is broken off before it begins. An answer has 512 tokens at most if nothing else is asked for, and fewer where the
    /// model's positions end.
    ///
    /// # Errors
    ///
    /// A template that refuses the conversation, and those of [`Session::generate`].
    pub fn answer(
        &mut self,
        said: &str,
        max_new_tokens: Option<usize>,
        sampling: Sampling,
        stop: Stop<'_>,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generated> {
        let mut messages = self.messages.clone();
        messages.push(message("user", said));
        let conversation = Conversation::new(messages);
        let text = self.template.render(&conversation, true)?;
        let prompt = self.session.tokenizer.encode(&text, false)?;
        let positions = self.session.model.architecture().max_positions;
        let room = positions.saturating_sub(prompt.len()).max(1);
        let request = Request {
            prompt,
            max_new_tokens: max_new_tokens.unwrap_or(MOST_TOKENS.min(room)),
            sampling,
            end_of_text: &self.ends,
            closing: self.closing.as_deref(),
            read: self.read.take(),
        };
        let (generated, read) = self.session.generate_tokens(request, stop, on_text)?;
        self.read = Some(read);
        if generated.finish_reason == FinishReason::Stopped && generated.tokens.is_empty() {
            return Ok(generated);
        }
        self.messages = conversation.messages;
        self.messages.push(message("assistant", &*generated.text));
        Ok(generated)
    }
}

/// What ends a turn of the assistant, besides what ends a text: a token, or a text where the tokenizer has no token for it.
fn end_of_turn(
    template: &ChatTemplate,
    tokenizer: &TextTokenizer,
) -> Result<(Option<u32>, Option<String>)> {
    const ANSWER: &str = "reply";
    let probe = [message("user", "question"), message("assistant", ANSWER)];
    // What a template makes of a conversation that it refuses is seen when there is one.
    let Ok(text) = template.render(&Conversation::new(probe.to_vec()), false) else {
        return Ok((None, None));
    };
    let Some((_, behind)) = text.rsplit_once(ANSWER) else {
        return Ok((None, None));
    };
    let behind = behind.trim();
    let ids = tokenizer.encode(behind, false)?;
    let is_blank = |id: &u32| {
        let text = tokenizer.decode(&[*id], false);
        text.is_ok_and(|text| text.trim().is_empty())
    };
    let first = ids.into_iter().find(|id| !is_blank(id));
    Ok(match first {
        Some(id) if tokenizer.is_special(id) => (Some(id), None),
        Some(_) => (None, Some(behind.to_owned())),
        None => (None, None),
    })
}

impl From<ChatError> for TrainError {
    fn from(error: ChatError) -> Self {
        Self::Data(error.into())
    }
}
