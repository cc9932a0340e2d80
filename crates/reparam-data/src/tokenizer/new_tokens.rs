//! New tokens for a tokenizer, in its files.

use std::collections::{BTreeMap, HashMap};
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
    /// `tokenizer.json` and, if it lists added tokens, too, `tokenizer_config.json`; none if no token is new.
    pub files: Vec<(&'static str, Vec<u8>)>,
    /// The tokens that are new, with their ids, ascending.
    pub new: Vec<(String, u32)>,
    /// Those that the vocabulary had, with their ids.
    pub known: Vec<(String, u32)>,
}

/// Adds tokens, each with the next id behind the vocabulary, as transformers' `add_tokens` does. One that the tokenizer has
/// stays what it is; transformers gives it the flags of a new one.
///
/// `bytes` gives the files of the tokenizer by name, if they are there.
///
/// # Errors
///
/// [`DataError::EmptyToken`], [`DataError::NoTokenizer`], [`DataError::TokenIdTaken`] for a vocabulary with gaps, and those of
/// files that cannot be understood.
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
    let there = inner.get_vocab(true).into_iter();
    let there: HashMap<u32, String> = there.map(|(token, id)| (id, token)).collect();
    let (mut new, mut known) = (BTreeMap::new(), Vec::new());
    for token in tokens {
        let content = &token.content;
        if content.trim().is_empty() {
            return Err(DataError::EmptyToken);
        }
        if let Some(id) = inner.token_to_id(content) {
            let said = (content.clone(), id);
            if !new.contains_key(&id) && !known.contains(&said) {
                known.push(said);
            }
            continue;
        }
        let added = AddedToken::from(content.clone(), token.special);
        guard::guarded(|| inner.add_tokens([added.normalized(!token.special)])).map_err(invalid)?;
        let id = inner.token_to_id(content);
        let id = id.ok_or_else(|| invalid(format!("cannot add `{content}`")))?;
        // The next id is the number of tokens, which in a vocabulary with gaps may be one of them.
        if let Some(other) = there.get(&id) {
            return Err(DataError::TokenIdTaken {
                path: path.clone(),
                token: content.clone(),
                id,
                other: other.clone(),
            });
        }
        new.insert(id, content.clone());
    }
    if new.is_empty() {
        return Ok(AddedTokens {
            files: Vec::new(),
            new: Vec::new(),
            known,
        });
    }
    let all = inner.get_added_vocabulary().get_added_tokens_decoder();
    let all: BTreeMap<u32, &AddedToken> = all.iter().map(|(id, token)| (*id, token)).collect();
    let mut json: Map<String, Value> =
        serde_json::from_slice(given).map_err(|error| invalid(error.to_string()))?;
    let listed = json.entry("added_tokens").or_insert_with(|| json!([]));
    let Value::Array(listed) = listed else {
        return Err(invalid("`added_tokens` is no list".to_owned()));
    };
    for (id, token) in &all {
        if !listed.iter().any(|entry| entry["id"] == *id) {
            let mut entry = entry(token);
            entry.shift_insert(0, "id".to_owned(), json!(id));
            listed.push(Value::Object(entry));
        }
    }
    // They are numbered anew in this order.
    listed.sort_by_key(|entry| entry["id"].as_u64());
    let made = text(&json);
    check(&path, &made, &all)?;
    let mut files = vec![(name, made)];
    // transformers 5 lists them in `tokenizer.json` alone, and takes what older versions wrote.
    if let Some(config) = bytes(config_name) {
        let mut json: Map<String, Value> =
            serde_json::from_slice(config).map_err(|error| config_error(directory, &error))?;
        if let Some(Value::Object(listed)) = json.get_mut("added_tokens_decoder") {
            for (id, token) in all.iter().filter(|(id, _)| new.contains_key(*id)) {
                listed.insert(id.to_string(), Value::Object(entry(token)));
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

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "../../assets/stories260K";

    fn added(json: &[u8], config: Option<&[u8]>, tokens: &[&str]) -> Result<AddedTokens> {
        let tokens: Vec<NewToken> = tokens
            .iter()
            .map(|token| NewToken {
                content: (*token).to_owned(),
                special: false,
            })
            .collect();
        let bytes = |name: &str| match name {
            "tokenizer.json" => Some(json),
            "tokenizer_config.json" => config,
            _ => None,
        };
        with_new_tokens(Path::new("m"), bytes, &tokens)
    }

    fn parsed(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).expect("JSON")
    }

    fn stored() -> Value {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(BASE);
        parsed(&std::fs::read(path.join("tokenizer.json")).expect("a file"))
    }

    fn mask() -> Value {
        json!({
            "id": 512, "content": "<mask>", "single_word": false, "lstrip": true,
            "rstrip": false, "normalized": false, "special": true,
        })
    }

    /// Whatever is said of a token that is there stays byte for byte, and an ordinary token of the vocabulary stays one.
    #[test]
    fn what_a_tokenizer_has_is_not_changed() {
        let mut json = stored();
        let listed = json["added_tokens"].as_array_mut().expect("a list");
        listed.push(mask());
        let (given, before) = (json.to_string(), json.clone());
        let ordinary = json["model"]["vocab"].as_object().expect("a vocabulary");
        let ordinary = ordinary
            .iter()
            .find(|(_, id)| **id == 300)
            .expect("a token");
        let known = ["<s>", "<mask>", ordinary.0, "<s>"];
        let found = added(given.as_bytes(), Some(b"{}"), &known).expect("known");
        let ids: Vec<u32> = found.known.iter().map(|(_, id)| *id).collect();
        assert_eq!((ids, found.new.len()), (vec![1, 512, 300], 0));
        assert_eq!(found.files, []);

        let config =
            json!({"added_tokens_decoder": {"1": {"content": "<s>", "special": true, "note": 1}}});
        let more = [known[0], known[1], known[2], "<tool>"];
        let given = (given.as_bytes(), config.to_string());
        let found = added(given.0, Some(given.1.as_bytes()), &more).expect("a new one");
        assert_eq!(found.new, [("<tool>".to_owned(), 513)]);
        let [(_, json), (_, made)] = &found.files[..] else {
            panic!("{} files", found.files.len());
        };
        let after = parsed(json);
        let (before, after) = (&before["added_tokens"], &after["added_tokens"]);
        let before = before.as_array().expect("a list");
        let text = |entries: &[Value]| Value::from(entries.to_vec()).to_string();
        let after = after.as_array().expect("a list");
        assert_eq!(text(&after[..before.len()]), text(before));
        assert_eq!(after.len(), before.len() + 1);
        assert_eq!(after[before.len()]["content"], "<tool>");
        let made = &parsed(made)["added_tokens_decoder"];
        assert_eq!(made["1"], config["added_tokens_decoder"]["1"]);
        assert_eq!(made["513"]["content"], "<tool>");
    }

    /// The next id is the number of tokens, which a vocabulary with a gap has given away already.
    #[test]
    fn an_id_that_is_taken_is_refused() {
        let mut json = stored();
        let vocab = json["model"]["vocab"]
            .as_object_mut()
            .expect("a vocabulary");
        let last = vocab.iter().find(|(_, id)| **id == 511).expect("a token");
        let last = last.0.clone();
        vocab.insert(last.clone(), json!(512));
        let error = added(json.to_string().as_bytes(), None, &["<tool>"]).expect_err("taken");
        let DataError::TokenIdTaken { id, other, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!((*id, other), (512, &last));
        assert!(error.hint().is_some());
    }
}
