//! Tokenizers of the time before `tokenizer.json`: a model of SentencePiece, a vocabulary with merges, or a list of words. They are made
//! into a `tokenizer.json` with the ids that transformers gives, which a result then has beside its weights.
//!
//! What a class of transformers makes of its files is in [`classes`]; the class is that of `tokenizer_config.json`, else that of the
//! `model_type`.

mod classes;
mod json;
mod spm;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reparam_formats::tokenizer_files::{ADDED_TOKENS_FILE, OLDER_TOKENIZER_FILES};
use serde_json::{Map, Value, json};

use self::classes::{CLASSES, Class};
use self::json::{Part, template};
use self::spm::{Algorithm, SpmModel};
use super::guard;
use crate::error::{DataError, Result};

const CONFIG: &str = "tokenizer_config.json";
const MAP: &str = "special_tokens_map.json";
const ADDED: &str = ADDED_TOKENS_FILE;

/// Makes the `tokenizer.json` of a directory that has none; `None` if it has no older files of its class either.
///
/// `model_type` is that of `config.json`; `bytes` gives a file of a name, if it is there: [`OLDER_TOKENIZER_FILES`],
/// `added_tokens.json`, `tokenizer_config.json` and `special_tokens_map.json` are asked for.
///
/// # Cost
///
/// That of loading the tokenizer, which is tried.
///
/// # Errors
///
/// [`DataError::OlderTokenizer`] if the class is unknown or not said, or a file is none of its kind;
/// [`DataError::InvalidTokenizerConfig`].
pub fn tokenizer_json<'a>(
    directory: &Path,
    model_type: Option<&str>,
    bytes: impl Fn(&str) -> Option<&'a [u8]>,
) -> Result<Option<Vec<u8>>> {
    let found: Vec<&str> = OLDER_TOKENIZER_FILES
        .into_iter()
        .filter(|name| bytes(name).is_some())
        .collect();
    let Some(first) = found.first() else {
        return Ok(None);
    };
    let older = Older {
        directory,
        config: object(directory, CONFIG, bytes(CONFIG))?,
        map: object(directory, MAP, bytes(MAP))?,
        bytes: &bytes,
    };
    let class = older.class(model_type, first)?;
    if !class.files.iter().any(|name| found.contains(name)) {
        return Ok(None);
    }
    let missing = class.files.iter().find(|name| !found.contains(name));
    if let Some(missing) = missing {
        let files = found.join(", ");
        let message = format!("{} needs {missing}, and there is {files}", class.names[0]);
        return Err(older.invalid(missing, message));
    }
    let mut made = (class.make)(&older)?;
    older.add_more(&mut made)?;
    let made = made.written();
    // Tried here, where it is known of which file it is made.
    match guard::tokenizer(&made) {
        Ok(_) => Ok(Some(made)),
        Err(message) => Err(older.invalid(class.files[0], message)),
    }
}

fn object(directory: &Path, name: &str, bytes: Option<&[u8]>) -> Result<Map<String, Value>> {
    let Some(bytes) = bytes else {
        return Ok(Map::new());
    };
    serde_json::from_slice(bytes).map_err(|error| DataError::InvalidTokenizerConfig {
        path: directory.join(name),
        message: error.to_string(),
    })
}

/// The files of a directory.
struct Older<'s, 'a> {
    directory: &'s Path,
    config: Map<String, Value>,
    map: Map<String, Value>,
    bytes: &'s dyn Fn(&str) -> Option<&'a [u8]>,
}

impl<'a> Older<'_, 'a> {
    fn class(&self, model_type: Option<&str>, file: &str) -> Result<&'static Class> {
        let named = self.config.get("tokenizer_class").and_then(Value::as_str);
        let mut classes = CLASSES.iter();
        if let Some(named) = named {
            let short = named.strip_suffix("Fast").unwrap_or(named);
            let found = classes.find(|class| class.names.contains(&short));
            return found.ok_or_else(|| {
                let known = CLASSES.iter().map(|class| class.names[0]);
                let known = known.collect::<Vec<_>>().join(", ");
                let message = format!(
                    "its tokenizer_class is {}, and those that can be read are {known}",
                    reparam_formats::shown(short)
                );
                self.invalid(file, message)
            });
        }
        let found = model_type.and_then(|model_type| {
            let mut classes = CLASSES.iter();
            classes.find(|class| class.model_types.contains(&model_type))
        });
        found
            .ok_or_else(|| self.invalid(file, format!("{CONFIG} does not say its tokenizer_class")))
    }

    fn invalid(&self, name: &str, message: String) -> DataError {
        DataError::OlderTokenizer {
            path: self.directory.join(name),
            message,
        }
    }

    fn file(&self, name: &'static str) -> Result<&'a [u8]> {
        (self.bytes)(name).ok_or_else(|| self.invalid(name, "it is missing".to_owned()))
    }

    /// A setting of `tokenizer_config.json`.
    fn setting(&self, key: &str) -> Option<&Value> {
        self.config.get(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, expected: &str) -> DataError {
        DataError::InvalidTokenizerConfig {
            path: self.directory.join(CONFIG),
            message: format!("`{key}` is not {expected}"),
        }
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.setting(key) {
            None => Ok(default),
            Some(value) => value
                .as_bool()
                .ok_or_else(|| self.wrong(key, "true or false")),
        }
    }

    /// A small number.
    fn size(&self, key: &str, default: u64) -> Result<u64> {
        const MOST: u64 = 1 << 16;
        match self.setting(key) {
            None => Ok(default),
            Some(value) => {
                let size = value.as_u64().filter(|size| *size <= MOST);
                size.ok_or_else(|| self.wrong(key, "a number up to 65536"))
            }
        }
    }

    /// The tokens of some roles: what a file says, else the default.
    fn roles(&self, roles: &[(&'static str, &str)]) -> Result<Roles> {
        let roles = roles.iter().map(|(key, default)| {
            let said = [&self.config, &self.map].into_iter();
            let mut said = said.filter_map(|file| file.get(*key).filter(|value| !value.is_null()));
            let Some(value) = said.next() else {
                return Ok((*key, (*default).to_owned()));
            };
            let content = value.get("content").unwrap_or(value).as_str();
            let content = content.ok_or_else(|| self.wrong(key, "a token"))?;
            Ok((*key, content.to_owned()))
        });
        Ok(Roles(roles.collect::<Result<_>>()?))
    }

    /// Adds the tokens of `added_tokens.json`, and those that files call special.
    fn add_more(&self, made: &mut Made) -> Result<()> {
        let listed = [&self.config, &self.map].into_iter();
        let listed = listed.filter_map(|file| file.get("additional_special_tokens")?.as_array());
        let special: Vec<&str> = listed
            .flatten()
            .filter_map(|token| token.get("content").unwrap_or(token).as_str())
            .collect();
        if let Some(bytes) = (self.bytes)(ADDED) {
            let ids: BTreeMap<String, u32> = serde_json::from_slice(bytes).map_err(|error| {
                self.invalid(ADDED, format!("it is not tokens with ids: {error}"))
            })?;
            let mut ids: Vec<(u32, &String)> = ids.iter().map(|(token, id)| (*id, token)).collect();
            ids.sort_unstable();
            for (id, token) in ids {
                made.model.ids.entry(token.clone()).or_insert(id);
                add(
                    &mut made.model,
                    &mut made.added,
                    token,
                    special.contains(&&**token),
                );
            }
        }
        for token in special {
            add(&mut made.model, &mut made.added, token, true);
        }
        Ok(())
    }

    /// The model of SentencePiece of the class, which has to be of an algorithm.
    fn spm(&self, expected: Algorithm) -> Result<SpmModel> {
        let names = OLDER_TOKENIZER_FILES.into_iter();
        let mut names = names.filter(|name| name.ends_with(".model"));
        let name = names.find(|name| (self.bytes)(name).is_some());
        let name = name.unwrap_or(OLDER_TOKENIZER_FILES[0]);
        let (model, algorithm) =
            SpmModel::read(self.file(name)?).map_err(|message| self.invalid(name, message))?;
        if algorithm != expected {
            let [found, expected] = [algorithm, expected].map(Algorithm::name);
            let message = format!("it is {found}, where its class has {expected}");
            return Err(self.invalid(name, message));
        }
        Ok(model)
    }

    fn text(&self, name: &'static str) -> Result<&'a str> {
        let bytes = self.file(name)?;
        std::str::from_utf8(bytes)
            .map_err(|error| self.invalid(name, format!("it is not UTF-8: {error}")))
    }

    /// The lines of a file, each a token.
    fn lines(&self, name: &'static str) -> Result<Vec<String>> {
        let text = self.text(name)?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        let lines = text.split('\n').map(|line| line.trim_end_matches('\r'));
        Ok(lines.map(str::to_owned).collect())
    }

    /// A vocabulary of bytes and their merges.
    fn merged(&self) -> Result<Model> {
        let [vocab, merges] = ["vocab.json", "merges.txt"];
        let ids: BTreeMap<String, u32> = serde_json::from_slice(self.file(vocab)?)
            .map_err(|error| self.invalid(vocab, format!("it is not tokens with ids: {error}")))?;
        let mut pairs = Vec::new();
        for (at, line) in self.text(merges)?.lines().enumerate() {
            if line.is_empty() || (at == 0 && line.starts_with("#version")) {
                continue;
            }
            let Some(pair) = line.split_once(' ').filter(|(_, b)| !b.contains(' ')) else {
                let message = format!("line {} is not two tokens with a space between", at + 1);
                return Err(self.invalid(merges, message));
            };
            pairs.push(json!([pair.0, pair.1]));
        }
        let model = json!({
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": ids, "merges": pairs,
        });
        Ok(Model { value: model, ids })
    }

    /// Adds the token that begins a text and that which ends it, as the file asks for.
    fn around(&self, mut made: Made) -> Result<Made> {
        let [begins, ends] = [
            self.flag("add_bos_token", false)?,
            self.flag("add_eos_token", false)?,
        ];
        let [bos, eos] = ["bos_token", "eos_token"].map(|role| made.of_role(role));
        let (bos, eos) = (bos.filter(|_| begins), eos.filter(|_| ends));
        if bos.is_none() && eos.is_none() {
            return Ok(made);
        }
        let around = |text| {
            let before = bos.map(|(token, id)| Part::Token(token, id));
            let behind = eos.map(|(token, id)| Part::Token(token, id));
            let parts = [before, Some(text), behind];
            parts.into_iter().flatten().collect::<Vec<_>>()
        };
        let single = around(Part::A);
        let pair = [&single[..], &around(Part::B)].concat();
        made.post_processor = template(&single, &pair, true);
        Ok(made)
    }
}

/// The tokens of the roles of a class.
struct Roles(Vec<(&'static str, String)>);

impl Roles {
    /// The token of a role of the class.
    fn token(&self, role: &str) -> String {
        let found = self.0.iter().find(|(known, _)| *known == role);
        found.map(|(_, token)| token.clone()).unwrap_or_default()
    }
}

/// The model of a `tokenizer.json`, and the ids of its tokens.
struct Model {
    value: Value,
    ids: BTreeMap<String, u32>,
}

impl Model {
    /// Pieces of SentencePiece that merges make.
    fn pieces_and_merges(spm: &SpmModel, unk: Option<String>) -> Self {
        let ids = numbered(spm.pieces.iter().map(|piece| piece.piece().to_owned()));
        let value = json!({
            "type": "BPE", "dropout": null, "unk_token": unk, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": ids, "merges": spm.merges(),
        });
        Self { value, ids }
    }

    /// Pieces with their logarithms of probabilities.
    fn scores(pieces: Vec<(String, f64)>, unk: usize) -> Self {
        let ids = numbered(pieces.iter().map(|(piece, _)| piece.clone()));
        let value =
            json!({"type": "Unigram", "unk_id": unk, "vocab": pieces, "byte_fallback": false});
        Self { value, ids }
    }

    /// Words and the parts of words.
    fn words(words: Vec<String>, unk: String) -> Self {
        let ids = numbered(words.into_iter());
        let value = json!({
            "type": "WordPiece", "unk_token": unk, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": ids,
        });
        Self { value, ids }
    }
}

/// Tokens by their places; of two that are the same the later one counts.
fn numbered(tokens: impl Iterator<Item = String>) -> BTreeMap<String, u32> {
    (0..).zip(tokens).map(|(id, token)| (token, id)).collect()
}

impl SpmModel {
    fn scored(&self) -> Vec<(String, f64)> {
        let pieces = self.pieces.iter();
        pieces
            .map(|piece| (piece.piece().to_owned(), f64::from(piece.score())))
            .collect()
    }

    /// The normalizer by the table of the file, if there is one.
    fn precompiled(&self) -> Vec<Value> {
        let table = self.charsmap().map(|table| STANDARD.encode(table));
        let table =
            table.map(|table| json!({"type": "Precompiled", "precompiled_charsmap": table}));
        table.into_iter().collect()
    }
}

/// Has a token found in texts as a whole; one that the model does not know comes behind all others.
fn add(model: &mut Model, added: &mut BTreeMap<u32, (String, bool)>, token: &str, special: bool) {
    let next = model
        .ids
        .values()
        .max()
        .map_or(0, |most| most.saturating_add(1));
    let id = *model.ids.entry(token.to_owned()).or_insert(next);
    let known = added
        .entry(id)
        .or_insert_with(|| (token.to_owned(), special));
    known.1 |= special;
}

/// The parts of a `tokenizer.json`.
struct Made {
    model: Model,
    roles: Roles,
    /// Tokens that are found in a text before it is divided, by id, and whether they are special.
    added: BTreeMap<u32, (String, bool)>,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
}

impl Made {
    /// With what a model of SentencePiece adds to the special tokens.
    fn new(model: Model, spm: &SpmModel, roles: Roles) -> Self {
        let own = spm.pieces.iter().filter(|piece| piece.is_added());
        let own = own.map(|piece| (piece.piece().to_owned(), piece.is_control()));
        Self::with_added(model, own.collect(), roles)
    }

    fn with(model: Model, roles: Roles) -> Self {
        Self::with_added(model, Vec::new(), roles)
    }

    /// Tokens that are found in a text before it is divided, whether they are special, and those of the roles; what the model does not
    /// know comes behind it.
    fn with_added(mut model: Model, tokens: Vec<(String, bool)>, roles: Roles) -> Self {
        let special = roles.0.iter().map(|(_, token)| (token.clone(), true));
        let tokens = tokens.into_iter().chain(special);
        let mut added = BTreeMap::new();
        for (token, special) in tokens {
            add(&mut model, &mut added, &token, special);
        }
        Self {
            model,
            roles,
            added,
            normalizer: Value::Null,
            pre_tokenizer: Value::Null,
            post_processor: Value::Null,
            decoder: Value::Null,
        }
    }

    /// The token of a role and its id, if the class has the role.
    fn of_role(&self, role: &str) -> Option<(&str, u32)> {
        let (_, token) = self.roles.0.iter().find(|(known, _)| *known == role)?;
        Some((token, *self.model.ids.get(token)?))
    }

    /// The same as a part of a template.
    fn part(&self, of: &Older<'_, '_>, role: &str) -> Result<Part<'_>> {
        let part = self.of_role(role).map(|(token, id)| Part::Token(token, id));
        part.ok_or_else(|| of.wrong(role, "a token of the vocabulary"))
    }

    /// Puts texts between the tokens of a class of BERT.
    fn between(mut self, of: &Older<'_, '_>) -> Result<Self> {
        let (cls, sep) = (self.part(of, "cls_token")?, self.part(of, "sep_token")?);
        let pair = [cls, Part::A, sep, Part::B, sep];
        let written = template(&pair[..3], &pair, true);
        self.post_processor = written;
        Ok(self)
    }

    fn written(self) -> Vec<u8> {
        let added = self.added.into_iter().map(|(id, (content, special))| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": special,
            })
        });
        let added: Vec<Value> = added.collect();
        let all = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": self.normalizer,
            "pre_tokenizer": self.pre_tokenizer,
            "post_processor": self.post_processor,
            "decoder": self.decoder,
            "model": self.model.value,
        });
        all.to_string().into_bytes()
    }
}
