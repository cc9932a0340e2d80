//! LoRA on whole models against PEFT.

use std::collections::BTreeMap;

use burn::module::Module;
use reparam::ForwardContext;
use reparam::methods::{AdapterMeta, Methods, WeightLayout, attach_adapter, to_adapter};
use reparam_formats::peft::{AdapterFiles, PeftAdapter};

use super::{
    Documents, STORIES, assert_gradients_close, differentiate, floats, golden, golden_adapter,
    golden_json, golden_tensors, ids, in_f64, integers, load, values, with_adapter,
};
use crate::CausalLm;

/// A gradient's elements are sums over 119 tokens and five layers in `f32`; PEFT's own are up to
/// 1.9e-6 from `f64` where the largest of most tensors is near one.
pub(super) const GRADIENT_TOLERANCE: f64 = 1e-4;
/// A mean over some hundred tokens, each a logarithm of a sum of 512 exponentials.
pub(super) const LOSS_TOLERANCE: f64 = 1e-5;

/// The documents of the golden batch.
pub(super) fn batch() -> Documents {
    let file = golden_tensors("lora_batch.safetensors");
    let ids: Vec<u32> = integers(&file, "input_ids")
        .into_iter()
        .map(|id| id as u32)
        .collect();
    let bounds: Vec<usize> = integers(&file, "bounds")
        .into_iter()
        .map(|b| b as usize)
        .collect();
    Documents::flat(&ids, &bounds)
}

/// stories260K with the golden batch's factors.
pub(super) fn model() -> CausalLm {
    model_of(load(STORIES))
}

/// The same on a base that was loaded in another way.
pub(super) fn model_of(base: CausalLm) -> CausalLm {
    with_adapter(
        base,
        &golden_adapter(&golden_tensors("lora_batch.safetensors")),
    )
}

fn golden_gradients() -> BTreeMap<String, Vec<f64>> {
    let file = golden_tensors("lora_batch.safetensors");
    file.names()
        .filter_map(|name| {
            let short = name.strip_prefix("grad.base_model.model.")?;
            Some((short.to_owned(), floats(&file, name)))
        })
        .collect()
}

pub(super) fn mean_loss(model: &CausalLm, documents: &Documents) -> f64 {
    let scale = 1.0 / documents.n_labelled() as f32;
    let context = ForwardContext::inference();
    values(&model.loss(documents.batch(), &documents.labels, scale, &context))[0]
}

#[test]
fn loss_and_every_gradient_are_pefts() {
    let golden = golden_json("lora_batch.json");
    let number = |key: &str| golden[key].as_f64().expect("a number");
    let documents = batch();
    assert_eq!(documents.n_labelled() as f64, number("predicted_tokens"));
    let base_loss = mean_loss(&load(STORIES), &documents);
    assert!(
        (base_loss - number("base_loss")).abs() <= LOSS_TOLERANCE,
        "{base_loss}"
    );

    let scale = 1.0 / documents.n_labelled() as f32;
    let found = differentiate(&model(), &documents, scale);
    assert!(
        (found.loss - number("loss")).abs() <= LOSS_TOLERANCE,
        "{}",
        found.loss
    );
    let expected = golden_gradients();
    assert_eq!(expected.len(), 5 * 7 * 2);
    assert_gradients_close(&found.gradients, &expected, GRADIENT_TOLERANCE, "native");
    let squares = found.gradients.values().flatten().map(|x| x * x);
    let norm = squares.sum::<f64>().sqrt();
    let expected_norm = number("gradient_norm");
    assert!(
        (norm - expected_norm).abs() <= 1e-5 * expected_norm,
        "{norm} {expected_norm}"
    );
}

/// The reference path of every operation, in the precision that leaves only `transformers`' own
/// rounding and that of the rotary angles.
#[test]
fn loss_and_every_gradient_in_f64_are_pefts() {
    let golden = golden_json("lora_batch.json");
    let exact = golden["loss_in_f64"].as_f64().expect("a number");
    let documents = batch();
    let scale = 1.0 / documents.n_labelled() as f32;
    let found = differentiate(&model_of(in_f64(load(STORIES))), &documents, scale);
    assert!((found.loss - exact).abs() <= 1e-6, "{} {exact}", found.loss);
    let expected = golden_gradients();
    assert_gradients_close(&found.gradients, &expected, GRADIENT_TOLERANCE, "reference");
}

#[test]
fn adapters_that_peft_wrote_give_its_losses() {
    let golden_file = golden_json("peft/expected.json");
    let adapters = golden_file["adapters"].as_object().expect("adapters");
    assert_eq!(adapters.len(), 7);
    for (name, case) in adapters {
        let batch = &golden_file["batches"][case["batch"].as_str().expect("a name")];
        let bounds: Vec<usize> = ids(&batch["bounds"])
            .into_iter()
            .map(|b| b as usize)
            .collect();
        let documents = Documents::flat(&ids(&batch["input_ids"]), &bounds);
        let base = load(case["model"].as_str().expect("a path"));
        let base_loss = mean_loss(&base, &documents);
        let expected = case["base_loss"].as_f64().expect("a number");
        assert!(
            (base_loss - expected).abs() <= LOSS_TOLERANCE,
            "{name}: {base_loss} {expected}"
        );

        let adapter = PeftAdapter::load(&golden("peft").join(name)).expect("PEFT's own adapter");
        let model = with_adapter(base.clone(), &adapter);
        let loss = mean_loss(&model, &documents);
        let expected = case["loss"].as_f64().expect("a number");
        assert!(
            (loss - expected).abs() <= LOSS_TOLERANCE,
            "{name}: {loss} {expected}"
        );
        // Merged into the base, and on a copy without autodiff.
        let merged = mean_loss(&model.clone().materialize(), &documents);
        assert!(
            (merged - expected).abs() <= LOSS_TOLERANCE,
            "{name}: {merged} {expected}"
        );
        assert_eq!(
            mean_loss(&model.valid(), &documents).to_bits(),
            loss.to_bits(),
            "{name}"
        );

        // What we write is what PEFT wrote.
        let directory = tempfile::tempdir().expect("a temporary directory");
        let files = AdapterFiles::load(&golden("peft").join(name)).expect("PEFT's own adapter");
        let attached = Methods::builtin().attach_adapter(base.clone(), &files, WeightLayout::OutIn);
        let (_, report, method) = attached.expect("the same model");
        let meta = AdapterMeta::new(&*method, &report.modules);
        let written = to_adapter(&model, &*method, &meta).expect("its own adapter");
        written.save(directory.path()).expect("an empty directory");
        let read = AdapterFiles::load(directory.path()).expect("our own adapter");
        assert_eq!(read.tensors, files.tensors, "{name}");
        let (again, _) = attach_adapter(base, &read, WeightLayout::OutIn).expect("the same model");
        assert_eq!(
            mean_loss(&again, &documents).to_bits(),
            loss.to_bits(),
            "{name}"
        );
    }
}

/// An adapter of one model is not taken for another's.
#[test]
fn an_adapter_of_another_model_is_refused() {
    for (adapter, model) in [
        ("plain", "testdata/golden/variants/untied_bias"),
        ("bias_all", STORIES),
        ("bias_all", "testdata/golden/variants/llama3_rope"),
    ] {
        let loaded = AdapterFiles::load(&golden("peft").join(adapter)).expect("an adapter");
        let error = attach_adapter(load(model), &loaded, WeightLayout::OutIn)
            .map(|_| ())
            .expect_err("another model");
        assert!(error.hint().is_some(), "{adapter} on {model}: {error}");
    }
}
