//! Conversations: what a chat template makes of one, and which part of that the assistant says.
//!
//! A *chat template* is a text in Jinja that comes with a checkpoint ([`reparam_formats::chat_templates`]). [`ChatTemplate`]
//! compiles it and renders a [`Conversation`] to the text that transformers' `apply_chat_template` makes of it, byte for byte.
//! [`ChatTemplate::render_learned`] also says which bytes of that text are the assistant's, so that they can be learned and the
//! rest only read.
//!
//! # Templates are not trusted
//!
//! A template comes from whoever published the checkpoint. It may ask for no file, and what it may compute, hold and nest is
//! bounded; what is beyond that, like everything else that is wrong with it, is a [`ChatError`] that names the template's line.
//!
//! # Whose text it is
//!
//! Where a template marks what is generated (`{% generation %}`), that is what the assistant says. Elsewhere a turn begins
//! behind the text of what comes before it with the beginning of an answer (`add_generation_prompt`), and ends where the text of
//! the conversation up to and with it ends. Both have to be beginnings of the whole text: some templates write a turn otherwise
//! once another follows, and such a turn is not located, rather than in the wrong place.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

mod clock;
mod engine;
mod error;
mod json;
mod named;
mod template;
#[cfg(test)]
mod tests;
mod turns;

pub use clock::Clock;
pub use error::ChatError;
pub use named::{NAMED_TEMPLATES, named_template};
pub use template::ChatTemplate;
pub use turns::Rendered;

/// A conversation, as a template is given it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    /// The messages: objects with `role` and `content`, and what else the template knows of one.
    pub messages: Vec<Map<String, Value>>,
    /// The tools that may be called, each as a JSON schema.
    pub tools: Option<Value>,
    /// What else the template is told, by name, such as `documents` or `enable_thinking`.
    pub variables: Map<String, Value>,
    /// How many messages, from the first on, are given and never learned.
    pub given: usize,
}

impl Conversation {
    /// Makes one of messages alone.
    #[must_use]
    pub fn new(messages: Vec<Map<String, Value>>) -> Self {
        Self {
            messages,
            ..Self::default()
        }
    }

    /// Returns whether tools may be called.
    #[must_use]
    pub fn has_tools(&self) -> bool {
        self.tools.is_some()
    }
}

/// Makes a message.
#[must_use]
pub fn message(role: &str, content: impl Into<String>) -> Map<String, Value> {
    let content: String = content.into();
    Map::from_iter([
        ("role".to_owned(), role.into()),
        ("content".to_owned(), content.into()),
    ])
}

/// The role of what is learned.
pub(crate) const ASSISTANT: &str = "assistant";

/// Returns the role of a message, if it has one.
pub(crate) fn role(message: &Map<String, Value>) -> Option<&str> {
    message.get("role").and_then(Value::as_str)
}

/// Which of the assistant's turns are learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Turns {
    /// Each.
    #[default]
    All,
    /// The last one of a conversation.
    Last,
}

impl Turns {
    /// The words of run files.
    pub const WORDS: [(&'static str, Self); 2] = [("all", Self::All), ("last", Self::Last)];
}
