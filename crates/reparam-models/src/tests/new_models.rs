//! What new models begin with.

use burn::tensor::Device;
use reparam::ForwardContext;
use reparam_formats::config::ModelJson;
use serde_json::json;

use super::{Documents, describe, drawn_checkpoint, values};
use crate::{CausalLm, Families, NewModel, Precision};

fn deviation(values: &[f32]) -> f64 {
    let squares: f64 = values.iter().map(|x| f64::from(*x).powi(2)).sum();
    (squares / values.len() as f64).sqrt()
}

/// A new model has the tensors that it is loaded from, each from its own distribution.
#[test]
fn new_models_begin_as_they_should() {
    let sizes = |model_type: &str| {
        json!({
            "model_type": model_type, "vocab_size": 400, "hidden_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96, "n_embd": 64, "n_layer": 2, "n_head": 4,
        })
    };
    for model_type in [
        "llama",
        "gpt2",
        "qwen3",
        "gemma3_text",
        "lstm",
        "gru",
        "rnn",
    ] {
        let text = sizes(model_type).to_string();
        let json = ModelJson::parse("config.json".as_ref(), &text).expect("a configuration");
        let architecture = describe(&json);
        let planned = architecture.new_tensors(NewModel::Causal).expect("tensors");
        let drawn: Vec<Vec<f32>> = planned.iter().map(|tensor| tensor.values(7)).collect();
        let again: Vec<Vec<f32>> = planned.iter().map(|tensor| tensor.values(7)).collect();
        assert_eq!(drawn, again);
        let is_recurrent = architecture.recurrent.is_some();
        for (tensor, values) in planned.iter().zip(&drawn) {
            let name = tensor.name();
            let is_norm = name.contains("norm") || name.contains("ln_");
            let expected = match (is_norm, is_recurrent) {
                (true, _) if name.ends_with("bias") || model_type == "gemma3_text" => 0.0,
                (true, _) => 1.0,
                (false, false) if name.ends_with("bias") => 0.0,
                // As many layers add to the hidden states.
                (false, false) if name.ends_with("c_proj.weight") => 0.02 / 2.0,
                (false, false) => 0.02,
                (false, true) if name.contains("embedding") => 1.0,
                // Uniform up to 1/8.
                (false, true) => 0.125 / 3f64.sqrt(),
            };
            let found = deviation(values);
            assert!(
                (found - expected).abs() <= 0.08 * expected,
                "{model_type} {name}: {found}"
            );
        }
        let checkpoint = drawn_checkpoint(&planned, 7);
        let place = (&Device::flex(), Precision::F32);
        let model = CausalLm::load(&checkpoint, architecture, place.0, place.1).expect("a model");
        let documents = Documents::new([&[1u32, 2, 3, 4][..]]);
        let logits = model.logits(documents.batch(), &ForwardContext::inference());
        assert!(values(&logits).iter().all(|logit| logit.is_finite()));
    }
}

/// Decays, steps and taps of Mamba are none of one distribution.
#[test]
fn layers_of_mamba_begin_by_their_kind() {
    let json = json!({
        "model_type": "mamba", "vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 4, "state_size": 6,
        "time_step_scale": 0.5, "time_step_floor": 0.002, "rescale_prenorm_residual": true,
    });
    let json = ModelJson::parse("config.json".as_ref(), &json.to_string());
    let architecture = describe(&json.expect("a configuration"));
    let planned = architecture.new_tensors(NewModel::Causal).expect("tensors");
    let uniform = |bound: f64| bound / 3f64.sqrt();
    for tensor in &planned {
        let (name, values) = (tensor.name(), tensor.values(7));
        let expected = match name
            .split_once("mixer.")
            .map_or(name, |(_, of_layer)| of_layer)
        {
            "A_log" => {
                let counts = values.iter().map(|x| f64::from(*x).exp());
                let expected = (0..values.len()).map(|place| (place % 6 + 1) as f64);
                assert!(counts.zip(expected).all(|(a, b)| (a - b).abs() < 1e-5));
                continue;
            }
            "dt_proj.bias" => {
                let steps = values.iter().map(|x| f64::from(*x).exp().ln_1p());
                let steps: Vec<f64> = steps.collect();
                assert!(
                    steps
                        .iter()
                        .all(|step| (0.001_999..0.100_01).contains(step))
                );
                let floors = steps.iter().filter(|step| **step < 0.002_001).count();
                // ln 2 of ln 100.
                assert!((5..40).contains(&floors), "{floors} of {}", steps.len());
                continue;
            }
            "conv1d.bias" => 0.0,
            "D" => 1.0,
            name if name.contains("norm") => 1.0,
            "conv1d.weight" => uniform(0.5),
            "dt_proj.weight" => uniform(0.5 / 2.0),
            "out_proj.weight" => uniform(128f64.powf(-0.5)) / 2.0,
            _ => 0.1,
        };
        let found = deviation(&values);
        assert!(
            (found - expected).abs() <= 0.08 * expected,
            "{name}: {found}"
        );
    }
    assert_eq!(planned.len(), 2 + 4 * 10);
    let checkpoint = drawn_checkpoint(&planned, 7);
    let place = (&Device::flex(), Precision::F32);
    let model = CausalLm::load(&checkpoint, architecture, place.0, place.1).expect("a model");
    let documents = Documents::new([&[1u32, 2, 3, 4][..]]);
    let logits = model.logits(documents.batch(), &ForwardContext::inference());
    assert!(values(&logits).iter().all(|logit| logit.is_finite()));
}

/// The deviations of transformers' T5, by kind of layer; norms begin with 1, there with `initializer_factor`.
#[test]
fn layers_of_t5_begin_by_their_kind() {
    let json = json!({
        "model_type": "t5", "vocab_size": 300, "d_model": 48, "d_kv": 12, "num_heads": 6, "d_ff": 96, "num_layers": 2,
        "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false, "decoder_start_token_id": 0, "initializer_factor": 0.5,
    });
    let json = ModelJson::parse("config.json".as_ref(), &json.to_string());
    let architecture = describe(&json.expect("a configuration"));
    let planned = architecture
        .new_tensors(NewModel::Seq2Seq)
        .expect("tensors");
    let mut n_layers = 0;
    for tensor in &planned {
        let root = |fan: f64| 0.5 / fan.sqrt();
        let name = tensor.name();
        let kind = name.strip_suffix(".weight").expect("a weight");
        let expected = match kind.rsplit('.').next().expect("a kind") {
            "layer_norm" | "final_layer_norm" => 1.0,
            "shared" | "lm_head" => 0.5,
            "q" => root(48.0 * 12.0),
            "k" | "v" | "wi_0" | "wi_1" | "relative_attention_bias" => root(48.0),
            "o" => root(6.0 * 12.0),
            "wo" => root(96.0),
            other => panic!("{other}"),
        };
        let found = deviation(&tensor.values(7));
        // A table of distances has 192 numbers.
        let tolerance = if kind.ends_with("bias") { 0.2 } else { 0.05 };
        let off = (found / expected - 1.0).abs();
        assert!(off <= tolerance, "{name}: {found} is not {expected}");
        n_layers += 1;
    }
    assert_eq!(n_layers, 51);
}

/// Those of ModernBERT that add to the hidden states, and those of heads.
#[test]
fn layers_of_modernbert_begin_by_their_kind() {
    let json = json!({
        "model_type": "modernbert", "vocab_size": 300, "hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 64,
        "num_hidden_layers": 8, "initializer_range": 0.04,
    });
    let json = ModelJson::parse("config.json".as_ref(), &json.to_string());
    let architecture = describe(&json.expect("a configuration"));
    let planned = architecture.new_tensors(NewModel::Masked).expect("tensors");
    let mut n_last = 0;
    for tensor in planned.iter().filter(|tensor| tensor.shape().len() == 2) {
        let is_last = tensor.name().contains("Wo") || tensor.name().contains("head.dense");
        let expected = if is_last { 0.04 / 4.0 } else { 0.04 };
        let found = deviation(&tensor.values(7));
        let off = (found / expected - 1.0).abs();
        assert!(off <= 0.05, "{}: {found} is not {expected}", tensor.name());
        n_last += usize::from(is_last);
    }
    assert_eq!(n_last, 17);
    let head = architecture.heads.sequence.expect("a head");
    assert!((head.std - 48f64.powf(-0.5)).abs() < 1e-12);
}

#[test]
fn an_epsilon_is_a_small_number() {
    for (family, key) in [("bert", "layer_norm_eps"), ("t5", "layer_norm_epsilon")] {
        for eps in [-1.0, 1.0] {
            let json = json!({
                "model_type": family, "vocab_size": 30, "decoder_start_token_id": 0, key: eps,
            });
            let json = ModelJson::parse("config.json".as_ref(), &json.to_string());
            let refused = Families::builtin().describe(&json.expect("a configuration"));
            let refused = refused.expect_err("an epsilon").to_string();
            assert!(refused.contains(key), "{refused}");
        }
    }
}
