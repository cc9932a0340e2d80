//! ELECTRA, generator and discriminator: BERT without a pooler, whose tables may be narrower than its blocks.

use reparam_formats::config::{ModelJson, SpecialTokens};
use reparam_ops::Activation;

use super::encoder::{Defaults, linear, read};
use super::{Family, probability};
use crate::ModelError;
use crate::architecture::{
    Architecture, HeadActivation, HeadsSpec, MaskedSpec, NormSpec, Pooling, TransformSpec,
};

pub(super) const FAMILY: Family = Family {
    model_type: "electra",
    describe,
    gguf: None,
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let special = SpecialTokens {
        pad: Some(0),
        ..SpecialTokens::default()
    };
    let defaults = Defaults {
        width: 256,
        inner: 1024,
        n_heads: 4,
        vocab_size: 30_522,
    };
    let encoder = read(json, &defaults, special)?;
    let raw = &json.json;
    let table_width = raw.size("embedding_size")?.unwrap_or(128);
    let narrow = |path: &str| NormSpec {
        width: table_width,
        ..encoder.norm(path)
    };
    let dropout = Some(probability(raw, "classifier_dropout", encoder.dropout)?);
    let each = |class, path, dropout| encoder.predictor(class, Pooling::Each, path, dropout);
    let gelu = HeadActivation::Of(Activation::Gelu);
    let heads = HeadsSpec {
        sequence: Some(encoder.dense_predictor("ElectraForSequenceClassification", gelu, dropout)),
        token: Some(each("ElectraForTokenClassification", "classifier", dropout)),
        span: Some(each("ElectraForQuestionAnswering", "qa_outputs", None)),
        masked: Some(MaskedSpec {
            class: "ElectraForMaskedLM",
            transform: TransformSpec {
                linear: linear("generator_predictions.dense", encoder.width, table_width),
                in_body: false,
                activation: gelu,
                norm: Some(narrow("generator_predictions.LayerNorm")),
            },
            decoder: "generator_lm_head",
            bias: "generator_lm_head",
        }),
        names: vec![
            "discriminator_predictions.",
            "generator_predictions.",
            "generator_lm_head.",
            "classifier.",
            "qa_outputs.",
        ],
    };
    let mut architecture = encoder.describe("electra", "generator_lm_head", heads)?;
    let embedding = &mut architecture.embedding;
    embedding.norm = Some(narrow("embeddings.LayerNorm"));
    embedding.projection = (table_width != encoder.width)
        .then(|| linear("embeddings_project", table_width, encoder.width));
    Ok(architecture)
}
