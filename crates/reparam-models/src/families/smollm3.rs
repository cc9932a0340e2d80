//! SmolLM3: Llama without positions in every fourth layer.

use reparam_formats::config::{ModelJson, SpecialTokens};

use super::Family;
use super::decoder::{
    ATTENTION_BIAS, Decoder, Defaults, bias_attention, bias_feed_forward, sliding_layers,
};
use crate::gguf::GgufFamily;
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "smollm3",
    describe,
    gguf: Some(GgufFamily {
        rotates_neighbours: true,
        unrotated: Some(4),
        ..GgufFamily::new("smollm3")
    }),
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let defaults = Defaults {
        n_kv_heads: Some(4),
        max_positions: 32_768,
        tied: true,
        theta: 2e6,
        special: SpecialTokens {
            bos: Some(128_000),
            eos: vec![128_001],
            pad: Some(128_004),
        },
        ..Defaults::default()
    };
    let raw = &json.json;
    let decoder = Decoder::read(json, defaults)?;
    let rotary = decoder.rotary()?;
    decoder.whole_heads(&rotary)?;
    let turned = turned_layers(json, decoder.n_layers)?;
    let window = raw.size("sliding_window")?;
    // Says nothing of layers that are listed.
    let slides = raw.bool("use_sliding_window")?.unwrap_or(false);
    let sliding = sliding_layers(json, decoder.n_layers, |layer| slides && !turned[layer])?;
    let attention_bias = raw.bool("attention_bias")?.unwrap_or(false);
    let mlp_bias = raw.bool("mlp_bias")?.unwrap_or(false);
    let architecture = decoder.describe(vec![rotary], |layer, block| {
        let attention = &mut block.attention;
        bias_attention(attention, attention_bias, attention_bias);
        attention.rotary = attention.rotary.filter(|_| turned[layer]);
        attention.window = window.filter(|_| sliding[layer]);
        bias_feed_forward(&mut block.feed_forward, mlp_bias);
    })?;
    Ok(Architecture {
        bias_keys: vec![ATTENTION_BIAS, ("mlp.", "mlp_bias")],
        ..architecture
    })
}

/// Which layers turn queries and keys: those with a 1 in the list, or all but every so many.
fn turned_layers(json: &ModelJson, n_layers: usize) -> Result<Vec<bool>, ModelError> {
    let (raw, key) = (&json.json, "no_rope_layers");
    let every = raw.size("no_rope_layer_interval")?.unwrap_or(4);
    match raw.f64s(key)? {
        None => Ok((1..=n_layers)
            .map(|layer| !layer.is_multiple_of(every))
            .collect()),
        // A longer list is that of a model that was cut.
        Some(listed) if listed.len() >= n_layers => {
            Ok(listed.into_iter().map(|turned| turned != 0.0).collect())
        }
        Some(listed) => {
            let reason = format!("it has {} entries for {n_layers} layers", listed.len());
            Err(raw.invalid(key, reason).into())
        }
    }
}
