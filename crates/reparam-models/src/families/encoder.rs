//! What the encoders after BERT have in common: learned positions, and layer norms on the sums.

use reparam_formats::config::{ModelJson, SpecialTokens};
use reparam_ops::Activation;

use super::{epsilon, refuse};
use crate::ModelError;
use crate::architecture::{
    Architecture, AttentionSpec, BlockSpec, EmbeddingSpec, FeedForwardSpec, HeadActivation,
    HeadSpec, HeadWeights, HeadsSpec, Initialization, LinearSpec, NormKind, NormSpec, NormsSpec,
    Pooling, PredictorSpec, TableSpec, TransformSpec,
};

/// How the modules of a block are called.
pub(super) struct Names {
    /// Where the blocks are, before their number.
    pub(super) blocks: &'static str,
    /// Queries, keys and values.
    pub(super) inputs: [&'static str; 3],
    pub(super) output: &'static str,
    pub(super) attention_norm: &'static str,
    pub(super) up: &'static str,
    pub(super) down: &'static str,
    pub(super) norm: &'static str,
}

/// Those of BERT and of what was made of its code.
pub(super) const BERT_NAMES: Names = Names {
    blocks: "encoder.layer",
    inputs: [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
    ],
    output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    norm: "output.LayerNorm",
};

/// The sizes of an encoder.
pub(super) struct Encoder<'a> {
    pub(super) json: &'a ModelJson,
    pub(super) names: Names,
    pub(super) width: usize,
    pub(super) inner: usize,
    pub(super) n_layers: usize,
    pub(super) n_heads: usize,
    pub(super) eps: f64,
    pub(super) activation: Activation,
    /// Of what comes before the blocks, and of the feed-forward layers.
    pub(super) dropout: f64,
    /// Of the output of attention; `None` if the family has none there.
    pub(super) output_dropout: Option<f64>,
    /// Of the weights of attention.
    pub(super) attention_dropout: f64,
    pub(super) max_positions: usize,
    /// The row of the table of positions that the first token has.
    pub(super) position_offset: usize,
    /// The rows of the table of token types.
    pub(super) token_types: Option<usize>,
    pub(super) vocab_size: usize,
    pub(super) special: SpecialTokens,
    /// Of new layers.
    pub(super) std: f64,
}

/// Refuses what would make another model of an encoder.
pub(super) fn refuse_others(json: &ModelJson) -> Result<(), ModelError> {
    refuse(&json.json, "is_decoder")?;
    refuse(&json.json, "add_cross_attention")?;
    if let Some(other) = json.json.str("position_embedding_type")?
        && other != "absolute"
    {
        return Err(super::unsupported(
            "position_embedding_type",
            other,
            "absolute",
        ));
    }
    Ok(())
}

/// A layer with a bias.
pub(super) fn linear(path: impl Into<String>, d_in: usize, d_out: usize) -> LinearSpec {
    LinearSpec {
        bias: true,
        ..LinearSpec::new(path, d_in, d_out)
    }
}

impl Encoder<'_> {
    /// Checks that the heads divide the width, which two keys of `config.json` say.
    pub(super) fn check(&self, heads: &'static str, width: &str) -> Result<(), ModelError> {
        if self.width.is_multiple_of(self.n_heads) {
            return Ok(());
        }
        let reason = format!("it does not divide {width}, {}", self.width);
        Err(self.json.json.invalid(heads, reason).into())
    }

    pub(super) fn norm(&self, path: impl Into<String>) -> NormSpec {
        NormSpec {
            path: path.into(),
            kind: NormKind::Layer,
            width: self.width,
            eps: self.eps,
        }
    }

    /// A layer before the last one of a head, as wide as the hidden states.
    pub(super) fn transform(&self, path: &str, activation: HeadActivation) -> TransformSpec {
        TransformSpec {
            linear: linear(path, self.width, self.width),
            in_body: false,
            activation,
            norm: None,
        }
    }

    /// A head that is one layer.
    pub(super) fn predictor(
        &self,
        class: &'static str,
        pooling: Pooling,
        path: &'static str,
        dropout: Option<f64>,
    ) -> PredictorSpec {
        PredictorSpec {
            class,
            pooling,
            input_dropout: None,
            transform: None,
            dropout,
            output: Some(path.to_owned()),
            normalize: false,
            std: self.std,
            saved: vec![path],
        }
    }

    /// The head that RoBERTa gives its first token: two layers, each behind a dropout.
    pub(super) fn dense_predictor(
        &self,
        class: &'static str,
        activation: HeadActivation,
        dropout: Option<f64>,
    ) -> PredictorSpec {
        PredictorSpec {
            input_dropout: dropout,
            transform: Some(self.transform("classifier.dense", activation)),
            saved: vec!["classifier"],
            ..self.predictor(class, Pooling::First, "classifier.out_proj", dropout)
        }
    }

    /// Describes the whole model. `decoder` is the path of the head of a masked language model.
    pub(super) fn describe(
        &self,
        prefix: &str,
        decoder: &str,
        heads: HeadsSpec,
    ) -> Result<Architecture, ModelError> {
        let table = |name: &str, rows: usize, offset: usize| TableSpec {
            path: format!("embeddings.{name}"),
            rows,
            offset,
        };
        let token_types = self.token_types;
        Ok(Architecture {
            model_type: self.json.model_type.clone(),
            width: self.width,
            vocab_size: self.vocab_size,
            max_positions: self.max_positions.saturating_sub(self.position_offset),
            special: self.special.clone(),
            prefix: prefix.to_owned(),
            embedding: EmbeddingSpec {
                tokens: "embeddings.word_embeddings".to_owned(),
                factor: None,
                positions: Some(table(
                    "position_embeddings",
                    self.max_positions,
                    self.position_offset,
                )),
                sinusoids: None,
                token_types: token_types.map(|rows| table("token_type_embeddings", rows, 0)),
                token_projection: None,
                norm: Some(self.norm("embeddings.LayerNorm")),
                dropout: Some(self.dropout),
                projection: None,
            },
            recurrent: None,
            state_space: None,
            rotary: Vec::new(),
            relative: None,
            seq2seq: None,
            blocks: (0..self.n_layers).map(|layer| self.block(layer)).collect(),
            norm: None,
            head: HeadSpec::new(decoder, true),
            heads,
            buffers: vec!["embeddings.position_ids", "embeddings.token_type_ids"],
            bias_keys: Vec::new(),
            init: Initialization::Normal(self.std),
        })
    }

    fn block(&self, layer: usize) -> BlockSpec {
        let (names, width) = (&self.names, self.width);
        let path = |name: &str| format!("{}.{layer}.{name}", names.blocks);
        let after = |name: &str| NormsSpec {
            after: Some(self.norm(path(name))),
            ..NormsSpec::default()
        };
        let head_dim = width / self.n_heads;
        let inputs = names.inputs.map(|name| linear(path(name), width, width));
        BlockSpec {
            attention: AttentionSpec {
                inputs: inputs.to_vec(),
                output: linear(path(names.output), width, width),
                grouped: false,
                q_norm: None,
                k_norm: None,
                norm_weights: HeadWeights::Shared,
                clip: None,
                n_heads: self.n_heads,
                n_kv_heads: self.n_heads,
                head_dim,
                scale: (head_dim as f64).powf(-0.5),
                causal: false,
                window: None,
                soft_cap: None,
                rotary: None,
                positions: None,
                dropout: Some(self.attention_dropout),
                output_dropout: self.output_dropout,
            },
            attention_norms: after(names.attention_norm),
            cross: None,
            feed_forward: FeedForwardSpec {
                inputs: vec![linear(path(names.up), width, self.inner)],
                gated: false,
                output: linear(path(names.down), self.inner, width),
                activation: self.activation,
                experts: None,
                inner_dropout: None,
                output_dropout: Some(self.dropout),
            },
            feed_forward_norms: after(names.norm),
            parallel: false,
        }
    }
}

/// The sizes of BERT, RoBERTa and ELECTRA, whose `config.json` have the same keys.
pub(super) fn read<'a>(
    json: &'a ModelJson,
    defaults: &Defaults,
    special: SpecialTokens,
) -> Result<Encoder<'a>, ModelError> {
    refuse_others(json)?;
    let raw = &json.json;
    let dropout = super::probability(raw, "hidden_dropout_prob", 0.1)?;
    let encoder = Encoder {
        json,
        names: BERT_NAMES,
        width: raw.size("hidden_size")?.unwrap_or(defaults.width),
        inner: raw.size("intermediate_size")?.unwrap_or(defaults.inner),
        n_layers: json.layers("num_hidden_layers")?.unwrap_or(12),
        n_heads: raw.size("num_attention_heads")?.unwrap_or(defaults.n_heads),
        eps: epsilon(raw, "layer_norm_eps", 1e-12)?,
        activation: super::activation(raw, "hidden_act", Activation::Gelu)?,
        dropout,
        output_dropout: Some(dropout),
        attention_dropout: super::probability(raw, "attention_probs_dropout_prob", 0.1)?,
        max_positions: raw.size("max_position_embeddings")?.unwrap_or(512),
        position_offset: 0,
        token_types: Some(raw.size("type_vocab_size")?.unwrap_or(2)),
        vocab_size: raw.size("vocab_size")?.unwrap_or(defaults.vocab_size),
        special: json.special_tokens(special)?,
        std: raw.f64("initializer_range")?.unwrap_or(0.02),
    };
    encoder.check("num_attention_heads", "hidden_size")?;
    Ok(encoder)
}

/// What a family takes where `config.json` says nothing.
pub(super) struct Defaults {
    pub(super) width: usize,
    pub(super) inner: usize,
    pub(super) n_heads: usize,
    pub(super) vocab_size: usize,
}

impl Defaults {
    /// Those of the base models.
    pub(super) const fn base(vocab_size: usize) -> Self {
        Self {
            width: 768,
            inner: 3072,
            n_heads: 12,
            vocab_size,
        }
    }
}
