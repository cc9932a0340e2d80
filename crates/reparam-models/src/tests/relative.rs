//! Scores by distance.

use std::collections::BTreeSet;

use burn::module::Module;
use burn::tensor::Device;
use reparam::methods::{LoraConfig, attach};
use reparam::{ForwardContext, parameters};
use reparam_formats::peft::TargetModules;

use super::encoders::{Batch, open, predictor};
use super::{floats, golden_json, ids, max_difference, values};
use crate::architecture::RelativeVectorsSpec;
use crate::{Architecture, ClassTargets, NewModel, Precision, Predictor, RowTokens, class_loss};

/// Every family of checkpoints with vectors of distances that there are golden files of.
const WITH_VECTORS: [&str; 3] = [
    "encoders/deberta-v2-token",
    "encoders/deberta-v2-c2p-sequence",
    "encoders/deberta-v2-p2c-token",
];

fn load(name: &str) -> Predictor {
    match name.ends_with("sequence") {
        true => predictor(name, |all| all.sequence.as_ref(), 3),
        false => predictor(name, |all| all.token.as_ref(), 3),
    }
}

#[test]
fn rows_of_distances_are_those_of_transformers() {
    let all = golden_json("encoders/deberta_rows.json");
    for case in all.as_array().expect("cases") {
        let number = |key: &str| case[key].as_i64().expect("a number");
        let (buckets, max_distance) = (number("buckets"), number("max_distance") as usize);
        let shares = buckets > 0;
        let spec = RelativeVectorsSpec {
            path: String::new(),
            norm: None,
            span: if shares {
                buckets as usize
            } else {
                max_distance
            },
            max_distance: shares.then_some(max_distance - 1),
        };
        let found: Vec<u32> = (-600..=600).map(|distance| spec.row(distance)).collect();
        assert_eq!(found, ids(&case["rows"]), "{buckets} {max_distance}");
    }
}

#[test]
fn attention_weights_are_those_of_transformers() {
    let name = "encoders/deberta-v2-token";
    let (model, batch) = (load(name), Batch::new(name));
    let start = batch.bounds[batch.bounds.len() - 2];
    let rows = batch.rows();
    let n = rows.input_ids.len() - start;
    let last = RowTokens {
        input_ids: &rows.input_ids[start..],
        token_type_ids: &rows.token_type_ids[start..],
        position_ids: &rows.position_ids[start..],
        bounds: &[0, n],
    };
    let found = model.attention_weights(last, &ForwardContext::inference());
    let found: Vec<f64> = found.expect("weights").iter().flat_map(values).collect();
    let difference = max_difference(&found, &floats(&batch.file, "attentions"));
    assert!(difference < 1e-6, "{difference:e}");
}

/// Rows of a batch are computed apart, whatever the longest of them is.
#[test]
fn packed_rows_are_single_rows() {
    let context = ForwardContext::inference();
    for name in WITH_VECTORS {
        let (model, batch) = (load(name), Batch::new(name));
        let rows = batch.rows();
        let all = values(&model.outputs(rows, &context));
        let mut single = Vec::new();
        for pair in rows.bounds.windows(2) {
            let own = pair[0]..pair[1];
            let one = RowTokens {
                input_ids: &rows.input_ids[own.clone()],
                token_type_ids: &rows.token_type_ids[own.clone()],
                position_ids: &rows.position_ids[own.clone()],
                bounds: &[0, own.len()],
            };
            single.extend(values(&model.outputs(one, &context)));
        }
        let difference = max_difference(&all, &single);
        assert!(difference < 1e-5, "{name}: {difference:e}");
    }
}

/// Layers of positions are linear layers as any other: they are adapted, learn, and are saved.
#[test]
fn layers_of_positions_are_adapted() {
    for (name, own) in [
        ("encoders/deberta-v2-token", None),
        ("encoders/deberta-v2-c2p-sequence", Some("pos_key_proj")),
        ("encoders/deberta-v2-p2c-token", Some("pos_query_proj")),
    ] {
        let method = LoraConfig::new(2, 4.0).with_target_modules(TargetModules::AllLinear);
        let (model, _) = attach(load(name), &method, 3).expect("attached");
        let trained = parameters::trainable(&model);
        let adapted: BTreeSet<&str> = trained
            .iter()
            .filter_map(|tensor| {
                let path = tensor.name.strip_suffix(".lora_A.weight")?;
                path.strip_prefix("deberta.encoder.layer.1.attention.self.")
            })
            .collect();
        let expected = ["key_proj", "query_proj", "value_proj"];
        let expected: BTreeSet<&str> = expected.into_iter().chain(own).collect();
        assert_eq!(adapted, expected, "{name}");
    }
}

/// A new model has the tensors of a checkpoint, and learns.
#[test]
fn new_models_have_the_tensors_of_checkpoints() {
    for name in ["deberta-v2", "deberta-v2-c2p", "deberta-v2-p2c"] {
        let (checkpoint, architecture) = open(&format!("encoders/{name}-masked"));
        let new = architecture.new_tensors(NewModel::Masked).expect("tensors");
        let mut found: Vec<(String, Vec<usize>)> = new
            .iter()
            .map(|tensor| (tensor.name().to_owned(), tensor.shape().to_vec()))
            .collect();
        let stored = checkpoint.tensors();
        let mut expected: Vec<(String, Vec<usize>)> = stored
            .map(|(name, tensor)| (name.to_owned(), tensor.shape.to_vec()))
            .collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{name}");
    }
}

/// The vectors of distances are dropped out, too.
#[test]
fn positions_have_a_dropout_of_their_own() {
    let name = "encoders/deberta-v2-token";
    let batch = Batch::new(name);
    let loss = |set: fn(&mut Architecture)| {
        let (checkpoint, mut architecture) = open(name);
        architecture.set_dropout(0.0).expect("there are dropouts");
        set(&mut architecture);
        let head = (architecture.heads.token.clone().expect("a head"), 3);
        let place = (&Device::flex(), Precision::F32);
        let model = Predictor::load(&checkpoint, architecture, head, None, place);
        let model = model.expect("a model").no_grad();
        let outputs = model.outputs(batch.rows(), &ForwardContext::training(1, 2));
        values(&class_loss(outputs, ClassTargets::One(&batch.targets), 1.0))[0]
    };
    let of_positions = |architecture: &mut Architecture| {
        let blocks = architecture.blocks.iter_mut();
        for positions in blocks.flat_map(|block| &mut block.attention.positions) {
            positions.dropout = Some(0.5);
        }
    };
    let plain = loss(|_| ());
    assert!((plain - floats(&batch.file, "loss")[0]).abs() < 1e-4);
    let dropped = loss(of_positions);
    assert!((dropped - plain).abs() > 1e-3, "{dropped} {plain}");
    assert_eq!(dropped, loss(of_positions));
}
