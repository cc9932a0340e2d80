//! StarCoder2: layer norms, rotary positions, biases, and feed-forward layers without a gate.

use reparam_formats::config::{ModelJson, SpecialTokens};
use reparam_ops::Activation;

use super::decoder::{Decoder, Defaults, bias_attention};
use super::{Family, probability};
use crate::architecture::NormKind;
use crate::gguf::{GgufBiases, GgufFamily};
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "starcoder2",
    describe,
    gguf: Some(GgufFamily {
        activation: Activation::GeluTanh,
        biases: GgufBiases::ALL,
        square_queries: true,
        ..GgufFamily::new("starcoder2")
    }),
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let defaults = Defaults {
        n_kv_heads: Some(2),
        max_positions: 4096,
        eps: (Some("norm_epsilon"), 1e-5),
        activation: ("hidden_act", Activation::GeluTanh),
        tied: true,
        special: SpecialTokens {
            bos: Some(50_256),
            eos: vec![50_256],
            pad: None,
        },
        std: ("initializer_range", 0.018_042),
        norm: NormKind::Layer,
        ..Defaults::default()
    };
    let raw = &json.json;
    let decoder = Decoder::read(json, defaults)?;
    let rotary = decoder.rotary()?;
    decoder.whole_heads(&rotary)?;
    let window = raw.size("sliding_window")?;
    let bias = raw.bool("use_bias")?.unwrap_or(true);
    let dropout = probability(raw, "residual_dropout", 0.0)?;
    let mut architecture = decoder.describe(vec![rotary], |layer, block| {
        let feed_forward = &mut block.feed_forward;
        decoder.without_gate(layer, ["mlp.c_fc", "mlp.c_proj"], bias, feed_forward);
        feed_forward.output_dropout = Some(dropout);
        let attention = &mut block.attention;
        attention.window = window;
        attention.output_dropout = Some(dropout);
        bias_attention(attention, bias, bias);
    })?;
    architecture.embedding.dropout = Some(probability(raw, "embedding_dropout", 0.0)?);
    architecture.bias_keys = vec![("self_attn.", "use_bias"), ("mlp.", "use_bias")];
    Ok(architecture)
}
