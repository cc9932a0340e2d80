//! DeBERTa-v2, whose code DeBERTa-v3 has too: an encoder whose scores are of content and position, with vectors of distances in place of
//! positions.

use reparam_formats::config::{JsonObject, ModelJson, SpecialTokens};
use reparam_ops::Activation;

use super::encoder::{BERT_NAMES, Encoder, Names, linear, refuse_others};
use super::{Family, activation, epsilon, probability, unsupported};
use crate::ModelError;
use crate::architecture::{
    Architecture, HeadActivation, HeadsSpec, LinearSpec, MaskedSpec, NormSpec, Pooling,
    PositionLayer, PositionsSpec, PredictorSpec, RelativeSpec, RelativeVectorsSpec, TransformSpec,
};

pub(super) const FAMILY: Family = Family {
    model_type: "deberta-v2",
    describe,
    gguf: None,
};

const NAMES: Names = Names {
    inputs: [
        "attention.self.query_proj",
        "attention.self.key_proj",
        "attention.self.value_proj",
    ],
    ..BERT_NAMES
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    refuse_others(json)?;
    let raw = &json.json;
    let dropout = probability(raw, "hidden_dropout_prob", 0.1)?;
    let token_types = raw.usize("type_vocab_size")?.unwrap_or(0);
    let encoder = Encoder {
        json,
        names: NAMES,
        width: raw.size("hidden_size")?.unwrap_or(1536),
        inner: raw.size("intermediate_size")?.unwrap_or(6144),
        n_layers: json.layers("num_hidden_layers")?.unwrap_or(24),
        n_heads: raw.size("num_attention_heads")?.unwrap_or(24),
        eps: epsilon(raw, "layer_norm_eps", 1e-7)?,
        activation: activation(raw, "hidden_act", Activation::Gelu)?,
        dropout,
        output_dropout: Some(dropout),
        attention_dropout: probability(raw, "attention_probs_dropout_prob", 0.1)?,
        max_positions: raw.size("max_position_embeddings")?.unwrap_or(512),
        position_offset: 0,
        token_types: (token_types > 0).then_some(token_types),
        vocab_size: raw.size("vocab_size")?.unwrap_or(128_100),
        special: json.special_tokens(SpecialTokens {
            pad: Some(0),
            ..SpecialTokens::default()
        })?,
        std: raw.f64("initializer_range")?.unwrap_or(0.02),
    };
    encoder.check("num_attention_heads", "hidden_size")?;
    refuse_unread(raw, &encoder)?;
    let kinds = Kinds::read(raw)?;
    let relative = match raw.bool("relative_attention")?.unwrap_or(false) {
        true => Some(vectors(raw, &encoder, &kinds)?),
        false => None,
    };
    let table_width = raw.size("embedding_size")?.unwrap_or(encoder.width);
    let heads = heads(raw, &encoder, table_width)?;
    let decoder = heads.masked.as_ref().map_or("", |masked| masked.decoder);
    let mut architecture = encoder.describe("deberta", decoder, heads)?;
    let embedding = &mut architecture.embedding;
    if !raw.bool("position_biased_input")?.unwrap_or(true) {
        embedding.positions = None;
        // A table that no model reads, in the first checkpoints.
        architecture
            .buffers
            .push("embeddings.position_embeddings.weight");
    }
    embedding.projection = (table_width != encoder.width)
        .then(|| LinearSpec::new("embeddings.embed_proj", table_width, encoder.width));
    let shares = raw.bool("share_att_key")?.unwrap_or(false);
    for (layer, block) in architecture.blocks.iter_mut().enumerate() {
        let attention = &mut block.attention;
        let parts = 1 + usize::from(kinds.keys) + usize::from(kinds.queries);
        attention.scale = ((attention.head_dim * parts) as f64).powf(-0.5);
        let of = |is_there: bool, name: &str| {
            let path = format!("encoder.layer.{layer}.attention.self.{name}");
            is_there.then(|| match shares {
                true => PositionLayer::Shared,
                false => PositionLayer::Own(linear(path, encoder.width, encoder.width)),
            })
        };
        attention.positions = relative.is_some().then(|| PositionsSpec {
            keys: of(kinds.keys, "pos_key_proj"),
            queries: of(kinds.queries, "pos_query_proj"),
            dropout: Some(dropout),
        });
    }
    architecture.relative = relative;
    Ok(architecture)
}

/// Refuses what makes another model.
fn refuse_unread(raw: &JsonObject, encoder: &Encoder<'_>) -> Result<(), ModelError> {
    if let Some(size @ 1..) = raw.usize("conv_kernel_size")? {
        return Err(unsupported("conv_kernel_size", size, "0"));
    }
    let head_dim = encoder.width / encoder.n_heads;
    for (key, expected, supported) in [
        (
            "attention_head_size",
            head_dim,
            "hidden_size / num_attention_heads",
        ),
        ("pooler_hidden_size", encoder.width, "hidden_size"),
    ] {
        if let Some(found) = raw.size(key)?
            && found != expected
        {
            return Err(unsupported(key, found, supported));
        }
    }
    Ok(())
}

/// What scores are made of besides content.
struct Kinds {
    /// `c2p`: queries look for distances.
    keys: bool,
    /// `p2c`: keys are looked for from distances.
    queries: bool,
}

impl Kinds {
    /// Reads them, as a list or as words between bars.
    fn read(raw: &JsonObject) -> Result<Self, ModelError> {
        let key = "pos_att_type";
        let names = match raw.str(key) {
            Ok(None) => Vec::new(),
            Ok(Some(names)) => words(names),
            Err(_) => raw.strings(key)?.unwrap_or_default(),
        };
        let mut names = names.iter().filter(|name| !name.is_empty());
        let mut kinds = Self {
            keys: false,
            queries: false,
        };
        names.try_for_each(|name| {
            match &**name {
                "c2p" => kinds.keys = true,
                "p2c" => kinds.queries = true,
                other => return Err(unsupported(key, other, "c2p, p2c")),
            }
            Ok(())
        })?;
        Ok(kinds)
    }
}

fn words(text: &str) -> Vec<String> {
    let words = text.split('|').map(|word| word.trim().to_lowercase());
    words.collect()
}

/// The vectors of distances.
fn vectors(
    raw: &JsonObject,
    encoder: &Encoder<'_>,
    kinds: &Kinds,
) -> Result<RelativeSpec, ModelError> {
    if !(kinds.keys || kinds.queries) {
        let reason = "with relative_attention it has to name c2p, p2c or both";
        return Err(raw.invalid("pos_att_type", reason).into());
    }
    // Numbers below 1 ask for nothing.
    let at_least_1 = |key| -> Result<Option<usize>, ModelError> {
        let number = raw.f64(key)?.filter(|number| *number >= 1.0);
        Ok(match number {
            Some(_) => raw.size(key)?,
            None => None,
        })
    };
    let max_distance = at_least_1("max_relative_positions")?.unwrap_or(encoder.max_positions);
    let buckets = at_least_1("position_buckets")?;
    if let Some(buckets) = buckets
        && (buckets < 2 || max_distance <= buckets / 2 + 1)
    {
        let reason = format!(
            "it has to be at least 2, and half of it less than max_relative_positions - 1, {}",
            max_distance - 1
        );
        return Err(raw.invalid("position_buckets", reason).into());
    }
    let norms = words(raw.str("norm_rel_ebd")?.unwrap_or("none"));
    if let Some(other) = norms
        .iter()
        .find(|name| *name != "layer_norm" && *name != "none")
    {
        return Err(unsupported("norm_rel_ebd", other, "layer_norm, none"));
    }
    let is_normed = norms.iter().any(|name| name == "layer_norm");
    Ok(RelativeSpec::Vectors(RelativeVectorsSpec {
        path: "encoder.rel_embeddings".to_owned(),
        norm: is_normed.then(|| encoder.norm("encoder.LayerNorm")),
        span: buckets.unwrap_or(max_distance),
        max_distance: buckets.map(|_| max_distance - 1),
    }))
}

fn heads(
    raw: &JsonObject,
    encoder: &Encoder<'_>,
    table_width: usize,
) -> Result<HeadsSpec, ModelError> {
    let of_sequence = probability(raw, "cls_dropout", encoder.dropout)?;
    let pooler_dropout = probability(raw, "pooler_dropout", 0.0)?;
    let pooled = pooler_activation(raw)?;
    let each = |class, path, dropout| encoder.predictor(class, Pooling::Each, path, dropout);
    Ok(HeadsSpec {
        sequence: Some(PredictorSpec {
            pooling: Pooling::First,
            input_dropout: Some(pooler_dropout),
            transform: Some(encoder.transform("pooler.dense", pooled)),
            // PEFT by itself saves the last layer alone, and leaves the new one before it as it was drawn.
            saved: vec!["pooler", "classifier"],
            ..each(
                "DebertaV2ForSequenceClassification",
                "classifier",
                Some(of_sequence),
            )
        }),
        token: Some(each(
            "DebertaV2ForTokenClassification",
            "classifier",
            Some(encoder.dropout),
        )),
        span: Some(each("DebertaV2ForQuestionAnswering", "qa_outputs", None)),
        masked: masked(raw, encoder, table_width)?,
        names: vec![
            "cls.",
            "lm_predictions.",
            "mask_predictions.",
            "pooler.",
            "classifier.",
            "qa_outputs.",
        ],
    })
}

fn pooler_activation(raw: &JsonObject) -> Result<HeadActivation, ModelError> {
    match raw.str("pooler_hidden_act")? {
        Some("tanh") => Ok(HeadActivation::Tanh),
        _ => {
            let function = activation(raw, "pooler_hidden_act", Activation::Gelu)?;
            Ok(HeadActivation::Of(function))
        }
    }
}

/// The head of a masked language model: that which the models were trained with, or with `legacy` that of transformers' first port.
fn masked(
    raw: &JsonObject,
    encoder: &Encoder<'_>,
    table_width: usize,
) -> Result<Option<MaskedSpec>, ModelError> {
    let is_legacy = raw.bool("legacy")?.unwrap_or(true);
    let (transform, decoder, bias) = match is_legacy {
        true => (
            "cls.predictions.transform",
            "cls.predictions.decoder",
            "cls.predictions",
        ),
        false => (
            "lm_predictions.lm_head",
            "lm_predictions.lm_head",
            "lm_predictions.lm_head",
        ),
    };
    // It multiplies hidden states with the table of tokens as they are.
    if !is_legacy && table_width != encoder.width {
        return Ok(None);
    }
    let path = |name: &str| format!("{transform}.{name}");
    Ok(Some(MaskedSpec {
        class: "DebertaV2ForMaskedLM",
        transform: TransformSpec {
            linear: linear(path("dense"), encoder.width, table_width),
            in_body: false,
            activation: HeadActivation::Of(encoder.activation),
            norm: Some(NormSpec {
                width: table_width,
                ..encoder.norm(path("LayerNorm"))
            }),
        },
        decoder,
        bias,
    }))
}
