//! Granite: Llama with factors of token vectors, of scores, of each half of a block, and of logits.

use reparam_formats::config::{JsonObject, ModelJson};

use super::Family;
use super::decoder::{
    ATTENTION_BIAS, Decoder, Defaults, bias_attention, bias_feed_forward, sentencepiece_tokens,
};
use crate::gguf::{GgufFactors, GgufFamily};
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "granite",
    gguf: Some(GgufFamily {
        rotates_neighbours: true,
        factors: GgufFactors::All,
        ..GgufFamily::new("granite")
    }),
    describe,
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let defaults = Defaults {
        special: sentencepiece_tokens(),
        ..Defaults::default()
    };
    let raw = &json.json;
    let decoder = Decoder::read(json, defaults)?;
    let rotary = decoder.rotary()?;
    decoder.whole_heads(&rotary)?;
    let [of_tokens, of_scores, of_halves, of_logits] = [
        "embedding_multiplier",
        "attention_multiplier",
        "residual_multiplier",
        "logits_scaling",
    ]
    .map(|key| factor(raw, key));
    let (of_scores, of_halves) = (of_scores?, of_halves?);
    let bias = raw.bool("attention_bias")?.unwrap_or(false);
    let mlp_bias = raw.bool("mlp_bias")?.unwrap_or(false);
    let mut architecture = decoder.describe(vec![rotary], |_, block| {
        let attention = &mut block.attention;
        attention.scale = of_scores;
        bias_attention(attention, bias, bias);
        bias_feed_forward(&mut block.feed_forward, mlp_bias);
        block.attention_norms.factor = Some(of_halves);
        block.feed_forward_norms.factor = Some(of_halves);
    })?;
    architecture.embedding.factor = Some(of_tokens?);
    architecture.head.factor = Some(1.0 / of_logits?);
    architecture.bias_keys = vec![ATTENTION_BIAS, ("mlp.", "mlp_bias")];
    Ok(architecture)
}

/// Reads a factor, which is 1 where the file says nothing.
fn factor(raw: &JsonObject, key: &'static str) -> Result<f64, ModelError> {
    let found = raw.f64(key)?.unwrap_or(1.0);
    match found.is_finite() && found > 0.0 {
        true => Ok(found),
        false => Err(raw.invalid(key, "it has to be larger than 0").into()),
    }
}
