//! Gemma 3, text only: norms `1 + w` before and after each half of a block and on queries and keys, token vectors times
//! `sqrt(d)`, and layers with a window that have rotary positions of their own.

use reparam_formats::config::{ModelJson, RopeParameters};
use reparam_ops::Activation;

use super::decoder::{
    ATTENTION_BIAS, Decoder, Defaults, bias_attention, cap_or, sliding_layers, window_or,
};
use super::{Family, gemma, unsupported};
use crate::architecture::RotarySpec;
use crate::gguf::{GgufFamily, GgufHead, GgufWindows, root_of_head};
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "gemma3_text",
    describe,
    gguf: Some(GgufFamily {
        activation: Activation::GeluTanh,
        head: GgufHead::OwnOrTable,
        scales_embedding: true,
        windows: GgufWindows::Groups {
            layers: 6,
            optional: false,
            own_theta: true,
        },
        scale,
        ..GgufFamily::new("gemma3")
    }),
};

/// Places of the two kinds of rotary positions.
const FULL: usize = 0;
const SLIDING: usize = 1;

/// llama.cpp takes the scale of the largest model from the width of its hidden states, and knows it by its layers.
fn scale(architecture: &Architecture) -> f64 {
    const LAYERS_OF_27B: usize = 62;
    match architecture.blocks.first() {
        Some(block) if architecture.blocks.len() == LAYERS_OF_27B => {
            1.0 / ((architecture.width / block.attention.n_heads.max(1)) as f64).sqrt()
        }
        _ => root_of_head(architecture),
    }
}

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let defaults = Defaults {
        n_kv_heads: Some(4),
        max_positions: 131_072,
        activation: ("hidden_activation", Activation::GeluTanh),
        ..gemma::defaults()
    };
    let raw = &json.json;
    let decoder = Decoder::read(json, defaults)?;
    // transformers reads this setting and does not apply it.
    if let Some(cap) = raw.f64("attn_logit_softcapping")? {
        return Err(unsupported("attn_logit_softcapping", cap, "null"));
    }
    let rotary = rotary(json, &decoder)?;
    let bidirectional = raw.bool("use_bidirectional_attention")?.unwrap_or(false);
    let window = window_or(raw, 4096)?;
    // The file counts the tokens on both sides.
    let window = window.map(|window| {
        if bidirectional {
            window / 2 + 1
        } else {
            window
        }
    });
    let every = raw.size("sliding_window_pattern")?.unwrap_or(6);
    let sliding = sliding_layers(json, decoder.n_layers, |layer| {
        !(layer + 1).is_multiple_of(every)
    })?;
    let bias = raw.bool("attention_bias")?.unwrap_or(false);
    let scale = decoder.scale_of("query_pre_attn_scalar", 256.0)?;
    let mut architecture = decoder.describe(rotary, |layer, block| {
        let attention = &mut block.attention;
        bias_attention(attention, bias, bias);
        decoder.norm_heads(layer, attention);
        attention.scale = scale;
        attention.causal = !bidirectional;
        (attention.window, attention.rotary) = match sliding[layer] {
            true => (window, Some(SLIDING)),
            false => (None, Some(FULL)),
        };
        decoder.norm_outputs(layer, block);
    })?;
    architecture.bias_keys = vec![ATTENTION_BIAS];
    architecture.embedding.factor = Some((decoder.width as f64).sqrt());
    architecture.head.soft_cap = cap_or(raw, "final_logit_softcapping", None)?;
    Ok(architecture)
}

fn rotary(json: &ModelJson, decoder: &Decoder<'_>) -> Result<Vec<RotarySpec>, ModelError> {
    let read = |layer_type: &str, key: &str, takes_scaling: bool, theta: f64| {
        let defaults = decoder.rope_defaults(theta)?;
        let rope = RopeParameters::read_type(&json.json, layer_type, key, takes_scaling, defaults)?;
        let rotary = decoder.rotary_of(&rope)?;
        decoder.whole_heads(&rotary)?;
        Ok(rotary)
    };
    [
        read("full_attention", "rope_theta", true, 1e6),
        read("sliding_attention", "rope_local_base_freq", false, 1e4),
    ]
    .into_iter()
    .collect()
}
