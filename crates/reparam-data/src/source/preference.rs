//! Rows with two answers to a prompt, of which one is preferred.

use serde_json::{Map, Value};

use super::conversation::messages;
use super::{DocumentSource, Fields, json_type};
use crate::chat::{ChatError, Conversation};
use crate::error::{DataError, Result};

/// The fields of a pair; the prompt may be in what the two answers begin with.
pub(crate) const PAIR: [&str; 3] = ["prompt", "chosen", "rejected"];

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
    },
}

impl PreferencePair {
    /// Takes a pair from a row with `chosen`, `rejected` and mostly `prompt`; without one the prompt is what both begin with:
    /// whole messages, or of texts the characters before the first that differs, but for white space at their end.
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
        let mut take = |field: &'static str| -> Option<Value> {
            let value = row.get_mut(fields.key(field)).map(Value::take);
            value.filter(|value| !value.is_null())
        };
        let [prompt, chosen, rejected] = PAIR.map(&mut take);
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
        let list = |field, value| {
            messages(value, fields.key(field)).map_err(|error| DataError::Chat {
                place: place.clone(),
                error,
            })
        };
        let (chosen, rejected) = (list("chosen", chosen)?, list("rejected", rejected)?);
        match prompt {
            Some(prompt) => Ok(Self::Conversations {
                prompt: list("prompt", prompt)?,
                chosen,
                rejected,
            }),
            None => Self::of_conversations(chosen, rejected, place),
        }
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

    fn of_conversations(
        mut chosen: Vec<Map<String, Value>>,
        mut rejected: Vec<Map<String, Value>>,
        place: &DocumentSource,
    ) -> Result<Self> {
        let pairs = chosen.iter().zip(&rejected);
        let shared = pairs.take_while(|(a, b)| a == b).count();
        if shared == 0 {
            return Err(alone(place));
        }
        let own = chosen.split_off(shared);
        Ok(Self::Conversations {
            prompt: chosen,
            chosen: own,
            rejected: rejected.split_off(shared),
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
            Self::Conversations { prompt, chosen, .. } => {
                if chosen.is_empty() {
                    return Err(ChatError::NoAnswer);
                }
                let given = prompt.len();
                let messages = [prompt, chosen].concat();
                Ok(Chosen::Conversation(Conversation {
                    given,
                    ..Conversation::new(messages)
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
