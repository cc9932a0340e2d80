//! BERT: an encoder with learned positions, token types, and layer norms on the sums.

use reparam_formats::config::{ModelJson, SpecialTokens};

use super::encoder::{Defaults, read};
use super::{Family, probability};
use crate::ModelError;
use crate::architecture::{
    Architecture, HeadActivation, HeadsSpec, MaskedSpec, Pooling, PredictorSpec, TransformSpec,
};

pub(super) const FAMILY: Family = Family {
    model_type: "bert",
    describe,
    gguf: None,
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let special = SpecialTokens {
        pad: Some(0),
        ..SpecialTokens::default()
    };
    let encoder = read(json, &Defaults::base(30_522), special)?;
    let raw = &json.json;
    let dropout = Some(probability(raw, "classifier_dropout", encoder.dropout)?);
    let each = |class, path, dropout| encoder.predictor(class, Pooling::Each, path, dropout);
    let pooler = encoder.transform("pooler.dense", HeadActivation::Tanh);
    let masked = "cls.predictions.transform";
    let transform = encoder.transform(
        &format!("{masked}.dense"),
        HeadActivation::Of(encoder.activation),
    );
    let heads = HeadsSpec {
        sequence: Some(PredictorSpec {
            pooling: Pooling::First,
            transform: Some(TransformSpec {
                in_body: true,
                ..pooler
            }),
            ..each("BertForSequenceClassification", "classifier", dropout)
        }),
        token: Some(each("BertForTokenClassification", "classifier", dropout)),
        span: Some(each("BertForQuestionAnswering", "qa_outputs", None)),
        masked: Some(MaskedSpec {
            class: "BertForMaskedLM",
            transform: TransformSpec {
                norm: Some(encoder.norm(format!("{masked}.LayerNorm"))),
                ..transform
            },
            decoder: "cls.predictions.decoder",
            bias: "cls.predictions",
        }),
        names: vec!["cls.", "bert.pooler.", "classifier.", "qa_outputs."],
    };
    encoder.describe("bert", "cls.predictions.decoder", heads)
}
