//! GPT-Neo: layer norms, learned positions, no gate, scores that are not scaled, and a window in every second layer.

use reparam_formats::config::{JsonObject, ModelJson, SpecialTokens};
use reparam_ops::Activation;

use super::{Family, activation, deviation, epsilon, probability, required_layers, unsupported};
use crate::ModelError;
use crate::architecture::{
    Architecture, AttentionSpec, BlockSpec, EmbeddingSpec, FeedForwardSpec, HeadSpec, HeadsSpec,
    Initialization, LinearSpec, NormKind, NormSpec, NormsSpec, TableSpec,
};

pub(super) const FAMILY: Family = Family {
    model_type: "gpt_neo",
    describe,
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let raw = &json.json;
    let width = raw.required_size("hidden_size")?;
    let n_heads = raw.required_size("num_heads")?;
    if !width.is_multiple_of(n_heads) {
        let reason = format!("it does not divide hidden_size, {width}");
        return Err(raw.invalid("num_heads", reason).into());
    }
    let eps = epsilon(raw, "layer_norm_epsilon", 1e-5)?;
    let inner = raw.size("intermediate_size")?.unwrap_or(4 * width);
    let activation = activation(raw, "activation_function", Activation::GeluTanh)?;
    let max_positions = raw.size("max_position_embeddings")?.unwrap_or(2048);
    let attention_dropout = probability(raw, "attention_dropout", 0.0)?;
    let dropout = probability(raw, "resid_dropout", 0.0)?;
    let window = raw.size("window_size")?.unwrap_or(256);
    let n_layers = required_layers(json, "num_layers")?;
    let is_local = local_layers(raw, n_layers)?;
    let norm = |path: String| NormSpec {
        path,
        kind: NormKind::Layer,
        width,
        eps,
    };
    let block = |layer: usize| {
        let linear = |name: &str, d_in: usize, d_out: usize| {
            LinearSpec::new(format!("h.{layer}.{name}"), d_in, d_out)
        };
        let biased = |name: &str, d_in: usize, d_out: usize| LinearSpec {
            bias: true,
            ..linear(name, d_in, d_out)
        };
        let before = |name: &str| NormsSpec {
            before: Some(norm(format!("h.{layer}.{name}"))),
            ..NormsSpec::default()
        };
        BlockSpec {
            attention: AttentionSpec {
                inputs: ["q_proj", "k_proj", "v_proj"]
                    .map(|name| linear(&format!("attn.attention.{name}"), width, width))
                    .into(),
                output: biased("attn.attention.out_proj", width, width),
                q_norm: None,
                k_norm: None,
                n_heads,
                n_kv_heads: n_heads,
                head_dim: width / n_heads,
                scale: 1.0,
                causal: true,
                window: is_local[layer].then_some(window),
                soft_cap: None,
                rotary: None,
                positions: None,
                dropout: Some(attention_dropout),
                output_dropout: Some(dropout),
            },
            attention_norms: before("ln_1"),
            cross: None,
            feed_forward: FeedForwardSpec {
                inputs: vec![biased("mlp.c_fc", width, inner)],
                gated: false,
                output: biased("mlp.c_proj", inner, width),
                activation,
                inner_dropout: None,
                output_dropout: Some(dropout),
            },
            feed_forward_norms: before("ln_2"),
        }
    };
    Ok(Architecture {
        model_type: json.model_type.clone(),
        width,
        vocab_size: raw.required_size("vocab_size")?,
        max_positions,
        special: json.special_tokens(SpecialTokens {
            bos: Some(50_256),
            eos: vec![50_256],
            pad: None,
        })?,
        prefix: "transformer".to_owned(),
        embedding: EmbeddingSpec {
            tokens: "wte".to_owned(),
            factor: None,
            positions: Some(TableSpec {
                path: "wpe".to_owned(),
                rows: max_positions,
                offset: 0,
            }),
            sinusoids: None,
            token_types: None,
            norm: None,
            dropout: Some(probability(raw, "embed_dropout", 0.0)?),
            projection: None,
        },
        recurrent: None,
        rotary: Vec::new(),
        relative: None,
        seq2seq: None,
        blocks: (0..n_layers).map(block).collect(),
        norm: Some(norm("ln_f".to_owned())),
        head: HeadSpec {
            path: "lm_head".to_owned(),
            tied: raw.bool("tie_word_embeddings")?.unwrap_or(true),
            soft_cap: None,
        },
        heads: HeadsSpec::default(),
        // The causal masks.
        buffers: vec![".attn.attention.bias", ".attn.attention.masked_bias"],
        bias_keys: Vec::new(),
        init: Initialization::Normal(deviation(raw, "initializer_range", 0.02)?),
    })
}

/// Which layers have a window: `attention_types` is a list of `[["global", "local"], 12]`, kinds and how often they come one after
/// the other.
fn local_layers(raw: &JsonObject, n_layers: usize) -> Result<Vec<bool>, ModelError> {
    let key = "attention_types";
    let Some(groups) = raw.get(key).filter(|value| !value.is_null()) else {
        return Ok((0..n_layers)
            .map(|layer| !layer.is_multiple_of(2))
            .collect());
    };
    let wrong = || raw.wrong_type(key, "a list of [kinds, times]");
    let other_number = || raw.invalid(key, format!("it is not of {n_layers} layers"));
    let mut layers = Vec::new();
    for group in groups.as_array().ok_or_else(wrong)? {
        let [kinds, times] = &group.as_array().ok_or_else(wrong)?[..] else {
            return Err(wrong().into());
        };
        let kinds = kinds.as_array().ok_or_else(wrong)?;
        let times = times.as_u64().ok_or_else(wrong)?;
        // Never more than there can be, whatever the file says.
        let most = (n_layers - layers.len()) / kinds.len().max(1);
        if kinds.is_empty() || times > most as u64 {
            return Err(other_number().into());
        }
        (0..times).for_each(|_| layers.extend(kinds));
    }
    if layers.len() != n_layers {
        return Err(other_number().into());
    }
    let layers = layers.into_iter();
    layers
        .map(|kind| match kind.as_str() {
            Some("local") => Ok(true),
            Some("global") => Ok(false),
            _ => Err(unsupported(key, kind, "global, local")),
        })
        .collect()
}
