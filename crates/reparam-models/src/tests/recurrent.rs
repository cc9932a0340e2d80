//! Recurrent nets against `torch.nn`.

use burn::module::Module;
use burn::tensor::Device;
use reparam::ForwardContext;
use reparam::methods::{LoraConfig, attach};
use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::config::ModelJson;
use reparam_formats::peft::TargetModules;
use serde_json::json;

use super::encoders::{Batch, Head, predictor};
use super::families::randomized;
use super::generation::check_cache;
use super::{
    Documents, describe, golden, in_memory, integers, listed, load_in, max_difference, values,
};
use crate::{CausalLm, ClassTargets, ModelError, NewModel, Precision, class_loss, span_loss};

#[test]
fn heads_compute_what_torch_computes() {
    let context = ForwardContext::inference();
    for (name, find, n_outputs) in [
        ("lstm-sequence", (|all| all.sequence.as_ref()) as Head, 3),
        ("gru-sequence", |all| all.sequence.as_ref(), 3),
        ("rnn-sequence", |all| all.sequence.as_ref(), 3),
        ("lstm-token", |all| all.token.as_ref(), 3),
        ("gru-span", |all| all.span.as_ref(), 2),
    ] {
        let name = format!("recurrent/{name}");
        let batch = Batch::new(&name);
        let model = predictor(&name, find, n_outputs);
        let outputs = model.outputs(batch.rows(), &context);
        let loss = match n_outputs {
            2 => {
                let spans: Vec<_> = batch.targets.chunks(2).map(|s| (s[0], s[1])).collect();
                span_loss(outputs.clone(), &batch.bounds, &spans, 1.0)
            }
            _ => class_loss(outputs.clone(), ClassTargets::One(&batch.targets), 1.0),
        };
        batch.check(&name, (&outputs, &loss), &model, model.architecture());
    }
}

const CAUSAL: [&str; 3] = ["lstm-causal", "gru-causal", "rnn-causal"];

#[test]
fn language_models_compute_what_torch_computes() {
    let context = ForwardContext::inference();
    for name in CAUSAL {
        let name = format!("recurrent/{name}");
        let batch = Batch::new(&name);
        let model = load_in(&golden(&name), &Device::flex().autodiff(), Precision::F32);
        let model = model.set_require_grad(true);
        let labels = integers(&batch.file, "targets").into_iter();
        let labels: Vec<i32> = labels.map(|label| label as i32).collect();
        let documents = Documents::flat(&batch.ids, &batch.bounds);
        assert_eq!(documents.labels, labels);
        let outputs = model.logits(documents.batch(), &context);
        let loss = model.loss(documents.batch(), &labels, 1.0, &context);
        batch.check(&name, (&outputs, &loss), &model, model.architecture());
    }
}

/// The state that a cache carries is that of all tokens before.
#[test]
fn states_are_carried() {
    let text: Vec<u32> = (0..48).map(|place| (place * 7 + place / 5) % 23).collect();
    for name in CAUSAL {
        let directory = golden(&format!("recurrent/{name}"));
        let model = load_in(&directory, &Device::flex(), Precision::F32);
        check_cache(&model, &text, 1e-6, name);
    }
}

/// What is written is what was read: names, shapes and bits.
#[test]
fn tensors_have_the_names_of_torch() {
    for name in CAUSAL {
        let directory = golden(&format!("recurrent/{name}"));
        let checkpoint = Checkpoint::open(&directory).expect("a checkpoint");
        let model = load_in(&directory, &Device::flex(), Precision::F32);
        let tensors = model.to_tensors();
        assert!(tensors.len() >= 4 && tensors.len() == checkpoint.names().count());
        for tensor in tensors {
            let stored = checkpoint.expect(&tensor.name, &tensor.shape);
            let stored = stored.expect("a tensor").to_f32_vec().expect("numbers");
            let found = tensor.values.into_data();
            assert_eq!(
                found.as_slice::<f32>().expect("numbers"),
                stored,
                "{}",
                tensor.name
            );
        }
    }
}

/// A low-rank method acts on what a state adds, too: its merged weights compute the same.
#[test]
fn methods_are_attached_to_recurrent_weights() {
    let directory = golden("recurrent/lstm-causal");
    let (device, context) = (Device::flex().autodiff(), ForwardContext::inference());
    let batch = Batch::new("recurrent/lstm-causal");
    let documents = Documents::flat(&batch.ids, &batch.bounds);
    let model = load_in(&directory, &device, Precision::F32);
    let plain = values(&model.logits(documents.batch(), &context));
    let names = ["weight_hh_l0", "weight_ih_l1"].map(str::to_owned);
    let lora = LoraConfig::new(2, 4.0).with_target_modules(TargetModules::Names(names.into()));
    let (model, report) = attach(model, &lora, 3).expect("attached");
    let modules: Vec<&str> = report.modules.iter().map(|one| &*one.module).collect();
    assert_eq!(
        modules,
        ["model.rnn.weight_hh_l0", "model.rnn.weight_ih_l1"]
    );
    let model = randomized(model);
    let adapted = values(&model.logits(documents.batch(), &context));
    assert!(max_difference(&adapted, &plain) > 1e-3);
    let checkpoint = in_memory(&listed(model.to_tensors()));
    let architecture = model.architecture().clone();
    let merged = CausalLm::load(&checkpoint, architecture, &device, Precision::F32);
    let found = values(&merged.expect("a model").logits(documents.batch(), &context));
    assert!(max_difference(&found, &adapted) <= 1e-5);
}

#[test]
fn what_a_recurrent_net_cannot_be_is_refused() {
    let parse = |value: serde_json::Value| {
        ModelJson::parse("config.json".as_ref(), &value.to_string()).expect("a configuration")
    };
    let families = crate::Families::builtin();
    let base = json!({"model_type": "lstm", "vocab_size": 9, "hidden_size": 4});
    for (key, value, expected) in [
        ("proj_size", json!(2), "proj_size"),
        ("classifier_pooling", json!("max"), "classifier_pooling"),
        ("hidden_size", json!(0), "hidden_size"),
        ("dropout", json!(1.0), "dropout"),
    ] {
        let mut config = base.clone();
        config[key] = value;
        let error = families.describe(&parse(config)).expect_err(key);
        assert!(error.to_string().contains(expected), "{error}");
    }
    let mut tied = base.clone();
    tied["tie_word_embeddings"] = json!(true);
    tied["embedding_size"] = json!(3);
    assert!(families.describe(&parse(tied)).is_err());
    let mut both = base;
    both["bidirectional"] = json!(true);
    let both = describe(&parse(both));
    let error = both
        .new_tensors(NewModel::Causal)
        .expect_err("it sees what comes");
    assert!(matches!(error, ModelError::NotCausal { .. }), "{error}");
}
