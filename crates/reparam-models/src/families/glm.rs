//! GLM-4: Llama with rotary positions of neighbours in a part of each head, and gate and up in one layer. Its second form has a norm
//! behind each half of a block, too.

use reparam_formats::config::{ModelJson, SpecialTokens};

use super::Family;
use super::decoder::{ATTENTION_BIAS, Decoder, Defaults, bias_attention};
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "glm",
    gguf: None,
    describe: |json| describe(json, false),
};

/// GLM-4-0414 and those after it.
pub(super) const WITH_OUTPUT_NORMS: Family = Family {
    model_type: "glm4",
    gguf: None,
    describe: |json| describe(json, true),
};

fn describe(json: &ModelJson, norms_outputs: bool) -> Result<Architecture, ModelError> {
    let defaults = Defaults {
        n_kv_heads: Some(2),
        head_dim: Some(128),
        max_positions: 131_072,
        eps: (Some("rms_norm_eps"), 1.5625e-7),
        turned: 0.5,
        special: SpecialTokens {
            bos: None,
            eos: vec![151_329, 151_336, 151_338],
            pad: Some(151_329),
        },
        ..Defaults::default()
    };
    let decoder = Decoder::read(json, defaults)?;
    let mut rotary = decoder.rotary()?;
    rotary.interleaved = true;
    let bias = json.json.bool("attention_bias")?.unwrap_or(true);
    let mut architecture = decoder.describe(vec![rotary], |layer, block| {
        bias_attention(&mut block.attention, bias, false);
        decoder.joined_gate(layer, &mut block.feed_forward);
        if norms_outputs {
            let norm = |name: &str| Some(decoder.norm(decoder.path(layer, name)));
            block.attention_norms.inside = norm("post_self_attn_layernorm");
            block.feed_forward_norms.inside = norm("post_mlp_layernorm");
        }
    })?;
    architecture.bias_keys = vec![ATTENTION_BIAS];
    Ok(architecture)
}
