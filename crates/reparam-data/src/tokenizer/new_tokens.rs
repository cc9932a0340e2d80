//! New tokens for a tokenizer, in its files.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::AddedToken;

use super::special::TokenizerConfig;
use super::{FILES, guard, no_tokenizer};
use crate::error::{DataError, Result};

/// A token to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// What it is in a text.
    pub content: String,
    /// Whether it is special: left out of what is decoded for people, and looked for before a text is normalized.
    pub special: bool,
}

/// What adding tokens gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedTokens {
    /// `tokenizer.json` and, if it lists added tokens, too, `tokenizer_config.json`.
    pub files: Vec<(&'static str, Vec<u8>)>,
    /// The tokens that are new, with their ids, ascending.
    pub new: Vec<(String, u32)>,
    /// Those that the vocabulary had, with their ids.
    pub known: Vec<(String, u32)>,
}

/// Adds tokens as transformers' `add_tokens` does: each has the next id behind the vocabulary, or the id that it has already.
///
/// `bytes` gives the files of the tokenizer by name, if they are there.
///
/// # Errors
///
/// [`DataError::EmptyToken`], [`DataError::NoTokenizer`], and those of files that cannot be understood.
pub fn with_new_tokens<'a>(
    directory: &Path,
    bytes: impl Fn(&str) -> Option<&'a [u8]>,
    tokens: &[NewToken],
) -> Result<AddedTokens> {
    let [name, config_name, map_name] = FILES;
    let path = directory.join(name);
    let given = bytes(name).ok_or_else(|| no_tokenizer(directory))?;
    let invalid = |message: String| DataError::InvalidTokenizer {
        path: path.clone(),
        message,
    };
    let mut inner = guard::tokenizer(given).map_err(invalid)?;
    let config = TokenizerConfig::read(
        (directory.join(config_name), bytes(config_name)),
        (directory.join(map_name), bytes(map_name)),
    )?;
    super::add_tokens(&mut inner, &config)?;
    let (mut new, mut known) = (BTreeMap::new(), Vec::new());
    for token in tokens {
        if token.content.trim().is_empty() {
            return Err(DataError::EmptyToken);
        }
        let before = inner.token_to_id(&token.content);
        let added = AddedToken::from(token.content.clone(), token.special);
        guard::guarded(|| inner.add_tokens([added.normalized(!token.special)])).map_err(invalid)?;
        let now = inner.token_to_id(&token.content);
        let id = now.ok_or_else(|| invalid(format!("cannot add `{}`", token.content)))?;
        match before {
            Some(_) if new.contains_key(&id) => {}
            Some(_) => known.push((token.content.clone(), id)),
            None => {
                new.insert(id, token.content.clone());
            }
        }
    }
    let all = inner.get_added_vocabulary().get_added_tokens_decoder();
    let all: BTreeMap<u32, &AddedToken> = all.iter().map(|(id, token)| (*id, token)).collect();
    let mut json: Map<String, Value> =
        serde_json::from_slice(given).map_err(|error| invalid(error.to_string()))?;
    let listed = all.iter().map(|(id, token)| {
        let mut entry = entry(token);
        entry.shift_insert(0, "id".to_owned(), json!(id));
        Value::Object(entry)
    });
    json.insert("added_tokens".to_owned(), listed.collect());
    let made = text(&json);
    check(&path, &made, &all)?;
    let mut files = vec![(name, made)];
    // transformers 5 lists them in `tokenizer.json` alone, and takes what older versions wrote.
    if let Some(config) = bytes(config_name) {
        let mut json: Map<String, Value> =
            serde_json::from_slice(config).map_err(|error| config_error(directory, &error))?;
        if let Some(Value::Object(listed)) = json.get_mut("added_tokens_decoder") {
            for (id, token) in &all {
                let added = new.contains_key(id) || known.iter().any(|(_, known)| known == id);
                if added {
                    listed.insert(id.to_string(), Value::Object(entry(token)));
                }
            }
            files.push((config_name, text(&json)));
        }
    }
    let new = new.into_iter().map(|(id, token)| (token, id)).collect();
    Ok(AddedTokens { files, new, known })
}

fn entry(token: &AddedToken) -> Map<String, Value> {
    let flags = [
        ("single_word", token.single_word),
        ("lstrip", token.lstrip),
        ("rstrip", token.rstrip),
        ("normalized", token.normalized),
        ("special", token.special),
    ];
    let content = ("content".to_owned(), json!(token.content));
    let flags = flags.map(|(key, value)| (key.to_owned(), json!(value)));
    std::iter::once(content).chain(flags).collect()
}

fn text(json: &Map<String, Value>) -> Vec<u8> {
    format!("{:#}\n", Value::Object(json.clone())).into_bytes()
}

fn config_error(directory: &Path, error: &serde_json::Error) -> DataError {
    DataError::InvalidTokenizerConfig {
        path: directory.join(FILES[1]),
        message: error.to_string(),
    }
}

/// Checks that who reads the file gives the tokens the same ids: they are numbered anew, and a file may have gaps.
fn check(path: &Path, made: &[u8], all: &BTreeMap<u32, &AddedToken>) -> Result<()> {
    let again = guard::tokenizer(made).map_err(|message| DataError::InvalidTokenizer {
        path: path.to_owned(),
        message,
    })?;
    for (expected, token) in all {
        let found = again.token_to_id(&token.content);
        if found != Some(*expected) {
            return Err(DataError::AddedTokenId {
                path: path.to_owned(),
                token: token.content.clone(),
                expected: *expected,
                found,
            });
        }
    }
    Ok(())
}
