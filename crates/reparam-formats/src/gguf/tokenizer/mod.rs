//! Tokenizers: what `tokenizer.json` says, as llama.cpp knows it.
//!
//! llama.cpp has its own implementations and picks one by name, so a tokenizer is written only if all of its steps are those of
//! one of them. Two kinds are: BPE over bytes ([`bytes`]) and BPE over characters as SentencePiece has it ([`pieces`]).

mod bytes;
mod pieces;
mod steps;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{GgufError, GgufValue};
use crate::config::JsonObject;
use steps::Steps;

/// What is read of a tokenizer.
#[derive(Debug, Clone, Copy)]
pub struct TokenizerFiles<'a> {
    /// What messages call `tokenizer.json`.
    pub path: &'a Path,
    /// Its text.
    pub tokenizer: &'a str,
    /// The chat template, if there is one.
    pub chat_template: Option<&'a str>,
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// The token that ends one.
    pub eos: Option<u32>,
    /// The token that fills up a batch.
    pub pad: Option<u32>,
    /// The rows of the table of token vectors.
    pub rows: usize,
}

/// A tokenizer as llama.cpp knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct GgufTokenizer {
    /// The implementation.
    model: &'static str,
    /// How texts are cut into words.
    pre: &'static str,
    tokens: Vec<String>,
    kinds: Vec<i32>,
    /// Which pieces are joined first: the larger ones.
    scores: Option<Vec<f32>>,
    merges: Option<Vec<String>>,
    special: [(&'static str, Option<u32>); 4],
    adds: [bool; 2],
    space_prefix: Option<bool>,
    chat_template: Option<String>,
    notes: Vec<String>,
}

/// The kinds of tokens.
mod kind {
    pub(super) const NORMAL: i32 = 1;
    pub(super) const UNKNOWN: i32 = 2;
    pub(super) const CONTROL: i32 = 3;
    pub(super) const USER_DEFINED: i32 = 4;
    pub(super) const UNUSED: i32 = 5;
    pub(super) const BYTE: i32 = 6;
}

impl GgufTokenizer {
    /// Reads a tokenizer.
    ///
    /// # Errors
    ///
    /// [`GgufError::Tokenizer`] for one that llama.cpp does not have, [`GgufError::TokenBeyondTable`], and a file that is no
    /// tokenizer.
    pub fn read(files: &TokenizerFiles<'_>) -> Result<Self, GgufError> {
        let json = JsonObject::parse(files.path, files.tokenizer)?;
        let steps = Steps::read(&json)?;
        let vocabulary = Vocabulary::read(&json, files)?;
        let mut tokenizer = match steps.is_over_bytes() {
            true => bytes::tokenizer(&json, &steps, vocabulary)?,
            false => pieces::tokenizer(&json, &steps, vocabulary)?,
        };
        let [begins, ends] = steps.adds();
        let is = |token: Option<u32>, id: Option<u32>| token.is_none_or(|_| token == id);
        if !is(begins, files.bos) || !is(ends, files.eos) {
            let reason = "its template adds other tokens than those that begin and end a text";
            return Err(refuse(&json, reason));
        }
        tokenizer.adds = [begins.is_some(), ends.is_some()];
        for (name, id) in &mut tokenizer.special {
            *id = match *name {
                "bos" => files.bos,
                "eos" => files.eos,
                "padding" => files.pad,
                _ => *id,
            };
        }
        tokenizer.chat_template = files.chat_template.map(str::to_owned);
        Ok(tokenizer)
    }

    /// Returns what of the tokenizer llama.cpp does otherwise, for the user to know.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Returns the keys of the file.
    pub(super) fn metadata(&self) -> Vec<(String, GgufValue)> {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let text = |name, value: &str| (key(name), GgufValue::Text(value.to_owned()));
        let mut metadata = vec![
            text("model", self.model),
            text("pre", self.pre),
            (key("tokens"), GgufValue::Texts(self.tokens.clone())),
        ];
        if let Some(scores) = &self.scores {
            metadata.push((key("scores"), GgufValue::F32s(scores.clone())));
        }
        metadata.push((key("token_type"), GgufValue::I32s(self.kinds.clone())));
        if let Some(merges) = &self.merges {
            metadata.push((key("merges"), GgufValue::Texts(merges.clone())));
        }
        for (name, id) in self.special {
            if let Some(id) = id {
                metadata.push((key(&format!("{name}_token_id")), GgufValue::U32(id)));
            }
        }
        for (name, adds) in ["add_bos_token", "add_eos_token"]
            .into_iter()
            .zip(self.adds)
        {
            metadata.push((key(name), GgufValue::Bool(adds)));
        }
        if let Some(adds) = self.space_prefix {
            metadata.push((key("add_space_prefix"), GgufValue::Bool(adds)));
        }
        if let Some(template) = &self.chat_template {
            let template = GgufValue::Text(template.clone());
            metadata.push(("tokenizer.chat_template".to_owned(), template));
        }
        metadata
    }
}

/// The error of a tokenizer that llama.cpp does not have.
fn refuse(json: &JsonObject, reason: impl Into<String>) -> GgufError {
    GgufError::Tokenizer {
        path: json.path().to_path_buf(),
        reason: reason.into(),
    }
}

/// The tokens by id, one for each row of the table.
struct Vocabulary {
    path: PathBuf,
    tokens: Vec<Option<String>>,
    kinds: Vec<i32>,
    /// The tokens of the model, as it has them.
    of_model: Map<String, Value>,
    /// Pairs of tokens that are joined, in the order in which they are.
    merges: Vec<[String; 2]>,
}

impl Vocabulary {
    fn read(json: &JsonObject, files: &TokenizerFiles<'_>) -> Result<Self, GgufError> {
        let model = json.object("model")?.ok_or_else(|| json.missing("model"))?;
        let vocab = model
            .object("vocab")?
            .ok_or_else(|| model.missing("vocab"))?;
        let mut vocabulary = Self {
            path: json.path().to_path_buf(),
            tokens: vec![None; files.rows],
            kinds: vec![kind::UNUSED; files.rows],
            of_model: vocab.map().clone(),
            merges: merges(&model)?,
        };
        for (token, id) in vocab.map() {
            let id = id.as_u64();
            let id = id.ok_or_else(|| vocab.wrong_type(token, "a whole number"))?;
            vocabulary.put(id, token.clone(), kind::NORMAL)?;
        }
        let unknown = model.str("unk_token")?.map(str::to_owned);
        let added = match json.get("added_tokens") {
            None => &[][..],
            Some(Value::Array(added)) => added,
            Some(_) => return Err(json.wrong_type("added_tokens", "a list").into()),
        };
        for entry in added {
            let content = entry.get("content").and_then(Value::as_str);
            let id = entry.get("id").and_then(Value::as_u64);
            let (Some(content), Some(id)) = (content, id) else {
                return Err(json.wrong_type("added_tokens", "a list of tokens").into());
            };
            let is_special = entry.get("special").and_then(Value::as_bool);
            let (text, kind) = match is_special.unwrap_or(false) {
                true if unknown.as_deref() == Some(content) => (content.to_owned(), kind::UNKNOWN),
                true => (content.to_owned(), kind::CONTROL),
                // llama.cpp compares them with texts before a space becomes anything else.
                false => (content.replace('\u{2581}', " "), kind::USER_DEFINED),
            };
            vocabulary.put(id, text, kind)?;
        }
        Ok(vocabulary)
    }

    fn put(&mut self, id: u64, token: String, kind: i32) -> Result<(), GgufError> {
        let rows = self.tokens.len();
        let place = usize::try_from(id).ok().filter(|id| *id < rows);
        let Some(place) = place else {
            let path = self.path.clone();
            return Err(GgufError::TokenBeyondTable { path, id, rows });
        };
        self.tokens[place] = Some(token);
        self.kinds[place] = kind;
        Ok(())
    }

    /// Gives every row a token: some have more rows than tokens.
    fn filled(tokens: Vec<Option<String>>) -> Vec<String> {
        let tokens = tokens.into_iter().enumerate();
        tokens
            .map(|(id, token)| token.unwrap_or_else(|| format!("[PAD{id}]")))
            .collect()
    }
}

/// Reads `merges`: pairs, or texts with a space between the two.
fn merges(model: &JsonObject) -> Result<Vec<[String; 2]>, GgufError> {
    let Some(Value::Array(merges)) = model.get("merges") else {
        return Ok(Vec::new());
    };
    let pair = |merge: &Value| -> Option<[String; 2]> {
        match merge {
            Value::String(text) => {
                let (a, b) = text.split_once(' ')?;
                Some([a.to_owned(), b.to_owned()])
            }
            Value::Array(pair) => {
                let [a, b] = pair.as_slice() else { return None };
                Some([a.as_str()?.to_owned(), b.as_str()?.to_owned()])
            }
            _ => None,
        }
    };
    let merges = merges.iter().map(pair).collect::<Option<Vec<_>>>();
    merges.ok_or_else(|| model.wrong_type("merges", "a list of pairs").into())
}
