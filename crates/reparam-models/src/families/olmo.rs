//! OLMo, the first version: Llama with layer norms that have no weights, and in some bounds of queries, keys and values.

use reparam_formats::config::{ModelJson, SpecialTokens};

use super::Family;
use super::decoder::{ATTENTION_BIAS, Decoder, Defaults, bias_attention};
use crate::architecture::NormKind;
use crate::gguf::GgufFamily;
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "olmo",
    describe,
    gguf: Some(GgufFamily {
        rotates_neighbours: true,
        square_queries: true,
        clips: true,
        ..GgufFamily::new("olmo")
    }),
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let defaults = Defaults {
        norm: NormKind::LayerWithoutWeight,
        eps: (None, 1e-5),
        special: SpecialTokens {
            bos: None,
            eos: vec![50_279],
            pad: Some(1),
        },
        ..Defaults::default()
    };
    let raw = &json.json;
    let decoder = Decoder::read(json, defaults)?;
    let rotary = decoder.rotary()?;
    decoder.whole_heads(&rotary)?;
    let bias = raw.bool("attention_bias")?.unwrap_or(false);
    let clip = raw.f64("clip_qkv")?;
    if clip.is_some_and(|most| most <= 0.0) {
        return Err(raw.invalid("clip_qkv", "it has to be larger than 0").into());
    }
    let architecture = decoder.describe(vec![rotary], |_, block| {
        block.attention.clip = clip;
        bias_attention(&mut block.attention, bias, bias);
    })?;
    Ok(Architecture {
        bias_keys: vec![ATTENTION_BIAS],
        ..architecture
    })
}
