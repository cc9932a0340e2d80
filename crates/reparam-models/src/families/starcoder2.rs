//! StarCoder2: layer norms, rotary positions, biases, and feed-forward layers without a gate.

use reparam_formats::config::{ModelJson, SpecialTokens};
use reparam_ops::Activation;

use super::decoder::{Decoder, Defaults, bias_attention, bias_feed_forward};
use super::{Family, probability};
use crate::architecture::{LinearSpec, NormKind};
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "starcoder2",
    describe,
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let defaults = Defaults {
        n_kv_heads: Some(2),
        max_positions: 4096,
        eps: ("norm_epsilon", 1e-5),
        activation: ("hidden_act", Activation::GeluTanh),
        tied: true,
        special: SpecialTokens {
            bos: Some(50_256),
            eos: vec![50_256],
            pad: None,
        },
        std: 0.018_042,
        ..Defaults::default()
    };
    let raw = &json.json;
    let mut decoder = Decoder::read(json, defaults)?;
    decoder.norm = NormKind::Layer;
    let rotary = decoder.rotary()?;
    decoder.whole_heads(&rotary)?;
    let window = raw.size("sliding_window")?;
    let bias = raw.bool("use_bias")?.unwrap_or(true);
    let dropout = probability(raw, "residual_dropout", 0.0)?;
    let mut architecture = decoder.describe(vec![rotary], |layer, block| {
        let linear = |name: &str, d_in: usize, d_out: usize| {
            LinearSpec::new(format!("layers.{layer}.mlp.{name}"), d_in, d_out)
        };
        let feed_forward = &mut block.feed_forward;
        feed_forward.gated = false;
        feed_forward.inputs = vec![linear("c_fc", decoder.width, decoder.inner)];
        feed_forward.output = linear("c_proj", decoder.inner, decoder.width);
        feed_forward.output_dropout = Some(dropout);
        bias_feed_forward(feed_forward, bias);
        let attention = &mut block.attention;
        attention.window = window;
        attention.output_dropout = Some(dropout);
        bias_attention(attention, bias, bias);
    })?;
    architecture.embedding.dropout = Some(probability(raw, "embedding_dropout", 0.0)?);
    architecture.bias_keys = vec![("self_attn.", "use_bias"), ("mlp.", "use_bias")];
    Ok(architecture)
}
