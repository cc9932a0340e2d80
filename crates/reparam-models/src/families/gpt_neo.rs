//! GPT-Neo: layer norms, learned positions, no gate, scores that are not scaled, and a window in every second layer.

use reparam_formats::config::{JsonObject, ModelJson, SpecialTokens};
use reparam_ops::Activation;

use super::decoder::{Decoder, Defaults, Keys, learned_positions};
use super::{Family, probability, unsupported};
use crate::architecture::NormKind;
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "gpt_neo",
    describe,
    gguf: None,
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let defaults = Defaults {
        keys: Keys {
            n_heads: "num_heads",
            n_kv_heads: None,
            head_dim: None,
            n_layers: "num_layers",
            ..Keys::LLAMA
        },
        layers: "h",
        inner: Some(|width| width.saturating_mul(4)),
        norm: NormKind::Layer,
        eps: (Some("layer_norm_epsilon"), 1e-5),
        activation: ("activation_function", Activation::GeluTanh),
        tied: true,
        special: SpecialTokens {
            bos: Some(50_256),
            eos: vec![50_256],
            pad: None,
        },
        ..Defaults::default()
    };
    let raw = &json.json;
    let decoder = Decoder::read(json, defaults)?;
    let dropout = probability(raw, "resid_dropout", 0.0)?;
    let window = raw.size("window_size")?.unwrap_or(256);
    let is_local = local_layers(raw, decoder.n_layers)?;
    let mut architecture = decoder.describe(Vec::new(), |layer, block| {
        let attention = &mut block.attention;
        let layers = ["q_proj", "k_proj", "v_proj", "out_proj"];
        let layers = layers.map(|name| format!("attn.attention.{name}"));
        decoder.attention_layers(layer, layers.each_ref().map(String::as_str), attention);
        attention.output.bias = true;
        attention.scale = 1.0;
        attention.window = is_local[layer].then_some(window);
        attention.output_dropout = Some(dropout);
        let feed_forward = &mut block.feed_forward;
        decoder.without_gate(layer, ["mlp.c_fc", "mlp.c_proj"], true, feed_forward);
        feed_forward.output_dropout = Some(dropout);
        decoder.gpt2_norms(layer, block);
    })?;
    decoder.gpt2_paths(&mut architecture);
    learned_positions("wpe", 0, &mut architecture);
    architecture.embedding.dropout = Some(probability(raw, "embed_dropout", 0.0)?);
    // The causal masks.
    architecture.buffers = vec![".attn.attention.bias", ".attn.attention.masked_bias"];
    Ok(architecture)
}

/// Which layers have a window: `attention_types` is a list of `[["global", "local"], 12]`, kinds and how often they come one after
/// the other.
fn local_layers(raw: &JsonObject, n_layers: usize) -> Result<Vec<bool>, ModelError> {
    let key = "attention_types";
    let Some(groups) = raw.get(key).filter(|value| !value.is_null()) else {
        return Ok((0..n_layers)
            .map(|layer| !layer.is_multiple_of(2))
            .collect());
    };
    let wrong = || raw.wrong_type(key, "a list of [kinds, times]");
    let other_number = || raw.invalid(key, format!("it is not of {n_layers} layers"));
    let mut layers = Vec::new();
    for group in groups.as_array().ok_or_else(wrong)? {
        let [kinds, times] = &group.as_array().ok_or_else(wrong)?[..] else {
            return Err(wrong().into());
        };
        let kinds = kinds.as_array().ok_or_else(wrong)?;
        let times = times.as_u64().ok_or_else(wrong)?;
        // Never more than there can be, whatever the file says.
        let most = (n_layers - layers.len()) / kinds.len().max(1);
        if kinds.is_empty() || times > most as u64 {
            return Err(other_number().into());
        }
        (0..times).for_each(|_| layers.extend(kinds));
    }
    if layers.len() != n_layers {
        return Err(other_number().into());
    }
    let layers = layers.into_iter();
    layers
        .map(|kind| match kind.as_str() {
            Some("local") => Ok(true),
            Some("global") => Ok(false),
            _ => Err(unsupported(key, kind, "global, local")),
        })
        .collect()
}
