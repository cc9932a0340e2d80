//! Encoder-decoders against transformers.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use reparam::methods::{LoraConfig, attach};
use reparam::{ForwardContext, parameters};
use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::config::{JsonObject, ModelJson};
use reparam_formats::peft::TargetModules;
use serde_json::{Value, json};

use super::{
    assert_gradients_close_or_zero, describe, floats, golden, golden_json, golden_tensors, ids,
    in_f64, integers, max_difference, values,
};
use crate::architecture::RelativeBiasSpec;
use crate::{
    Architecture, CausalLm, DecodingConfig, EarlyStopping, Families, Hypothesis, ModelError,
    Precision, Sampling, Seq2SeqLm, TokenBatch,
};

/// Logits are of size one to ten; both sides are rounded to `f32` through four layers.
const VALUE_TOLERANCE: f64 = 2e-5;
/// Relative: a sum over some twenty tokens.
const LOSS_TOLERANCE: f64 = 1e-5;
/// Relative to the largest element of each tensor.
const GRADIENT_TOLERANCE: f64 = 1e-4;
/// What rounding leaves of a gradient that is zero.
const ZERO: f64 = 1e-5;

pub(super) const MODELS: [&str; 5] = ["t5", "t5-v1_1", "bart", "mbart", "marian"];

/// Those that `torch.nn` computes, with two layers and attention over the source.
pub(super) const RECURRENT: [&str; 6] = [
    "lstm-general",
    "lstm-dot",
    "gru-general",
    "gru-dot",
    "lstm-additive",
    "rnn-additive",
];
/// Relative to the largest element of each tensor.
const RECURRENT_TOLERANCE: f64 = 5e-5;

pub(super) fn all() -> impl Iterator<Item = &'static str> {
    MODELS.into_iter().chain(RECURRENT)
}

/// The golden directory that has a model.
fn folder(name: &str) -> &'static str {
    match RECURRENT.contains(&name) {
        true => "recurrent-seq2seq",
        false => "seq2seq",
    }
}

pub(super) fn open(name: &str) -> (Checkpoint, Architecture) {
    let directory = golden(&format!("{}/{name}", folder(name)));
    let json = ModelJson::load(&directory).expect("a configuration");
    (
        Checkpoint::open(&directory).expect("a checkpoint"),
        describe(&json),
    )
}

pub(super) fn load_on(name: &str, device: &Device) -> Seq2SeqLm {
    load_in(name, (device, Precision::F32))
}

pub(super) fn load_in(name: &str, place: (&Device, Precision)) -> Seq2SeqLm {
    let (checkpoint, architecture) = open(name);
    Seq2SeqLm::load(&checkpoint, architecture, place).expect("a model")
}

/// Sequences one behind the other.
pub(super) struct Flat {
    ids: Vec<u32>,
    positions: Vec<u32>,
    bounds: Vec<usize>,
}

impl Flat {
    fn new(ids: Vec<u32>, bounds: Vec<usize>) -> Self {
        let lengths = bounds.windows(2).map(|pair| pair[1] - pair[0]);
        let positions = lengths.flat_map(|length| 0..length as u32).collect();
        Self {
            ids,
            positions,
            bounds,
        }
    }

    pub(super) fn batch(&self) -> TokenBatch<'_> {
        TokenBatch {
            input_ids: &self.ids,
            position_ids: &self.positions,
            bounds: &self.bounds,
        }
    }
}

/// What a golden file has of a batch.
pub(super) struct Batch {
    file: Checkpoint,
    pub(super) source: Flat,
    pub(super) labels: Vec<i32>,
    bounds: Vec<usize>,
}

impl Batch {
    pub(super) fn new(name: &str) -> Self {
        let file = golden_tensors(&format!("{}/{name}.safetensors", folder(name)));
        let sizes = |key: &str| -> Vec<usize> {
            let numbers = integers(&file, key).into_iter();
            numbers.map(|number| number as usize).collect()
        };
        let source = sizes("source").into_iter().map(|id| id as u32).collect();
        let labels = integers(&file, "labels").into_iter();
        Self {
            source: Flat::new(source, sizes("source_bounds")),
            labels: labels.map(|label| label as i32).collect(),
            bounds: sizes("bounds"),
            file,
        }
    }

    pub(super) fn target(&self, model: &Seq2SeqLm) -> Flat {
        Flat::new(
            model.decoder_input(&self.labels, &self.bounds),
            self.bounds.clone(),
        )
    }
}

#[test]
fn outputs_losses_and_gradients_are_those_of_torch() {
    let context = ForwardContext::inference();
    for name in all() {
        let batch = Batch::new(name);
        let model = load_on(name, &Device::flex().autodiff()).set_require_grad(true);
        let target = batch.target(&model);
        let shifted = integers(&batch.file, "decoder_input").into_iter();
        let shifted: Vec<u32> = shifted.map(|id| id as u32).collect();
        assert_eq!(target.ids, shifted, "{name}");

        let logits = model.logits(batch.source.batch(), target.batch(), &context);
        let off = max_difference(&values(&logits), &floats(&batch.file, "logits"));
        assert!(off < VALUE_TOLERANCE, "{name}: logits are off by {off:e}");
        let loss = |smoothing: f32| {
            let (source, target) = (batch.source.batch(), target.batch());
            model.loss(source, target, &batch.labels, (1.0, smoothing), &context)
        };
        for (key, smoothing) in [("loss", 0.0), ("smoothed", 0.1)] {
            let (found, expected) = (values(&loss(smoothing))[0], floats(&batch.file, key)[0]);
            let off = (found / expected - 1.0).abs();
            assert!(off < LOSS_TOLERANCE, "{name} {key}: {found} != {expected}");
        }

        let gradients = parameters::take_gradients(&model, &mut loss(0.1).backward());
        let gradients = model.architecture().stored(gradients).into_iter();
        let found: BTreeMap<String, Vec<f64>> = gradients
            .map(|one| (one.name, values(&one.values)))
            .collect();
        let expected: BTreeMap<String, Vec<f64>> = batch
            .file
            .names()
            .filter_map(|key| Some((key.strip_prefix("grad.")?.to_owned(), key)))
            .map(|(key, stored)| (key, floats(&batch.file, stored)))
            .collect();
        let (least, tolerance) = match RECURRENT.contains(&name) {
            true => (10, RECURRENT_TOLERANCE),
            false => (20, GRADIENT_TOLERANCE),
        };
        let tolerances = (tolerance, ZERO);
        let compared = assert_gradients_close_or_zero(&found, &expected, tolerances, name);
        assert!(compared > least, "{name}");
    }
}

/// The reference forms, and each pair alone.
#[test]
fn wide_numbers_and_single_pairs_give_the_same() {
    let context = ForwardContext::inference();
    for name in all() {
        let batch = Batch::new(name);
        let model = load_on(name, &Device::flex());
        let target = batch.target(&model);
        let all = values(&model.logits(batch.source.batch(), target.batch(), &context));
        let wide = in_f64(model.clone());
        let wide = values(&wide.logits(batch.source.batch(), target.batch(), &context));
        assert!(max_difference(&all, &wide) < VALUE_TOLERANCE, "{name}");
        let mut single = Vec::new();
        for pair in 0..target.bounds.len() - 1 {
            let part = |of: &Flat| {
                let range = of.bounds[pair]..of.bounds[pair + 1];
                Flat::new(of.ids[range.clone()].to_vec(), vec![0, range.len()])
            };
            let (source, target) = (part(&batch.source), part(&target));
            single.extend(values(&model.logits(
                source.batch(),
                target.batch(),
                &context,
            )));
        }
        assert!(max_difference(&all, &single) < VALUE_TOLERANCE, "{name}");
    }
}

fn decoding(model: &Seq2SeqLm, settings: &Value) -> DecodingConfig {
    read(settings, model.architecture()).expect("settings")
}

fn read(settings: &Value, architecture: &Architecture) -> Result<DecodingConfig, ModelError> {
    let map = settings.as_object().expect("an object").clone();
    let json = JsonObject::new(Path::new("generation_config.json"), map);
    DecodingConfig::read(&json, architecture)
}

#[test]
fn targets_are_those_of_transformers_and_of_a_plain_search() {
    for name in all() {
        let all = golden_json(&format!("{}/cases.json", folder(name)));
        let model = load_on(name, &Device::flex());
        let cases = all[name]["generation"].as_array().expect("cases");
        let n_cases = if RECURRENT.contains(&name) { 12 } else { 24 };
        assert_eq!(cases.len(), n_cases, "{name}");
        for case in cases {
            let config = decoding(&model, &case["settings"]);
            let found = model.generate(&ids(&case["source"]), &config, || false);
            let found = found.expect("a target");
            let what = format!("{name} {}", case["settings"]);
            assert_eq!(found.len(), 1, "{what}");
            assert_eq!(found[0].tokens, ids(&case["tokens"]), "{what}");
            let (score, expected) = (found[0].score, case["score"].as_f64());
            assert_eq!(score.is_some(), expected.is_some(), "{what}");
            if let Some((score, expected)) = score.zip(expected) {
                let off = (f64::from(score) / expected - 1.0).abs();
                assert!(off < LOSS_TOLERANCE, "{what}: {score} != {expected}");
            }
        }
    }
}

/// As many of each token are drawn as the probabilities of the first token say, by the seed, and never what is forbidden.
#[test]
fn targets_are_drawn() {
    let model = load_on("bart", &Device::flex());
    let settings = json!({
        "do_sample": true, "temperature": 1.5, "top_k": 0, "max_new_tokens": 1, "bad_words_ids": [[5], [9]],
    });
    let config = decoding(&model, &settings);
    let source = [7, 4, 11];
    let draw = |seed| {
        let sampling = Sampling {
            seed,
            ..config.sampling
        };
        let config = DecodingConfig {
            sampling,
            ..config.clone()
        };
        let found = model.generate(&source, &config, || false);
        found.expect("a target")[0].tokens[0] as usize
    };
    assert_eq!(draw(3), draw(3));
    let batch = |input_ids| TokenBatch {
        input_ids,
        position_ids: &[0, 1, 2],
        bounds: &[0, 3],
    };
    let target = TokenBatch {
        input_ids: &[2],
        position_ids: &[0],
        bounds: &[0, 1],
    };
    let logits = model.logits(batch(&source), target, &ForwardContext::inference());
    let mut weights = values(&logits);
    weights.iter_mut().for_each(|x| *x = (*x / 1.5).exp());
    (weights[5], weights[9]) = (0.0, 0.0);
    let sum: f64 = weights.iter().sum();
    let n = 1000;
    let mut counts = vec![0.0; weights.len()];
    (0..n).for_each(|seed| counts[draw(seed)] += 1.0);
    for (token, (count, weight)) in counts.iter().zip(&weights).enumerate() {
        let p = weight / sum;
        // Five standard deviations of a binomial.
        let deviation = 5.0 * (n as f64 * p * (1.0 - p)).sqrt();
        assert!(
            (count - p * n as f64).abs() <= deviation,
            "{token}: {count}"
        );
    }
    let one = DecodingConfig {
        sampling: Sampling {
            top_k: 1,
            ..config.sampling
        },
        ..config.clone()
    };
    let most = DecodingConfig {
        sampling: Sampling::greedy(),
        ..config.clone()
    };
    let [one, most] = [one, most].map(|config| model.generate(&source, &config, || false));
    assert_eq!(one.expect("a target"), most.expect("a target"));
}

#[test]
fn several_targets_come_with_the_best_first() {
    let model = load_on("t5", &Device::flex());
    let config = decoding(
        &model,
        &json!({"num_beams": 4, "num_return_sequences": 3, "max_length": 9}),
    );
    let found = model
        .generate(&[5, 6, 7], &config, || false)
        .expect("targets");
    assert_eq!(found.len(), 3);
    assert!(found.windows(2).all(|pair| pair[0].score >= pair[1].score));
    assert!(found.iter().all(|target| target.tokens.len() <= 8));
    let best = DecodingConfig {
        num_return_sequences: 1,
        ..config
    };
    let alone = model
        .generate(&[5, 6, 7], &best, || false)
        .expect("a target");
    assert_eq!(alone[0], found[0]);
    let sources = [&[5, 6, 7][..], &[9]];
    let all = model
        .generate_all(sources, &best, || false)
        .expect("targets");
    assert_eq!((all.len(), &all[0]), (2, &alone));
    assert_ne!(all[0], all[1]);
}

#[test]
fn what_cannot_be_generated_is_an_error() {
    let model = load_on("bart", &Device::flex());
    let run = |settings: &Value, source: &[u32]| {
        model.generate(source, &decoding(&model, settings), || false)
    };
    assert!(matches!(run(&json!({}), &[]), Err(ModelError::EmptyPrompt)));
    let long = run(&json!({"max_length": 34}), &[4]);
    assert!(matches!(
        long,
        Err(ModelError::TooLong {
            n_tokens: 33,
            limit: 32
        })
    ));
    let long = run(&json!({}), &[4; 33]);
    assert!(matches!(
        long,
        Err(ModelError::TooLong {
            n_tokens: 33,
            limit: 32
        })
    ));
    let config = decoding(&model, &json!({"num_beams": 2}));
    let asked = std::cell::Cell::new(0);
    let stopped = model.generate(&[4], &config, || {
        asked.set(asked.get() + 1);
        asked.get() > 3
    });
    assert!(matches!(stopped, Err(ModelError::Stopped)));
    assert_eq!(asked.get(), 4);
}

#[test]
fn generation_settings_are_read_or_refused() {
    let (_, bart) = open("bart");
    let config = read(
        &json!({
            "num_beams": 4, "max_length": 142, "min_length": 56, "early_stopping": true, "length_penalty": 2.0,
            "no_repeat_ngram_size": 3, "forced_bos_token_id": 0, "forced_eos_token_id": 2, "pad_token_id": 1
        }),
        &bart,
    );
    let config = config.expect("settings");
    assert_eq!((config.max_new_tokens, config.min_new_tokens), (141, 55));
    assert_eq!(config.early_stopping, EarlyStopping::Full);
    assert_eq!((config.forced_bos, config.forced_eos), (Some(0), vec![2]));
    // Those of the model.
    assert_eq!((config.decoder_start, config.eos), (2, vec![2]));
    let default = read(&json!({}), &bart).expect("nothing is needed");
    assert_eq!(
        default,
        DecodingConfig::greedy(&bart).expect("an encoder-decoder")
    );
    for (key, value) in [
        ("num_beam_groups", json!(2)),
        ("encoder_no_repeat_ngram_size", json!(3)),
        ("suppress_tokens", json!([3])),
    ] {
        let refused = read(&json!({ key: value }), &bart);
        let is_named = |error| matches!(error, Err(ModelError::UnsupportedSetting { setting, .. }) if setting == key);
        assert!(is_named(refused), "{key}");
    }
    assert!(read(&json!({"typical_p": 0.9}), &bart).is_ok());
    let drawn = read(&json!({"typical_p": 0.9, "do_sample": true}), &bart);
    assert!(matches!(drawn, Err(ModelError::UnsupportedSetting { .. })));
    for settings in [
        json!({"num_beams": 0}),
        json!({"num_beams": 2, "do_sample": true}),
        json!({"do_sample": true, "top_p": 0.0}),
        json!({"num_return_sequences": 2}),
        json!({"max_new_tokens": 0}),
        json!({"repetition_penalty": 0.0}),
        json!({"bad_words_ids": [[]]}),
        json!({"eos_token_id": 48}),
    ] {
        let refused = read(&settings, &bart);
        assert!(
            matches!(refused, Err(ModelError::Sampling { .. })),
            "{settings}"
        );
    }
    for settings in [
        json!({"early_stopping": "always"}),
        json!({"bad_words_ids": [3]}),
        json!({"num_beams": 1.5}),
    ] {
        let refused = read(&settings, &bart);
        assert!(matches!(refused, Err(ModelError::Config(_))), "{settings}");
    }
}

#[test]
fn buckets_are_those_of_transformers() {
    let expected = &golden_json("seq2seq/cases.json")["buckets"];
    for (index, bidirectional) in [true, false].into_iter().enumerate() {
        let spec = RelativeBiasSpec {
            path: String::new(),
            buckets: 32,
            max_distance: 128,
            bidirectional,
            std: 0.0,
        };
        let found: Vec<u32> = (-200..=200).map(|distance| spec.bucket(distance)).collect();
        assert_eq!(found, ids(&expected[index]), "{bidirectional}");
    }
}

#[test]
fn all_linear_layers_are_those_of_peft() {
    let all = golden_json("seq2seq/cases.json");
    for name in MODELS {
        let model = load_on(name, &Device::flex());
        let method = LoraConfig::new(2, 4.0).with_target_modules(TargetModules::AllLinear);
        let (_, report) = attach(model, &method, 1).expect("linear layers");
        let modules = report.modules.into_iter();
        let mut found: Vec<String> = modules.map(|module| module.module).collect();
        found.sort();
        let expected = all[name]["linears"].as_array().expect("names").iter();
        let expected: Vec<&str> = expected
            .map(|name| name.as_str().expect("a name"))
            .collect();
        assert_eq!(found, expected, "{name}");
    }
}

/// A new adapter changes nothing, learns in both stacks and where they meet, and decodes.
#[test]
fn adapters_learn_in_both_stacks() {
    let context = ForwardContext::inference();
    for name in all() {
        let batch = Batch::new(name);
        let base = load_on(name, &Device::flex().autodiff());
        let target = batch.target(&base);
        let (source, target) = (batch.source.batch(), target.batch());
        let before = values(&base.logits(source, target, &context));
        let method = LoraConfig::new(2, 4.0).with_target_modules(TargetModules::AllLinear);
        let (model, _) = attach(base, &method, 1).expect("linear layers");
        let after = values(&model.logits(source, target, &context));
        assert!(max_difference(&before, &after) < VALUE_TOLERANCE, "{name}");
        let loss = model.loss(source, target, &batch.labels, (1.0, 0.1), &context);
        let gradients = parameters::take_gradients(&model, &mut loss.backward());
        for part in [
            "encoder.",
            "decoder.",
            "ttn.v_proj",
            "Attention.v",
            "attention.output",
            "bridge.h_l0",
            "weight_hh_l0",
        ] {
            let mut of_part = gradients.iter().filter(|of| of.name.contains(part));
            let is_learned = |values: Vec<f64>| values.iter().any(|x| x.abs() > 1e-3);
            let learns = of_part.any(|of| is_learned(values(&of.values)));
            // Layers have one of several names.
            let is_other = !gradients.iter().any(|of| of.name.contains(part));
            assert!(learns || is_other, "{name} {part}");
        }
        assert!(
            gradients.iter().all(|of| of.name.contains("lora_")),
            "{name}"
        );
        let model = model.valid();
        let config = decoding(&model, &json!({"num_beams": 2, "max_length": 6}));
        let found = model.generate(&[4, 5, 6], &config, || false);
        let expected = load_on(name, &Device::flex()).generate(&[4, 5, 6], &config, || false);
        let tokens =
            |found: Result<Vec<Hypothesis>, ModelError>| found.expect("a target")[0].tokens.clone();
        assert_eq!(tokens(found), tokens(expected), "{name}");
    }
}

/// Written again, a checkpoint has the tensors that transformers or torch wrote.
#[test]
fn tensors_are_written_as_they_were_read() {
    for name in all() {
        let (checkpoint, _) = open(name);
        let model = load_on(name, &Device::flex());
        let tensors = model.to_tensors();
        let mut names: Vec<&str> = tensors.iter().map(|tensor| &*tensor.name).collect();
        names.sort_unstable();
        let mut expected: Vec<&str> = checkpoint.names().collect();
        expected.sort_unstable();
        assert_eq!(names, expected, "{name}");
        for tensor in &tensors {
            let stored = checkpoint.require(&tensor.name).expect("it was read");
            assert_eq!(stored.shape, tensor.shape, "{name} {}", tensor.name);
            assert_eq!(values(&tensor.values), floats(&checkpoint, &tensor.name));
        }
        let tied = model.tied_names();
        assert_eq!(tied.is_none(), expected.contains(&"lm_head.weight"));
        let own = model.with_own_head();
        assert!(
            own.tied_names().is_none()
                && own.to_tensors().len() == tensors.len() + usize::from(tied.is_some())
        );
    }
}

#[test]
fn other_models_are_told_apart() {
    let place = (&Device::flex(), Precision::F32);
    let (checkpoint, t5) = open("t5");
    let as_decoder = CausalLm::load(&checkpoint, t5.clone(), place.0, place.1);
    assert!(matches!(as_decoder, Err(ModelError::IsSeq2Seq { model_type }) if model_type == "t5"));
    let decoder = Architecture {
        seq2seq: None,
        ..t5
    };
    let no_encoder = Seq2SeqLm::load(&checkpoint, decoder, place);
    assert!(matches!(no_encoder, Err(ModelError::NotSeq2Seq { .. })));
}

fn describe_with(name: &str, key: &str, value: Value) -> Result<Architecture, ModelError> {
    let path = golden(&format!("{}/{name}/config.json", folder(name)));
    let text = std::fs::read_to_string(&path).expect("a configuration");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    config[key] = value;
    let json = ModelJson::parse(&path, &config.to_string()).expect("a configuration");
    Families::builtin().describe(&json)
}

/// What `config.json` leaves out, and in what the versions of a family differ.
#[test]
fn families_have_the_defaults_of_transformers() {
    let minimal = |family: &str| {
        let json = json!({"model_type": family, "decoder_start_token_id": 3}).to_string();
        let json = ModelJson::parse(Path::new("config.json"), &json).expect("a configuration");
        describe(&json)
    };
    // Layers of both stacks, heads, width of the feed-forward layers, vocabulary, gate, norm at the end.
    let cases = [
        ("t5", (6, 6, 8, 2048, 32_128, false, true)),
        ("mt5", (8, 8, 6, 1024, 250_112, true, true)),
        ("bart", (12, 12, 16, 4096, 50_265, false, false)),
        ("mbart", (12, 12, 16, 4096, 50_265, false, true)),
        ("marian", (12, 12, 16, 4096, 58_101, false, false)),
    ];
    for (family, expected) in cases {
        let all = minimal(family);
        let spec = all.seq2seq.as_ref().expect("an encoder");
        let block = &all.blocks[0];
        let found = (
            spec.encoder.blocks.len(),
            all.blocks.len(),
            block.attention.n_heads,
            block.feed_forward.output.d_in,
            all.vocab_size,
            block.feed_forward.gated,
            all.norm.is_some(),
        );
        assert_eq!(found, expected, "{family}");
        assert_eq!(spec.decoder_start, 3, "{family}");
        assert_eq!(all.head.path, "lm_head", "{family}");
        assert!(!all.is_causal() && all.head.tied, "{family}");
    }
    let factor = |all: &Architecture| all.head.factor;
    assert_eq!(factor(&minimal("t5")), Some(512f64.powf(-0.5)));
    assert_eq!(factor(&minimal("mt5")), None);
    // As files of version 1.1 say it, of late and before.
    let of_late = describe_with("t5", "scale_decoder_outputs", json!(false));
    assert_eq!(factor(&of_late.expect("a model")), None);
    let before =
        json!({"model_type": "t5", "decoder_start_token_id": 0, "tie_word_embeddings": false});
    let before = ModelJson::parse(Path::new("config.json"), &before.to_string());
    assert_eq!(factor(&describe(&before.expect("a configuration"))), None);
}

#[test]
fn what_would_make_another_model_is_refused() {
    for (name, key, value) in [
        ("t5", "is_decoder", json!(true)),
        ("t5", "tie_encoder_decoder", json!(true)),
        ("t5", "dense_act_fn", json!("mish")),
        ("bart", "normalize_before", json!(true)),
        ("bart", "normalize_embedding", json!(false)),
        ("bart", "static_position_embeddings", json!(true)),
        ("bart", "encoder_layerdrop", json!(0.1)),
        ("mbart", "normalize_before", json!(false)),
        ("marian", "normalize_embedding", json!(true)),
        ("marian", "share_encoder_decoder_embeddings", json!(false)),
        ("marian", "decoder_vocab_size", json!(7)),
        ("gru-dot", "attention_score", json!("concat")),
        ("rnn-additive", "nonlinearity", json!("gelu")),
    ] {
        let refused = describe_with(name, key, value);
        assert!(
            matches!(refused, Err(ModelError::UnsupportedSetting { setting, .. }) if setting == key),
            "{name} {key}"
        );
    }
    let odd = describe_with("bart", "decoder_attention_heads", json!(3));
    assert!(matches!(odd, Err(ModelError::Config(_))));
    let few = describe_with("t5", "relative_attention_num_buckets", json!(2));
    assert!(matches!(few, Err(ModelError::Description { .. })));
    for (name, key, value) in [
        ("t5", "decoder_start_token_id", Value::Null),
        ("lstm-dot", "decoder_start_token_id", Value::Null),
        ("bart", "init_std", json!(-0.1)),
        // The product of states that are not equally wide.
        ("lstm-general", "attention_score", json!("dot")),
        ("lstm-general", "tie_word_embeddings", json!(true)),
    ] {
        let refused = describe_with(name, key, value);
        let is_named = |error: &ModelError| error.to_string().contains(key);
        assert!(
            matches!(&refused, Err(error @ ModelError::Config(_)) if is_named(error)),
            "{name} {key}"
        );
    }
    for name in ["bart", "gru-general"] {
        let beyond = describe_with(name, "decoder_start_token_id", json!(48));
        assert!(
            matches!(&beyond, Err(ModelError::Description { reason, .. }) if reason.contains("48")),
            "{name}"
        );
    }
}

#[test]
fn dropout_is_where_transformers_has_it() {
    for name in MODELS {
        let (_, mut architecture) = open(name);
        assert!(architecture.has_dropout(), "{name}");
        architecture.set_dropout(0.0).expect("places");
        assert!(!architecture.has_dropout(), "{name}");
    }
    let context = ForwardContext::training(1, 2);
    for name in MODELS {
        let batch = Batch::new(name);
        let model = load_on(name, &Device::flex());
        let target = batch.target(&model);
        let logits = |context: &ForwardContext| {
            values(&model.logits(batch.source.batch(), target.batch(), context))
        };
        let dropped = logits(&context);
        assert_eq!(dropped, logits(&context), "{name}");
        assert!(dropped.iter().all(|x| x.is_finite()));
        assert_ne!(dropped, logits(&ForwardContext::inference()), "{name}");
    }
}
