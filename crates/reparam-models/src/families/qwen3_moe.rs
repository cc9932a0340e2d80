//! Qwen3-MoE: Qwen3 with experts.

use reparam_formats::config::ModelJson;

use super::Family;
use super::decoder::{
    ATTENTION_BIAS, Decoder, Defaults, ExpertNames, ExpertSizes, bias_attention, expert_counts,
    sparse_layers, window_or, without_balancing,
};
use crate::gguf::{GgufExperts, GgufFamily};
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "qwen3_moe",
    describe,
    gguf: Some(GgufFamily {
        experts: Some(GgufExperts {
            normalize: true,
            shared: false,
        }),
        ..GgufFamily::new("qwen3moe")
    }),
};

const NAMES: ExpertNames = ExpertNames {
    taken_by_peft: true,
    ..ExpertNames::QWEN
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let raw = &json.json;
    let defaults = Defaults {
        n_kv_heads: Some(4),
        max_positions: 32_768,
        ..Defaults::default()
    };
    let decoder = Decoder::read(json, defaults)?;
    let rotary = decoder.rotary()?;
    decoder.whole_heads(&rotary)?;
    without_balancing(raw)?;
    let window = match raw.bool("use_sliding_window")?.unwrap_or(false) {
        true => window_or(raw, 4096)?,
        false => None,
    };
    let bias = raw.bool("attention_bias")?.unwrap_or(false);
    // Published files have the first, transformers writes the second since its version 5.
    let keys = ["num_experts", "num_local_experts"];
    let [n_experts, per_token] = expert_counts(raw, &keys, [128, 8])?;
    let sizes = ExpertSizes {
        n_experts,
        per_token,
        inner: raw.size("moe_intermediate_size")?.unwrap_or(768),
        normalize: raw.bool("norm_topk_prob")?.unwrap_or(false),
    };
    let sparse = sparse_layers(raw, decoder.n_layers)?;
    let architecture = decoder.describe(vec![rotary], |layer, block| {
        let attention = &mut block.attention;
        bias_attention(attention, bias, bias);
        attention.window = window;
        decoder.norm_heads(layer, attention);
        if sparse[layer] {
            let feed_forward = &mut block.feed_forward;
            decoder.with_experts(layer, &sizes, &NAMES, feed_forward);
        }
    })?;
    Ok(Architecture {
        bias_keys: vec![ATTENTION_BIAS],
        ..architecture
    })
}
