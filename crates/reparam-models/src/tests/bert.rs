//! BERT with a sequence-classification head, against transformers.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use reparam::methods::{AdapterMeta, Methods, WeightLayout, to_adapter};
use reparam::{ForwardContext, parameters};
use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::config::ModelJson;
use reparam_formats::peft::AdapterFiles;
use serde_json::Value;

use super::{
    assert_gradients_close, describe, floats, golden, golden_json, golden_tensors, integers,
    max_difference, values, write,
};
use crate::architecture::PredictorSpec;
use crate::{
    Architecture, ClassTargets, ModelError, NewHead, Precision, Predictor, RowTokens, class_loss,
};

/// Hidden states and logits are of size one; both sides are rounded to `f32` through two layers.
const VALUE_TOLERANCE: f64 = 5e-6;
const LOSS_TOLERANCE: f64 = 1e-6;
/// Relative to the largest element of each tensor.
const GRADIENT_TOLERANCE: f64 = 2e-5;

fn architecture() -> Architecture {
    describe(&ModelJson::load(&golden("bert/classifier")).expect("a configuration"))
}

fn checkpoint() -> Checkpoint {
    Checkpoint::open(&golden("bert/classifier")).expect("a checkpoint")
}

fn new_head(seed: u64) -> NewHead {
    NewHead {
        seed,
        replaces: false,
    }
}

/// The head that tells sequences apart, with so many classes.
fn head(architecture: &Architecture, n_classes: usize) -> (PredictorSpec, usize) {
    let spec = architecture.heads.sequence.clone();
    (spec.expect("a head"), n_classes)
}

fn load_with(architecture: Architecture, device: &Device) -> Predictor {
    let place = (device, Precision::F32);
    let head = head(&architecture, 3);
    Predictor::load(&checkpoint(), architecture, head, None, place).expect("a model")
}

fn load(device: &Device) -> Predictor {
    load_with(architecture(), device)
}

/// The rows of the golden batch.
struct Rows {
    ids: Vec<u32>,
    types: Vec<u32>,
    positions: Vec<u32>,
    bounds: Vec<usize>,
    classes: Vec<usize>,
}

impl Rows {
    fn golden() -> Self {
        let file = golden_tensors("bert/batch.safetensors");
        let whole = |name: &str| integers(&file, name).into_iter();
        let bounds: Vec<usize> = whole("bounds").map(|bound| bound as usize).collect();
        let json = golden_json("bert/batch.json");
        let rows = json["rows"].as_array().expect("rows").iter();
        Self {
            ids: whole("input_ids").map(|id| id as u32).collect(),
            types: whole("token_type_ids").map(|id| id as u32).collect(),
            positions: bounds
                .windows(2)
                .flat_map(|pair| 0..(pair[1] - pair[0]) as u32)
                .collect(),
            bounds,
            classes: rows
                .map(|row| row["class"].as_u64().expect("a class") as usize)
                .collect(),
        }
    }

    fn tokens(&self) -> RowTokens<'_> {
        RowTokens {
            input_ids: &self.ids,
            token_type_ids: &self.types,
            position_ids: &self.positions,
            bounds: &self.bounds,
        }
    }

    /// What the golden files have several labels of: a row's own class and the class 0.
    fn several(&self) -> Vec<Vec<usize>> {
        let with_first = |class: &usize| match class {
            0 => vec![0],
            class => vec![0, *class],
        };
        self.classes.iter().map(with_first).collect()
    }

    fn scale(&self) -> f32 {
        1.0 / self.classes.len() as f32
    }
}

fn gradients(model: &Predictor, loss: &Tensor<1>) -> BTreeMap<String, Vec<f64>> {
    let list = parameters::take_gradients(model, &mut loss.clone().backward());
    list.into_iter()
        .map(|one| (one.name, values(&one.values)))
        .collect()
}

fn expected_gradients(prefix: &str) -> BTreeMap<String, Vec<f64>> {
    let file = golden_tensors("bert/batch.safetensors");
    let named = file
        .names()
        .filter_map(|name| Some((name.strip_prefix(prefix)?, name)));
    named
        .map(|(short, name)| (short.to_owned(), floats(&file, name)))
        .collect()
}

fn golden_number(key: &str) -> f64 {
    golden_json("bert/batch.json")[key]
        .as_f64()
        .expect("a number")
}

#[test]
fn logits_are_those_of_transformers() {
    let (model, rows) = (load(&Device::flex()), Rows::golden());
    let logits = values(&model.outputs(rows.tokens(), &ForwardContext::inference()));
    let expected = floats(&golden_tensors("bert/batch.safetensors"), "logits");
    let difference = max_difference(&logits, &expected);
    assert!(difference <= VALUE_TOLERANCE, "{difference:e}");
    assert_eq!(model.n_outputs(), 3);
}

#[test]
fn losses_and_every_gradient_are_those_of_transformers() {
    let rows = Rows::golden();
    let model = load(&Device::flex().autodiff()).set_require_grad(true);
    let context = ForwardContext::inference();
    let targets = ClassTargets::One(&rows.classes);
    let loss = class_loss(
        model.outputs(rows.tokens(), &context),
        targets,
        rows.scale(),
    );
    let difference = (values(&loss)[0] - golden_number("loss")).abs();
    assert!(difference <= LOSS_TOLERANCE, "{difference:e}");
    let expected = expected_gradients("gradient.");
    // 16 of each block, 5 of the embeddings, 2 of the pooler and 2 of the classifier.
    assert_eq!(expected.len(), 41);
    // What is added to all keys of a head changes no probability, so its gradient is zero but for rounding.
    let is_zero = |name: &str| name.ends_with("key.bias");
    let (mut found, mut expected) = (gradients(&model, &loss), expected);
    let zeros: Vec<&Vec<f64>> = found
        .iter()
        .filter_map(|(name, values)| is_zero(name).then_some(values))
        .collect();
    assert_eq!(zeros.len(), 2);
    assert!(
        zeros
            .iter()
            .all(|zero| zero.iter().all(|x| x.abs() < VALUE_TOLERANCE))
    );
    found.retain(|name, _| !is_zero(name));
    expected.retain(|name, _| !is_zero(name));
    assert_gradients_close(&found, &expected, GRADIENT_TOLERANCE, "one");

    let several = rows.several();
    let targets = ClassTargets::Several(&several);
    let loss = class_loss(
        model.outputs(rows.tokens(), &context),
        targets,
        rows.scale(),
    );
    let difference = (values(&loss)[0] - golden_number("loss_several")).abs();
    assert!(difference <= LOSS_TOLERANCE, "{difference:e}");
    let expected = expected_gradients("gradient_several.");
    assert_eq!(expected.len(), 4);
    let mut found = gradients(&model, &loss);
    found.retain(|name, _| expected.contains_key(name));
    assert_gradients_close(&found, &expected, GRADIENT_TOLERANCE, "several");
}

#[test]
fn a_head_that_is_missing_is_made_and_can_be_trained_alone() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tensors: Vec<(String, Vec<usize>, Vec<f32>)> = checkpoint()
        .tensors()
        .filter_map(|(name, view)| {
            // As the class without a head saves them, with what older files have beside them.
            let name = name
                .strip_prefix("bert.")?
                .replace("LayerNorm.weight", "LayerNorm.gamma");
            let name = name.replace("LayerNorm.bias", "LayerNorm.beta");
            Some((
                name,
                view.shape.to_vec(),
                view.to_f32_vec().expect("floats"),
            ))
        })
        .chain([(
            "embeddings.position_ids".to_owned(),
            vec![1, 2],
            vec![0.0, 1.0],
        )])
        .chain([("cls.predictions.bias".to_owned(), vec![1], vec![0.0])])
        .collect();
    write(directory.path(), &tensors);
    let checkpoint = Checkpoint::open_file(&directory.path().join("model.safetensors"));
    let checkpoint = checkpoint.expect("a checkpoint");
    let load = |new_head| {
        let place = (&Device::flex().autodiff(), Precision::F32);
        Predictor::load(
            &checkpoint,
            architecture(),
            head(&architecture(), 5),
            new_head,
            place,
        )
    };
    let error = load(None).expect_err("there is no head");
    assert!(
        matches!(&error, ModelError::NoHead { path } if path == "classifier"),
        "{error}"
    );
    // That is said before the body is looked at.
    let part = tempfile::tempdir().expect("a directory");
    write(part.path(), &tensors[1..]);
    let part = Checkpoint::open_file(&part.path().join("model.safetensors")).expect("a part");
    let place = (&Device::flex().autodiff(), Precision::F32);
    let error = Predictor::load(&part, architecture(), head(&architecture(), 5), None, place);
    assert!(matches!(error, Err(ModelError::NoHead { .. })));
    let model = load(Some(new_head(7))).expect("a model");
    assert_eq!(model.n_outputs(), 5);
    let weight = |model: &Predictor| {
        values(
            &model
                .output
                .as_ref()
                .expect("a layer")
                .weight
                .dense()
                .expect("dense"),
        )
    };
    let first = weight(&model);
    assert_eq!(first, weight(&load(Some(new_head(7))).expect("a model")));
    assert_ne!(first, weight(&load(Some(new_head(8))).expect("a model")));
    let variance = first.iter().map(|x| x * x).sum::<f64>() / first.len() as f64;
    // Of 80 numbers the root mean square is off by an eighth at most, but for one in a thousand.
    assert!((variance.sqrt() / 0.02 - 1.0).abs() < 0.3, "{variance}");
    assert!(parameters::trainable(&model).is_empty());
    let names: Vec<String> = parameters::trainable(&model.with_trained_head())
        .into_iter()
        .map(|tensor| tensor.name)
        .collect();
    assert_eq!(names, ["classifier.weight", "classifier.bias"]);
}

#[test]
fn dropout_is_on_in_training_and_a_function_of_the_pass() {
    let rows = Rows::golden();
    let logits = |architecture: Architecture, context: ForwardContext| {
        values(&load_with(architecture, &Device::flex()).outputs(rows.tokens(), &context))
    };
    assert!(architecture().has_dropout());
    let plain = logits(architecture(), ForwardContext::inference());
    let first = logits(architecture(), ForwardContext::training(3, 1));
    assert_ne!(first, plain);
    assert_eq!(
        first,
        logits(architecture(), ForwardContext::training(3, 1))
    );
    assert_ne!(
        first,
        logits(architecture(), ForwardContext::training(3, 2))
    );
    assert_ne!(
        first,
        logits(architecture(), ForwardContext::training(4, 1))
    );
    let mut off = architecture();
    off.set_dropout(0.0).expect("it has some");
    assert!(!off.has_dropout());
    assert_eq!(logits(off, ForwardContext::training(3, 1)), plain);
    // Each place drops out by itself.
    type Place = fn(&mut Architecture) -> &mut Option<f64>;
    let places: [Place; 5] = [
        |all| &mut all.embedding.dropout,
        |all| &mut all.blocks[1].attention.dropout,
        |all| &mut all.blocks[1].attention.output_dropout,
        |all| &mut all.blocks[1].feed_forward.output_dropout,
        |all| &mut all.heads.sequence.as_mut().expect("a head").dropout,
    ];
    let mut seen = vec![plain];
    for place in places {
        let mut one = architecture();
        one.set_dropout(0.0).expect("it has some");
        *place(&mut one) = Some(0.3);
        let found = logits(one, ForwardContext::training(3, 1));
        assert!(!seen.contains(&found));
        seen.push(found);
    }
}

#[test]
fn what_a_classifier_cannot_be_is_refused() {
    let load = |architecture: Architecture, n_classes: usize, precision: Precision| {
        let place = (&Device::flex(), precision);
        let head = head(&architecture, n_classes);
        let loaded = Predictor::load(&checkpoint(), architecture, head, None, place);
        loaded.expect_err("it is refused").to_string()
    };
    let other = load(architecture(), 4, Precision::F32);
    assert!(other.contains("classifier.weight"), "{other}");
    let text = std::fs::read_to_string(golden("bert/classifier/config.json")).expect("a file");
    let edited = |key: &str, value: Value| {
        let mut json: Value = serde_json::from_str(&text).expect("JSON");
        json[key] = value;
        let json = ModelJson::parse("config.json".as_ref(), &json.to_string()).expect("an object");
        crate::Families::builtin()
            .describe(&json)
            .map_err(|error| error.to_string())
    };
    for (key, value, message) in [
        (
            "position_embedding_type",
            "relative_key".into(),
            "position_embedding_type",
        ),
        ("is_decoder", true.into(), "is_decoder"),
        ("hidden_dropout_prob", 1.0.into(), "below 1"),
        ("num_attention_heads", 3.into(), "does not divide"),
    ] {
        let error = edited(key, value).expect_err(key);
        assert!(error.contains(message), "{error}");
    }
    let dropout = edited("classifier_dropout", 0.25.into()).expect("a description");
    let head = dropout.heads.sequence.expect("a head");
    assert_eq!(head.dropout, Some(0.25));
}

/// What PEFT writes of a classifier: factors, and a new head beside them.
#[test]
fn an_adapter_of_peft_brings_its_head() {
    let directory = golden("bert/body");
    let architecture = describe(&ModelJson::load(&directory).expect("a configuration"));
    let checkpoint = Checkpoint::open(&directory).expect("a checkpoint");
    let place = (&Device::flex(), Precision::F32);
    let new_head = Some(new_head(0));
    let head = head(&architecture, 2);
    let model = Predictor::load(&checkpoint, architecture, head, new_head, place);
    let files = AdapterFiles::load(&golden("bert/adapter")).expect("PEFT's own adapter");
    let attached =
        Methods::builtin().attach_adapter(model.expect("a model"), &files, WeightLayout::OutIn);
    let (model, report, method) = attached.expect("it fits");
    assert_eq!(report.modules.len(), 4);
    let logits = values(&model.outputs(Rows::golden().tokens(), &ForwardContext::inference()));
    let expected = floats(&golden_tensors("bert/adapter.safetensors"), "logits");
    let difference = max_difference(&logits, &expected);
    assert!(difference <= VALUE_TOLERANCE, "{difference:e}");
    // What we write is what PEFT wrote.
    let meta = AdapterMeta {
        modules_to_save: vec!["classifier".to_owned()],
        ..AdapterMeta::new(&*method, &report.modules)
    };
    let written = to_adapter(&model, &*method, &meta).expect("an adapter");
    assert_eq!(written.tensors, files.tensors);
}
