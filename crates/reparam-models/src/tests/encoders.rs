//! Encoders with every head, against transformers.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use reparam::{ForwardContext, parameters};
use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::config::ModelJson;

use super::{
    assert_gradients_close_or_zero, describe, floats, golden, golden_tensors, integers,
    max_difference, values,
};
use crate::architecture::HeadsSpec;
use crate::{
    Architecture, ClassTargets, MaskedLm, NewHead, Precision, Predictor, RowTokens, class_loss,
    span_loss,
};

/// Numbers are of size one; both sides are rounded to `f32` through two or three layers.
const VALUE_TOLERANCE: f64 = 2e-5;
/// Relative to the largest element of each tensor.
const GRADIENT_TOLERANCE: f64 = 5e-5;

/// What rounding leaves of a gradient that is zero.
const ZERO: f64 = 2e-6;

/// Those with golden files of every head.
const WHOLE: [&str; 5] = ["bert", "distilbert", "electra", "modernbert", "roberta"];

/// Those with golden files of some heads.
const OTHERS: [(&str, &[&str]); 4] = [
    ("deberta-v2", &["sequence", "token", "span", "masked"]),
    ("deberta-v2-c2p", &["sequence", "masked"]),
    ("deberta-v2-p2c", &["token", "masked"]),
    ("deberta-v2-absolute", &["span"]),
];

/// The families with golden files of a head.
pub(super) fn families_with(head: &str) -> impl Iterator<Item = &'static str> {
    let others = OTHERS.into_iter();
    let others = others.filter(move |(_, heads)| heads.contains(&head));
    WHOLE.into_iter().chain(others.map(|(family, _)| family))
}

/// What a golden file has of a batch.
pub(super) struct Batch {
    pub(super) file: Checkpoint,
    pub(super) ids: Vec<u32>,
    types: Vec<u32>,
    positions: Vec<u32>,
    pub(super) bounds: Vec<usize>,
    pub(super) targets: Vec<usize>,
}

impl Batch {
    /// Reads the one of a model in `testdata/golden`.
    pub(super) fn new(name: &str) -> Self {
        let file = golden_tensors(&format!("{name}.safetensors"));
        let sizes = |key: &str| -> Vec<usize> {
            let numbers = integers(&file, key).into_iter();
            numbers.map(|number| number as usize).collect()
        };
        let ids = |key: &str| sizes(key).into_iter().map(|id| id as u32).collect();
        let bounds = sizes("bounds");
        Self {
            ids: ids("input_ids"),
            types: ids("token_type_ids"),
            positions: bounds
                .windows(2)
                .flat_map(|pair| 0..(pair[1] - pair[0]) as u32)
                .collect(),
            targets: sizes("targets"),
            bounds,
            file,
        }
    }

    pub(super) fn rows(&self) -> RowTokens<'_> {
        RowTokens {
            input_ids: &self.ids,
            token_type_ids: &self.types,
            position_ids: &self.positions,
            bounds: &self.bounds,
        }
    }

    /// The masked places, and what stood there.
    pub(super) fn guessed(&self) -> (Vec<usize>, Vec<u32>) {
        let places = integers(&self.file, "places").into_iter();
        let stood = self.targets.iter().map(|token| *token as u32);
        (
            places.map(|place| place as usize).collect(),
            stood.collect(),
        )
    }

    /// Compares outputs, the loss and all gradients.
    pub(super) fn check(
        &self,
        name: &str,
        (outputs, loss): (&Tensor<2>, &Tensor<1>),
        model: &impl Module,
        architecture: &Architecture,
    ) {
        let difference = max_difference(&values(outputs), &floats(&self.file, "outputs"));
        assert!(difference <= VALUE_TOLERANCE, "{name}: {difference:e}");
        let expected = floats(&self.file, "loss")[0];
        let difference = (values(loss)[0] - expected).abs() / expected;
        assert!(difference <= 1e-5, "{name}: loss {difference:e}");
        let list = parameters::take_gradients(model, &mut loss.clone().backward());
        let found = architecture
            .stored(list)
            .into_iter()
            .map(|one| (one.name, values(&one.values)))
            .collect::<BTreeMap<_, _>>();
        let named = self.file.names();
        let named = named.filter_map(|name| Some((name.strip_prefix("grad.")?, name)));
        let expected: BTreeMap<String, Vec<f64>> = named
            .map(|(short, name)| (short.to_owned(), floats(&self.file, name)))
            .collect();
        let tolerances = (GRADIENT_TOLERANCE, ZERO);
        let compared = assert_gradients_close_or_zero(&found, &expected, tolerances, name);
        assert!(compared > 3, "{name}");
    }
}

pub(super) fn open(name: &str) -> (Checkpoint, Architecture) {
    let directory = golden(name);
    let json = ModelJson::load(&directory).expect("a configuration");
    (
        Checkpoint::open(&directory).expect("a checkpoint"),
        describe(&json),
    )
}

pub(super) type Head = fn(&HeadsSpec) -> Option<&crate::architecture::PredictorSpec>;

pub(super) fn predictor(name: &str, head: Head, n_outputs: usize) -> Predictor {
    let (checkpoint, architecture) = open(name);
    let spec = head(&architecture.heads).expect("a head").clone();
    let place = (&Device::flex().autodiff(), Precision::F32);
    let model = Predictor::load(&checkpoint, architecture, (spec, n_outputs), None, place);
    model.expect("a model").set_require_grad(true)
}

#[test]
fn heads_compute_what_transformers_computes() {
    let context = ForwardContext::inference();
    for (head, find, n_outputs) in [
        ("sequence", (|all| all.sequence.as_ref()) as Head, 3),
        ("token", |all| all.token.as_ref(), 3),
        ("span", |all| all.span.as_ref(), 2),
    ] {
        for family in families_with(head) {
            let name = format!("encoders/{family}-{head}");
            let batch = Batch::new(&name);
            let model = predictor(&name, find, n_outputs);
            let outputs = model.outputs(batch.rows(), &context);
            let loss = match head {
                "span" => {
                    let spans: Vec<_> = batch.targets.chunks(2).map(|s| (s[0], s[1])).collect();
                    span_loss(outputs.clone(), &batch.bounds, &spans, 1.0)
                }
                _ => class_loss(outputs.clone(), ClassTargets::One(&batch.targets), 1.0),
            };
            batch.check(&name, (&outputs, &loss), &model, model.architecture());
        }
    }
}

/// From a checkpoint of another class: what it lacks is drawn, and trained whole beside an adapter.
#[test]
fn layers_that_a_head_lacks_are_drawn() {
    let seed = 3;
    for (name, replaces, trained) in [
        ("bert-token", true, &["classifier", "bert.pooler.dense"][..]),
        ("deberta-v2-token", true, &["pooler", "classifier"]),
        ("distilbert-token", true, &["pre_classifier", "classifier"]),
        ("electra-span", false, &["classifier"]),
        ("modernbert-masked", false, &["classifier"]),
        ("roberta-masked", false, &["classifier"]),
    ] {
        let name = &format!("encoders/{name}");
        let (checkpoint, architecture) = open(name);
        let spec = architecture.heads.sequence.clone().expect("a head");
        let new_head = Some(NewHead { seed, replaces });
        let place = (&Device::flex().autodiff(), Precision::F32);
        let model = Predictor::load(&checkpoint, architecture, (spec, 4), new_head, place);
        let model = model.expect("a model");
        assert_eq!(model.trained, trained, "{name}");
        let batch = Batch::new(name);
        let outputs = model.outputs(batch.rows(), &ForwardContext::inference());
        assert_eq!(outputs.dims(), [3, 4], "{name}");
        let trainable = parameters::trainable(&model.with_trained_head());
        let is_of = |name: &str, module: &str| format!(".{name}").contains(&format!(".{module}."));
        for tensor in &trainable {
            assert!(
                trained.iter().any(|module| is_of(&tensor.name, module)),
                "{}",
                tensor.name
            );
        }
        for module in trained {
            assert!(
                trainable.iter().any(|tensor| is_of(&tensor.name, module)),
                "{name} {module}"
            );
        }
    }
}

#[test]
fn masked_language_models_compute_what_transformers_computes() {
    let context = ForwardContext::inference();
    for family in families_with("masked") {
        let name = format!("encoders/{family}-masked");
        let batch = Batch::new(&name);
        let (checkpoint, architecture) = open(&name);
        let place = (&Device::flex().autodiff(), Precision::F32);
        let model = MaskedLm::load(&checkpoint, architecture, place).expect("a model");
        let model = model.set_require_grad(true);
        let (places, stood) = batch.guessed();
        let outputs = model.logits_at(batch.rows(), &places, &context);
        let loss = model.loss(batch.rows(), (&places, &stood), 1.0, &context);
        batch.check(&name, (&outputs, &loss), &model, model.architecture());
    }
}
