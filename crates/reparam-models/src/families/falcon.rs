//! Falcon: layer norms, no gate, queries, keys and values in one layer, and both halves of a block side by side, behind one norm or
//! behind one each. Falcon-RW has scores that fall with the distance in place of rotary positions, and halves one after the other.

use reparam_formats::config::{ModelJson, SpecialTokens};
use reparam_ops::Activation;

use super::decoder::{Decoder, Defaults, Keys};
use super::{Family, probability, unsupported};
use crate::architecture::{NormKind, RelativeSpec};
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "falcon",
    gguf: None,
    describe,
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let raw = &json.json;
    let is_new = raw.bool("new_decoder_architecture")?.unwrap_or(false);
    // In the new architecture keys are shared by groups of queries, before it by all or by none.
    let shares_all = !is_new && raw.bool("multi_query")?.unwrap_or(true);
    let is_parallel = raw.bool("parallel_attn")?.unwrap_or(true);
    if is_new && !is_parallel {
        let key = "parallel_attn";
        return Err(unsupported(
            key,
            false,
            "true with new_decoder_architecture",
        ));
    }
    let n_norms = match raw.size("num_ln_in_parallel_attn")? {
        Some(found @ (1 | 2)) => Some(found),
        Some(found) => return Err(unsupported("num_ln_in_parallel_attn", found, "1, 2")),
        None => None,
    };
    let has_two_norms = is_new && n_norms != Some(1);
    let defaults = Defaults {
        keys: Keys {
            n_kv_heads: is_new.then_some("num_kv_heads"),
            head_dim: None,
            inner: "ffn_hidden_size",
            ..Keys::LLAMA
        },
        layers: "h",
        inner: Some(|width| width.saturating_mul(4)),
        norm: NormKind::Layer,
        eps: (Some("layer_norm_epsilon"), 1e-5),
        activation: ("activation", Activation::Gelu),
        tied: true,
        special: SpecialTokens {
            bos: Some(11),
            eos: vec![11],
            pad: None,
        },
        ..Defaults::default()
    };
    let mut decoder = Decoder::read(json, defaults)?;
    if shares_all {
        decoder.n_kv_heads = 1;
    }
    let falls = raw.bool("alibi")?.unwrap_or(false);
    let mut rotary = Vec::new();
    if !falls {
        rotary.push(decoder.rotary()?);
        decoder.whole_heads(&rotary[0])?;
    }
    let dropout = probability(raw, "hidden_dropout", 0.0)?;
    if is_parallel && dropout > 0.0 {
        // One mask for the sum of both halves, where there are two here.
        return Err(unsupported(
            "hidden_dropout",
            dropout,
            "0 with parallel_attn",
        ));
    }
    let attention_dropout = probability(raw, "attention_dropout", 0.0)?;
    let bias = raw.bool("bias")?.unwrap_or(false);
    let mut architecture = decoder.describe(rotary, |layer, block| {
        decoder.megatron_layers(layer, "self_attention", [bias; 2], block);
        let attention = &mut block.attention;
        attention.grouped = !shares_all;
        // transformers drops weights of attention only where scores fall with the distance, in spite of the key's name.
        attention.dropout = falls.then_some(attention_dropout);
        attention.output_dropout = (!is_parallel).then_some(attention_dropout);
        block.feed_forward.output_dropout = (!is_parallel).then_some(dropout);
        if has_two_norms {
            block.attention_norms = decoder.before(layer, "ln_attn");
            block.feed_forward_norms = decoder.before(layer, "ln_mlp");
            block.parallel = true;
        } else if is_parallel {
            block.share_norm();
        }
    })?;
    // The bias is scaled as the scores are. transformers rounds slopes, positions and their products to bf16, which makes the bias one of
    // positions in place of distances, and where attention is `eager` adds it twice.
    let scale = (decoder.head_dim as f64).powf(-0.5);
    architecture.relative = falls.then(|| RelativeSpec::alibi(decoder.n_heads, scale));
    architecture.prefix = "transformer".to_owned();
    architecture.embedding.tokens = "word_embeddings".to_owned();
    architecture.norm = Some(decoder.norm("ln_f"));
    architecture.bias_keys = vec![(".self_attention.", "bias"), (".mlp.", "bias")];
    Ok(architecture)
}
