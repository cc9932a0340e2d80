//! Recurrent encoder-decoders: what is theirs beside what all encoder-decoders have.

use burn::tensor::Device;
use reparam::ForwardContext;
use reparam_formats::config::ModelJson;
use serde_json::{Value, json};

use super::seq2seq::{Batch, RECURRENT, load_on, open};
use super::{describe, drawn_checkpoint, values};
use crate::architecture::{ScoreSpec, StartSpec};
use crate::{
    Architecture, CausalLm, DecodingConfig, ModelError, NewModel, Precision, Seq2SeqLm, TokenBatch,
};

fn minimal(kind: &str, keys: Value) -> Architecture {
    let mut config = json!({
        "model_type": kind, "is_encoder_decoder": true, "vocab_size": 30, "hidden_size": 8, "decoder_start_token_id": 1,
    });
    for (key, value) in keys.as_object().expect("an object") {
        config[key] = value.clone();
    }
    let json = ModelJson::parse("config.json".as_ref(), &config.to_string());
    describe(&json.expect("a configuration"))
}

/// Up to five tokens; no position is looked at.
fn batch<'a>(input_ids: &'a [u32], bounds: &'a [usize]) -> TokenBatch<'a> {
    TokenBatch {
        input_ids,
        position_ids: &[0, 1, 2, 3, 4][..input_ids.len()],
        bounds,
    }
}

fn starts(all: &Architecture) -> Vec<StartSpec> {
    let recurrent = all.recurrent.as_ref().expect("recurrent layers");
    recurrent.cross.as_ref().expect("a source").starts.clone()
}

/// Layers begin where those of the encoder end that are as far from the last, through a layer where widths differ.
#[test]
fn layers_begin_where_those_of_the_encoder_end() {
    let same = starts(&minimal("lstm", json!({"num_hidden_layers": 2})));
    let plain = |from| StartSpec {
        from,
        h: None,
        c: None,
    };
    assert_eq!(same, [plain(0..1), plain(1..2)]);
    let both = starts(&minimal(
        "gru",
        json!({"num_hidden_layers": 2, "bidirectional": true, "encoder_hidden_size": 4}),
    ));
    assert_eq!(both, [plain(0..2), plain(2..4)]);
    let deep = starts(&minimal("rnn", json!({"encoder_layers": 3})));
    assert_eq!(deep, [plain(2..3)]);
    let shallow = starts(&minimal(
        "lstm",
        json!({"encoder_layers": 1, "num_hidden_layers": 3, "bidirectional": true}),
    ));
    let from: Vec<_> = shallow.iter().map(|start| start.from.clone()).collect();
    assert_eq!(from, [0..2, 0..2, 0..2]);
    let bridge = shallow[2].c.as_ref().expect("widths differ");
    assert_eq!((bridge.d_in, bridge.d_out, bridge.bias), (16, 8, true));
    assert_eq!(bridge.path, "decoder.bridge.c_l2");
    let gru = starts(&minimal(
        "gru",
        json!({"encoder_hidden_size": 3, "bias": false}),
    ));
    assert!(gru[0].c.is_none() && gru[0].h.as_ref().is_some_and(|h| !h.bias));
}

#[test]
fn a_score_is_general_where_nothing_is_said() {
    let all = minimal("lstm", json!({}));
    let recurrent = all.recurrent.as_ref().expect("recurrent layers");
    let cross = recurrent.cross.as_ref().expect("a source");
    assert!(matches!(cross.attention.score, ScoreSpec::General { .. }));
    assert!(!all.is_causal() && !all.head.tied);
    // A description that was made by hand.
    let alone = Architecture {
        seq2seq: None,
        ..all.clone()
    };
    assert!(alone.check().is_err());
    let mut narrow = all;
    let spec = narrow.seq2seq.as_mut().expect("an encoder");
    let json =
        json!({"model_type": "lstm", "vocab_size": 30, "hidden_size": 5, "embedding_size": 8});
    let json = ModelJson::parse("config.json".as_ref(), &json.to_string());
    spec.encoder = describe(&json.expect("a configuration"));
    let refused = narrow.check();
    assert!(
        matches!(&refused, Err(ModelError::Description { reason, .. }) if reason.contains("begin with"))
    );
}

/// A new model has the tensors that it is loaded from, computes, and is no model of another task.
#[test]
fn new_models_have_what_they_are_loaded_from() {
    for (kind, keys) in [
        (
            "lstm",
            json!({"bidirectional": true, "num_hidden_layers": 2, "embedding_size": 6}),
        ),
        (
            "gru",
            json!({"tie_word_embeddings": true, "attention_score": "dot"}),
        ),
        (
            "rnn",
            json!({"bidirectional": true, "attention_score": "additive"}),
        ),
    ] {
        let all = minimal(kind, keys);
        let planned = all.new_tensors(NewModel::Seq2Seq).expect("tensors");
        let checkpoint = drawn_checkpoint(&planned, 5);
        let place = (&Device::flex(), Precision::F32);
        let model = Seq2SeqLm::load(&checkpoint, all.clone(), place).expect("a model");
        let batch = batch(&[3, 4, 5], &[0, 2, 3]);
        let logits = model.logits(batch, batch, &ForwardContext::inference());
        assert!(values(&logits).iter().all(|x| x.is_finite()), "{kind}");
        assert_eq!(model.to_tensors().len(), planned.len(), "{kind}");

        let causal = all.new_tensors(NewModel::Causal);
        assert!(
            matches!(causal, Err(ModelError::IsSeq2Seq { .. })),
            "{kind}"
        );
        let body = all.new_tensors(NewModel::Body);
        assert!(matches!(body, Err(ModelError::IsSeq2Seq { .. })), "{kind}");
        let causal = CausalLm::load(&checkpoint, all.clone(), place.0, place.1);
        assert!(matches!(causal, Err(ModelError::IsSeq2Seq { model_type }) if model_type == kind));
    }
    let alone = json!({"model_type": "gru", "vocab_size": 9, "hidden_size": 4}).to_string();
    let alone = ModelJson::parse("config.json".as_ref(), &alone).expect("a configuration");
    let refused = describe(&alone).new_tensors(NewModel::Seq2Seq);
    assert!(matches!(refused, Err(ModelError::NotSeq2Seq { model_type }) if model_type == "gru"));
}

/// What is fed token by token is what is computed at once, whatever beams are changed for one another.
#[test]
fn states_are_carried_and_reordered() {
    for name in RECURRENT {
        let model = load_on(name, &Device::flex());
        let vocab_size = model.architecture().vocab_size;
        let source = batch(&[5, 9, 2, 14, 3], &[0, 5]);
        let read = model.read_for(source, 2);
        let mut cache = model.new_cache(2, 8);
        let targets = [[1, 7, 8, 4], [1, 6, 6, 20]];
        for step in 0..3 {
            let tokens = targets.map(|target| target[step]);
            model.next_logits(&tokens, &read, &mut cache);
        }
        // Both go on from the second.
        cache.reorder(&[1, 1]);
        let found = values(&model.next_logits(&[20, 3], &read, &mut cache));
        for (beam, last) in [20, 3].into_iter().enumerate() {
            let target = [1, 6, 6, last];
            let all = model.logits(
                source,
                batch(&target, &[0, 4]),
                &ForwardContext::inference(),
            );
            let expected = values(&all.narrow(0, 3, 1));
            let found = &found[beam * vocab_size..][..vocab_size];
            assert!(super::max_difference(found, &expected) < 1e-5, "{name}");
        }
    }
}

#[test]
fn dropout_draws_apart_in_both_stacks() {
    for name in ["lstm-general", "gru-general", "rnn-additive"] {
        let (checkpoint, mut all) = open(name);
        assert!(!all.has_dropout(), "{name}");
        all.set_dropout(0.3).expect("places");
        let place = (&Device::flex(), Precision::F32);
        let model = Seq2SeqLm::load(&checkpoint, all, place).expect("a model");
        let batch = Batch::new(name);
        let target = batch.target(&model);
        let logits = |context: &ForwardContext| {
            values(&model.logits(batch.source.batch(), target.batch(), context))
        };
        let training = ForwardContext::training(1, 2);
        let dropped = logits(&training);
        assert_eq!(dropped, logits(&training), "{name}");
        assert_ne!(dropped, logits(&ForwardContext::inference()), "{name}");
        let tokens = self::batch(&[3; 5], &[0, 5]);
        let embedded = [&model.encoder, &model.decoder]
            .map(|stack| values(&model.embed(stack, tokens.tokens(), &training)));
        assert_ne!(embedded[0], embedded[1], "{name}");
    }
}

/// A target is written even for a source of one token, and ends where it has to.
#[test]
fn short_sources_are_answered() {
    let model = load_on("lstm-general", &Device::flex());
    let config = DecodingConfig {
        num_beams: 3,
        max_new_tokens: 4,
        ..DecodingConfig::greedy(model.architecture()).expect("an encoder-decoder")
    };
    let found = model.generate(&[4], &config, || false).expect("a target");
    assert!((1..=4).contains(&found[0].tokens.len()));
}
