//! Phi-1 and Phi-2: layer norms, rotary positions of a part of each head, biases everywhere, no gate, and both halves of a block side
//! by side behind one norm.

use reparam_formats::config::{ModelJson, SpecialTokens};
use reparam_ops::Activation;

use super::decoder::{Decoder, Defaults, bias_attention};
use super::{Family, probability};
use crate::architecture::{NormKind, NormSpec};
use crate::gguf::{GgufBiases, GgufFamily, GgufHead};
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "phi",
    gguf: Some(GgufFamily {
        activation: Activation::GeluTanh,
        biases: GgufBiases::ALL,
        parallel: Some(true),
        head: GgufHead::Own,
        head_bias: true,
        head_norms: false,
        ..GgufFamily::new("phi2")
    }),
    describe,
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let defaults = Defaults {
        norm: NormKind::Layer,
        eps: (Some("layer_norm_eps"), 1e-5),
        activation: ("hidden_act", Activation::GeluTanh),
        turned: 0.5,
        special: SpecialTokens {
            bos: Some(1),
            eos: vec![2],
            pad: None,
        },
        ..Defaults::default()
    };
    let raw = &json.json;
    let decoder = Decoder::read(json, defaults)?;
    let rotary = decoder.rotary()?;
    let dropout = probability(raw, "resid_pdrop", 0.0)?;
    let norms_heads = raw.bool("qk_layernorm")?.unwrap_or(false);
    let mut architecture = decoder.describe(vec![rotary], |layer, block| {
        let attention = &mut block.attention;
        attention.output.path = decoder.path(layer, "self_attn.dense");
        attention.output_dropout = Some(dropout);
        bias_attention(attention, true, true);
        if norms_heads {
            let norm = |name: &str| NormSpec {
                width: decoder.head_dim,
                ..decoder.norm(decoder.path(layer, name))
            };
            attention.q_norm = Some(norm("self_attn.q_layernorm"));
            attention.k_norm = Some(norm("self_attn.k_layernorm"));
        }
        let feed_forward = &mut block.feed_forward;
        decoder.without_gate(layer, ["mlp.fc1", "mlp.fc2"], true, feed_forward);
        feed_forward.output_dropout = Some(dropout);
        block.share_norm();
    })?;
    architecture.embedding.dropout = Some(probability(raw, "embd_pdrop", 0.0)?);
    architecture.norm = Some(decoder.norm("final_layernorm"));
    architecture.head.bias = true;
    Ok(architecture)
}
