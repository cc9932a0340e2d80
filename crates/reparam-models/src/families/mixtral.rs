//! Mixtral: Mistral with experts.

use reparam_formats::config::ModelJson;

use super::decoder::{
    Decoder, Defaults, ExpertNames, ExpertSizes, expert_counts, sentencepiece_tokens,
    without_balancing,
};
use super::{Family, unsupported};
use crate::gguf::{GgufExperts, GgufFamily};
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "mixtral",
    describe,
    gguf: Some(GgufFamily {
        rotates_neighbours: true,
        experts: Some(GgufExperts {
            normalize: true,
            shared: false,
        }),
        ..GgufFamily::new("llama")
    }),
};

const NAMES: ExpertNames = ExpertNames {
    place: Some("block_sparse_moe"),
    layers: ["w1", "w3", "w2"],
    taken_by_peft: true,
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let raw = &json.json;
    let defaults = Defaults {
        n_kv_heads: Some(8),
        max_positions: 131_072,
        eps: (Some("rms_norm_eps"), 1e-5),
        theta: 1e6,
        special: sentencepiece_tokens(),
        ..Defaults::default()
    };
    let decoder = Decoder::read(json, defaults)?;
    let rotary = decoder.rotary()?;
    decoder.whole_heads(&rotary)?;
    without_balancing(raw)?;
    let jitter = raw.f64("router_jitter_noise")?.unwrap_or(0.0);
    if jitter != 0.0 {
        return Err(unsupported("router_jitter_noise", jitter, "0"));
    }
    let window = raw.size("sliding_window")?;
    let keys = ["num_local_experts", "num_experts"];
    let [n_experts, per_token] = expert_counts(raw, &keys, [8, 2])?;
    let sizes = ExpertSizes {
        n_experts,
        per_token,
        inner: decoder.inner,
        normalize: true,
    };
    decoder.describe(vec![rotary], |layer, block| {
        block.attention.window = window;
        decoder.with_experts(layer, &sizes, &NAMES, &mut block.feed_forward);
    })
}
