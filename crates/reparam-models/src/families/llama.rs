//! Llama.

use reparam_formats::config::ModelJson;

use super::Family;
use super::decoder::{
    ATTENTION_BIAS, Decoder, Defaults, bias_attention, bias_feed_forward, sentencepiece_tokens,
};
use crate::gguf::{GgufBiases, GgufFamily, GgufFrequencies};
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "llama",
    describe,
    gguf: Some(GgufFamily {
        rotates_neighbours: true,
        biases: GgufBiases::ANY,
        frequencies: GgufFrequencies::Factors,
        ..GgufFamily::new("llama")
    }),
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let defaults = Defaults {
        special: sentencepiece_tokens(),
        ..Defaults::default()
    };
    let decoder = Decoder::read(json, defaults)?;
    let rotary = decoder.rotary()?;
    decoder.whole_heads(&rotary)?;
    let attention_bias = json.json.bool("attention_bias")?.unwrap_or(false);
    let mlp_bias = json.json.bool("mlp_bias")?.unwrap_or(false);
    let architecture = decoder.describe(vec![rotary], |_, block| {
        bias_attention(&mut block.attention, attention_bias, attention_bias);
        bias_feed_forward(&mut block.feed_forward, mlp_bias);
    })?;
    Ok(Architecture {
        bias_keys: vec![ATTENTION_BIAS, ("mlp.", "mlp_bias")],
        ..architecture
    })
}
