//! Which tokens are special, from the files beside `tokenizer.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokenizers::{Tokenizer, TruncationDirection};

use crate::error::{DataError, Result};
use crate::source::json_type;

/// The special tokens' ids in a model's `config.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// `bos_token_id`.
    pub bos: Option<u32>,
    /// `eos_token_id`, which may be several; the first one ends a document.
    pub eos: Vec<u32>,
    /// `pad_token_id`.
    pub pad: Option<u32>,
}

impl SpecialIds {
    /// Takes `bos_token_id`, `eos_token_id` (a number or a list) and `pad_token_id` from a `config.json` or
    /// `generation_config.json`. What is missing, null, negative or no number is left out.
    #[must_use]
    pub fn from_config(config: &Value) -> Self {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let eos = match &config["eos_token_id"] {
            Value::Array(ids) => ids.iter().filter_map(id).collect(),
            one => id(one).into_iter().collect(),
        };
        Self {
            bos: id(&config["bos_token_id"]),
            eos,
            pad: id(&config["pad_token_id"]),
        }
    }
}

/// The special tokens of a loaded tokenizer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a text.
    pub bos: Option<u32>,
    /// Ends a document.
    pub eos: Option<u32>,
    /// Fills up a batch elsewhere; not used here.
    pub pad: Option<u32>,
    /// Stands for what the vocabulary has no token for.
    pub unk: Option<u32>,
    /// Stands for a token that is to be guessed.
    pub mask: Option<u32>,
    /// The tokens that end a generated text: [`SpecialTokens::eos`] and all of [`SpecialIds::eos`], ascending.
    pub stop: Vec<u32>,
}

/// What `tokenizer_config.json` and `special_tokens_map.json` say.
#[derive(Debug, Default)]
pub(super) struct TokenizerConfig {
    /// `tokenizer_config.json`.
    pub(super) path: PathBuf,
    /// Tokens to be added, by id.
    pub(super) added: BTreeMap<u32, AddedTokenEntry>,
    /// The side on which rows that are too long are cut.
    pub(super) truncation_side: TruncationDirection,
    /// The token of each role and the file that names it.
    roles: BTreeMap<&'static str, (String, PathBuf)>,
}

/// An entry of `added_tokens_decoder`.
#[derive(Debug, Deserialize)]
pub(super) struct AddedTokenEntry {
    pub(super) content: String,
    #[serde(default)]
    pub(super) single_word: bool,
    #[serde(default)]
    pub(super) lstrip: bool,
    #[serde(default)]
    pub(super) rstrip: bool,
    pub(super) normalized: Option<bool>,
    #[serde(default)]
    pub(super) special: bool,
}

const ROLES: [(&str, &str); 5] = [
    ("bos", "bos_token"),
    ("eos", "eos_token"),
    ("pad", "pad_token"),
    ("unk", "unk_token"),
    ("mask", "mask_token"),
];

impl TokenizerConfig {
    /// Reads the configuration and the map of special tokens, each as its path and its bytes, if it is there.
    pub(super) fn read(
        (path, bytes): (PathBuf, Option<&[u8]>),
        (map_path, map): (PathBuf, Option<&[u8]>),
    ) -> Result<Self> {
        let mut config = Self {
            path: path.clone(),
            ..Self::default()
        };
        if let Some(bytes) = bytes {
            let value = read_json(&path, bytes)?;
            config.take_roles(&path, &value)?;
            config.truncation_side = match value.get("truncation_side").and_then(Value::as_str) {
                None | Some("right") => TruncationDirection::Right,
                Some("left") => TruncationDirection::Left,
                Some(side) => {
                    let message = format!("`truncation_side` is `{side}`, not `left` or `right`");
                    return Err(config.invalid(message));
                }
            };
            config.added = match value.get("added_tokens_decoder") {
                None | Some(Value::Null) => BTreeMap::new(),
                Some(added) => {
                    let error = |error| config.invalid(format!("`added_tokens_decoder`: {error}"));
                    from_value(added).map_err(error)?
                }
            };
        }
        if let Some(map) = map {
            config.take_roles(&map_path, &read_json(&map_path, map)?)?;
        }
        Ok(config)
    }

    pub(super) fn invalid(&self, message: String) -> DataError {
        DataError::InvalidTokenizerConfig {
            path: self.path.clone(),
            message,
        }
    }

    /// Takes the roles that no earlier file has filled.
    fn take_roles(&mut self, path: &Path, value: &Value) -> Result<()> {
        for (role, key) in ROLES {
            let token = match value.get(key) {
                None | Some(Value::Null) => continue,
                Some(Value::String(token)) => token,
                Some(Value::Object(object)) => match object.get("content") {
                    Some(Value::String(token)) => token,
                    _ => return Err(invalid(path, format!("`{key}` has no string `content`"))),
                },
                Some(other) => {
                    let found = json_type(other);
                    return Err(invalid(path, format!("`{key}` is {found}, not a token")));
                }
            };
            let entry = || (token.clone(), path.to_owned());
            self.roles.entry(role).or_insert_with(entry);
        }
        Ok(())
    }

    /// Finds the ids of the special tokens: by name, else from the model's configuration.
    pub(super) fn resolve(&self, tokenizer: &Tokenizer, ids: &SpecialIds) -> Result<SpecialTokens> {
        let named = |role| self.roles.get(role);
        let required = |role: &'static str, configured: Option<u32>| match named(role) {
            Some((token, path)) => {
                let unknown = || DataError::UnknownSpecialToken {
                    path: path.clone(),
                    role,
                    token: token.clone(),
                };
                tokenizer.token_to_id(token).map(Some).ok_or_else(unknown)
            }
            None => match configured {
                Some(id) if tokenizer.id_to_token(id).is_none() => {
                    Err(DataError::UnknownSpecialId { role, id })
                }
                configured => Ok(configured),
            },
        };
        let optional = |role| named(role).and_then(|(token, _)| tokenizer.token_to_id(token));
        let bos = required("bos", ids.bos)?;
        let eos = required("eos", ids.eos.first().copied())?;
        let mut stop: Vec<u32> = ids.eos.iter().copied().chain(eos).collect();
        stop.sort_unstable();
        stop.dedup();
        let pad = optional("pad").or(ids.pad);
        Ok(SpecialTokens {
            bos,
            eos,
            pad,
            unk: optional("unk"),
            mask: optional("mask"),
            stop,
        })
    }
}

fn invalid(path: &Path, message: String) -> DataError {
    DataError::InvalidTokenizerConfig {
        path: path.to_owned(),
        message,
    }
}

/// The byte order mark, which editors of other systems write and JSON does not have.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// Reads the JSON object that a file is.
fn read_json(path: &Path, bytes: &[u8]) -> Result<Value> {
    let value: Value = serde_json::from_slice(bytes.strip_prefix(MARK).unwrap_or(bytes))
        .map_err(|error| invalid(path, error.to_string()))?;
    if !value.is_object() {
        return Err(invalid(
            path,
            format!("expected an object, found {}", json_type(&value)),
        ));
    }
    Ok(value)
}

fn from_value<T: DeserializeOwned>(value: &Value) -> serde_json::Result<T> {
    // By way of the text, because map keys that are numbers are only read from a text.
    serde_json::from_str(&value.to_string())
}
