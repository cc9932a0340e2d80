//! Recurrent nets: `model_type` `lstm`, `gru` and `rnn`, which transformers does not have.
//!
//! | key | default | |
//! | --- | --- | --- |
//! | `vocab_size` | required | rows of the table of token vectors |
//! | `hidden_size` | required | units of a layer in each direction |
//! | `embedding_size` | `hidden_size` | width of the token vectors |
//! | `num_hidden_layers` | 1 | |
//! | `bidirectional` | false | whether layers also read backwards; such a model predicts no next token |
//! | `nonlinearity` | `tanh` | of `rnn`: `tanh` or `relu` |
//! | `bias` | true | |
//! | `dropout` | 0 | between layers |
//! | `embedding_dropout` | 0 | of the token vectors |
//! | `classifier_dropout` | 0 | before the last layer of a classifier |
//! | `classifier_pooling` | `mean` | what a class of a sequence is told from: `mean` of its states, or `last`, where each direction ends |
//! | `tie_word_embeddings` | false | whether the output head is the table; `embedding_size` has to be the width of the states |
//! | `max_position_embeddings` | 2^20 | the longest sequence; nothing is stored for it |
//!
//! Tensors: `model.embedding.weight`; in `model.rnn` those of the module of `torch.nn` (`weight_ih_l0`, `bias_hh_l0_reverse`);
//! `lm_head.weight`, `classifier.weight` and `classifier.bias`.

use reparam_formats::config::{ModelJson, SpecialTokens};
use reparam_ops::Cell;

use super::{Family, probability, unsupported};
use crate::ModelError;
use crate::architecture::{
    Architecture, DirectionSpec, EmbeddingSpec, HeadSpec, HeadsSpec, Initialization, LinearSpec,
    Pooling, PredictorSpec, RecurrentSpec,
};

pub(super) const LSTM: Family = Family {
    model_type: "lstm",
    describe: |json| describe(json, Cell::Lstm),
};

pub(super) const GRU: Family = Family {
    model_type: "gru",
    describe: |json| describe(json, Cell::Gru),
};

pub(super) const RNN: Family = Family {
    model_type: "rnn",
    describe: |json| match json.json.str("nonlinearity")? {
        None | Some("tanh") => describe(json, Cell::Tanh),
        Some("relu") => describe(json, Cell::Relu),
        Some(other) => Err(unsupported("nonlinearity", other, "tanh, relu")),
    },
};

fn describe(json: &ModelJson, cell: Cell) -> Result<Architecture, ModelError> {
    let raw = &json.json;
    if raw.contains("proj_size") {
        return Err(unsupported("proj_size", "a projection", "no projection"));
    }
    let hidden = raw.required_size("hidden_size")?;
    let embedding = raw.size("embedding_size")?.unwrap_or(hidden);
    let n_layers = json.layers("num_hidden_layers")?.unwrap_or(1);
    let n_directions = match raw.bool("bidirectional")? {
        Some(true) => 2,
        _ => 1,
    };
    let width = n_directions * hidden;
    let bias = raw.bool("bias")?.unwrap_or(true);
    let layer = |layer: usize| {
        let d_in = match layer {
            0 => embedding,
            _ => width,
        };
        let directions = ["", "_reverse"].into_iter().take(n_directions);
        let direction = |reverse: &str| {
            let linear = |from: &str, d_in: usize| {
                let name = |what: &str| format!("rnn.{what}_{from}_l{layer}{reverse}");
                LinearSpec {
                    bias,
                    stored: Some([name("weight"), name("bias")]),
                    ..LinearSpec::new(name("weight"), d_in, cell.gates() * hidden)
                }
            };
            DirectionSpec {
                input: linear("ih", d_in),
                hidden: linear("hh", hidden),
            }
        };
        directions.map(direction).collect()
    };
    let tied = raw.bool("tie_word_embeddings")?.unwrap_or(false);
    if tied && embedding != width {
        let reason =
            format!("the table has {embedding} columns (embedding_size), a state {width} numbers");
        return Err(raw.invalid("tie_word_embeddings", reason).into());
    }
    Ok(Architecture {
        model_type: json.model_type.clone(),
        width,
        vocab_size: raw.required_size("vocab_size")?,
        max_positions: raw.size("max_position_embeddings")?.unwrap_or(1 << 20),
        special: json.special_tokens(SpecialTokens::default())?,
        prefix: "model".to_owned(),
        embedding: EmbeddingSpec {
            tokens: "embedding".to_owned(),
            factor: None,
            positions: None,
            sinusoids: None,
            token_types: None,
            norm: None,
            dropout: Some(probability(raw, "embedding_dropout", 0.0)?),
            projection: None,
        },
        recurrent: Some(RecurrentSpec {
            cell,
            hidden,
            layers: (0..n_layers).map(layer).collect(),
            dropout: Some(probability(raw, "dropout", 0.0)?),
        }),
        rotary: Vec::new(),
        relative: None,
        seq2seq: None,
        blocks: Vec::new(),
        norm: None,
        head: HeadSpec {
            path: "lm_head".to_owned(),
            tied,
            soft_cap: None,
        },
        heads: heads(json, (width, hidden))?,
        buffers: Vec::new(),
        bias_keys: Vec::new(),
        init: Initialization::Torch,
    })
}

fn heads(json: &ModelJson, (width, hidden): (usize, usize)) -> Result<HeadsSpec, ModelError> {
    let raw = &json.json;
    let pooling = match raw.str("classifier_pooling")? {
        None | Some("mean") => Pooling::Mean,
        Some("last") => Pooling::Last { forward: hidden },
        Some(other) => return Err(unsupported("classifier_pooling", other, "mean, last")),
    };
    let dropout = probability(raw, "classifier_dropout", 0.0)?;
    let predictor = |class, pooling| PredictorSpec {
        class,
        pooling,
        input_dropout: None,
        transform: None,
        dropout: Some(dropout),
        output: Some("classifier".to_owned()),
        normalize: false,
        // That of torch's uniform weights.
        std: (3.0 * width as f64).powf(-0.5),
        saved: vec!["classifier"],
    };
    Ok(HeadsSpec {
        sequence: Some(predictor("RecurrentForSequenceClassification", pooling)),
        token: Some(predictor("RecurrentForTokenClassification", Pooling::Each)),
        span: Some(predictor("RecurrentForQuestionAnswering", Pooling::Each)),
        masked: None,
        names: vec!["classifier.", "lm_head."],
    })
}
