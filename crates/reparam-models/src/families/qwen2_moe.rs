//! Qwen1.5-MoE and Qwen2-MoE: Qwen2 with experts, one of which all tokens go through.

use reparam_formats::config::ModelJson;

use super::Family;
use super::decoder::{
    Decoder, Defaults, ExpertNames, ExpertSizes, bias_attention, expert_counts, sliding_layers,
    sparse_layers, without_balancing,
};
use crate::gguf::{GgufBiases, GgufExperts, GgufFamily};
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "qwen2_moe",
    describe,
    gguf: Some(GgufFamily {
        biases: GgufBiases {
            inputs: Some(true),
            ..GgufBiases::NONE
        },
        square_queries: true,
        experts: Some(GgufExperts {
            normalize: false,
            shared: true,
        }),
        ..GgufFamily::new("qwen2moe")
    }),
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let raw = &json.json;
    let defaults = Defaults {
        n_kv_heads: Some(16),
        max_positions: 32_768,
        ..Defaults::default()
    };
    let decoder = Decoder::read(json, defaults)?;
    let rotary = decoder.rotary()?;
    decoder.whole_heads(&rotary)?;
    without_balancing(raw)?;
    let windows = windows(json, decoder.n_layers)?;
    let bias = raw.bool("qkv_bias")?.unwrap_or(true);
    let [n_experts, per_token] = expert_counts(raw, &["num_experts"], [60, 4])?;
    let sizes = ExpertSizes {
        n_experts,
        per_token,
        inner: raw.size("moe_intermediate_size")?.unwrap_or(1408),
        normalize: raw.bool("norm_topk_prob")?.unwrap_or(false),
    };
    let shared = raw.size("shared_expert_intermediate_size")?.unwrap_or(5632);
    let sparse = sparse_layers(raw, decoder.n_layers)?;
    decoder.describe(vec![rotary], |layer, block| {
        bias_attention(&mut block.attention, bias, false);
        block.attention.window = windows[layer];
        if sparse[layer] {
            let feed_forward = &mut block.feed_forward;
            let shared = decoder.shared_expert(layer, shared, feed_forward);
            decoder.with_experts(layer, &sizes, &ExpertNames::QWEN, feed_forward);
            if let Some(experts) = &mut feed_forward.experts {
                experts.shared = Some(Box::new(shared));
            }
        }
    })
}

/// Reads the window of each layer; by default every second layer before `max_window_layers` has one, and only if asked for.
fn windows(json: &ModelJson, n_layers: usize) -> Result<Vec<Option<usize>>, ModelError> {
    let raw = &json.json;
    let window = match raw.bool("use_sliding_window")?.unwrap_or(false) {
        false => None,
        true if raw.contains("sliding_window") => raw.size("sliding_window")?,
        true => Some(4096),
    };
    let end = raw.usize("max_window_layers")?.unwrap_or(28);
    let is_sliding = |layer: usize| window.is_some() && layer < end && layer.is_multiple_of(2);
    let sliding = sliding_layers(json, n_layers, is_sliding)?.into_iter();
    Ok(sliding
        .map(|is_sliding| window.filter(|_| is_sliding))
        .collect())
}
