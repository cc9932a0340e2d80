//! Gemma: Llama with norms `1 + w`, token vectors times `sqrt(d)`, and a gate of GELU.

use reparam_formats::config::{ModelJson, SpecialTokens};
use reparam_ops::Activation;

use super::decoder::{ATTENTION_BIAS, Decoder, Defaults, bias_attention};
use super::{Family, refuse};
use crate::architecture::NormKind;
use crate::gguf::{GgufFamily, GgufHead};
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "gemma",
    describe,
    gguf: Some(GgufFamily {
        activation: Activation::GeluTanh,
        head: GgufHead::Table,
        scales_embedding: true,
        ..GgufFamily::new("gemma")
    }),
};

/// What Gemma takes where a file says nothing; the later ones have most of it, too.
pub(super) fn defaults() -> Defaults {
    Defaults {
        n_kv_heads: Some(16),
        head_dim: Some(256),
        max_positions: 8192,
        norm: NormKind::RmsPlusOne,
        activation: ("hidden_act", Activation::GeluTanh),
        tied: true,
        special: SpecialTokens {
            bos: Some(2),
            eos: vec![1],
            pad: Some(0),
        },
        ..Defaults::default()
    }
}

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let raw = &json.json;
    // transformers does one thing or another with it, by the implementation of attention.
    refuse(raw, "use_bidirectional_attention")?;
    let mut decoder = Decoder::read(json, defaults())?;
    // The first files say `gelu`, and mean its approximation.
    if decoder.activation == Activation::Gelu {
        decoder.activation = Activation::GeluTanh;
    }
    let rotary = decoder.rotary()?;
    decoder.whole_heads(&rotary)?;
    let bias = raw.bool("attention_bias")?.unwrap_or(false);
    let mut architecture = decoder.describe(vec![rotary], |_, block| {
        bias_attention(&mut block.attention, bias, bias);
    })?;
    architecture.bias_keys = vec![ATTENTION_BIAS];
    architecture.embedding.factor = Some((decoder.width as f64).sqrt());
    Ok(architecture)
}
