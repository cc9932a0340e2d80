//! Ministral: Mistral with a window in some layers.

use reparam_formats::config::ModelJson;

use super::Family;
use super::decoder::{Decoder, Defaults, or_null, sentencepiece_tokens, sliding_layers};
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "ministral",
    describe,
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let defaults = Defaults {
        n_kv_heads: Some(8),
        max_positions: 131_072,
        special: sentencepiece_tokens(),
        ..Defaults::default()
    };
    let raw = &json.json;
    let decoder = Decoder::read(json, defaults)?;
    let rotary = decoder.rotary()?;
    decoder.whole_heads(&rotary)?;
    let window = or_null(raw, "sliding_window", raw.size("sliding_window")?, 4096);
    let sliding = sliding_layers(json, decoder.n_layers, |_| window.is_some())?;
    decoder.describe(vec![rotary], |layer, block| {
        block.attention.window = window.filter(|_| sliding[layer]);
    })
}
