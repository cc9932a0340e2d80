//! StableLM: Llama with layer norms, and rotary positions of a part of each head; in some both halves of a block side by side, and
//! norms of queries and keys of their own for each head.

use reparam_formats::config::{ModelJson, SpecialTokens};

use super::decoder::{Decoder, Defaults, bias_attention};
use super::{Family, probability};
use crate::architecture::{HeadWeights, NormKind, NormSpec};
use crate::gguf::{GgufBiases, GgufFamily, GgufHead};
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "stablelm",
    describe,
    gguf: Some(GgufFamily {
        biases: GgufBiases::INPUTS,
        square_queries: true,
        parallel: None,
        head: GgufHead::Own,
        ..GgufFamily::new("stablelm")
    }),
};

/// Which part of each head is rotated.
const SHARE: &str = "partial_rotary_factor";

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let defaults = Defaults {
        n_kv_heads: Some(32),
        max_positions: 4096,
        eps: (Some("layer_norm_eps"), 1e-5),
        special: SpecialTokens {
            bos: Some(0),
            eos: vec![0],
            pad: None,
        },
        turned: 0.25,
        norm: NormKind::Layer,
        ..Defaults::default()
    };
    let raw = &json.json;
    let has_norms = raw.bool("qk_layernorm")?.unwrap_or(false);
    let nested = raw.object("rope_parameters")?;
    for object in [Some(raw), nested.as_ref()].into_iter().flatten() {
        // The default would be a guess: transformers does not read it either.
        if object.contains(SHARE) && object.get(SHARE).is_none() {
            let reason = "it has to be a number, from which transformers computes";
            return Err(object.invalid(SHARE, reason).into());
        }
    }
    let decoder = Decoder::read(json, defaults)?;
    let rotary = decoder.rotary()?;
    let bias = raw.bool("use_qkv_bias")?.unwrap_or(false);
    let dropout = probability(raw, "hidden_dropout", 0.0)?;
    let is_parallel = raw.bool("use_parallel_residual")?.unwrap_or(false);
    let architecture = decoder.describe(vec![rotary], |layer, block| {
        let attention = &mut block.attention;
        bias_attention(attention, bias, false);
        if has_norms {
            let norm = |name: &str| NormSpec {
                kind: NormKind::LayerWithoutBias,
                width: decoder.head_dim,
                ..decoder.norm(decoder.path(layer, &format!("self_attn.{name}")))
            };
            attention.q_norm = Some(norm("q_layernorm"));
            attention.k_norm = Some(norm("k_layernorm"));
            attention.norm_weights = HeadWeights::Apart;
        }
        block.feed_forward.output_dropout = Some(dropout);
        if is_parallel {
            block.share_norm();
        }
    })?;
    Ok(Architecture {
        bias_keys: vec![("self_attn.", "use_qkv_bias")],
        ..architecture
    })
}
