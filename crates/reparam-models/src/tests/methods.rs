//! DoRA, IA3 and VeRA on whole models against PEFT: its files, its losses, its gradients.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Device;
use reparam::methods::{AdapterMeta, Methods, WeightLayout, attach_adapter, to_adapter};
use reparam_formats::peft::{AdapterFiles, TargetModules};
use serde_json::{Map, Value};

use super::lora::{GRADIENT_TOLERANCE, LOSS_TOLERANCE, mean_loss};
use super::{
    Documents, assert_gradients_close, differentiate, floats, golden, golden_json, golden_tensors,
    ids, load, load_in, repository,
};
use crate::{CausalLm, Precision};

/// What rounding weights and activations to bf16 makes of a loss of about four, given up to five layers.
const BF16_LOSS_TOLERANCE: f64 = 0.02;

/// An adapter that PEFT wrote, and what it computes with it.
struct Golden {
    name: String,
    model: String,
    documents: Documents,
    files: AdapterFiles,
    loss: f64,
    base_loss: f64,
}

impl Golden {
    fn all() -> Vec<Self> {
        let expected = golden_json("methods/expected.json");
        let adapters = expected["adapters"].as_object().expect("adapters");
        let read = |(name, case): (&String, &Value)| {
            let batch = &expected["batches"][case["batch"].as_str().expect("a name")];
            let bounds: Vec<usize> = ids(&batch["bounds"])
                .into_iter()
                .map(|bound| bound as usize)
                .collect();
            let number = |key: &str| case[key].as_f64().expect("a number");
            Self {
                name: name.clone(),
                model: case["model"].as_str().expect("a path").to_owned(),
                documents: Documents::flat(&ids(&batch["input_ids"]), &bounds),
                files: AdapterFiles::load(&golden("methods").join(name)).expect("PEFT's adapter"),
                loss: number("loss"),
                base_loss: number("base_loss"),
            }
        };
        adapters.iter().map(read).collect()
    }

    fn attached(&self, base: CausalLm) -> CausalLm {
        let attached = attach_adapter(base, &self.files, WeightLayout::OutIn);
        let (model, _) = attached.unwrap_or_else(|error| panic!("{}: {error}", self.name));
        model
    }

    fn gradients(&self) -> BTreeMap<String, Vec<f64>> {
        let file = golden_tensors(&format!("methods/{}.gradients.safetensors", self.name));
        let short = |name: &str| name.strip_prefix("base_model.model.").map(str::to_owned);
        file.names()
            .map(|name| (short(name).expect("a prefix"), floats(&file, name)))
            .collect()
    }
}

#[test]
fn adapters_that_peft_wrote_give_its_loss_and_its_gradients() {
    let adapters = Golden::all();
    assert_eq!(adapters.len(), 10);
    for golden in adapters {
        let name = &golden.name;
        let base = load(&golden.model);
        let assert_loss = |found: f64, expected: f64, what: &str| {
            let is_near = (found - expected).abs() <= LOSS_TOLERANCE;
            assert!(is_near, "{name}, {what}: {found} {expected}");
        };
        assert_loss(
            mean_loss(&base, &golden.documents),
            golden.base_loss,
            "base",
        );
        let plain = golden.attached(base);
        assert_loss(mean_loss(&plain, &golden.documents), golden.loss, "plain");
        let model = golden.attached(load(&golden.model).train());
        let scale = 1.0 / golden.documents.n_labelled() as f32;
        let found = differentiate(&model, &golden.documents, scale);
        assert_loss(found.loss, golden.loss, "trained");
        assert_gradients_close(
            &found.gradients,
            &golden.gradients(),
            GRADIENT_TOLERANCE,
            name,
        );
        let merged = mean_loss(&model.materialize(), &golden.documents);
        assert_loss(merged, golden.loss, "merged");
    }
}

/// What we write of an adapter is what PEFT wrote: every tensor, and every key of the configuration.
#[test]
fn adapters_are_written_as_peft_writes_them() {
    for golden in Golden::all() {
        let name = &golden.name;
        let base = load(&golden.model);
        let attached = Methods::builtin().attach_adapter(base, &golden.files, WeightLayout::OutIn);
        let (model, report, method) = attached.expect("PEFT's adapter");
        let config = golden.files.config.map();
        let text = |key: &str| config[key].as_str().map(str::to_owned);
        let targets = TargetModules::from_value(&config["target_modules"]);
        let meta = AdapterMeta {
            base_model_name_or_path: text("base_model_name_or_path"),
            task_type: text("task_type"),
            target_modules: targets.expect("targets"),
            fan_in_fan_out: config["fan_in_fan_out"] == true,
            ..AdapterMeta::new(&*method, &report.modules)
        };
        let written = to_adapter(&model, &*method, &meta).expect("its own adapter");
        assert_eq!(written.tensors, golden.files.tensors, "{name}");
        // What is read from a file is the layers that have tensors, however they were chosen.
        let chosen = |map: &Map<String, Value>| {
            let mut map = map.clone();
            if let Some(layers) = map.get_mut("layers_to_transform") {
                *layers = Value::Null;
            }
            map
        };
        let keys = |map: &Map<String, Value>| map.keys().cloned().collect::<Vec<_>>();
        let mut sorted = chosen(written.config.map());
        sorted.sort_keys();
        assert_eq!(keys(&sorted), keys(config), "{name}");
        assert_eq!(sorted, chosen(config), "{name}");

        // By the paths of its layers it is read again, and computes the same.
        let own = AdapterMeta::new(&*method, &report.modules);
        let written = to_adapter(&model, &*method, &own).expect("its own adapter");
        let directory = tempfile::tempdir().expect("a temporary directory");
        written.save(directory.path()).expect("an empty directory");
        let read = AdapterFiles::load(directory.path()).expect("our own adapter");
        let (again, _) =
            attach_adapter(load(&golden.model), &read, WeightLayout::OutIn).expect("as before");
        let loss = |model: &CausalLm| mean_loss(model, &golden.documents).to_bits();
        assert_eq!(loss(&again), loss(&model), "{name}");
    }
}

/// The packed path of whole models: the same adapter, weights and activations rounded to bf16.
#[test]
fn adapters_run_over_packed_weights() {
    for golden in Golden::all() {
        let name = &golden.name;
        let path = repository(&golden.model);
        let base = load_in(&path, &Device::flex(), Precision::Bf16);
        let model = golden.attached(base.train());
        let scale = 1.0 / golden.documents.n_labelled() as f32;
        let found = differentiate(&model, &golden.documents, scale);
        let is_near = (found.loss - golden.loss).abs() <= BF16_LOSS_TOLERANCE;
        assert!(is_near, "{name}: {} {}", found.loss, golden.loss);
        let expected = golden.gradients();
        assert!(found.gradients.keys().eq(expected.keys()), "{name}");
        for (tensor, expected) in expected {
            let found = &found.gradients[&tensor];
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let cosine =
                dot(found, &expected) / (dot(found, found) * dot(&expected, &expected)).sqrt();
            assert!(cosine > 0.95, "{name}: {tensor} points elsewhere: {cosine}");
        }
    }
}
