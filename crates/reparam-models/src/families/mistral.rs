//! Mistral: Llama with a sliding window in every layer.

use reparam_formats::config::ModelJson;

use super::Family;
use super::decoder::{Decoder, Defaults, or_null, sentencepiece_tokens};
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "mistral",
    describe,
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
    let raw = &json.json;
    let window = or_null(raw, "sliding_window", raw.size("sliding_window")?, 4096);
    decoder.describe(vec![rotary], |_, block| block.attention.window = window)
}
