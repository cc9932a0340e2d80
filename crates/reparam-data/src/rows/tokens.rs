//! Rows of tokens, each with a tag.

use serde_json::Value;

use super::batch::{in_parallel, located};
use super::error::{Result, RowError};
use super::read::{Row, Rows, Schema};
use super::text::{LabelValue, list};
use crate::order::ContentHash;
use crate::source::{DocumentSource, json_type};
use crate::tokenizer::{EncodedWords, TextTokenizer};
use crate::watch::{Interrupted, Watch};

#[cfg(test)]
mod tests;

/// The fields of tokens with tags, to learn from and to measure on.
pub const TAGGED_TOKENS: Schema = Schema {
    required: &["tokens", "tags"],
    optional: &[],
    unread: &[],
};

/// The fields of tokens to predict the tags of; tags may be there and are not read.
pub const TOKENS: Schema = Schema {
    required: &["tokens"],
    optional: &[],
    unread: &["tags"],
};

/// The tokens of a sentence with what is said of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// The tokens: words, or characters of a language that has none.
    pub tokens: Vec<String>,
    /// One tag a token, if there are any.
    pub tags: Option<Vec<LabelValue>>,
    /// Where it stands.
    pub place: DocumentSource,
}

/// Takes the tokens and the tags of rows.
///
/// `tokens` is an array of strings, `tags` one of names or indices; in a table's cell both are JSON arrays. A row whose tokens
/// and tags are not as many is an error in its place ([`RowError::TagCount`]), as is a field of another type.
#[must_use]
pub fn token_rows(rows: Rows<Row>) -> Rows<TokenRow> {
    rows.and_then(|row| {
        let tokens = tokens(&row)?;
        let tags = row.value("tags").map(|value| list(&row, "tags", value));
        let tags = tags.transpose()?;
        match &tags {
            Some(tags) if tags.len() != tokens.len() => Err(RowError::TagCount {
                place: row.place,
                tokens: tokens.len(),
                tags: tags.len(),
            }),
            _ => Ok(TokenRow {
                tokens,
                tags,
                place: row.place,
            }),
        }
    })
}

fn tokens(row: &Row) -> Result<Vec<String>> {
    let wrong = |found: &str| row.wrong_type("tokens", "a list of strings", found.to_owned());
    let parsed;
    let entries = match row.value("tokens") {
        Some(Value::Array(entries)) => entries,
        Some(Value::String(text)) => {
            parsed = serde_json::from_str::<Vec<Value>>(text);
            parsed.as_ref().map_err(|_| wrong("a string"))?
        }
        other => return Err(wrong(json_type(other.unwrap_or(&Value::Null)))),
    };
    let tokens = entries.iter().map(|entry| match entry {
        Value::String(token) => Ok(token.clone()),
        other => Err(wrong(&format!("a list with {}", json_type(other)))),
    });
    tokens.collect()
}

/// Encodes rows in parallel, each cut to `max_length` tokens; see [`TextTokenizer::encode_words`]. `tokens` gives the tokens of a
/// row.
///
/// A row that cannot be encoded becomes an error in its place.
///
/// # Errors
///
/// [`Interrupted`] when `watch` asks for it.
pub fn encode_tokens<T: Send>(
    rows: Rows<T>,
    tokenizer: &TextTokenizer,
    max_length: usize,
    tokens: impl Fn(&T) -> &TokenRow + Sync,
    watch: Watch<'_>,
) -> std::result::Result<Rows<(T, EncodedWords)>, Interrupted> {
    let encode = |row: T| {
        let TokenRow { tokens, place, .. } = tokens(&row);
        let encoded = tokenizer.encode_words(tokens, max_length);
        let encoded = encoded.map_err(|error| located(place, error))?;
        Ok((row, encoded))
    };
    in_parallel(rows, encode, watch)
}

impl TokenRow {
    /// A digest of what the row says: its tokens and its tags.
    #[must_use]
    pub fn content(&self) -> ContentHash {
        let tokens = self.tokens.iter().map(String::as_bytes);
        let tags = self.tags.iter().flatten();
        let has_tags = [u8::from(self.tags.is_some())];
        let tags = tags.map(|tag| tag.text().as_bytes());
        ContentHash::of([&has_tags[..]].into_iter().chain(tokens).chain(tags))
    }
}
