//! GPT-2: layer norms, learned positions, no gate, and layers whose weights are stored as `[d_in, d_out]`.

use reparam_formats::config::{ModelJson, SpecialTokens};
use reparam_ops::Activation;

use super::decoder::{Decoder, Defaults, Keys, learned_positions};
use super::{Family, probability, refuse, residual_deviation};
use crate::architecture::NormKind;
use crate::gguf::{GgufBiases, GgufFamily};
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "gpt2",
    describe,
    gguf: Some(GgufFamily {
        activation: Activation::GeluTanh,
        biases: GgufBiases::ALL,
        square_queries: true,
        ..GgufFamily::new("gpt2")
    }),
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let defaults = Defaults {
        keys: Keys::GPT2,
        layers: "h",
        inner: Some(|width| width.saturating_mul(4)),
        max_positions: 1024,
        norm: NormKind::Layer,
        eps: (Some("layer_norm_epsilon"), 1e-5),
        activation: ("activation_function", Activation::GeluTanh),
        attention_dropout: ("attn_pdrop", 0.1),
        tied: true,
        special: SpecialTokens {
            bos: Some(50_256),
            eos: vec![50_256],
            pad: None,
        },
        ..Defaults::default()
    };
    let raw = &json.json;
    refuse(raw, "add_cross_attention")?;
    let decoder = Decoder::read(json, defaults)?;
    let scaled = raw.bool("scale_attn_weights")?.unwrap_or(true);
    let by_layer = raw.bool("scale_attn_by_inverse_layer_idx")?;
    let dropout = probability(raw, "resid_pdrop", 0.1)?;
    let std = residual_deviation(decoder.std()?, decoder.n_layers);
    let mut architecture = decoder.describe(Vec::new(), |layer, block| {
        let attention = &mut block.attention;
        decoder.joined_attention(layer, ["attn.c_attn", "attn.c_proj"], true, attention);
        if !scaled {
            attention.scale = 1.0;
        }
        if by_layer == Some(true) {
            attention.scale /= (layer + 1) as f64;
        }
        attention.output_dropout = Some(dropout);
        let feed_forward = &mut block.feed_forward;
        decoder.without_gate(layer, ["mlp.c_fc", "mlp.c_proj"], true, feed_forward);
        feed_forward.output_dropout = Some(dropout);
        for output in [&mut attention.output, &mut feed_forward.output] {
            output.std = Some(std);
            output.transposed = true;
        }
        for input in attention.inputs.iter_mut().chain(&mut feed_forward.inputs) {
            input.transposed = true;
        }
        decoder.gpt2_norms(layer, block);
    })?;
    decoder.gpt2_paths(&mut architecture);
    learned_positions("wpe", 0, &mut architecture);
    architecture.embedding.dropout = Some(probability(raw, "embd_pdrop", 0.1)?);
    // The causal mask.
    architecture.buffers = vec![".attn.bias", ".attn.masked_bias"];
    Ok(architecture)
}
