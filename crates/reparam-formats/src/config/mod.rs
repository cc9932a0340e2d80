//! `config.json` and `generation_config.json` of decoder models.

mod error;
mod json;
mod rope;

use std::fs;
use std::path::Path;

pub use error::ConfigError;
pub use json::JsonObject;
pub use rope::{RopeParameters, RopeScaling};

use crate::FormatError;

/// The context length of a configuration that gives none, in tokens.
const DEFAULT_CONTEXT: usize = 2048;

/// The configuration of a decoder, as in `config.json`.
///
/// The names are those of transformers. Where the file leaves a key out, the default is the one of
/// transformers' `LlamaConfig`, for every family; a family with other defaults can ask
/// [`ModelConfig::raw`] whether a key was given.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The family, such as `llama`. Required.
    pub model_type: String,
    /// The classes that transformers loads, such as `LlamaForCausalLM`.
    pub architectures: Vec<String>,
    /// The width of the residual stream. Required.
    pub hidden_size: usize,
    /// The width inside of the feed-forward block. Required.
    pub intermediate_size: usize,
    /// The number of decoder blocks. Required.
    pub num_hidden_layers: usize,
    /// The number of query heads. Required.
    pub num_attention_heads: usize,
    /// The number of key and value heads; by default as many as query heads.
    pub num_key_value_heads: usize,
    /// The width of one head; by default `hidden_size / num_attention_heads`. Always even.
    pub head_dim: usize,
    /// The number of token ids. Required.
    pub vocab_size: usize,
    /// The longest sequence the model was made for, in tokens; by default 2048.
    pub max_position_embeddings: usize,
    /// What is added to the mean square before its root is taken; by default 1e-6.
    pub rms_norm_eps: f64,
    /// The activation function of the feed-forward block; by default `silu`.
    pub hidden_act: String,
    /// Whether the attention's projections have biases; by default not.
    pub attention_bias: bool,
    /// Whether the feed-forward block's projections have biases; by default not.
    pub mlp_bias: bool,
    /// Whether the output head is the embedding; by default not.
    pub tie_word_embeddings: bool,
    /// The token that begins a document; by default 1, and `None` where the file says `null`.
    pub bos_token_id: Option<u32>,
    /// The tokens that end a document; by default 2, and none where the file says `null`.
    pub eos_token_ids: Vec<u32>,
    /// The token that fills up a batch. The -1 of some older files means none.
    pub pad_token_id: Option<u32>,
    /// The rotary position embedding.
    pub rope: RopeParameters,
    raw: JsonObject,
}

impl ModelConfig {
    /// Reads `config.json` of a model directory.
    ///
    /// # Errors
    ///
    /// [`ConfigError::File`] if there is none, and those of [`ModelConfig::parse`].
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
    /// [`ConfigError::InvalidJson`], [`ConfigError::NotAnObject`], [`ConfigError::MissingKey`],
    /// [`ConfigError::WrongType`], [`ConfigError::InvalidValue`] for sizes that are zero or do not
    /// divide each other, [`ConfigError::UnsupportedRope`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let raw = JsonObject::parse(path, text)?;
        let model_type = raw
            .str("model_type")?
            .ok_or_else(|| raw.missing("model_type"))?;
        let hidden_size = required_size(&raw, "hidden_size")?;
        let num_attention_heads = required_size(&raw, "num_attention_heads")?;
        let num_key_value_heads = size(&raw, "num_key_value_heads")?.unwrap_or(num_attention_heads);
        if !num_attention_heads.is_multiple_of(num_key_value_heads) {
            let reason = format!("it does not divide num_attention_heads, {num_attention_heads}");
            return Err(raw.invalid("num_key_value_heads", reason));
        }
        let head_dim = match size(&raw, "head_dim")? {
            Some(head_dim) => head_dim,
            None if hidden_size.is_multiple_of(num_attention_heads) => {
                hidden_size / num_attention_heads
            }
            None => {
                let reason = format!(
                    "it does not divide hidden_size, {hidden_size}, and head_dim is not given"
                );
                return Err(raw.invalid("num_attention_heads", reason));
            }
        };
        if !head_dim.is_multiple_of(2) {
            let key = if raw.get("head_dim").is_some() {
                "head_dim"
            } else {
                "hidden_size"
            };
            let reason = format!("the head dimension {head_dim} has to be even to be rotated");
            return Err(raw.invalid(key, reason));
        }
        let rms_norm_eps = raw.f64("rms_norm_eps")?.unwrap_or(1e-6);
        if rms_norm_eps < 0.0 {
            return Err(raw.invalid("rms_norm_eps", "it has to be at least 0"));
        }
        let bos_token_id = if raw.contains("bos_token_id") {
            raw.token_id("bos_token_id")?
        } else {
            Some(1)
        };
        let eos_token_ids = if raw.contains("eos_token_id") {
            raw.token_ids("eos_token_id")?.unwrap_or_default()
        } else {
            vec![2]
        };
        Ok(Self {
            model_type: model_type.to_owned(),
            architectures: raw.strings("architectures")?.unwrap_or_default(),
            hidden_size,
            intermediate_size: required_size(&raw, "intermediate_size")?,
            num_hidden_layers: required_size(&raw, "num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            vocab_size: required_size(&raw, "vocab_size")?,
            max_position_embeddings: size(&raw, "max_position_embeddings")?
                .unwrap_or(DEFAULT_CONTEXT),
            rms_norm_eps,
            hidden_act: raw.str("hidden_act")?.unwrap_or("silu").to_owned(),
            attention_bias: raw.bool("attention_bias")?.unwrap_or(false),
            mlp_bias: raw.bool("mlp_bias")?.unwrap_or(false),
            tie_word_embeddings: raw.bool("tie_word_embeddings")?.unwrap_or(false),
            bos_token_id,
            eos_token_ids,
            pad_token_id: pad_token_id(&raw)?,
            rope: rope::read(&raw)?,
            raw,
        })
    }

    /// Returns the whole file, for keys that only one family has.
    pub fn raw(&self) -> &JsonObject {
        &self.raw
    }
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
        if !path.exists() {
            return Ok(None);
        }
        let raw = JsonObject::parse(&path, &read_text(&path)?)?;
        Ok(Some(Self {
            bos_token_id: raw.token_id("bos_token_id")?,
            eos_token_ids: raw.token_ids("eos_token_id")?.unwrap_or_default(),
            pad_token_id: pad_token_id(&raw)?,
        }))
    }
}

/// Reads a text file.
pub(crate) fn read_text(path: &Path) -> Result<String, FormatError> {
    fs::read_to_string(path).map_err(|source| FormatError::io("read", path, source))
}

/// Reads the padding token, for which older files write -1 if there is none.
fn pad_token_id(raw: &JsonObject) -> Result<Option<u32>, ConfigError> {
    match raw.get("pad_token_id").and_then(serde_json::Value::as_i64) {
        Some(-1) => Ok(None),
        _ => raw.token_id("pad_token_id"),
    }
}

/// Reads a size that has to be at least 1, if it is given.
fn size(raw: &JsonObject, key: &str) -> Result<Option<usize>, ConfigError> {
    match raw.usize(key)? {
        Some(0) => Err(raw.invalid(key, "it has to be at least 1")),
        size => Ok(size),
    }
}

fn required_size(raw: &JsonObject, key: &str) -> Result<usize, ConfigError> {
    size(raw, key)?.ok_or_else(|| raw.missing(key))
}
