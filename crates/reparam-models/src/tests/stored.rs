//! The same model as different programs store it.

use std::fs;
use std::path::Path;

use burn::tensor::Device;
use reparam::ForwardContext;
use reparam_formats::FormatError;
use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::config::ModelJson;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::encoders::open;
use super::{
    Documents, STORIES, Tensors, describe, in_memory, listed, repository, tensors_of, values, write,
};
use crate::architecture::{Pooling, PredictorSpec};
use crate::{CausalLm, ModelError, Precision, Predictor, RowTokens};

const TABLE: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// Writes stories260K with changed tensors and settings, and loads it.
fn load(
    change: impl FnOnce(&mut Tensors),
    settings: Value,
    precision: Precision,
) -> Result<CausalLm, ModelError> {
    let directory = TempDir::new().expect("a directory");
    let base = Checkpoint::open(&repository(STORIES)).expect("a checkpoint");
    let mut tensors = tensors_of(&base);
    change(&mut tensors);
    write(directory.path(), &tensors);
    let text = fs::read_to_string(repository(STORIES).join("config.json")).expect("a file");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    for (key, value) in settings.as_object().expect("an object") {
        config[key] = value.clone();
    }
    let config = ModelJson::parse(Path::new("config.json"), &config.to_string()).expect("valid");
    let checkpoint = Checkpoint::open(directory.path()).expect("a checkpoint");
    CausalLm::load(&checkpoint, describe(&config), &Device::flex(), precision)
}

fn logits(model: &CausalLm) -> Vec<f64> {
    let documents = Documents::new([&[1, 403, 407, 261, 378][..]]);
    let context = ForwardContext::inference();
    values(&model.logits(documents.batch(), &context))
}

fn table(tensors: &Tensors) -> (String, Vec<usize>, Vec<f32>) {
    let table = tensors.iter().find(|(name, ..)| name == TABLE);
    table.expect("an embedding").clone()
}

/// Adds a head that is the embedding times a factor.
fn with_head(tensors: &mut Tensors, factor: f32) {
    let (_, shape, values) = table(tensors);
    let values = values.iter().map(|value| factor * value).collect();
    tensors.push((HEAD.to_owned(), shape, values));
}

#[test]
fn a_head_that_differs_from_the_embedding_is_used() {
    for precision in [Precision::F32, Precision::Bf16] {
        let load = |change: &dyn Fn(&mut Tensors)| load(change, json!({}), precision);
        let tied = load(&|_| {}).expect("a model");
        assert!(tied.architecture().head.tied && tied.head.is_none());
        let expected = logits(&tied);

        let same = load(&|tensors| with_head(tensors, 1.0)).expect("a model");
        assert!(same.architecture().head.tied && same.head.is_none());
        assert_eq!(logits(&same), expected);

        // A power of two rounds nothing.
        let other = load(&|tensors| with_head(tensors, 2.0)).expect("a model");
        assert!(!other.architecture().head.tied && other.head.is_some());
        let twice: Vec<f64> = expected.iter().map(|logit| 2.0 * logit).collect();
        assert_eq!(logits(&other), twice);

        let only_head = |tensors: &mut Tensors| {
            let table = tensors.iter_mut().find(|(name, ..)| name == TABLE);
            table.expect("an embedding").0 = HEAD.to_owned();
        };
        let only_head = load(&only_head).expect("a model");
        assert_eq!(logits(&only_head), expected);

        let own = tied.with_own_head();
        assert_eq!(own.tied_names(), None);
        assert_eq!(logits(&own), expected);
    }
}

#[test]
fn a_head_that_is_nowhere_is_missing() {
    let settings = json!({"tie_word_embeddings": false});
    let error = load(|_| {}, settings, Precision::F32).expect_err("it has no head");
    let ModelError::Format(FormatError::Mismatch(mismatch)) = &error else {
        panic!("{error}");
    };
    assert_eq!(mismatch.missing, [HEAD]);
}

#[test]
fn the_prefix_of_the_class_may_be_missing() {
    let expected = logits(&load(|_| {}, json!({}), Precision::F32).expect("a model"));
    let bare = |tensors: &mut Tensors| {
        for (name, ..) in tensors {
            *name = name.strip_prefix("model.").unwrap_or(name).to_owned();
        }
    };
    let bare = load(bare, json!({}), Precision::F32).expect("a model");
    assert_eq!(logits(&bare), expected);
}

#[test]
fn names_that_a_wrapper_left_say_which() {
    for (prefix, wrapper) in [("_orig_mod.", "torch.compile"), ("module.", "DataParallel")] {
        let wrapped = |tensors: &mut Tensors| {
            for (name, ..) in tensors {
                *name = format!("{prefix}{name}");
            }
        };
        let error = load(wrapped, json!({}), Precision::F32).expect_err("other names");
        let hint = error.hint().expect("a hint");
        assert!(hint.contains(wrapper) && hint.contains(prefix), "{hint}");
    }
}

#[test]
fn biases_need_a_key_of_the_configuration() {
    let bias = |tensors: &mut Tensors, layer: &str, width: usize| {
        for block in 0..5 {
            let name = format!("model.layers.{block}.{layer}.bias");
            tensors.push((name, vec![width], vec![0.5; width]));
        }
    };
    let of_attention = |tensors: &mut Tensors| {
        for (layer, width) in [
            ("q_proj", 64),
            ("k_proj", 32),
            ("v_proj", 32),
            ("o_proj", 64),
        ] {
            bias(tensors, &format!("self_attn.{layer}"), width);
        }
    };
    let error = load(of_attention, json!({}), Precision::F32).expect_err("unasked biases");
    let ModelError::UnaskedBiases { mismatch, keys } = &error else {
        panic!("{error}");
    };
    assert_eq!(mismatch.unexpected.len(), 20);
    assert_eq!(*keys, ["attention_bias"]);
    assert!(error.to_string().contains("20 unexpected"), "{error}");
    let hint = error.hint().expect("a hint");
    assert!(
        hint.starts_with("set `attention_bias` to true in config.json"),
        "{hint}"
    );

    let asked = json!({"attention_bias": true});
    let with = load(of_attention, asked, Precision::F32).expect("a model");
    let without = load(|_| {}, json!({}), Precision::F32).expect("a model");
    assert_ne!(logits(&with), logits(&without));

    let both = |tensors: &mut Tensors| {
        of_attention(tensors);
        bias(tensors, "mlp.down_proj", 64);
    };
    let error = load(both, json!({}), Precision::F32).expect_err("unasked biases");
    let hint = error.hint().expect("a hint");
    assert!(
        hint.starts_with("set `attention_bias` and `mlp_bias`"),
        "{hint}"
    );
}

/// A class without a head has no name for its body; its tensors have their names and layouts all the same.
#[test]
fn classes_without_a_head_are_stored_as_they_are_read() {
    for name in [
        "recurrent/lstm-sequence",
        "families/gpt2",
        "encoders/bert-sequence",
    ] {
        let (checkpoint, architecture) = open(name);
        let prefix = format!("{}.", architecture.prefix);
        let load = |checkpoint: &Checkpoint| {
            let head = PredictorSpec::pooled(Pooling::Mean, false);
            let place = (&Device::flex(), Precision::F32);
            Predictor::load(checkpoint, architecture.clone(), (head, 0), None, place)
        };
        let outputs = |model: &Predictor| {
            let rows = RowTokens {
                input_ids: &[3, 5, 2, 7],
                token_type_ids: &[0; 4],
                position_ids: &[0, 1, 2, 0],
                bounds: &[0, 3, 4],
            };
            values(&model.outputs(rows, &ForwardContext::inference()))
        };
        let model = load(&checkpoint).unwrap_or_else(|error| panic!("{name}: {error}"));
        let tensors = listed(model.to_tensors());
        for (own, shape, numbers) in &tensors {
            let stored = checkpoint.expect(&format!("{prefix}{own}"), shape);
            let stored = stored.unwrap_or_else(|error| panic!("{name} {own}: {error}"));
            assert_eq!(
                &stored.to_f32_vec().expect("numbers"),
                numbers,
                "{name} {own}"
            );
        }
        let again = load(&in_memory(&tensors));
        let again = again.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(outputs(&model), outputs(&again), "{name}");
    }
}
