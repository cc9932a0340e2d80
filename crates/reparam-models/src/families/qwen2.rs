//! Qwen2 and Qwen2.5: Llama with biases on queries, keys and values.

use reparam_formats::config::ModelJson;

use super::Family;
use super::decoder::{Decoder, Defaults, bias_attention, sliding_layers};
use crate::gguf::{GgufBiases, GgufFamily};
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "qwen2",
    describe,
    gguf: Some(GgufFamily {
        biases: GgufBiases::INPUTS,
        square_queries: true,
        ..GgufFamily::new("qwen2")
    }),
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let defaults = Defaults {
        n_kv_heads: Some(32),
        max_positions: 32_768,
        ..Defaults::default()
    };
    let decoder = Decoder::read(json, defaults)?;
    let rotary = decoder.rotary()?;
    decoder.whole_heads(&rotary)?;
    let windows = windows(json, decoder.n_layers)?;
    decoder.describe(vec![rotary], |layer, block| {
        bias_attention(&mut block.attention, true, false);
        block.attention.window = windows[layer];
    })
}

/// Reads the window of each layer; by default only the layers behind `max_window_layers` have one, and only if asked for.
pub(super) fn windows(json: &ModelJson, n_layers: usize) -> Result<Vec<Option<usize>>, ModelError> {
    let raw = &json.json;
    let window = match raw.bool("use_sliding_window")?.unwrap_or(false) {
        false => None,
        true if raw.contains("sliding_window") => raw.size("sliding_window")?,
        true => Some(4096),
    };
    let first = raw.usize("max_window_layers")?.unwrap_or(28);
    let sliding = sliding_layers(json, n_layers, |layer| window.is_some() && layer >= first)?;
    let sliding = sliding.into_iter();
    Ok(sliding
        .map(|is_sliding| window.filter(|_| is_sliding))
        .collect())
}
