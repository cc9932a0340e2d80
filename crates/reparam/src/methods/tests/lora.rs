//! What is LoRA's alone: how the factors start, what dropout does, which number scales.

use burn::tensor::DType;

use super::toy::{bits, data, numbers, randomize, values};
use super::{F32_TOLERANCE, F64_TOLERANCE, assert_close, burn_layer, layer};
use crate::methods::{FactorInit, LoraConfig, Selection, WeightLayout, attach, linear};
use crate::parameters::{self, NamedTensor};
use crate::{ForwardContext, Linear};

const D_OUT: usize = 40;
const D_IN: usize = 256;
const RANK: usize = 16;
/// A difference of two `f32` sums of some forty terms.
const SUM_TOLERANCE: f64 = 2e-5;

/// Returns the factors `A` and `B` of a single layer.
fn factors(config: &LoraConfig, seed: u64) -> (NamedTensor, NamedTensor) {
    let (layer, _) = attach(layer(D_OUT, D_IN, 1), config, seed).expect("attaches");
    let mut list = parameters::trainable(&layer);
    assert_eq!(list.len(), 2);
    let b = list.pop().expect("two factors");
    let a = list.pop().expect("two factors");
    assert_eq!(
        (a.name.as_str(), b.name.as_str()),
        ("lora_A.weight", "lora_B.weight")
    );
    assert_eq!(
        (&a.shape[..], &b.shape[..]),
        (&[RANK, D_IN][..], &[D_OUT, RANK][..])
    );
    (a, b)
}

fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    (mean, variance.sqrt())
}

#[test]
fn a_starts_uniform_within_the_bound_and_b_at_zero() {
    let (a, b) = factors(&LoraConfig::new(RANK, 1.0), 3);
    let bound = 1.0 / (D_IN as f64).sqrt();
    let a = values(&a.values);
    assert!(a.iter().all(|x| x.abs() <= bound));
    let (mean, deviation) = mean_and_deviation(&a);
    // The deviation of a uniform number is bound/sqrt(3), that of the mean of n such numbers
    // sqrt(n) smaller; five of those. The deviation's own is smaller than the mean's.
    let expected = bound / 3f64.sqrt();
    let margin = 5.0 * expected / (a.len() as f64).sqrt();
    assert!(mean.abs() < margin, "{mean}");
    assert!(
        (deviation - expected).abs() < margin,
        "{deviation} {expected}"
    );
    // Both ends are reached.
    let largest = a.iter().fold(0.0_f64, |max, x| max.max(x.abs()));
    assert!(largest > 0.99 * bound, "{largest} {bound}");
    assert!(values(&b.values).iter().all(|x| x.to_bits() == 0));
}

#[test]
fn a_gaussian_a_has_the_deviation_of_one_over_the_rank() {
    let config = LoraConfig {
        init: FactorInit::Gaussian,
        ..LoraConfig::new(RANK, 1.0)
    };
    let (a, b) = factors(&config, 3);
    let a = values(&a.values);
    let (mean, deviation) = mean_and_deviation(&a);
    let expected = 1.0 / RANK as f64;
    let margin = 5.0 * expected / (a.len() as f64).sqrt();
    assert!(mean.abs() < margin, "{mean}");
    assert!(
        (deviation - expected).abs() < margin,
        "{deviation} {expected}"
    );
    // A normal number is beyond two deviations in 4.6 of 100 cases, a uniform one never.
    let beyond = a.iter().filter(|x| x.abs() > 2.0 * expected).count();
    let share = beyond as f64 / a.len() as f64;
    assert!((0.03..0.06).contains(&share), "{share}");
    assert!(values(&b.values).iter().all(|x| *x == 0.0));
}

#[test]
fn modules_of_one_shape_start_differently() {
    use super::toy::{Net, Toy};
    let (model, _) = attach(Net::build(DType::F32), &LoraConfig::new(2, 1.0), 5).expect("attaches");
    let firsts: Vec<_> = parameters::trainable(&model)
        .into_iter()
        .filter(|tensor| tensor.name.ends_with("q_proj.lora_A.weight"))
        .collect();
    assert_eq!(firsts.len(), 2);
    assert_eq!(firsts[0].shape, firsts[1].shape);
    assert_ne!(bits(&firsts[0].values), bits(&firsts[1].values));
}

/// The start of a module depends on its own name, not on which others are adapted.
#[test]
fn other_targets_do_not_change_a_modules_start() {
    use super::toy::{Net, Toy};
    use reparam_formats::peft::TargetModules;
    let first = |targets: &[&str]| {
        let names = targets.iter().map(|name| (*name).to_owned()).collect();
        let config = LoraConfig::new(2, 1.0).with_target_modules(TargetModules::Names(names));
        let (model, _) = attach(Net::build(DType::F32), &config, 5).expect("attaches");
        let list = parameters::trainable(&model);
        let tensor = list
            .into_iter()
            .find(|tensor| tensor.name == "layers.1.down_proj.lora_A.weight");
        bits(&tensor.expect("it is a target").values)
    };
    assert_eq!(
        first(&["down_proj"]),
        first(&["q_proj", "down_proj", "lm_head"])
    );
}

/// The definition, by hand on a layer of one output.
#[test]
fn the_output_is_the_definitions() {
    for (use_rslora, scaling) in [(false, 6.0 / 4.0), (true, 6.0 / 2.0)] {
        let config = LoraConfig {
            use_rslora,
            ..LoraConfig::new(4, 6.0)
        };
        let base = Linear::new(data(numbers(3, 1), &[1, 3], DType::F64), None);
        let w = values(&base.weight.param().base());
        let (layer, report) = attach(base, &config, 0).expect("attaches");
        assert_eq!(report.modules[0].scaling, Some(scaling));
        assert_eq!(report.modules[0].rank, Some(4));
        let layer = randomize(layer, 1);
        let theta = parameters::trainable(&layer);
        let (a, b) = (values(&theta[0].values), values(&theta[1].values));
        let x = numbers(3, 9);
        let expected: f64 = (0..3)
            .map(|i| {
                let ba: f64 = (0..4).map(|r| b[r] * a[r * 3 + i]).sum();
                (w[i] + scaling * ba) * x[i]
            })
            .sum();
        let y = layer.forward(data(x, &[1, 3], DType::F64), &ForwardContext::inference());
        assert_close(&values(&y), &[expected], F64_TOLERANCE, "definition");
    }
}

/// A layer of Burn's has no plan of ours, but a module that calls [`linear`] on its weight does.
#[test]
fn the_plan_runs_on_burns_layout_too() {
    for (dtype, tolerance) in [(DType::F32, F32_TOLERANCE), (DType::F64, F64_TOLERANCE)] {
        let config = LoraConfig {
            selection: Selection::default().with_weight_layout(WeightLayout::InOut),
            ..LoraConfig::new(2, 3.0)
        };
        let (layer, _) = attach(burn_layer(5, 3, dtype, 4), &config, 0).expect("attaches");
        let layer = randomize(layer, 1);
        let x = data::<2>(numbers(6, 9), &[2, 3], dtype);
        let plan = linear(x.clone(), &layer.weight, &ForwardContext::inference());
        let bias = layer.bias.as_ref().expect("a bias").val();
        let whole = layer.forward(x);
        let expected = values(&(whole - bias.unsqueeze::<2>()));
        assert_close(&values(&plan), &expected, tolerance, "InOut");
    }
}

#[test]
fn dropout_is_a_function_of_the_pass_and_absent_in_inference() {
    let config = |dropout: f64| LoraConfig {
        dropout,
        ..LoraConfig::new(4, 8.0)
    };
    let attached = |dropout: f64| {
        let (layer, _) = attach(layer(5, 32, 1), &config(dropout), 0).expect("attaches");
        randomize(layer, 2)
    };
    let (with, without) = (attached(0.5), attached(0.0));
    let output = |layer: &Linear, context: ForwardContext| {
        let x = data(numbers(3 * 32, 8), &[3, 32], DType::F32);
        bits(&layer.forward(x, &context))
    };
    let inference = output(&with, ForwardContext::inference());
    assert_eq!(inference, output(&without, ForwardContext::inference()));
    assert_eq!(inference, output(&without, ForwardContext::training(1, 1)));
    let first = output(&with, ForwardContext::training(1, 1));
    assert_eq!(first, output(&with, ForwardContext::training(1, 1)));
    assert_ne!(first, inference);
    assert_ne!(first, output(&with, ForwardContext::training(1, 2)));
    assert_ne!(first, output(&with, ForwardContext::training(2, 1)));
}

/// A single layer's output is linear in each element of a factor, so that central differences are
/// exact for any step and the law can be checked under a mask in `f32`.
#[test]
fn gradients_pass_through_the_dropout_mask() {
    let config = LoraConfig {
        dropout: 0.5,
        ..LoraConfig::new(2, 2.0)
    };
    let (layer, _) = attach(layer(3, 8, 1), &config, 0).expect("attaches");
    let layer = randomize(layer, 2);
    let context = ForwardContext::training(4, 6);
    let x = data::<2>(numbers(4 * 8, 8), &[4, 8], DType::F32).require_grad();
    let objective = |layer: &Linear| super::objective(layer.forward(x.clone(), &context));
    let mut gradients = objective(&layer).backward();
    let dx = x.grad(&gradients).expect("the input is tracked");
    let gradients = parameters::take_gradients(&layer, &mut gradients);
    let start = parameters::trainable(&layer);
    for (tensor_idx, gradient) in gradients.iter().enumerate() {
        for (element, found) in values(&gradient.values).into_iter().enumerate() {
            let at = |offset: f64| {
                let mut moved = start.clone();
                let mut numbers = values(&start[tensor_idx].values);
                numbers[element] += offset;
                let new = data(numbers, &[start[tensor_idx].len()], DType::F32);
                moved[tensor_idx].values = new.inner();
                values(&objective(&parameters::assign(layer.clone(), moved)))[0]
            };
            assert_close(
                &[found],
                &[at(0.5) - at(-0.5)],
                SUM_TOLERANCE,
                &gradient.name,
            );
        }
    }
    // The input's gradient has the part through the mask and the part past it.
    let x_values = values(&x);
    for (element, found) in values(&dx).into_iter().enumerate() {
        let at = |offset: f64| {
            let mut numbers = x_values.clone();
            numbers[element] += offset;
            let x = data(numbers, &[4, 8], DType::F32);
            values(&super::objective(layer.forward(x, &context)))[0]
        };
        assert_close(&[found], &[at(0.5) - at(-0.5)], SUM_TOLERANCE, "x");
    }
}

/// Inverted dropout: the mean over many passes is the output of inference.
#[test]
fn dropout_keeps_the_expected_output() {
    let config = LoraConfig {
        dropout: 0.25,
        ..LoraConfig::new(2, 2.0)
    };
    let (layer, _) = attach(layer(1, 16, 1), &config, 0).expect("attaches");
    let layer = randomize(layer, 2);
    let x = || data(numbers(16, 8), &[1, 16], DType::F32);
    let expected = values(&layer.forward(x(), &ForwardContext::inference()))[0];
    let n_passes = 4000;
    let outputs: Vec<f64> = (0..n_passes)
        .map(|pass| values(&layer.forward(x(), &ForwardContext::training(3, pass)))[0])
        .collect();
    let (mean, deviation) = mean_and_deviation(&outputs);
    // Five deviations of the mean.
    let margin = 5.0 * deviation / (n_passes as f64).sqrt();
    assert!(deviation > 0.01, "{deviation}");
    assert!(
        (mean - expected).abs() < margin,
        "{mean} {expected} {margin}"
    );
}
