//! Rows with two answers to a prompt, of which one is preferred.

use serde_json::{Map, Value};

use super::conversation::{BESIDE, beside, check_answers, messages, put_system};
use super::{DocumentSource, Fields, json_type};
use crate::chat::{ChatError, Conversation, role};
use crate::error::{DataError, Result};

/// The fields of a pair; the prompt may be in what the two answers begin with.
pub(super) const PAIR: [&str; 3] = ["prompt", "chosen", "rejected"];

/// All fields that a row of a pair may have; of texts, those behind the first three say nothing.
pub(super) fn pair_fields() -> impl Iterator<Item = &'static str> + Clone {
    PAIR.into_iter().chain(BESIDE)
}

/// Which answers of pairs a language model learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learn {
    /// The chosen ones, as examples with their prompts. The rejected ones are not looked at.
    Chosen,
}

impl Learn {
    /// The words of run files.
    pub const WORDS: [(&'static str, Self); 1] = [("chosen", Self::Chosen)];
}

/// A prompt with two answers.
#[derive(Debug, Clone, PartialEq)]
pub enum PreferencePair {
    /// Texts: the answer follows the prompt exactly as it is.
    Texts {
        /// What both follow.
        prompt: String,
        /// The preferred answer.
        chosen: String,
        /// The other one.
        rejected: String,
    },
    /// Messages, which a chat template makes texts of.
    Conversations {
        /// What both follow.
        prompt: Vec<Map<String, Value>>,
        /// The messages of the preferred answer.
        chosen: Vec<Map<String, Value>>,
        /// Those of the other one.
        rejected: Vec<Map<String, Value>>,
        /// The tools that may be called.
        tools: Option<Value>,
        /// What else the template is told.
        variables: Map<String, Value>,
    },
}

impl PreferencePair {
    /// Takes a pair from a row with `chosen`, `rejected` and mostly `prompt`; without one the prompt is what both begin with:
    /// whole messages, or of texts the characters before the first that differs, but for white space at their end. A prompt that
    /// is the text of their first message is none of its own. Messages may have `system`, `tools` and `chat_template_kwargs`.
    ///
    /// # Errors
    ///
    /// [`DataError::MissingField`], [`DataError::FieldNotString`], [`DataError::Pair`]; [`DataError::Chat`] for lists that are
    /// no messages.
    pub fn of_row(
        mut row: Map<String, Value>,
        fields: &Fields,
        place: &DocumentSource,
    ) -> Result<Self> {
        let [prompt, chosen, rejected] = PAIR.map(|field| take(&mut row, fields.key(field)));
        let missing = |field: &'static str| DataError::MissingField {
            place: place.clone(),
            field: fields.key(field).to_owned(),
            keys: row.keys().take(10).cloned().collect(),
            nearest: None,
        };
        let chosen = chosen.ok_or_else(|| missing("chosen"))?;
        let rejected = rejected.ok_or_else(|| missing("rejected"))?;
        if !chosen.is_array() && !rejected.is_array() {
            let text = |field, value| text_of(value, fields.key(field), place);
            let prompt = prompt.map(|prompt| text("prompt", prompt)).transpose()?;
            let pair = (text("chosen", chosen)?, text("rejected", rejected)?);
            return Self::of_texts(prompt, pair, place);
        }
        let in_chat = |error| DataError::Chat {
            place: place.clone(),
            error,
        };
        let list = |field, value| messages(value, fields.key(field)).map_err(in_chat);
        let (mut chosen, mut rejected) = (list("chosen", chosen)?, list("rejected", rejected)?);
        let is_first = |prompt: &Value| {
            let lists = [&chosen, &rejected];
            lists.iter().all(|list| asks(list, prompt))
        };
        let mut prompt = match prompt.filter(|prompt| !is_first(prompt)) {
            Some(prompt) => list("prompt", prompt)?,
            None => shared(&mut chosen, &mut rejected).ok_or_else(|| alone(place))?,
        };
        let field = |field: &'static str| fields.key(field).to_owned();
        let mut take = |field: &'static str| take(&mut row, fields.key(field));
        put_system(&mut prompt, &mut take, &field).map_err(in_chat)?;
        let (tools, variables) = beside(&mut take, &field).map_err(in_chat)?;
        Ok(Self::Conversations {
            prompt,
            chosen,
            rejected,
            tools,
            variables,
        })
    }

    fn of_texts(
        prompt: Option<String>,
        (chosen, rejected): (String, String),
        place: &DocumentSource,
    ) -> Result<Self> {
        if let Some(prompt) = prompt {
            return Ok(Self::Texts {
                prompt,
                chosen,
                rejected,
            });
        }
        let pairs = chosen.chars().zip(rejected.chars());
        let same = pairs.take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8());
        let shared = &chosen[..same.sum()];
        // Who answers with two words behind a space has the space in both.
        let shared = shared.trim_end_matches(char::is_whitespace).len();
        if shared == 0 {
            return Err(alone(place));
        }
        Ok(Self::Texts {
            prompt: chosen[..shared].to_owned(),
            chosen: chosen[shared..].to_owned(),
            rejected: rejected[shared..].to_owned(),
        })
    }

    /// Returns the prompt with the chosen answer as what is learned: a text with the length of its prompt, or a conversation.
    ///
    /// # Errors
    ///
    /// [`ChatError::EmptyAnswer`], [`ChatError::Empty`] for a conversation without one.
    pub(super) fn chosen(self) -> std::result::Result<Chosen, ChatError> {
        match self {
            Self::Texts { prompt, chosen, .. } => Ok(Chosen::Text(prompt, chosen)),
            Self::Conversations {
                prompt,
                chosen,
                tools,
                variables,
                ..
            } => {
                if chosen.is_empty() {
                    return Err(ChatError::NoAnswer);
                }
                let given = prompt.len();
                let messages = [prompt, chosen].concat();
                check_answers(&messages, given)?;
                Ok(Chosen::Conversation(Conversation {
                    messages,
                    tools,
                    variables,
                    given,
                }))
            }
        }
    }
}

/// What is learned of a pair.
pub(super) enum Chosen {
    /// The prompt and the answer.
    Text(String, String),
    Conversation(Conversation),
}

/// Takes a value out of a row, if it says something.
fn take(row: &mut Map<String, Value>, key: &str) -> Option<Value> {
    let value = row.get_mut(key).map(Value::take);
    value.filter(|value| !value.is_null())
}

/// Whether a text is that of the first message of a user, as some sets of data have it twice.
fn asks(messages: &[Map<String, Value>], prompt: &Value) -> bool {
    let mut messages = messages.iter();
    let first = messages.find(|message| role(message) != Some("system"));
    first.is_some_and(|first| {
        role(first) == Some("user") && prompt.is_string() && first.get("content") == Some(prompt)
    })
}

/// Takes the messages that both begin with out of both; `None` if there are none.
fn shared(
    chosen: &mut Vec<Map<String, Value>>,
    rejected: &mut Vec<Map<String, Value>>,
) -> Option<Vec<Map<String, Value>>> {
    let pairs = chosen.iter().zip(rejected.iter());
    let count = pairs.take_while(|(a, b)| a == b).count();
    rejected.drain(..count);
    let shared: Vec<_> = chosen.drain(..count).collect();
    (!shared.is_empty()).then_some(shared)
}

fn text_of(value: Value, field: &str, place: &DocumentSource) -> Result<String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(DataError::FieldNotString {
            place: place.clone(),
            field: field.to_owned(),
            found: json_type(&other),
        }),
    }
}

fn alone(place: &DocumentSource) -> DataError {
    DataError::Pair {
        place: place.clone(),
    }
}
