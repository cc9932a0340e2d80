//! Gemma 2: Gemma with norms before and after each half of a block, scores and logits that are capped, and a window in every
//! second layer.

use reparam_formats::config::ModelJson;
use reparam_ops::Activation;

use super::decoder::{
    ATTENTION_BIAS, Decoder, Defaults, bias_attention, cap_or, sliding_layers, window_or,
};
use super::{Family, gemma, refuse};
use crate::gguf::{GgufFamily, GgufHead, GgufWindows, root_of_head};
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "gemma2",
    describe,
    gguf: Some(GgufFamily {
        activation: Activation::GeluTanh,
        head: GgufHead::Table,
        scales_embedding: true,
        windows: GgufWindows::Groups {
            layers: 2,
            optional: false,
            own_theta: true,
        },
        soft_caps: true,
        scale,
        ..GgufFamily::new("gemma2")
    }),
};

/// llama.cpp takes the scale of the largest model from the width of its hidden states, and knows it by its layers.
fn scale(architecture: &Architecture) -> f64 {
    const LAYERS_OF_27B: usize = 46;
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
        activation: ("hidden_activation", Activation::GeluTanh),
        ..gemma::defaults()
    };
    let raw = &json.json;
    refuse(raw, "use_bidirectional_attention")?;
    let decoder = Decoder::read(json, defaults)?;
    let rotary = decoder.rotary()?;
    decoder.whole_heads(&rotary)?;
    let window = window_or(raw, 4096)?;
    let sliding = sliding_layers(json, decoder.n_layers, |layer| layer.is_multiple_of(2))?;
    let soft_cap = cap_or(raw, "attn_logit_softcapping", Some(50.0))?;
    let scale = decoder.scale_of("query_pre_attn_scalar", 256.0)?;
    let bias = raw.bool("attention_bias")?.unwrap_or(false);
    let mut architecture = decoder.describe(vec![rotary], |layer, block| {
        let attention = &mut block.attention;
        bias_attention(attention, bias, bias);
        attention.scale = scale;
        attention.soft_cap = soft_cap;
        attention.window = window.filter(|_| sliding[layer]);
        decoder.norm_outputs(layer, block);
    })?;
    architecture.bias_keys = vec![ATTENTION_BIAS];
    architecture.embedding.factor = Some((decoder.width as f64).sqrt());
    architecture.head.soft_cap = cap_or(raw, "final_logit_softcapping", Some(30.0))?;
    Ok(architecture)
}
