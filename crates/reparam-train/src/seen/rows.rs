//! Rows as text, with what is learned of them marked.

use reparam_data::TextTokenizer;
use serde::Serialize;

use crate::Result;

/// A row as a model sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SeenRow {
    /// Where it stands, if it was read from a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// What it is, where a row is more than its tokens: its labels, the part of a text that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Its tokens.
    pub tokens: u64,
    /// Its text in parts; joined, they are what its tokens stand for.
    pub parts: Vec<SeenPart>,
}

/// Tokens one after the other of which the same is to be said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SeenPart {
    /// What they stand for; of special tokens their names.
    pub text: String,
    /// Whether they are predicted.
    pub learned: bool,
    /// Whether they are special tokens.
    pub special: bool,
    /// What is right of them, where that is something else than they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The tokens.
    pub ids: Vec<u32>,
}

/// A token of a row that is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Whether it is predicted.
    pub learned: bool,
    /// What is right of it, where that is something else than it is; such a token is a part of its own.
    pub label: Option<String>,
}

impl Token {
    /// A token that is read and not learned.
    #[must_use]
    pub fn given(id: u32) -> Self {
        Self {
            id,
            learned: false,
            label: None,
        }
    }
}

impl SeenRow {
    /// Makes text of tokens.
    ///
    /// # Errors
    ///
    /// Those of [`TextTokenizer::decode`].
    ///
    /// # Cost
    ///
    /// Each part decodes all tokens up to its end, because a decoder may join what two tokens stand for.
    pub fn decode(tokenizer: &TextTokenizer, tokens: &[Token]) -> Result<Self> {
        let mut parts = Vec::new();
        let (mut ids, mut before) = (Vec::with_capacity(tokens.len()), String::new());
        let is_special = |token: &Token| tokenizer.is_special(token.id);
        let is_one = |a: &Token, b: &Token| {
            let plain = a.label.is_none() && b.label.is_none();
            // A special token is a part of its own, so that two of them are seen to be two.
            plain && a.learned == b.learned && !is_special(a) && !is_special(b)
        };
        for some in tokens.chunk_by(is_one) {
            let own: Vec<u32> = some.iter().map(|token| token.id).collect();
            ids.extend(&own);
            let all = tokenizer.decode(&ids, false)?;
            // What a later token has changed of the text before it is decoded by itself.
            let text = match all.strip_prefix(&before) {
                Some(text) => text.to_owned(),
                None => tokenizer.decode(&own, false)?,
            };
            before = all;
            parts.push(SeenPart {
                text,
                learned: some[0].learned,
                special: is_special(&some[0]),
                label: some[0].label.clone(),
                ids: own,
            });
        }
        Ok(Self {
            place: None,
            label: None,
            tokens: tokens.len() as u64,
            parts,
        })
    }

    /// Sets where it stands.
    #[must_use]
    pub fn at(self, place: impl Into<String>) -> Self {
        Self {
            place: Some(place.into()),
            ..self
        }
    }

    /// Sets what it is.
    #[must_use]
    pub fn labelled(self, label: impl Into<String>) -> Self {
        Self {
            label: Some(label.into()),
            ..self
        }
    }
}
