//! Qwen3: Llama with a norm on each head of queries and keys.

use reparam_formats::config::ModelJson;

use super::Family;
use super::decoder::{ATTENTION_BIAS, Decoder, Defaults, bias_attention};
use super::qwen2::windows;
use crate::gguf::GgufFamily;
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "qwen3",
    describe,
    gguf: Some(GgufFamily::new("qwen3")),
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let defaults = Defaults {
        n_kv_heads: Some(32),
        head_dim: Some(128),
        max_positions: 32_768,
        ..Defaults::default()
    };
    let decoder = Decoder::read(json, defaults)?;
    let rotary = decoder.rotary()?;
    decoder.whole_heads(&rotary)?;
    let windows = windows(json, decoder.n_layers)?;
    let bias = json.json.bool("attention_bias")?.unwrap_or(false);
    let architecture = decoder.describe(vec![rotary], |layer, block| {
        let attention = &mut block.attention;
        bias_attention(attention, bias, bias);
        attention.window = windows[layer];
        decoder.norm_heads(layer, attention);
    })?;
    Ok(Architecture {
        bias_keys: vec![ATTENTION_BIAS],
        ..architecture
    })
}
