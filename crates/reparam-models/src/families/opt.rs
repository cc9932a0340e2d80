//! OPT: layer norms, learned positions, biases, and feed-forward layers of ReLU without a gate.

use reparam_formats::config::{ModelJson, SpecialTokens};
use reparam_ops::Activation;

use super::{Family, activation, deviation, probability, required_layers, unsupported};
use crate::ModelError;
use crate::architecture::{
    Architecture, AttentionSpec, BlockSpec, EmbeddingSpec, FeedForwardSpec, HeadSpec, HeadsSpec,
    Initialization, LinearSpec, NormKind, NormSpec, NormsSpec, TableSpec,
};

pub(super) const FAMILY: Family = Family {
    model_type: "opt",
    describe,
};

/// The rows of the table of positions that no token has.
const OFFSET: usize = 2;

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let raw = &json.json;
    let width = raw.required_size("hidden_size")?;
    let n_heads = raw.required_size("num_attention_heads")?;
    if !width.is_multiple_of(n_heads) {
        let reason = format!("it does not divide hidden_size, {width}");
        return Err(raw.invalid("num_attention_heads", reason).into());
    }
    if let Some(found) = raw.size("word_embed_proj_dim")?
        && found != width
    {
        return Err(unsupported("word_embed_proj_dim", found, "hidden_size"));
    }
    if raw.bool("layer_norm_elementwise_affine")? == Some(false) {
        let key = "layer_norm_elementwise_affine";
        return Err(unsupported(key, false, "true"));
    }
    if let Some(found) = raw.f64("layerdrop")?
        && found != 0.0
    {
        return Err(unsupported("layerdrop", found, "0"));
    }
    let inner = raw.size("ffn_dim")?.unwrap_or(3072);
    let activation = activation(raw, "activation_function", Activation::Relu)?;
    let max_positions = raw.size("max_position_embeddings")?.unwrap_or(2048);
    let bias = raw.bool("enable_bias")?.unwrap_or(true);
    let is_before = raw.bool("do_layer_norm_before")?.unwrap_or(true);
    let without_last = raw.bool("_remove_final_layer_norm")?.unwrap_or(false);
    let dropout = probability(raw, "dropout", 0.1)?;
    let attention_dropout = probability(raw, "attention_dropout", 0.0)?;
    let norm = |path: String| NormSpec {
        path,
        kind: NormKind::Layer,
        width,
        eps: 1e-5,
    };
    let block = |layer: usize| {
        let linear = |name: &str, d_in: usize, d_out: usize| LinearSpec {
            bias,
            ..LinearSpec::new(format!("decoder.layers.{layer}.{name}"), d_in, d_out)
        };
        let norms = |name: &str| {
            let norm = norm(format!("decoder.layers.{layer}.{name}"));
            let mut norms = NormsSpec::default();
            let place = match is_before {
                true => &mut norms.before,
                false => &mut norms.after,
            };
            *place = Some(norm);
            norms
        };
        let head_dim = width / n_heads;
        BlockSpec {
            attention: AttentionSpec {
                inputs: ["q_proj", "k_proj", "v_proj"]
                    .map(|name| linear(&format!("self_attn.{name}"), width, width))
                    .into(),
                output: linear("self_attn.out_proj", width, width),
                q_norm: None,
                k_norm: None,
                n_heads,
                n_kv_heads: n_heads,
                head_dim,
                scale: (head_dim as f64).powf(-0.5),
                causal: true,
                window: None,
                soft_cap: None,
                rotary: None,
                positions: None,
                dropout: Some(attention_dropout),
                output_dropout: Some(dropout),
            },
            attention_norms: norms("self_attn_layer_norm"),
            cross: None,
            feed_forward: FeedForwardSpec {
                inputs: vec![linear("fc1", width, inner)],
                gated: false,
                output: linear("fc2", inner, width),
                activation,
                inner_dropout: None,
                output_dropout: Some(dropout),
            },
            feed_forward_norms: norms("final_layer_norm"),
        }
    };
    let n_layers = required_layers(json, "num_hidden_layers")?;
    Ok(Architecture {
        model_type: json.model_type.clone(),
        width,
        vocab_size: raw.required_size("vocab_size")?,
        max_positions,
        special: json.special_tokens(SpecialTokens {
            bos: Some(2),
            eos: vec![2],
            pad: Some(1),
        })?,
        prefix: "model".to_owned(),
        embedding: EmbeddingSpec {
            tokens: "decoder.embed_tokens".to_owned(),
            factor: None,
            positions: Some(TableSpec {
                path: "decoder.embed_positions".to_owned(),
                rows: max_positions.saturating_add(OFFSET),
                offset: OFFSET,
            }),
            sinusoids: None,
            token_types: None,
            norm: None,
            dropout: None,
            projection: None,
        },
        recurrent: None,
        rotary: Vec::new(),
        relative: None,
        seq2seq: None,
        blocks: (0..n_layers).map(block).collect(),
        norm: (is_before && !without_last).then(|| norm("decoder.final_layer_norm".to_owned())),
        head: HeadSpec {
            path: "lm_head".to_owned(),
            tied: raw.bool("tie_word_embeddings")?.unwrap_or(true),
            soft_cap: None,
        },
        heads: HeadsSpec::default(),
        buffers: Vec::new(),
        bias_keys: vec![("layers.", "enable_bias")],
        init: Initialization::Normal(deviation(raw, "init_std", 0.02)?),
    })
}
