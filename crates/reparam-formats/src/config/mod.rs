//! `config.json` and `generation_config.json`, without any family's defaults.
//!
//! What the keys of a family mean, and what holds where one is missing, is known by the family.

mod error;
mod json;
mod rope;

use std::path::Path;

pub use error::ConfigError;
pub use json::JsonObject;
pub use rope::{RopeDefaults, RopeParameters, RopeScaling, YarnScaling};

use crate::FormatError;
use crate::checkpoint::Checkpoint;
use crate::file::{self, read_text};

/// How many layers a model may have whose weights are not known: many times those of published models, and what describes them
/// takes little memory.
const MOST_LAYERS: usize = 1 << 16;

/// A model's `config.json`: what every model says, and the rest for its family to read.
///
/// The names are those of transformers.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelJson {
    /// The family, such as `llama`. Required.
    pub model_type: String,
    /// The classes that transformers loads, such as `LlamaForCausalLM`.
    pub architectures: Vec<String>,
    /// All of the file.
    pub json: JsonObject,
    /// The layers that the weights have, where they are known; see [`ModelJson::beside`].
    stored_layers: Option<usize>,
}

impl ModelJson {
    /// Reads `config.json` of a model directory.
    ///
    /// # Errors
    ///
    /// [`ConfigError::File`] if there is none, and those of [`ModelJson::parse`].
    pub fn load(directory: &Path) -> Result<Self, ConfigError> {
        if !directory.is_dir() {
            let path = directory.to_path_buf();
            return Err(FormatError::NoSuchDirectory { path }.into());
        }
        let path = directory.join("config.json");
        Self::parse(&path, &read_text(&path)?)
    }

    /// Reads the text of a `config.json`; `path` is for messages.
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidJson`], [`ConfigError::NotAnObject`], [`ConfigError::MissingKey`] without `model_type`,
    /// [`ConfigError::WrongType`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let json = JsonObject::parse(path, text)?;
        let model_type = json
            .str("model_type")?
            .ok_or_else(|| json.missing("model_type"))?
            .to_owned();
        Ok(Self {
            model_type,
            architectures: json.strings("architectures")?.unwrap_or_default(),
            json,
            stored_layers: None,
        })
    }

    /// Takes note of the weights that the configuration belongs to, which bound what it may say.
    #[must_use]
    pub fn beside(self, weights: &Checkpoint) -> Self {
        Self {
            stored_layers: Some(weights.n_layers()),
            ..self
        }
    }

    /// Reads the number of layers. What is made of it is made a layer at a time, so it must not be more than there are.
    ///
    /// # Errors
    ///
    /// Those of [`JsonObject::size`]; [`ConfigError::InvalidValue`] for more layers than the weights have.
    pub fn layers(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        let n_layers = self.json.size(key)?;
        let Some(asked) = n_layers else {
            return Ok(None);
        };
        let reason = match self.stored_layers {
            // Names without a number: that the weights are none of such a model is said when they are loaded.
            Some(0) | None if asked > MOST_LAYERS => format!("the most is {MOST_LAYERS}"),
            Some(stored) if stored > 0 && asked > stored => {
                format!("the weights have {stored} layers")
            }
            _ => return Ok(n_layers),
        };
        Err(self.json.invalid(key, reason))
    }

    /// Reads the tokens that begin, end and fill up documents; where the file leaves out a key, `defaults` hold.
    ///
    /// `null` means that there is none, and so does the -1 that some older files have for the padding.
    ///
    /// # Errors
    ///
    /// [`ConfigError::WrongType`].
    pub fn special_tokens(&self, defaults: SpecialTokens) -> Result<SpecialTokens, ConfigError> {
        let json = &self.json;
        Ok(SpecialTokens {
            bos: match json.contains("bos_token_id") {
                true => json.token_id("bos_token_id")?,
                false => defaults.bos,
            },
            eos: match json.contains("eos_token_id") {
                true => json.token_ids("eos_token_id")?.unwrap_or_default(),
                false => defaults.eos,
            },
            pad: match json.contains("pad_token_id") {
                true => pad_token_id(json)?,
                false => defaults.pad,
            },
        })
    }
}

/// The tokens that begin, end and fill up documents.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpecialTokens {
    /// The token that begins a document.
    pub bos: Option<u32>,
    /// The tokens that end one.
    pub eos: Vec<u32>,
    /// The token that fills up a batch.
    pub pad: Option<u32>,
}

/// The part of `generation_config.json` that says where generation begins and stops.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GenerationConfig {
    /// The token that begins a text.
    pub bos_token_id: Option<u32>,
    /// The tokens that end one; empty if the file names none.
    pub eos_token_ids: Vec<u32>,
    /// The token that fills up a batch.
    pub pad_token_id: Option<u32>,
}

impl GenerationConfig {
    /// Reads `generation_config.json` of a model directory, if there is one.
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidJson`], [`ConfigError::NotAnObject`], [`ConfigError::WrongType`].
    pub fn load(directory: &Path) -> Result<Option<Self>, ConfigError> {
        let path = directory.join("generation_config.json");
        if !file::is_there(&path)? {
            return Ok(None);
        }
        Self::parse(&path, &read_text(&path)?).map(Some)
    }

    /// Reads the text of a `generation_config.json`, which is at `path`.
    ///
    /// # Errors
    ///
    /// Those of [`load`](Self::load).
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let raw = JsonObject::parse(path, text)?;
        Ok(Self {
            bos_token_id: raw.token_id("bos_token_id")?,
            eos_token_ids: raw.token_ids("eos_token_id")?.unwrap_or_default(),
            pad_token_id: pad_token_id(&raw)?,
        })
    }
}

/// Reads the padding token, for which older files write -1 if there is none.
fn pad_token_id(raw: &JsonObject) -> Result<Option<u32>, ConfigError> {
    match raw.get("pad_token_id").and_then(serde_json::Value::as_i64) {
        Some(-1) => Ok(None),
        _ => raw.token_id("pad_token_id"),
    }
}
