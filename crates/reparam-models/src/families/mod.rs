//! The model families: a file and a line each.

mod bart;
mod bert;
mod bloom;
mod cohere;
mod deberta_v2;
mod decoder;
mod distilbert;
mod electra;
mod encoder;
mod falcon;
mod gemma;
mod gemma2;
mod gemma3;
mod glm;
mod gpt2;
mod gpt_neo;
mod gpt_neox;
mod gptj;
mod granite;
mod llama;
mod mamba;
mod marian;
mod mistral;
mod mixtral;
mod modernbert;
mod olmo;
mod olmo2;
mod opt;
mod phi;
mod phi3;
mod qwen2;
mod qwen2_moe;
mod qwen3;
mod qwen3_moe;
mod recurrent;
mod roberta;
mod smollm3;
mod stablelm;
mod starcoder2;
mod t5;

use reparam_formats::config::{JsonObject, ModelJson};
use reparam_formats::gguf::GgufModel;
use reparam_ops::Activation;

use crate::architecture::Initialization;
use crate::gguf::{self, GgufFamily};
use crate::{Architecture, ModelError};

/// A model family: what its `config.json` means.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// Reads `config.json`, with the family's defaults where a key is missing.
    pub describe: fn(&ModelJson) -> Result<Architecture, ModelError>,
    /// What llama.cpp computes for it, if it has the family.
    pub gguf: Option<GgufFamily>,
}

/// The families that models are opened with.
#[derive(Debug, Clone)]
pub struct Families(Vec<Family>);

impl Families {
    /// Returns the families of this crate.
    pub fn builtin() -> Self {
        Self(vec![
            bart::FAMILY,
            bart::MULTILINGUAL,
            bert::FAMILY,
            bloom::FAMILY,
            cohere::FAMILY,
            cohere::WITH_WINDOWS,
            deberta_v2::FAMILY,
            distilbert::FAMILY,
            electra::FAMILY,
            falcon::FAMILY,
            gemma::FAMILY,
            gemma2::FAMILY,
            gemma3::FAMILY,
            glm::FAMILY,
            glm::WITH_OUTPUT_NORMS,
            gpt2::FAMILY,
            gpt_neo::FAMILY,
            gpt_neox::FAMILY,
            gptj::FAMILY,
            granite::FAMILY,
            recurrent::GRU,
            llama::FAMILY,
            recurrent::LSTM,
            mamba::FAMILY,
            marian::FAMILY,
            mistral::FAMILY,
            mistral::MINISTRAL,
            mixtral::FAMILY,
            modernbert::FAMILY,
            olmo::FAMILY,
            olmo2::FAMILY,
            olmo2::WITH_WINDOWS,
            opt::FAMILY,
            phi::FAMILY,
            phi3::FAMILY,
            qwen2::FAMILY,
            qwen2_moe::FAMILY,
            qwen3::FAMILY,
            qwen3_moe::FAMILY,
            recurrent::RNN,
            roberta::FAMILY,
            roberta::XLM,
            smollm3::FAMILY,
            stablelm::FAMILY,
            starcoder2::FAMILY,
            t5::FAMILY,
            t5::MULTILINGUAL,
        ])
    }

    /// Adds a family; it takes the place of one with the same `model_type`.
    pub fn with(mut self, family: Family) -> Self {
        let mut known = self.0.iter_mut();
        match known.find(|known| known.model_type == family.model_type) {
            Some(known) => *known = family,
            None => self.0.push(family),
        }
        self
    }

    /// Returns every family's `model_type`.
    pub fn model_types(&self) -> Vec<&'static str> {
        self.0.iter().map(|family| family.model_type).collect()
    }

    /// Finds a family by its `model_type`.
    ///
    /// # Errors
    ///
    /// [`ModelError::UnsupportedFamily`].
    pub fn find(&self, model_type: &str) -> Result<&Family, ModelError> {
        let mut families = self.0.iter();
        let family = families.find(|family| family.model_type == model_type);
        family.ok_or_else(|| ModelError::UnsupportedFamily {
            found: model_type.to_owned(),
            supported: self.model_types(),
        })
    }

    /// Returns what a `config.json` describes.
    ///
    /// # Errors
    ///
    /// [`ModelError::UnsupportedFamily`], what the family finds missing, impossible or unsupported, and
    /// [`ModelError::Description`] if what it makes of it does not fit together.
    pub fn describe(&self, json: &ModelJson) -> Result<Architecture, ModelError> {
        let architecture = (self.find(&json.model_type)?.describe)(json)?;
        architecture.check()?;
        if json.json.bool("is_causal")? == Some(false) && architecture.is_causal() {
            return Err(unsupported("is_causal", false, "true"));
        }
        Ok(architecture)
    }

    /// Returns what llama.cpp has to know of a model; `is_tied` says whether the head is the table of token vectors.
    ///
    /// # Errors
    ///
    /// [`ModelError::UnsupportedFamily`]; [`ModelError::NotInGguf`] for a model that llama.cpp does not have, or would compute
    /// otherwise.
    pub fn gguf(
        &self,
        architecture: &Architecture,
        is_tied: bool,
    ) -> Result<GgufModel, ModelError> {
        let family = self.find(&architecture.model_type)?;
        let Some(gguf) = &family.gguf else {
            let known = self.0.iter().filter(|family| family.gguf.is_some());
            let known: Vec<&str> = known.map(|family| family.model_type).collect();
            return Err(ModelError::NotInGguf {
                model_type: architecture.model_type.clone(),
                reason: format!("this is done for {}", known.join(", ")),
            });
        };
        gguf::describe(gguf, architecture, is_tied)
    }
}

/// Reads the number of layers, which has to be there.
fn required_layers(json: &ModelJson, key: &'static str) -> Result<usize, ModelError> {
    let n_layers = json.layers(key)?;
    Ok(n_layers.ok_or_else(|| json.json.missing(key))?)
}

/// Reads the name of an activation function, which transformers has several of for the same.
fn activation(
    json: &JsonObject,
    key: &'static str,
    default: Activation,
) -> Result<Activation, ModelError> {
    json.str(key)?
        .map_or(Ok(default), |name| activation_of(key, name))
}

/// Returns the activation function that a key names.
fn activation_of(key: &'static str, name: &str) -> Result<Activation, ModelError> {
    match name {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        other => Err(unsupported(
            key,
            other,
            "silu, gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, relu",
        )),
    }
}

/// Reads the probability of a dropout.
fn probability(json: &JsonObject, key: &'static str, default: f64) -> Result<f64, ModelError> {
    match json.f64(key)? {
        None => Ok(default),
        Some(p) if (0.0..1.0).contains(&p) => Ok(p),
        Some(_) => Err(json
            .invalid(key, "it has to be at least 0 and below 1")
            .into()),
    }
}

/// Reads what new weights are drawn from: the standard deviation that a key says.
fn initialization(json: &JsonObject, key: &'static str) -> Result<Initialization, ModelError> {
    Ok(Initialization::Normal(deviation(json, key, 0.02)?))
}

/// Reads what a norm adds to the mean square.
fn epsilon(json: &JsonObject, key: &'static str, default: f64) -> Result<f64, ModelError> {
    let eps = json.f64(key)?.unwrap_or(default);
    match (0.0..1.0).contains(&eps) {
        true => Ok(eps),
        false => Err(json
            .invalid(key, "it has to be at least 0 and below 1")
            .into()),
    }
}

/// The standard deviation of layers that add to the hidden states, which are to begin as large in a deep model as in another.
fn residual_deviation(std: f64, n_layers: usize) -> f64 {
    std / (2.0 * n_layers as f64).sqrt()
}

fn deviation(json: &JsonObject, key: &'static str, default: f64) -> Result<f64, ModelError> {
    let std = json.f64(key)?.unwrap_or(default);
    if !(std.is_finite() && std >= 0.0) {
        let reason = "it has to be at least 0";
        return Err(json.invalid(key, reason).into());
    }
    Ok(std)
}

/// Refuses a switch that the file turns on.
fn refuse(json: &JsonObject, key: &'static str) -> Result<(), ModelError> {
    match json.bool(key)? {
        Some(true) => Err(unsupported(key, "true", "false")),
        _ => Ok(()),
    }
}

fn unsupported(setting: &'static str, found: impl ToString, supported: &'static str) -> ModelError {
    ModelError::UnsupportedSetting {
        setting,
        found: found.to_string(),
        supported,
    }
}
