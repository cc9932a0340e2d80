//! Twenty steps of PyTorch, PEFT and transformers, repeated.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::ElementConversion;
use reparam::methods::{WeightLayout, attach_adapter};
use reparam::optim::{AdamW, ClipByGlobalNorm, Decay, Optimizer, Schedule};
use reparam::{ForwardContext, parameters};
use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::peft::{AdapterFiles, LoraAdapterConfig, TargetModules, Tensor};
use reparam_models::TokenBatch;
use serde_json::Value;

use crate::{repository, stories};

/// A loss in `f32` of weights that twenty roundings have moved apart; PyTorch's own are up to
/// 1.1e-6 from `f64`.
const LOSS_TOLERANCE: f64 = 1e-5;
/// A norm over seventy tensors, relative; PyTorch's own is 3e-7 from `f64`.
const NORM_TOLERANCE: f64 = 1e-5;
/// The same formula in the same precision.
const RATE_TOLERANCE: f64 = 1e-15;
/// AdamW divides by the root of tiny second moments: where a gradient is near zero, its rounding
/// decides the sign of a whole step. PyTorch's own largest distance to `f64` is 3.1e-6, and the
/// mean one 1.2e-8; here both sides round.
const FACTOR_TOLERANCE: f64 = 3e-5;
const MEAN_FACTOR_TOLERANCE: f64 = 1e-7;

const STEPS: usize = 20;
const ROWS: usize = 2;
const LENGTH: usize = 64;

fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().expect("a list").iter();
    list.map(|x| x.as_f64().expect("a number")).collect()
}

/// Reads the factors under a prefix, by PEFT's names without `base_model.model.`.
fn factors(file: &Checkpoint, prefix: &str) -> BTreeMap<String, Tensor> {
    let prefix = format!("{prefix}.base_model.model.");
    file.tensors()
        .filter_map(|(name, view)| {
            let tensor = Tensor {
                shape: view.shape.to_vec(),
                data: view.to_f32_vec().ok()?,
            };
            Some((name.strip_prefix(&prefix)?.to_owned(), tensor))
        })
        .collect()
}

fn batches(file: &Checkpoint) -> Vec<Vec<u32>> {
    let view = file
        .expect("batch_ids", &[STEPS, ROWS, LENGTH])
        .expect("the batches");
    let bytes = view.bytes().expect("the tensor's bytes");
    let (words, _) = bytes.as_chunks::<8>();
    let ids: Vec<u32> = words
        .iter()
        .map(|word| i64::from_le_bytes(*word) as u32)
        .collect();
    ids.chunks(ROWS * LENGTH).map(<[u32]>::to_vec).collect()
}

#[test]
fn twenty_steps_follow_pytorch() {
    let golden = repository("testdata/golden");
    let text = std::fs::read_to_string(golden.join("adamw_steps.json")).expect("a golden file");
    let record: Value = serde_json::from_str(&text).expect("JSON");
    let file = Checkpoint::open_file(&golden.join("adamw_steps.safetensors")).expect("tensors");

    let names = [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    ];
    let config = LoraAdapterConfig {
        r: 8,
        lora_alpha: 16.0,
        target_modules: Some(TargetModules::Names(names.map(str::to_owned).to_vec())),
        ..LoraAdapterConfig::default()
    };
    let initial = AdapterFiles::new(config.to_map(), factors(&file, "initial"));
    let (model, _) =
        attach_adapter(stories().model, &initial, WeightLayout::OutIn).expect("the same model");
    let mut model = model.train();
    let schedule = Schedule::warmup(5, Decay::Cosine, 0.0).expect("valid");
    let mut optimizer = Optimizer::new(
        vec![
            Box::new(ClipByGlobalNorm::new(1.0).expect("valid")),
            Box::new(AdamW::new(0.9, 0.999, 1e-8, 0.01).expect("valid")),
        ],
        2e-3,
        schedule,
        STEPS as u64,
    )
    .expect("valid");

    let (losses, norms, rates) = (
        numbers(&record["loss"]),
        numbers(&record["gradient_norm"]),
        numbers(&record["learning_rate"]),
    );
    let position_ids: Vec<u32> = (0..LENGTH as u32).cycle().take(ROWS * LENGTH).collect();
    for (step, input_ids) in batches(&file).iter().enumerate() {
        let labels: Vec<i32> = input_ids
            .chunks(LENGTH)
            .flat_map(|row| row[1..].iter().map(|id| *id as i32).chain([-100]))
            .collect();
        let batch = TokenBatch {
            input_ids,
            position_ids: &position_ids,
            bounds: &[0, LENGTH, 2 * LENGTH],
        };
        let scale = 1.0 / (ROWS * (LENGTH - 1)) as f32;
        // PEFT's dropout is zero, so that a training pass is what it computes.
        let context = ForwardContext::training(0, step as u64);
        let loss = model.loss(batch, &labels, scale, &context);
        let found: f64 = loss.clone().into_scalar::<f32>().elem();
        let gradients = parameters::take_gradients(&model, &mut loss.backward());
        let (next, report) = optimizer.step(model, gradients).expect("finite");
        model = next;

        let error = (found - losses[step]).abs();
        assert!(
            error <= LOSS_TOLERANCE,
            "loss {step}: {found} {}",
            losses[step]
        );
        let error = (report.grad_norm / norms[step] - 1.0).abs();
        assert!(
            error <= NORM_TOLERANCE,
            "norm {step}: {} {}",
            report.grad_norm,
            norms[step]
        );
        let error = (report.learning_rate - rates[step]).abs();
        assert!(
            error <= RATE_TOLERANCE,
            "rate {step}: {}",
            report.learning_rate
        );
        assert_eq!(report.step, step as u64 + 1);
    }

    let expected = factors(&file, "final");
    let found = parameters::trainable(&model);
    assert_eq!(found.len(), expected.len());
    let (mut sum, mut count) = (0.0, 0);
    for tensor in found {
        let values = tensor.values.into_data().try_to_vec::<f32>().expect("f32");
        let expected = &expected[&tensor.name].data;
        assert_eq!(values.len(), expected.len());
        for (found, expected) in values.iter().zip(expected) {
            let error = f64::from((found - expected).abs());
            assert!(
                error <= FACTOR_TOLERANCE,
                "{}: {found} {expected}",
                tensor.name
            );
            sum += error;
            count += 1;
        }
    }
    let mean = sum / f64::from(count);
    assert!(mean <= MEAN_FACTOR_TOLERANCE, "{mean:e}");
}
