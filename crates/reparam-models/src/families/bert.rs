//! BERT: an encoder with learned positions, token types, and layer norms on the sums.

use reparam_formats::config::{ModelJson, SpecialTokens};
use reparam_ops::Activation;

use super::{Family, activation, probability, refuse, unsupported};
use crate::ModelError;
use crate::architecture::{
    Architecture, AttentionSpec, BlockSpec, ClassifierSpec, EmbeddingSpec, FeedForwardSpec,
    HeadSpec, LinearSpec, NormKind, NormSpec, NormsSpec, TableSpec,
};

pub(super) const FAMILY: Family = Family {
    model_type: "bert",
    describe,
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let raw = &json.json;
    refuse(raw, "is_decoder")?;
    refuse(raw, "add_cross_attention")?;
    if let Some(other) = raw.str("position_embedding_type")?
        && other != "absolute"
    {
        return Err(unsupported("position_embedding_type", other, "absolute"));
    }
    let width = raw.size("hidden_size")?.unwrap_or(768);
    let n_heads = raw.size("num_attention_heads")?.unwrap_or(12);
    if !width.is_multiple_of(n_heads) {
        let reason = format!("it does not divide hidden_size, {width}");
        return Err(raw.invalid("num_attention_heads", reason).into());
    }
    let inner = raw.size("intermediate_size")?.unwrap_or(3072);
    let eps = raw.f64("layer_norm_eps")?.unwrap_or(1e-12);
    let activation = activation(raw, "hidden_act", Activation::Gelu)?;
    let dropout = probability(raw, "hidden_dropout_prob", 0.1)?;
    let attention_dropout = probability(raw, "attention_probs_dropout_prob", 0.1)?;
    let max_positions = raw.size("max_position_embeddings")?.unwrap_or(512);
    let norm = |path: String| NormSpec {
        path,
        kind: NormKind::Layer,
        width,
        eps,
    };
    let table = |name: &str, rows: usize| TableSpec {
        path: format!("embeddings.{name}"),
        rows,
        offset: 0,
    };
    let linear = |path: String, d_in: usize, d_out: usize| LinearSpec {
        bias: true,
        ..LinearSpec::new(path, d_in, d_out)
    };
    let block = |layer: usize| {
        let path = |name: &str| format!("encoder.layer.{layer}.{name}");
        let after = |name: &str| NormsSpec {
            after: Some(norm(path(name))),
            ..NormsSpec::default()
        };
        let head_dim = width / n_heads;
        BlockSpec {
            attention: AttentionSpec {
                inputs: ["query", "key", "value"]
                    .map(|name| linear(path(&format!("attention.self.{name}")), width, width))
                    .to_vec(),
                output: linear(path("attention.output.dense"), width, width),
                q_norm: None,
                k_norm: None,
                n_heads,
                n_kv_heads: n_heads,
                head_dim,
                scale: (head_dim as f64).powf(-0.5),
                causal: false,
                window: None,
                soft_cap: None,
                rotary: None,
                dropout: Some(attention_dropout),
            },
            attention_norms: after("attention.output.LayerNorm"),
            feed_forward: FeedForwardSpec {
                inputs: vec![linear(path("intermediate.dense"), width, inner)],
                gated: false,
                output: linear(path("output.dense"), inner, width),
                activation,
            },
            feed_forward_norms: after("output.LayerNorm"),
            dropout: Some(dropout),
        }
    };
    let n_layers = json.layers("num_hidden_layers")?.unwrap_or(12);
    Ok(Architecture {
        model_type: json.model_type.clone(),
        width,
        vocab_size: raw.size("vocab_size")?.unwrap_or(30_522),
        max_positions,
        special: json.special_tokens(SpecialTokens {
            pad: Some(0),
            ..SpecialTokens::default()
        })?,
        prefix: "bert".to_owned(),
        embedding: EmbeddingSpec {
            tokens: "embeddings.word_embeddings".to_owned(),
            factor: None,
            positions: Some(table("position_embeddings", max_positions)),
            token_types: Some(table(
                "token_type_embeddings",
                raw.size("type_vocab_size")?.unwrap_or(2),
            )),
            norm: Some(norm("embeddings.LayerNorm".to_owned())),
            dropout: Some(dropout),
        },
        rotary: Vec::new(),
        blocks: (0..n_layers).map(block).collect(),
        norm: None,
        head: HeadSpec {
            path: "cls.predictions.decoder".to_owned(),
            tied: true,
            soft_cap: None,
        },
        classifier: Some(ClassifierSpec {
            class: "BertForSequenceClassification",
            pooler: linear("pooler.dense".to_owned(), width, width),
            path: "classifier".to_owned(),
            dropout: Some(probability(raw, "classifier_dropout", dropout)?),
            std: raw.f64("initializer_range")?.unwrap_or(0.02),
            other_heads: vec!["cls."],
        }),
        buffers: vec!["embeddings.position_ids"],
        bias_keys: Vec::new(),
    })
}
