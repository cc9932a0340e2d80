//! GPT-2: layer norms, learned positions, no gate, and layers whose weights are stored as `[d_in, d_out]`.

use reparam_formats::config::{ModelJson, SpecialTokens};
use reparam_ops::Activation;

use super::{
    Family, activation, deviation, epsilon, probability, refuse, required_layers,
    residual_deviation,
};
use crate::ModelError;
use crate::architecture::{
    Architecture, AttentionSpec, BlockSpec, EmbeddingSpec, FeedForwardSpec, HeadSpec, HeadsSpec,
    Initialization, LinearSpec, NormKind, NormSpec, NormsSpec, TableSpec,
};

pub(super) const FAMILY: Family = Family {
    model_type: "gpt2",
    describe,
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let raw = &json.json;
    refuse(raw, "add_cross_attention")?;
    let width = raw.required_size("n_embd")?;
    let n_heads = raw.required_size("n_head")?;
    if !width.is_multiple_of(n_heads) {
        let reason = format!("it does not divide n_embd, {width}");
        return Err(raw.invalid("n_head", reason).into());
    }
    let eps = epsilon(raw, "layer_norm_epsilon", 1e-5)?;
    let inner = raw.size("n_inner")?.unwrap_or(4 * width);
    let activation = activation(raw, "activation_function", Activation::GeluTanh)?;
    let scaled = raw.bool("scale_attn_weights")?.unwrap_or(true);
    let by_layer = raw
        .bool("scale_attn_by_inverse_layer_idx")?
        .unwrap_or(false);
    let max_positions = raw.size("n_positions")?.unwrap_or(1024);
    let attention_dropout = probability(raw, "attn_pdrop", 0.1)?;
    let dropout = probability(raw, "resid_pdrop", 0.1)?;
    let std = deviation(raw, "initializer_range", 0.02)?;
    let n_layers = required_layers(json, "n_layer")?;
    let norm = |path: String| NormSpec {
        path,
        kind: NormKind::Layer,
        width,
        eps,
    };
    let block = |layer: usize| {
        let linear = |name: &str, d_in: usize, d_out: usize| LinearSpec {
            bias: true,
            transposed: true,
            ..LinearSpec::new(format!("h.{layer}.{name}"), d_in, d_out)
        };
        let last = |name: &str, d_in: usize| {
            linear(name, d_in, width).with_std(residual_deviation(std, n_layers))
        };
        let before = |name: &str| NormsSpec {
            before: Some(norm(format!("h.{layer}.{name}"))),
            ..NormsSpec::default()
        };
        let head_dim = width / n_heads;
        let root = if scaled {
            (head_dim as f64).sqrt()
        } else {
            1.0
        };
        let depth = if by_layer { (layer + 1) as f64 } else { 1.0 };
        BlockSpec {
            attention: AttentionSpec {
                inputs: vec![linear("attn.c_attn", width, 3 * width)],
                output: last("attn.c_proj", width),
                q_norm: None,
                k_norm: None,
                n_heads,
                n_kv_heads: n_heads,
                head_dim,
                scale: 1.0 / (root * depth),
                causal: true,
                window: None,
                soft_cap: None,
                rotary: None,
                positions: None,
                dropout: Some(attention_dropout),
                output_dropout: Some(dropout),
            },
            attention_norms: before("ln_1"),
            cross: None,
            feed_forward: FeedForwardSpec {
                inputs: vec![linear("mlp.c_fc", width, inner)],
                gated: false,
                output: last("mlp.c_proj", inner),
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
            dropout: Some(probability(raw, "embd_pdrop", 0.1)?),
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
        // The causal mask.
        buffers: vec![".attn.bias", ".attn.masked_bias"],
        bias_keys: Vec::new(),
        init: Initialization::Normal(std),
    })
}
