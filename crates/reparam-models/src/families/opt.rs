//! OPT: layer norms, learned positions, biases, and feed-forward layers of ReLU without a gate. The one of 350 million parameters has
//! norms behind the halves of a block, none after the last, and token vectors that are narrower than the hidden states.

use reparam_formats::config::{ModelJson, SpecialTokens};
use reparam_ops::Activation;

use super::decoder::{Decoder, Defaults, Keys, bias_attention, learned_positions};
use super::{Family, probability, unsupported};
use crate::architecture::{LinearSpec, NormKind, NormsSpec};
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "opt",
    describe,
    gguf: None,
};

/// The rows of the table of positions that no token has.
const OFFSET: usize = 2;

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let defaults = Defaults {
        keys: Keys {
            n_kv_heads: None,
            head_dim: None,
            inner: "ffn_dim",
            ..Keys::LLAMA
        },
        layers: "decoder.layers",
        inner: Some(|_| 3072),
        norm: NormKind::Layer,
        eps: (None, 1e-5),
        activation: ("activation_function", Activation::Relu),
        tied: true,
        special: SpecialTokens {
            bos: Some(2),
            eos: vec![2],
            pad: Some(1),
        },
        std: ("init_std", 0.02),
        ..Defaults::default()
    };
    let raw = &json.json;
    let decoder = Decoder::read(json, defaults)?;
    let narrow = raw.size("word_embed_proj_dim")?;
    let narrow = narrow.filter(|narrow| *narrow != decoder.width);
    if raw.bool("layer_norm_elementwise_affine")? == Some(false) {
        let key = "layer_norm_elementwise_affine";
        return Err(unsupported(key, false, "true"));
    }
    if let Some(found) = raw.f64("layerdrop")?
        && found != 0.0
    {
        return Err(unsupported("layerdrop", found, "0"));
    }
    let bias = raw.bool("enable_bias")?.unwrap_or(true);
    let is_before = raw.bool("do_layer_norm_before")?.unwrap_or(true);
    let without_last = raw.bool("_remove_final_layer_norm")?.unwrap_or(false);
    let dropout = probability(raw, "dropout", 0.1)?;
    let mut architecture = decoder.describe(Vec::new(), |layer, block| {
        let norms = |name: &str| match is_before {
            true => decoder.before(layer, name),
            false => NormsSpec {
                after: Some(decoder.norm(decoder.path(layer, name))),
                ..NormsSpec::default()
            },
        };
        let attention = &mut block.attention;
        attention.output.path = decoder.path(layer, "self_attn.out_proj");
        attention.output_dropout = Some(dropout);
        bias_attention(attention, bias, bias);
        let feed_forward = &mut block.feed_forward;
        decoder.without_gate(layer, ["fc1", "fc2"], bias, feed_forward);
        feed_forward.output_dropout = Some(dropout);
        block.attention_norms = norms("self_attn_layer_norm");
        block.feed_forward_norms = norms("final_layer_norm");
    })?;
    architecture.embedding.tokens = "decoder.embed_tokens".to_owned();
    learned_positions("decoder.embed_positions", OFFSET, &mut architecture);
    architecture.norm =
        (is_before && !without_last).then(|| decoder.norm("decoder.final_layer_norm"));
    if let Some(narrow) = narrow {
        let linear =
            |name: &str, d_in, d_out| LinearSpec::new(format!("decoder.{name}"), d_in, d_out);
        architecture.embedding.token_projection = Some(linear("project_in", narrow, decoder.width));
        architecture.head.projection = Some(linear("project_out", decoder.width, narrow));
    }
    architecture.buffers = Vec::new();
    architecture.bias_keys = vec![("layers.", "enable_bias")];
    Ok(architecture)
}
