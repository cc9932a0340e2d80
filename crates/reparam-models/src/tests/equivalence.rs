//! One result, computed in several ways.

use burn::tensor::Device;
use reparam_ops::IGNORE_INDEX;

use super::lora::{batch, model, model_of};
use super::{
    Differentiated, Documents, STORIES, differentiate, golden_tensors, in_f64, integers, load,
    load_on,
};

/// Sums of `f32` numbers in another order: relative to the largest element of each tensor.
const ORDER_TOLERANCE: f64 = 1e-5;
/// In `f64` nothing but an error is left.
const ORDER_TOLERANCE_F64: f64 = 1e-12;
/// The whole rounding of the native path: `f32` through five layers and back.
const PRECISION_TOLERANCE: f64 = 2e-5;

/// Many documents of different lengths, the last tokens of some without a label.
fn many() -> Vec<Documents> {
    let file = golden_tensors("adamw_steps.safetensors");
    let ids = integers(&file, "batch_ids");
    let ids: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
    let lengths = [64, 3, 40, 17, 2, 64, 31, 9, 50, 64, 28, 11];
    ids.chunks(64)
        .zip(lengths)
        .map(|(row, length)| {
            let mut one = Documents::new([&row[..length]]);
            // What a loss mask does: some tokens are seen but not learned from.
            for label in one.labels.iter_mut().take(length / 4) {
                *label = IGNORE_INDEX;
            }
            one
        })
        .collect()
}

/// Puts documents one after the other.
fn packed(documents: &[Documents]) -> Documents {
    let ids = documents.iter().map(|one| &one.input_ids[..]);
    let mut all = Documents::new(ids);
    all.labels = documents
        .iter()
        .flat_map(|one| one.labels.clone())
        .collect();
    all
}

fn scale(documents: &Documents) -> f32 {
    1.0 / documents.n_labelled() as f32
}

#[test]
fn packed_documents_do_not_see_each_other() {
    let model = model();
    for documents in [batch(), packed(&many())] {
        let scale = scale(&documents);
        let together = differentiate(&model, &documents, scale);
        let alone = documents.single();
        let alone = alone.iter().map(|one| differentiate(&model, one, scale));
        let alone = Differentiated::sum(alone.collect());
        together.assert_close(&alone, ORDER_TOLERANCE, ORDER_TOLERANCE, "packed");
    }
}

/// Without rounding to hide behind.
#[test]
fn packing_and_accumulation_change_nothing_in_f64() {
    let model = model_of(in_f64(load(STORIES)));
    let documents = batch();
    let scale = scale(&documents);
    let together = differentiate(&model, &documents, scale);
    let alone = documents.single();
    let alone = alone.iter().map(|one| differentiate(&model, one, scale));
    let alone = Differentiated::sum(alone.collect());
    together.assert_close(&alone, ORDER_TOLERANCE_F64, ORDER_TOLERANCE_F64, "f64");
}

/// With one normalization for the step, how it is divided does not matter, though the parts have
/// different numbers of labelled tokens.
#[test]
fn accumulated_gradients_are_those_of_one_batch() {
    let model = model();
    let documents = many();
    let whole = packed(&documents);
    let scale = scale(&whole);
    let parts: Vec<Documents> = documents.chunks(3).map(packed).collect();
    assert_eq!(parts.len(), 4);
    let labelled: Vec<usize> = parts.iter().map(Documents::n_labelled).collect();
    assert!(labelled.iter().any(|n| *n != labelled[0]), "{labelled:?}");
    let parts = parts.iter().map(|part| differentiate(&model, part, scale));
    let accumulated = Differentiated::sum(parts.collect());
    let whole = differentiate(&model, &whole, scale);
    accumulated.assert_close(&whole, ORDER_TOLERANCE, ORDER_TOLERANCE, "accumulated");
}

fn bits(result: &Differentiated) -> Vec<u64> {
    let gradients = result.gradients.values().flatten();
    gradients
        .chain([&result.loss])
        .map(|x| x.to_bits())
        .collect()
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let model = model();
    let documents = packed(&[many(), many(), many()].concat());
    let scale = scale(&documents);
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("a pool")
            .install(|| bits(&differentiate(&model, &documents, scale)))
    };
    let one = with(1);
    assert_eq!(one, with(1), "the same run again");
    assert_eq!(one, with(2), "two threads");
    assert_eq!(one, with(3), "three threads");
}

#[test]
fn the_native_path_equals_the_reference_in_f64() {
    let documents = packed(&many());
    let scale = scale(&documents);
    let native = differentiate(&model(), &documents, scale);
    let reference = differentiate(&model_of(in_f64(load(STORIES))), &documents, scale);
    native.assert_close(&reference, PRECISION_TOLERANCE, PRECISION_TOLERANCE, "f64");
}

/// A device with gradient checkpointing takes the reference forms in the same precision.
#[test]
fn the_native_path_equals_the_reference_under_checkpointing() {
    let documents = batch();
    let scale = scale(&documents);
    let device = Device::flex().autodiff().gradient_checkpointing();
    let checkpointed = model_of(load_on(STORIES, &device));
    let native = differentiate(&model(), &documents, scale);
    let reference = differentiate(&checkpointed, &documents, scale);
    native.assert_close(
        &reference,
        PRECISION_TOLERANCE,
        PRECISION_TOLERANCE,
        "checkpointing",
    );
    assert_ne!(
        bits(&native),
        bits(&reference),
        "the same path was taken twice"
    );
}
