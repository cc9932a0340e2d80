//! StableLM: Llama with layer norms, and rotary positions of a part of each head.

use reparam_formats::config::{ModelJson, SpecialTokens};

use super::decoder::{Decoder, Defaults, bias_attention};
use super::{Family, probability, refuse};
use crate::architecture::NormKind;
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "stablelm",
    describe,
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let defaults = Defaults {
        n_kv_heads: Some(32),
        max_positions: 4096,
        eps: ("layer_norm_eps", 1e-5),
        special: SpecialTokens {
            bos: Some(0),
            eos: vec![0],
            pad: None,
        },
        turned: 0.25,
        ..Defaults::default()
    };
    let raw = &json.json;
    refuse(raw, "qk_layernorm")?;
    refuse(raw, "use_parallel_residual")?;
    let mut decoder = Decoder::read(json, defaults)?;
    decoder.norm = NormKind::Layer;
    let rotary = decoder.rotary()?;
    let bias = raw.bool("use_qkv_bias")?.unwrap_or(false);
    let dropout = probability(raw, "hidden_dropout", 0.0)?;
    let architecture = decoder.describe(vec![rotary], |_, block| {
        bias_attention(&mut block.attention, bias, false);
        block.feed_forward.output_dropout = Some(dropout);
    })?;
    Ok(Architecture {
        bias_keys: vec![("self_attn.", "use_qkv_bias")],
        ..architecture
    })
}
