//! Mistral: Llama with a sliding window, in every layer or in some.

use reparam_formats::config::ModelJson;

use super::Family;
use super::decoder::{Decoder, Defaults, sentencepiece_tokens, sliding_layers, window_or};
use crate::gguf::GgufFamily;
use crate::{Architecture, ModelError};

/// llama.cpp computes it as a Llama, without windows.
const GGUF: GgufFamily = GgufFamily {
    rotates_neighbours: true,
    ..GgufFamily::new("llama")
};

pub(super) const FAMILY: Family = Family {
    model_type: "mistral",
    describe,
    gguf: Some(GGUF),
};

/// The name of what transformers makes of a Mistral whose file lists the types of its layers.
pub(super) const MINISTRAL: Family = Family {
    model_type: "ministral",
    describe,
    gguf: Some(GGUF),
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let defaults = Defaults {
        n_kv_heads: Some(8),
        max_positions: 131_072,
        special: sentencepiece_tokens(),
        ..Defaults::default()
    };
    let decoder = Decoder::read(json, defaults)?;
    let rotary = decoder.rotary()?;
    decoder.whole_heads(&rotary)?;
    let window = window_or(&json.json, 4096)?;
    let sliding = sliding_layers(json, decoder.n_layers, |_| true)?;
    decoder.describe(vec![rotary], |layer, block| {
        block.attention.window = window.filter(|_| sliding[layer]);
    })
}
