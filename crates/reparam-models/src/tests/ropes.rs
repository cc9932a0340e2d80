//! Rotary positions that are stretched, against transformers.

use burn::tensor::Device;
use reparam::ForwardContext;
use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::config::ModelJson;
use serde_json::Value;

use super::generation::greedy;
use super::{Documents, describe, golden, golden_json, ids, max_difference, values};
use crate::{CausalLm, Precision};

/// The mean of losses near five, over a few tokens, rounded to `f32` through two layers.
const LOSS_TOLERANCE: f64 = 2e-6;
/// Of logits of size one to ten.
const CACHE_TOLERANCE: f64 = 1e-4;
/// Relative to the largest logit: a cached step rounds other sums than a whole pass.
const BF16_CACHE_TOLERANCE: f64 = 0.05;
/// Weights and activations are rounded to bf16.
const BF16_LOSS_TOLERANCE: f64 = 0.05;

/// The model of the golden file with other positions.
fn load(golden_values: &Value, case: &Value, precision: Precision) -> CausalLm {
    let family = golden_values["family"].as_str().expect("a name");
    let directory = golden(&format!("families/{family}"));
    let json = ModelJson::load(&directory).expect("a configuration");
    let mut map = json.json.map().clone();
    for (key, value) in case["config"].as_object().expect("keys") {
        map.insert(key.clone(), value.clone());
    }
    let text = Value::Object(map).to_string();
    let json = ModelJson::parse(&directory.join("config.json"), &text).expect("a configuration");
    let checkpoint = Checkpoint::open(&directory).expect("a checkpoint");
    CausalLm::load(&checkpoint, describe(&json), &Device::flex(), precision).expect("a model")
}

fn loss(model: &CausalLm, sequences: &[&[u32]]) -> f64 {
    let documents = Documents::new(sequences.iter().copied());
    let scale = 1.0 / documents.n_labelled() as f32;
    let context = ForwardContext::inference();
    values(&model.loss(documents.batch(), &documents.labels, scale, &context))[0]
}

#[test]
fn losses_are_those_of_transformers_for_each_sequence_of_a_batch() {
    let file = golden_json("families/ropes.json");
    let (long, short) = (ids(&file["long"]), ids(&file["short"]));
    for case in file["cases"].as_array().expect("cases") {
        let expected = ["long", "short"].map(|key| case[key].as_f64().expect("a loss"));
        let n = [long.len() - 1, short.len() - 1].map(|n| n as f64);
        let of_both = (expected[0] * n[0] + expected[1] * n[1]) / (n[0] + n[1]);
        let what = &case["config"];
        let model = load(&file, case, Precision::F32);
        for (sequences, expected) in [
            (&[&long[..]][..], expected[0]),
            (&[&short[..]][..], expected[1]),
            (&[&short[..], &long[..]][..], of_both),
        ] {
            let difference = (loss(&model, sequences) - expected).abs();
            assert!(difference <= LOSS_TOLERANCE, "{what}: {difference:e}");
        }
        let model = load(&file, case, Precision::Bf16);
        let difference = (loss(&model, &[&short, &long]) - of_both).abs();
        assert!(difference <= BF16_LOSS_TOLERANCE, "{what}: {difference}");
    }
}

/// Also where the keys in the cache were turned otherwise than the longer sequence is, whose tokens are then read again.
#[test]
fn cached_logits_equal_those_of_a_pass_over_the_sequence_so_far() {
    let file = golden_json("families/ropes.json");
    let text = ids(&file["long"]);
    let context = ForwardContext::inference();
    for case in file["cases"].as_array().expect("cases") {
        let what = &case["config"];
        let model = load(&file, case, Precision::F32);
        let last = |n: usize| {
            let documents = Documents::new([&text[..n]]);
            let all = values(&model.logits(documents.batch(), &context));
            all[all.len() - model.vocab_size()..].to_vec()
        };
        for pieces in [vec![1; 24], vec![10, 14], vec![20, 1, 3], vec![12, 4, 1, 7]] {
            let mut cache = model.new_cache(24);
            let mut read = 0;
            for piece in pieces {
                let found = model.next_logits(&text[read..read + piece], &mut cache);
                read += piece;
                let difference = max_difference(&values(&found), &last(read));
                assert!(
                    difference <= CACHE_TOLERANCE,
                    "{what}, {read}: {difference:e}"
                );
                assert_eq!((cache.len(), cache.capacity()), (read, 24));
            }
        }
        // As one goes on from a prompt that others share.
        let mut shared = model.new_cache(24);
        let _ = model.next_logits(&text[..14], &mut shared);
        for n in [16, 17, 24] {
            let found = model.all_next_logits(&text[14..n], &mut shared.clone());
            let found = values(&found);
            assert_eq!(found.len(), (n - 14) * model.vocab_size());
            let found = &found[found.len() - model.vocab_size()..];
            let difference = max_difference(found, &last(n));
            assert!(difference <= CACHE_TOLERANCE, "{what}, {n}: {difference:e}");
        }
        for precision in [Precision::Bf16, Precision::Int8] {
            let packed = load(&file, case, precision);
            let documents = Documents::new([&text[..]]);
            let all = values(&packed.logits(documents.batch(), &context));
            let expected = &all[all.len() - packed.vocab_size()..];
            let largest = expected
                .iter()
                .fold(0.0_f64, |max, logit| max.max(logit.abs()));
            let mut cache = packed.new_cache(24);
            for piece in [&text[..12], &text[12..17], &text[17..23]] {
                let _ = packed.next_logits(piece, &mut cache);
            }
            let found = values(&packed.next_logits(&text[23..], &mut cache));
            let difference = max_difference(&found, expected) / largest;
            assert!(
                difference <= BF16_CACHE_TOLERANCE,
                "{what} {precision:?}: {difference}"
            );
            assert_eq!(greedy(&packed, &text[..10], 14, &[]).len(), 14);
        }
    }
}
