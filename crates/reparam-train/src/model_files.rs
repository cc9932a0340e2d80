//! The directory of a model, read once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use reparam_data::tokenizer::tokenizer_json;
use reparam_formats::chat_templates::{ChatTemplates, MORE_TEMPLATES, TEMPLATE_FILE, more_name};
use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::config::{JsonObject, ModelJson};
use reparam_formats::tokenizer_files::OLDER_TOKENIZER_FILES;
use reparam_formats::{FormatError, file};

use serde_json::Value;

use crate::Result;

pub(crate) const CONFIG: &str = "config.json";
pub(crate) const GENERATION: &str = "generation_config.json";

/// Which modules a model of sentence-transformers has.
pub(crate) const MODULES: &str = "modules.json";
/// How it pools, where its modules are as usual.
pub(crate) const POOLING: &str = "1_Pooling/config.json";
/// The most tokens that it is given.
pub(crate) const SENTENCES: &str = "sentence_bert_config.json";

/// What says how a conversation becomes a text, beside the configuration of the tokenizer.
pub(crate) const CHAT: [&str; 2] = [TEMPLATE_FILE, "chat_template.json"];

/// Word vectors beside the model that learned them, in GloVe's form.
pub(crate) const VECTORS: &str = "vectors.txt";

/// The files that make a tokenizer; all but the first may be missing.
pub(crate) const TOKENIZER: [&str; 3] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
];

/// What a model directory has besides its weights and its configuration, where it is there.
const COMPANIONS: [&str; 11] = [
    GENERATION,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    CHAT[0],
    CHAT[1],
    // Of sentence-transformers.
    MODULES,
    POOLING,
    SENTENCES,
    "config_sentence_transformers.json",
];

/// Keeps the `tokenizer.json` that is made of older files, if there are some.
fn keep_older_tokenizer(
    directory: &Path,
    json: &ModelJson,
    kept: &mut BTreeMap<String, Vec<u8>>,
) -> Result<()> {
    let mut older = BTreeMap::new();
    for name in OLDER_TOKENIZER_FILES {
        let path = directory.join(name);
        if file::is_there(&path)? {
            older.insert(name, file::read(&path)?);
        }
    }
    let bytes = |name: &str| {
        kept.get(name)
            .or_else(|| older.get(name))
            .map(Vec::as_slice)
    };
    let made = tokenizer_json(directory, Some(&json.model_type), bytes)?;
    if let Some(made) = made {
        kept.insert(TOKENIZER[0].to_owned(), made);
    }
    Ok(())
}

/// The files of a model's directory, as they were when it was opened.
///
/// Small files are kept in memory and the weights stay open, so that what a run says of its base, and what it saves beside the
/// weights, is what it was made from, whatever happens to the directory meanwhile.
#[derive(Debug)]
pub struct ModelFiles {
    directory: PathBuf,
    json: ModelJson,
    weights: Checkpoint,
    kept: BTreeMap<String, Vec<u8>>,
}

impl ModelFiles {
    /// Reads a directory; of the weights the headers alone, and those after `look` has seen the configuration.
    ///
    /// # Errors
    ///
    /// Fails when the configuration or the weights are missing or damaged.
    pub(crate) fn open(
        directory: &Path,
        look: impl FnOnce(&ModelJson) -> Result<()>,
    ) -> Result<Self> {
        if !directory.is_dir() {
            let path = directory.to_path_buf();
            return Err(FormatError::NoSuchDirectory { path }.into());
        }
        let path = directory.join(CONFIG);
        let config = file::read_text(&path)?;
        let json = ModelJson::parse(&path, &config)?;
        look(&json)?;
        let weights = Checkpoint::open(directory)?;
        let mut kept = BTreeMap::from([(CONFIG.to_owned(), config.into_bytes())]);
        for name in COMPANIONS {
            let path = directory.join(name);
            if file::is_there(&path)? {
                kept.insert(name.to_owned(), file::read(&path)?);
            }
        }
        for name in more_templates(directory) {
            let bytes = file::read(&directory.join(&name))?;
            kept.insert(name, bytes);
        }
        if !kept.contains_key(TOKENIZER[0]) {
            keep_older_tokenizer(directory, &json, &mut kept)?;
        }
        Ok(Self {
            directory: directory.to_path_buf(),
            json: json.beside(&weights),
            weights,
            kept,
        })
    }

    /// Takes the parts of a model that is in no directory; `name` is what errors call it.
    pub(crate) fn new(
        name: PathBuf,
        json: ModelJson,
        weights: Checkpoint,
        kept: BTreeMap<&'static str, Vec<u8>>,
    ) -> Self {
        let kept = kept.into_iter();
        let mut kept: BTreeMap<_, _> = kept.map(|(name, bytes)| (name.to_owned(), bytes)).collect();
        let config = Value::Object(json.json.map().clone());
        kept.insert(CONFIG.to_owned(), format!("{config:#}\n").into_bytes());
        Self {
            directory: name,
            json,
            weights,
            kept,
        }
    }

    /// Puts other bytes in the place of small files, or adds them.
    #[must_use]
    pub(crate) fn with_files(
        mut self,
        files: impl IntoIterator<Item = (&'static str, Vec<u8>)>,
    ) -> Self {
        let files = files.into_iter();
        self.kept
            .extend(files.map(|(name, bytes)| (name.to_owned(), bytes)));
        self
    }

    /// Changes the weights and what is said of them.
    pub(crate) fn map_weights(
        self,
        change: impl FnOnce(Checkpoint) -> Result<Checkpoint>,
        json: ModelJson,
    ) -> Result<Self> {
        let weights = change(self.weights)?;
        Ok(Self {
            json: json.beside(&weights),
            weights,
            ..self
        })
    }

    /// Returns where the files were.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the configuration.
    pub fn json(&self) -> &ModelJson {
        &self.json
    }

    /// Returns the weights.
    pub fn weights(&self) -> &Checkpoint {
        &self.weights
    }

    /// Returns the bytes of a file besides the weights, if it is there.
    pub(crate) fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.kept.get(name).map(Vec::as_slice)
    }

    /// Reads a file that has to be one JSON object, if it is there.
    pub(crate) fn object(&self, name: &str) -> Result<Option<JsonObject>> {
        let Some(bytes) = self.bytes(name) else {
            return Ok(None);
        };
        let path = self.directory.join(name);
        let text = file::text_of(&path, bytes.to_vec())?;
        Ok(Some(JsonObject::parse(&path, &text)?))
    }

    /// Returns what else a copy of the model needs beside its weights and its configuration, by name.
    pub(crate) fn companions(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let is_one = |name: &str| COMPANIONS.contains(&name) || more_name(name).is_some();
        let kept = self.kept.iter();
        kept.filter(move |(name, _)| is_one(name))
            .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }

    /// Returns the chat templates of the model.
    pub(crate) fn chat_templates(&self) -> Result<ChatTemplates> {
        let kept = self.kept.iter();
        let files = kept.map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
        Ok(ChatTemplates::of_files(&self.directory, files)?)
    }
}

/// The names of the further chat templates of a directory.
fn more_templates(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory.join(MORE_TEMPLATES)) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names
        .map(|name| format!("{MORE_TEMPLATES}/{name}"))
        .filter(|name| more_name(name).is_some())
        .collect();
    names.sort_unstable();
    names
}
