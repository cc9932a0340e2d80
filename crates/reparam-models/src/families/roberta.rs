//! RoBERTa, and XLM-RoBERTa, which is the same model: BERT without token types, whose positions begin behind that of padding.

use reparam_formats::config::{ModelJson, SpecialTokens};
use reparam_ops::Activation;

use super::encoder::{Defaults, read};
use super::{Family, probability};
use crate::ModelError;
use crate::architecture::{
    Architecture, HeadActivation, HeadsSpec, MaskedSpec, Pooling, TransformSpec,
};

pub(super) const FAMILY: Family = Family {
    model_type: "roberta",
    describe: |json| describe(json, &CLASSES),
    gguf: None,
};

pub(super) const XLM: Family = Family {
    model_type: "xlm-roberta",
    describe: |json| describe(json, &XLM_CLASSES),
    gguf: None,
};

/// The classes of transformers: for sequences, tokens, spans and masked tokens.
const CLASSES: [&str; 4] = [
    "RobertaForSequenceClassification",
    "RobertaForTokenClassification",
    "RobertaForQuestionAnswering",
    "RobertaForMaskedLM",
];

const XLM_CLASSES: [&str; 4] = [
    "XLMRobertaForSequenceClassification",
    "XLMRobertaForTokenClassification",
    "XLMRobertaForQuestionAnswering",
    "XLMRobertaForMaskedLM",
];

fn describe(
    json: &ModelJson,
    [sequence, token, span, masked]: &[&'static str; 4],
) -> Result<Architecture, ModelError> {
    let special = SpecialTokens {
        bos: Some(0),
        eos: vec![2],
        pad: Some(1),
    };
    let mut encoder = read(json, &Defaults::base(50_265), special)?;
    // The row of padding stays empty, and those before it.
    encoder.position_offset = encoder.special.pad.map_or(0, |pad| pad as usize + 1);
    if encoder.position_offset >= encoder.max_positions {
        let reason = "it leaves no positions for tokens";
        return Err(json.json.invalid("pad_token_id", reason).into());
    }
    let raw = &json.json;
    let dropout = Some(probability(raw, "classifier_dropout", encoder.dropout)?);
    let each = |class, path, dropout| encoder.predictor(class, Pooling::Each, path, dropout);
    let gelu = HeadActivation::Of(Activation::Gelu);
    let heads = HeadsSpec {
        sequence: Some(encoder.dense_predictor(sequence, HeadActivation::Tanh, dropout)),
        token: Some(each(token, "classifier", dropout)),
        span: Some(each(span, "qa_outputs", None)),
        masked: Some(MaskedSpec {
            class: masked,
            transform: TransformSpec {
                norm: Some(encoder.norm("lm_head.layer_norm")),
                ..encoder.transform("lm_head.dense", gelu)
            },
            decoder: "lm_head.decoder",
            bias: "lm_head",
        }),
        names: vec!["lm_head.", "roberta.pooler.", "classifier.", "qa_outputs."],
    };
    encoder.describe("roberta", "lm_head.decoder", heads)
}
