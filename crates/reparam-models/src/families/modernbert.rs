//! ModernBERT: an encoder with rotary positions, norms before each half of a block, gated feed-forward layers, and windows in most
//! layers.

use reparam_formats::config::{ModelJson, RopeDefaults, RopeParameters, SpecialTokens};
use reparam_ops::Activation;

use super::decoder::sliding_layers;
use super::{Family, activation, deviation, epsilon, probability, residual_deviation, unsupported};
use crate::ModelError;
use crate::architecture::{
    Architecture, AttentionSpec, BlockSpec, EmbeddingSpec, FeedForwardSpec, HeadActivation,
    HeadSpec, HeadWeights, HeadsSpec, Initialization, LinearSpec, MaskedSpec, NormKind, NormSpec,
    NormsSpec, Pooling, PredictorSpec, RotarySpec, TransformSpec,
};

pub(super) const FAMILY: Family = Family {
    model_type: "modernbert",
    describe,
    gguf: None,
};

/// Places of the two kinds of rotary positions.
const GLOBAL: usize = 0;
const LOCAL: usize = 1;

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let raw = &json.json;
    let width = raw.size("hidden_size")?.unwrap_or(768);
    let inner = raw.size("intermediate_size")?.unwrap_or(1152);
    let n_heads = raw.size("num_attention_heads")?.unwrap_or(12);
    if !width.is_multiple_of(2 * n_heads) {
        let reason = format!("heads of an even width have to divide hidden_size, {width}");
        return Err(raw.invalid("num_attention_heads", reason).into());
    }
    let head_dim = width / n_heads;
    let eps = epsilon(raw, "norm_eps", 1e-5)?;
    let kind = match raw.bool("norm_bias")?.unwrap_or(false) {
        true => NormKind::Layer,
        false => NormKind::LayerWithoutBias,
    };
    let bias = |key| raw.bool(key).map(|found| found.unwrap_or(false));
    let (attention_bias, mlp_bias) = (bias("attention_bias")?, bias("mlp_bias")?);
    let attention_dropout = probability(raw, "attention_dropout", 0.0)?;
    // It is between the gate and the last layer, where blocks have none.
    let inside = probability(raw, "mlp_dropout", 0.0)?;
    if inside > 0.0 {
        return Err(unsupported("mlp_dropout", inside, "0"));
    }
    let max_positions = raw.size("max_position_embeddings")?.unwrap_or(8192);
    let function = activation(raw, "hidden_activation", Activation::Gelu)?;
    let norm = |path: String| NormSpec {
        path,
        kind,
        width,
        eps,
    };
    let linear = |path: String, d_in: usize, d_out: usize, bias: bool| LinearSpec {
        bias,
        ..LinearSpec::new(path, d_in, d_out)
    };
    let n_layers = json.layers("num_hidden_layers")?.unwrap_or(22);
    let std = deviation(raw, "initializer_range", 0.02)?;
    // Of heads, too.
    let last_std = residual_deviation(std, n_layers);
    let last =
        |path: String, d_in: usize, bias: bool| linear(path, d_in, width, bias).with_std(last_std);
    let every = raw.size("global_attn_every_n_layers")?.unwrap_or(3);
    let sliding = sliding_layers(json, n_layers, |layer| !layer.is_multiple_of(every))?;
    // The file counts the tokens on both sides.
    let window = raw.size("local_attention")?.unwrap_or(128) / 2 + 1;
    let block = |layer: usize| {
        let path = |name: &str| format!("layers.{layer}.{name}");
        let before = |name: &str| NormsSpec {
            before: Some(norm(path(name))),
            ..NormsSpec::default()
        };
        BlockSpec {
            attention: AttentionSpec {
                inputs: vec![linear(path("attn.Wqkv"), width, 3 * width, attention_bias)],
                output: last(path("attn.Wo"), width, attention_bias),
                grouped: false,
                q_norm: None,
                k_norm: None,
                norm_weights: HeadWeights::Shared,
                clip: None,
                n_heads,
                n_kv_heads: n_heads,
                head_dim,
                scale: (head_dim as f64).powf(-0.5),
                causal: false,
                window: sliding[layer].then_some(window),
                soft_cap: None,
                rotary: Some(if sliding[layer] { LOCAL } else { GLOBAL }),
                positions: None,
                dropout: Some(attention_dropout),
                output_dropout: Some(attention_dropout),
            },
            // The embedding has a norm at its end.
            attention_norms: match layer {
                0 => NormsSpec::default(),
                _ => before("attn_norm"),
            },
            cross: None,
            feed_forward: FeedForwardSpec {
                inputs: vec![linear(path("mlp.Wi"), width, 2 * inner, mlp_bias)],
                gated: true,
                output: last(path("mlp.Wo"), inner, mlp_bias),
                activation: function,
                experts: None,
                inner_dropout: None,
                output_dropout: None,
            },
            feed_forward_norms: before("mlp_norm"),
            parallel: false,
        }
    };
    Ok(Architecture {
        model_type: json.model_type.clone(),
        width,
        vocab_size: raw.size("vocab_size")?.unwrap_or(50_368),
        max_positions,
        special: json.special_tokens(SpecialTokens {
            bos: Some(50_281),
            eos: vec![50_282],
            pad: Some(50_283),
        })?,
        prefix: "model".to_owned(),
        embedding: EmbeddingSpec {
            tokens: "embeddings.tok_embeddings".to_owned(),
            factor: None,
            positions: None,
            sinusoids: None,
            token_types: None,
            token_projection: None,
            norm: Some(norm("embeddings.norm".to_owned())),
            dropout: Some(probability(raw, "embedding_dropout", 0.0)?),
            projection: None,
        },
        recurrent: None,
        state_space: None,
        rotary: rotary(json, (head_dim, max_positions))?,
        relative: None,
        seq2seq: None,
        blocks: (0..n_layers).map(block).collect(),
        norm: Some(norm("final_norm".to_owned())),
        head: HeadSpec::new("decoder", true),
        heads: heads(json, (width, last_std), norm("head.norm".to_owned()))?,
        buffers: Vec::new(),
        bias_keys: vec![(".attn.", "attention_bias"), (".mlp.", "mlp_bias")],
        init: Initialization::Normal(std),
    })
}

fn rotary(
    json: &ModelJson,
    (head_dim, max_positions): (usize, usize),
) -> Result<Vec<RotarySpec>, ModelError> {
    let read = |layer_type: &str, key: &str, theta: f64| {
        let defaults = RopeDefaults {
            theta,
            share: 1.0,
            max_positions,
            original_max_positions: None,
            aliases: &[],
        };
        let rope = RopeParameters::read_type(&json.json, layer_type, key, false, defaults)?;
        RotarySpec::new(&rope, head_dim, &json.json)
    };
    [
        read("full_attention", "global_rope_theta", 160_000.0),
        read("sliding_attention", "local_rope_theta", 10_000.0),
    ]
    .into_iter()
    .collect()
}

fn heads(
    json: &ModelJson,
    (width, last_std): (usize, f64),
    norm: NormSpec,
) -> Result<HeadsSpec, ModelError> {
    let raw = &json.json;
    if let Some(false) = raw.bool("decoder_bias")? {
        return Err(unsupported("decoder_bias", false, "true"));
    }
    let function = activation(raw, "classifier_activation", Activation::Gelu)?;
    let transform = TransformSpec {
        linear: LinearSpec {
            bias: raw.bool("classifier_bias")?.unwrap_or(false),
            std: Some(last_std),
            ..LinearSpec::new("head.dense", width, width)
        },
        in_body: false,
        activation: HeadActivation::Of(function),
        norm: Some(norm),
    };
    let dropout = probability(raw, "classifier_dropout", 0.0)?;
    let predictor = |class, pooling| PredictorSpec {
        class,
        pooling,
        input_dropout: None,
        transform: Some(transform.clone()),
        dropout: Some(dropout),
        output: Some("classifier".to_owned()),
        normalize: false,
        std: (width as f64).powf(-0.5),
        saved: vec!["classifier"],
    };
    let pooling = match raw.str("classifier_pooling")? {
        None | Some("cls") => Pooling::First,
        Some("mean") => Pooling::Mean,
        Some(other) => return Err(unsupported("classifier_pooling", other, "cls, mean")),
    };
    Ok(HeadsSpec {
        sequence: Some(predictor("ModernBertForSequenceClassification", pooling)),
        token: Some(predictor("ModernBertForTokenClassification", Pooling::Each)),
        span: Some(predictor("ModernBertForQuestionAnswering", Pooling::Each)),
        masked: Some(MaskedSpec {
            class: "ModernBertForMaskedLM",
            transform: transform.clone(),
            decoder: "decoder",
            bias: "decoder",
        }),
        names: vec!["head.", "decoder.", "classifier."],
    })
}
