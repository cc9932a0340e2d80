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
//! With `is_encoder_decoder` it is an encoder and a decoder with one table of token vectors and global attention between them
//! ([`GlobalAttentionSpec`]), and of the keys
//!
//! | key | default | |
//! | --- | --- | --- |
//! | `hidden_size`, `num_hidden_layers` | | are those of the decoder |
//! | `encoder_hidden_size` | `hidden_size` | units of a layer of the encoder in each direction |
//! | `encoder_layers` | `num_hidden_layers` | |
//! | `bidirectional` | false | whether the encoder also reads backwards |
//! | `attention_score` | `general` | `dot`, `general` or `additive` |
//! | `decoder_start_token_id` | required | what targets begin with |
//!
//! A layer of the decoder begins where the layer of the encoder ends that is as far from the last one, or its first layer. Where the
//! encoder's states, those of both directions side by side, have another width, a linear layer (`bridge`) maps them to that of the
//! decoder.
//!
//! Tensors: `model.embedding.weight`; in `model.rnn` those of the module of `torch.nn` (`weight_ih_l0`, `bias_hh_l0_reverse`);
//! `lm_head.weight`, `classifier.weight` and `classifier.bias`. Of an encoder-decoder `model.encoder.rnn` and `model.decoder.rnn`;
//! `model.decoder.bridge.h_l0` and, of an LSTM, `c_l0`; in `model.decoder.attention` `query`, `key`, `energy` and `output`.

use reparam_formats::config::{JsonObject, ModelJson, SpecialTokens};
use reparam_ops::Cell;

use super::{Family, probability, unsupported};
use crate::ModelError;
use crate::architecture::{
    Architecture, DirectionSpec, EmbeddingSpec, GlobalAttentionSpec, HeadSpec, HeadsSpec,
    Initialization, LinearSpec, Pooling, PredictorSpec, RecurrentCrossSpec, RecurrentSpec,
    ScoreSpec, Seq2SeqSpec, StartSpec,
};

pub(super) const LSTM: Family = Family {
    model_type: "lstm",
    describe: |json| describe(json, Cell::Lstm),
    gguf: None,
};

pub(super) const GRU: Family = Family {
    model_type: "gru",
    describe: |json| describe(json, Cell::Gru),
    gguf: None,
};

pub(super) const RNN: Family = Family {
    model_type: "rnn",
    describe: |json| match json.json.str("nonlinearity")? {
        None | Some("tanh") => describe(json, Cell::Tanh),
        Some("relu") => describe(json, Cell::Relu),
        Some(other) => Err(unsupported("nonlinearity", other, "tanh, relu")),
    },
    gguf: None,
};

fn describe(json: &ModelJson, cell: Cell) -> Result<Architecture, ModelError> {
    let raw = &json.json;
    if raw.contains("proj_size") {
        return Err(unsupported("proj_size", "a projection", "no projection"));
    }
    let hidden = raw.required_size("hidden_size")?;
    let own = Layers {
        path: "rnn",
        cell,
        hidden,
        embedding: raw.size("embedding_size")?.unwrap_or(hidden),
        n_layers: json.layers("num_hidden_layers")?.unwrap_or(1),
        n_directions: match raw.bool("bidirectional")? {
            Some(true) => 2,
            _ => 1,
        },
        bias: raw.bool("bias")?.unwrap_or(true),
    };
    if raw.bool("is_encoder_decoder")? == Some(true) {
        return encoder_decoder(json, own);
    }
    let tied = own.tied(raw)?;
    Ok(Architecture {
        heads: heads(json, (own.width(), hidden))?,
        ..own.describe(json, tied)?
    })
}

/// Recurrent layers, as the keys say.
#[derive(Clone, Copy)]
struct Layers {
    path: &'static str,
    cell: Cell,
    hidden: usize,
    embedding: usize,
    n_layers: usize,
    n_directions: usize,
    bias: bool,
}

impl Layers {
    fn width(self) -> usize {
        self.n_directions * self.hidden
    }

    fn layer(self, layer: usize) -> Vec<DirectionSpec> {
        let d_in = match layer {
            0 => self.embedding,
            _ => self.width(),
        };
        let directions = ["", "_reverse"].into_iter().take(self.n_directions);
        let direction = |reverse: &str| {
            let linear = |from: &str, d_in: usize| {
                let name = |what: &str| format!("{}.{what}_{from}_l{layer}{reverse}", self.path);
                LinearSpec {
                    bias: self.bias,
                    stored: Some([name("weight"), name("bias")]),
                    ..LinearSpec::new(name("weight"), d_in, self.cell.gates() * self.hidden)
                }
            };
            DirectionSpec {
                input: linear("ih", d_in),
                hidden: linear("hh", self.hidden),
            }
        };
        directions.map(direction).collect()
    }

    /// Reads whether the output head is the table of token vectors.
    fn tied(self, raw: &JsonObject) -> Result<bool, ModelError> {
        let (embedding, width) = (self.embedding, self.width());
        let tied = raw.bool("tie_word_embeddings")?.unwrap_or(false);
        if tied && embedding != width {
            let reason = format!(
                "the table has {embedding} columns (embedding_size), a state {width} numbers"
            );
            return Err(raw.invalid("tie_word_embeddings", reason).into());
        }
        Ok(tied)
    }

    /// These layers over token vectors.
    fn describe(self, json: &ModelJson, tied: bool) -> Result<Architecture, ModelError> {
        let raw = &json.json;
        Ok(Architecture {
            model_type: json.model_type.clone(),
            width: self.width(),
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
                token_projection: None,
                norm: None,
                dropout: Some(probability(raw, "embedding_dropout", 0.0)?),
                projection: None,
            },
            recurrent: Some(RecurrentSpec {
                cell: self.cell,
                hidden: self.hidden,
                layers: (0..self.n_layers).map(|layer| self.layer(layer)).collect(),
                dropout: Some(probability(raw, "dropout", 0.0)?),
                cross: None,
            }),
            state_space: None,
            rotary: Vec::new(),
            relative: None,
            seq2seq: None,
            blocks: Vec::new(),
            norm: None,
            head: HeadSpec::new("lm_head", tied),
            heads: HeadsSpec::default(),
            buffers: Vec::new(),
            bias_keys: Vec::new(),
            init: Initialization::Torch,
        })
    }
}

/// An encoder-decoder, of whose keys those of the decoder are the ones without another name.
fn encoder_decoder(json: &ModelJson, keys: Layers) -> Result<Architecture, ModelError> {
    let raw = &json.json;
    let encoder = Layers {
        path: "encoder.rnn",
        hidden: raw.size("encoder_hidden_size")?.unwrap_or(keys.hidden),
        n_layers: json.layers("encoder_layers")?.unwrap_or(keys.n_layers),
        ..keys
    };
    let decoder = Layers {
        path: "decoder.rnn",
        n_directions: 1,
        ..keys
    };
    let start = raw.token_id("decoder_start_token_id")?;
    let seq2seq = Seq2SeqSpec {
        class: "RecurrentForConditionalGeneration",
        encoder: encoder.describe(json, false)?,
        decoder_start: start.ok_or_else(|| raw.missing("decoder_start_token_id"))?,
        last_starts: false,
        unlearned: None,
        output_dropout: None,
        logits_bias: None,
        table_copies: Vec::new(),
    };
    let attention = attention(raw, decoder.width(), encoder.width())?;
    let mut all = decoder.describe(json, decoder.tied(raw)?)?;
    if let Some(recurrent) = &mut all.recurrent {
        let starts = (0..decoder.n_layers).map(|layer| start_of(layer, decoder, encoder));
        recurrent.cross = Some(RecurrentCrossSpec {
            starts: starts.collect(),
            attention,
        });
    }
    all.seq2seq = Some(Box::new(seq2seq));
    Ok(all)
}

/// What a layer of a decoder begins with: where the layer of the encoder ends that is as far from the last one, or the first layer.
fn start_of(layer: usize, decoder: Layers, encoder: Layers) -> StartSpec {
    let of = (layer + encoder.n_layers).saturating_sub(decoder.n_layers);
    let first = of * encoder.n_directions;
    let bridge = |name: &str| LinearSpec {
        bias: decoder.bias,
        ..LinearSpec::new(
            format!("decoder.bridge.{name}_l{layer}"),
            encoder.width(),
            decoder.hidden,
        )
    };
    let differs = encoder.width() != decoder.hidden;
    StartSpec {
        from: first..first + encoder.n_directions,
        h: differs.then(|| bridge("h")),
        c: (differs && decoder.cell.has_cell_state()).then(|| bridge("c")),
    }
}

fn attention(
    raw: &JsonObject,
    width: usize,
    source: usize,
) -> Result<GlobalAttentionSpec, ModelError> {
    let linear =
        |name: &str, d_in, d_out| LinearSpec::new(format!("decoder.attention.{name}"), d_in, d_out);
    let score = match raw.str("attention_score")?.unwrap_or("general") {
        "dot" if width != source => {
            let reason = format!(
                "the product needs states of one width, and those of the decoder have {width} numbers, of the encoder {source}"
            );
            return Err(raw.invalid("attention_score", reason).into());
        }
        "dot" => ScoreSpec::Dot,
        "general" => ScoreSpec::General {
            query: linear("query", width, source),
        },
        "additive" => ScoreSpec::Additive {
            query: linear("query", width, width),
            key: linear("key", source, width),
            energy: Box::new(linear("energy", width, 1)),
        },
        other => {
            let supported = "dot, general, additive";
            return Err(unsupported("attention_score", other, supported));
        }
    };
    Ok(GlobalAttentionSpec {
        score,
        output: linear("output", source + width, width),
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
