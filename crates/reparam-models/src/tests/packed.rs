//! Every model with packed weights beside itself in `f32`.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor, bf16};
use reparam::methods::{LoraConfig, attach};
use reparam::{ForwardContext, parameters};
use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::config::ModelJson;
use reparam_formats::peft::TargetModules;

use super::encoders::{Batch, Head, families_with, open};
use super::families::randomized;
use super::generation::check_cache;
use super::{
    Documents, STORIES, describe, families, golden_tensors, in_memory, max_difference, repository,
    seq2seq, tensors_of, values,
};
use crate::architecture::{RelativeBiasSpec, RelativeSpec};
use crate::{
    Architecture, CausalLm, ClassTargets, MaskedLm, Precision, Predictor, Seq2SeqLm, TokenBatch,
    class_loss,
};

/// Outputs of size one, of which rounding to eight bits in each of a few layers leaves this.
const BF16_TOLERANCE: f64 = 0.02;
/// Of the length of each gradient.
const BF16_GRADIENT_TOLERANCE: f64 = 0.1;
/// The same where rounding may turn one of T5's ten rectified neurons off.
const RECTIFIED_TOLERANCE: f64 = 0.25;

/// Whether a weight makes scores that nothing divides, those of T5: of size four, which these random ones have, scores make each rounding
/// ten times as large.
fn is_score(name: &str) -> bool {
    ["Attention.q.", "Attention.k."]
        .iter()
        .any(|part| name.contains(part))
}

/// A checkpoint of numbers that bf16 holds, so that weights are the same in both precisions and what is compared is how they compute;
/// what makes scores that nothing divides is a quarter of what is stored.
fn conditioned(checkpoint: &Checkpoint) -> Checkpoint {
    let mut tensors = tensors_of(checkpoint);
    for (name, _, numbers) in &mut tensors {
        let factor = if is_score(name) { 0.25 } else { 1.0 };
        let all = numbers.iter_mut();
        all.for_each(|x| *x = factor * bf16::from_f32(*x).to_f32());
    }
    in_memory(&tensors)
}

/// What a model gives: outputs, and gradients by name.
type Learned = (Vec<f64>, BTreeMap<String, Vec<f64>>);

fn learned(model: &impl Module, outputs: &Tensor<2>, loss: Tensor<1>) -> Learned {
    let gradients = parameters::take_gradients(model, &mut loss.backward());
    let gradients = gradients.into_iter();
    let gradients = gradients.map(|one| (one.name, values(&one.values)));
    (values(outputs), gradients.collect())
}

#[track_caller]
fn assert_near(found: &[f64], expected: &[f64], what: &str) {
    let largest = expected.iter().fold(1.0_f64, |max, x| max.max(x.abs()));
    let difference = max_difference(expected, found);
    assert!(
        difference <= BF16_TOLERANCE * largest,
        "{what}: {difference}"
    );
    assert!(difference > 0.0, "{what}: nothing is rounded");
}

/// Checks that the packed path computes about the same as f32.
#[track_caller]
fn check(what: &str, learn: impl Fn(Precision) -> Learned) {
    let (expected, found) = (learn(Precision::F32), learn(Precision::Bf16));
    assert_near(&found.0, &expected.0, what);
    assert!(expected.1.keys().eq(found.1.keys()), "{what}");
    assert!(!expected.1.is_empty(), "{what}: nothing is trained");
    let length = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let tolerance = match what.starts_with("t5 ") {
        true => RECTIFIED_TOLERANCE,
        false => BF16_GRADIENT_TOLERANCE,
    };
    let longest = expected.1.values().map(|x| length(x)).fold(0.0, f64::max);
    for (key, expected) in &expected.1 {
        let pairs = expected.iter().zip(&found.1[key]);
        let off: Vec<f64> = pairs.map(|(a, b)| a - b).collect();
        // Of a short one what others leave counts.
        let scale = length(expected).max(0.05 * longest);
        assert!(length(&found.1[key]) > 0.0, "{what} {key}: no gradient");
        let error = length(&off) / scale;
        assert!(error <= tolerance, "{what} {key}: {error}");
    }
}

/// In use, and with all of the model's own dropouts on, which draw the same in every precision.
fn passes() -> [(&'static str, ForwardContext); 2] {
    [
        ("inference", ForwardContext::inference()),
        ("training", ForwardContext::training(1, 2)),
    ]
}

/// LoRA on every linear layer of the body.
fn everywhere(architecture: &Architecture) -> LoraConfig {
    let names = architecture.linears().map(|linear| {
        let name = linear.path.rsplit('.').next();
        name.expect("a name").to_owned()
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    LoraConfig::new(2, 4.0).with_target_modules(TargetModules::Names(names))
}

fn adapted<M: Module>(model: M, architecture: &Architecture) -> M {
    let (model, _) = attach(model, &everywhere(architecture), 3).expect("attached");
    randomized(model)
}

/// Outputs, and gradients of what LoRA and the head train.
#[test]
fn heads() {
    let encoders = |head: &'static str| {
        families_with(head).map(move |family| format!("encoders/{family}-{head}"))
    };
    let recurrent = |of: &[&str]| -> Vec<String> {
        of.iter().map(|name| format!("recurrent/{name}")).collect()
    };
    let sequences = recurrent(&["lstm-sequence", "gru-sequence", "rnn-sequence"]);
    let tokens = recurrent(&["lstm-token"]);
    let (of_sequences, of_tokens): (Head, Head) =
        (|all| all.sequence.as_ref(), |all| all.token.as_ref());
    let sequences = encoders("sequence").chain(sequences);
    let tokens = encoders("token").chain(tokens);
    let all = sequences.map(|name| (name, of_sequences));
    for (name, find) in all.chain(tokens.map(|name| (name, of_tokens))) {
        let batch = Batch::new(&name);
        for (pass, context) in passes() {
            check(&format!("{name} {pass}"), |precision| {
                let (checkpoint, architecture) = open(&name);
                let checkpoint = conditioned(&checkpoint);
                let spec = find(&architecture.heads).expect("a head").clone();
                let place = (&Device::flex().autodiff(), precision);
                let model =
                    Predictor::load(&checkpoint, architecture.clone(), (spec, 3), None, place);
                let model = model.expect("a model").with_trained_head();
                let model = adapted(model, &architecture);
                let outputs = model.outputs(batch.rows(), &context);
                let loss = class_loss(outputs.clone(), ClassTargets::One(&batch.targets), 1.0);
                learned(&model, &outputs, loss)
            });
        }
    }
}

#[test]
fn masked_language_models() {
    for family in families_with("masked") {
        let name = format!("encoders/{family}-masked");
        let batch = Batch::new(&name);
        let (places, stood) = batch.guessed();
        for (pass, context) in passes() {
            check(&format!("{name} {pass}"), |precision| {
                let (checkpoint, architecture) = open(&name);
                let checkpoint = conditioned(&checkpoint);
                let place = (&Device::flex().autodiff(), precision);
                let model = MaskedLm::load(&checkpoint, architecture.clone(), place);
                let model = adapted(model.expect("a model"), &architecture);
                let outputs = model.logits_at(batch.rows(), &places, &context);
                let loss = model.loss(batch.rows(), (&places, &stood), 1.0, &context);
                learned(&model, &outputs, loss)
            });
        }
    }
}

/// Recurrent ones, and those with dropout of their own; `families` has all others.
#[test]
fn language_models() {
    for name in [
        "recurrent/lstm-causal",
        "recurrent/gru-causal",
        "recurrent/rnn-causal",
        "families/gpt2",
        "families/phi3",
    ] {
        let documents = match name.starts_with("recurrent") {
            true => {
                let batch = Batch::new(name);
                Documents::flat(&batch.ids, &batch.bounds)
            }
            false => families::documents(&golden_tensors(&format!("{name}.golden.safetensors"))),
        };
        for (pass, context) in passes() {
            check(&format!("{name} {pass}"), |precision| {
                let (checkpoint, mut architecture) = open(name);
                if architecture.recurrent.is_none() {
                    architecture.set_dropout(0.1).expect("places");
                }
                let checkpoint = conditioned(&checkpoint);
                let device = Device::flex().autodiff();
                let model = CausalLm::load(&checkpoint, architecture.clone(), &device, precision);
                let model = adapted(model.expect("a model"), &architecture);
                let outputs = model.logits(documents.batch(), &context);
                let loss = model.loss(documents.batch(), &documents.labels, 1.0, &context);
                learned(&model, &outputs, loss)
            });
        }
    }
}

#[test]
fn encoder_decoders() {
    for name in seq2seq::all() {
        let batch = seq2seq::Batch::new(name);
        for (pass, context) in passes() {
            check(&format!("{name} {pass}"), |precision| {
                let (checkpoint, architecture) = seq2seq::open(name);
                let place = (&Device::flex().autodiff(), precision);
                let model = Seq2SeqLm::load(&conditioned(&checkpoint), architecture.clone(), place);
                let model = adapted(model.expect("a model"), &architecture);
                let target = batch.target(&model);
                let (source, target) = (batch.source.batch(), target.batch());
                let outputs = model.logits(source, target, &context);
                let loss = model.loss(source, target, &batch.labels, (1.0, 0.1), &context);
                learned(&model, &outputs, loss)
            });
        }
    }
}

/// What is fused computes again what it would keep; the rest does not look at it.
#[test]
fn recomputing_changes_nothing() {
    for name in seq2seq::MODELS {
        let (_, architecture) = seq2seq::open(name);
        assert!(!architecture.fuses_in_training(), "{name}: it drops out");
        let batch = seq2seq::Batch::new(name);
        let with = |recompute| {
            let (checkpoint, mut architecture) = seq2seq::open(name);
            architecture.set_dropout(0.0).expect("places");
            assert!(architecture.fuses_in_training(), "{name}");
            let place = (&Device::flex().autodiff(), Precision::Bf16);
            let model = Seq2SeqLm::load(&checkpoint, architecture.clone(), place);
            let mut model = model.expect("a model");
            model.encoder.recompute = recompute;
            model.decoder.recompute = recompute;
            let model = adapted(model, &architecture);
            let context = ForwardContext::training(1, 2);
            let target = batch.target(&model);
            let (source, target) = (batch.source.batch(), target.batch());
            let outputs = model.logits(source, target, &context);
            let loss = model.loss(source, target, &batch.labels, (1.0, 0.0), &context);
            learned(&model, &outputs, loss)
        };
        assert_eq!(with(false), with(true), "{name}");
    }
    let (_, recurrent) = seq2seq::open("lstm-general");
    assert!(!recurrent.fuses_in_training());
}

/// Targets token by token, several of one source, against all tokens at once.
#[test]
fn encoder_decoders_with_a_cache() {
    let places: Vec<u32> = (0..9).collect();
    let source = [7, 4, 11, 3, 9];
    let target = [2, 5, 6, 8, 4, 3];
    fn batch<'a>(ids: &'a [u32], places: &'a [u32], bounds: &'a [usize]) -> TokenBatch<'a> {
        TokenBatch {
            input_ids: ids,
            position_ids: &places[..ids.len()],
            bounds,
        }
    }
    for name in seq2seq::all() {
        for precision in [Precision::Bf16, Precision::Int8] {
            let model = seq2seq::load_in(name, (&Device::flex(), precision));
            let source = batch(&source, &places, &[0, 5]);
            let all = batch(&target, &places, &[0, 6]);
            let expected = values(&model.logits(source, all, &ForwardContext::inference()));
            let vocabulary = expected.len() / target.len();
            let n = 3;
            let read = model.read_for(source, n);
            let mut cache = model.new_cache(n, target.len());
            let largest = expected.iter().fold(1.0_f64, |max, x| max.max(x.abs()));
            for (token, expected) in target.iter().zip(expected.chunks_exact(vocabulary)) {
                let found = values(&model.next_logits(&vec![*token; n], &read, &mut cache));
                for found in found.chunks_exact(vocabulary) {
                    let off = max_difference(found, expected);
                    assert!(off <= BF16_TOLERANCE * largest, "{name}: {off}");
                }
            }
        }
    }
}

/// No built-in family of decoders has what an encoder may have: scores by distance. One of a caller may.
#[test]
fn decoders_with_scores_by_distance() {
    let directory = repository(STORIES);
    let plain = describe(&ModelJson::load(&directory).expect("a configuration"));
    let n_heads = plain.blocks[0].attention.n_heads;
    let table: Vec<f32> = (0..8 * n_heads).map(|i| (i as f32).sin()).collect();
    let mut tensors = tensors_of(&Checkpoint::open(&directory).expect("a checkpoint"));
    tensors.push((plain.full_path("bias.weight"), vec![8, n_heads], table));
    let checkpoint = conditioned(&in_memory(&tensors));
    let architecture = Architecture {
        relative: Some(RelativeSpec::Bias(RelativeBiasSpec {
            path: "bias".to_owned(),
            buckets: 8,
            max_distance: 16,
            bidirectional: false,
            std: 0.02,
        })),
        ..plain
    };
    let text: Vec<u32> = (0..48)
        .map(|place| 3 + (place * 7 + place / 5) % 90)
        .collect();
    let documents = Documents::new([&text[..]]);
    let load = |precision| {
        let model = CausalLm::load(
            &checkpoint,
            architecture.clone(),
            &Device::flex(),
            precision,
        );
        model.expect("a model")
    };
    let logits =
        |model: &CausalLm| values(&model.logits(documents.batch(), &ForwardContext::inference()));
    let model = load(Precision::Bf16);
    assert_near(&logits(&model), &logits(&load(Precision::F32)), "biased");
    check_cache(&model, &text, BF16_TOLERANCE, "biased");
    check_cache(&load(Precision::F32), &text, 1e-5, "biased");
}

/// A model with packed weights is merged and saved as one in `f32`.
#[test]
fn packed_encoder_decoders_are_saved_whole() {
    for name in seq2seq::all() {
        let place = (&Device::flex(), Precision::Bf16);
        let packed: Seq2SeqLm = seq2seq::load_in(name, place);
        let whole = seq2seq::load_on(name, place.0);
        for (packed, whole) in packed.to_tensors().iter().zip(whole.to_tensors()) {
            assert_eq!(packed.name, whole.name, "{name}");
            let (found, expected) = (values(&packed.values), values(&whole.values));
            let off = max_difference(&found, &expected);
            let largest = expected.iter().fold(0.0_f64, |max, x| max.max(x.abs()));
            assert!(off <= largest / 256.0, "{name} {}: {off}", packed.name);
        }
    }
}
