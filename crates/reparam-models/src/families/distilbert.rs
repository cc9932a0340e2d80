//! DistilBERT: BERT without token types and pooler.

use reparam_formats::config::{ModelJson, SpecialTokens};
use reparam_ops::Activation;

use super::encoder::{Encoder, Names, refuse_others};
use super::{Family, activation, probability};
use crate::ModelError;
use crate::architecture::{
    Architecture, HeadActivation, HeadsSpec, MaskedSpec, Pooling, PredictorSpec, TransformSpec,
};

pub(super) const FAMILY: Family = Family {
    model_type: "distilbert",
    describe,
    gguf: None,
};

const NAMES: Names = Names {
    blocks: "transformer.layer",
    inputs: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
    output: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    up: "ffn.lin1",
    down: "ffn.lin2",
    norm: "output_layer_norm",
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    refuse_others(json)?;
    let raw = &json.json;
    let function = activation(raw, "activation", Activation::Gelu)?;
    let encoder = Encoder {
        json,
        names: NAMES,
        width: raw.size("dim")?.unwrap_or(768),
        inner: raw.size("hidden_dim")?.unwrap_or(3072),
        n_layers: json.layers("n_layers")?.unwrap_or(6),
        n_heads: raw.size("n_heads")?.unwrap_or(12),
        eps: 1e-12,
        activation: function,
        dropout: probability(raw, "dropout", 0.1)?,
        output_dropout: None,
        attention_dropout: probability(raw, "attention_dropout", 0.1)?,
        max_positions: raw.size("max_position_embeddings")?.unwrap_or(512),
        position_offset: 0,
        token_types: None,
        vocab_size: raw.size("vocab_size")?.unwrap_or(30_522),
        special: json.special_tokens(SpecialTokens {
            pad: Some(0),
            ..SpecialTokens::default()
        })?,
        std: raw.f64("initializer_range")?.unwrap_or(0.02),
    };
    encoder.check("n_heads", "dim")?;
    let each = |class, path, dropout| encoder.predictor(class, Pooling::Each, path, Some(dropout));
    let of_sequence = probability(raw, "seq_classif_dropout", 0.2)?;
    let of_span = probability(raw, "qa_dropout", 0.1)?;
    let heads = HeadsSpec {
        sequence: Some(PredictorSpec {
            pooling: Pooling::First,
            transform: Some(encoder.transform("pre_classifier", HeadActivation::Relu)),
            // PEFT by itself saves the last layer alone, and leaves the new one before it as it was drawn.
            saved: vec!["pre_classifier", "classifier"],
            ..each(
                "DistilBertForSequenceClassification",
                "classifier",
                of_sequence,
            )
        }),
        token: Some(each(
            "DistilBertForTokenClassification",
            "classifier",
            encoder.dropout,
        )),
        span: Some(each(
            "DistilBertForQuestionAnswering",
            "qa_outputs",
            of_span,
        )),
        masked: Some(MaskedSpec {
            class: "DistilBertForMaskedLM",
            transform: TransformSpec {
                norm: Some(encoder.norm("vocab_layer_norm")),
                ..encoder.transform("vocab_transform", HeadActivation::Of(function))
            },
            decoder: "vocab_projector",
            bias: "vocab_projector",
        }),
        names: vec!["vocab_", "pre_classifier.", "classifier.", "qa_outputs."],
    };
    encoder.describe("distilbert", "vocab_projector", heads)
}
