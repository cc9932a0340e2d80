//! BLOOM: layer norms, one of them behind the embedding, no positions but scores that fall with the distance, no gate, and queries,
//! keys and values head by head in one layer.

use reparam_formats::config::{ModelJson, SpecialTokens};
use reparam_ops::Activation;

use super::decoder::{Decoder, Defaults, Keys};
use super::{Family, probability, refuse};
use crate::architecture::{NormKind, RelativeSpec};
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "bloom",
    gguf: None,
    describe,
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let raw = &json.json;
    refuse(raw, "apply_residual_connection_post_layernorm")?;
    // Files of both names are published.
    let either = |first: &'static str, second: &'static str| match raw.contains(first) {
        true => first,
        false => second,
    };
    let defaults = Defaults {
        keys: Keys {
            width: either("n_embed", "hidden_size"),
            n_heads: either("n_head", "num_attention_heads"),
            n_layers: either("n_layer", "num_hidden_layers"),
            n_kv_heads: None,
            head_dim: None,
            inner: "n_inner",
            max_positions: "seq_length",
        },
        layers: "h",
        inner: Some(|width| width.saturating_mul(4)),
        norm: NormKind::Layer,
        eps: (Some("layer_norm_epsilon"), 1e-5),
        activation: ("activation_function", Activation::GeluTanh),
        tied: true,
        special: SpecialTokens {
            bos: Some(1),
            eos: vec![2],
            pad: None,
        },
        ..Defaults::default()
    };
    let decoder = Decoder::read(json, defaults)?;
    let dropout = probability(raw, "hidden_dropout", 0.0)?;
    let mut architecture = decoder.describe(Vec::new(), |layer, block| {
        decoder.megatron_layers(layer, "self_attention", [true; 2], block);
        block.attention.grouped = true;
        block.attention.output_dropout = Some(dropout);
        block.feed_forward.output_dropout = Some(dropout);
    })?;
    architecture.prefix = "transformer".to_owned();
    architecture.embedding.tokens = "word_embeddings".to_owned();
    architecture.embedding.norm = Some(decoder.norm("word_embeddings_layernorm"));
    architecture.relative = Some(RelativeSpec::alibi(decoder.n_heads, 1.0));
    architecture.norm = Some(decoder.norm("ln_f"));
    Ok(architecture)
}
