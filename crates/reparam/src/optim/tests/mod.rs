//! The update against its own laws, and schedules against those of `transformers`.

mod golden;
mod mask;
mod order;
mod states;

use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use serde_json::Value;

use super::*;
use crate::parameters::{NamedTensor, ParameterList};
use crate::schema::SchemaError;

fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata/golden")
        .join(name);
    let text = std::fs::read_to_string(&path).expect("the golden file is in the repository");
    serde_json::from_str(&text).expect("golden files are JSON")
}

fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().expect("a list");
    list.iter().map(|x| x.as_f64().expect("a number")).collect()
}

fn list(values: &[f64], dtype: DType) -> ParameterList {
    let data = TensorData::new(values.to_vec(), [values.len()]).convert_dtype(dtype);
    vec![NamedTensor {
        name: "x".into(),
        shape: vec![values.len()],
        values: Tensor::from_data(data, (&Device::flex(), dtype)),
    }]
}

fn values(list: &ParameterList) -> Vec<f64> {
    let data = list[0].values.clone().into_data().convert::<f64>();
    data.try_to_vec().expect("f64 data")
}

/// The gradient of `f(x) = sum_i c_i x_i^2 / 2`.
fn quadratic_gradient(x: &ParameterList, curvatures: &[f64], dtype: DType) -> ParameterList {
    let c = list(curvatures, dtype);
    let values = x[0].values.clone() * c[0].values.clone();
    vec![x[0].clone().with_values(values)]
}

fn constant(chain: Vec<Box<dyn GradientTransform>>, learning_rate: f64) -> Optimizer {
    Optimizer::new(chain, learning_rate, Schedule::Constant, 50).expect("valid settings")
}

#[test]
fn schedules_follow_transformers() {
    let golden = golden("schedules.json");
    let warmup = golden["warmup_steps"].as_u64().expect("a number");
    let total = golden["total_steps"].as_u64().expect("a number");
    let cases = [
        ("constant", Schedule::Constant),
        (
            "constant_with_warmup",
            Schedule::warmup(warmup, Decay::None, 0.0).expect("valid"),
        ),
        (
            "linear",
            Schedule::warmup(warmup, Decay::Linear, 0.0).expect("valid"),
        ),
        (
            "cosine",
            Schedule::warmup(warmup, Decay::Cosine, 0.0).expect("valid"),
        ),
    ];
    for (name, schedule) in cases {
        let expected = numbers(&golden[name]);
        assert!(expected.len() as u64 >= total, "{name}");
        for (step, expected) in expected.into_iter().enumerate() {
            let found = schedule.multiplier(step as u64, total);
            assert!(
                (found - expected).abs() < 1e-12,
                "{name} step {step}: {found} != {expected}"
            );
        }
    }
}

#[test]
fn open_ended_schedules_follow_transformers() {
    let golden = golden("schedules.json");
    let warmup = golden["warmup_steps"].as_u64().expect("a number");
    let total = golden["total_steps"].as_u64().expect("a number");
    let near = |what: &str, schedule: Schedule, expected: &Value, from: usize| {
        let expected = numbers(expected);
        assert!(expected.len() as u64 >= total, "{what}");
        for (step, expected) in expected.into_iter().enumerate().skip(from) {
            let found = schedule.multiplier(step as u64, total);
            let is_near = (found - expected).abs() < 1e-12;
            assert!(is_near, "{what} step {step}: {found} != {expected}");
        }
    };
    for (name, warmup) in [("inverse_sqrt", warmup), ("inverse_sqrt_without_warmup", 0)] {
        let schedule = Schedule::warmup(warmup, Decay::InverseSqrt, 0.0).expect("valid");
        near(name, schedule, &golden[name], 0);
    }
    let cases = golden["wsd"].as_array().expect("cases");
    assert_eq!(cases.len(), 6);
    for case in cases {
        let shape = match case["decay_type"].as_str() {
            Some("linear") => DecayShape::Linear,
            Some("cosine") => DecayShape::Cosine,
            Some("1-sqrt") => DecayShape::OneMinusSqrt,
            other => panic!("{other:?}"),
        };
        let decay_steps = case["num_decay_steps"].as_u64().expect("a number");
        let min_ratio = case["min_lr_ratio"].as_f64().expect("a number");
        let decay = Decay::Stable { decay_steps, shape };
        let schedule = Schedule::warmup(warmup, decay, min_ratio).expect("valid");
        // There the warm-up starts at the minimum, here at zero.
        let from = if min_ratio > 0.0 { warmup as usize } else { 0 };
        near(&format!("{decay:?}"), schedule, &case["values"], from);
    }
}

#[test]
fn a_schedule_ends_at_its_minimum() {
    for decay in [Decay::Linear, Decay::Cosine] {
        let schedule = Schedule::warmup(5, decay, 0.1).expect("valid");
        assert!((schedule.multiplier(5, 50) - 1.0).abs() < 1e-12);
        assert!((schedule.multiplier(50, 50) - 0.1).abs() < 1e-12);
        assert!((schedule.multiplier(80, 50) - 0.1).abs() < 1e-12);
    }
}

/// Training `V` in `W = sqrt(lambda) V` moves `W` as training `W` with its gradient scaled by
/// `lambda` does: plain and with momentum.
#[test]
fn square_root_law() {
    let curvatures = [0.3, 1.0, 2.5];
    let start = [1.0, -2.0, 0.5];
    let lambda: f64 = 0.1;
    let root = lambda.sqrt();
    for momentum in [None, Some(0.9)] {
        let with_momentum = |mut chain: Vec<Box<dyn GradientTransform>>| {
            if let Some(momentum) = momentum {
                chain.push(Box::new(Momentum::new(momentum, false).expect("valid")));
            }
            constant(chain, 0.4)
        };
        let mut on_w = with_momentum(vec![Box::new(Scale::by(lambda).expect("valid"))]);
        let mut on_v = with_momentum(Vec::new());
        let mut w = list(&start, DType::F64);
        let mut v = list(&start.map(|x| x / root), DType::F64);
        for _ in 0..50 {
            let gradient = quadratic_gradient(&w, &curvatures, DType::F64);
            (w, _) = on_w.step_list(w, gradient).expect("a finite step");
            let effective = vec![v[0].clone().with_values(v[0].values.clone() * root)];
            let gradient = quadratic_gradient(&effective, &curvatures, DType::F64);
            // The chain rule of W = sqrt(lambda) V.
            let gradient = vec![
                gradient[0]
                    .clone()
                    .with_values(gradient[0].values.clone() * root),
            ];
            (v, _) = on_v.step_list(v, gradient).expect("a finite step");
        }
        for (w, v) in values(&w).iter().zip(values(&v)) {
            assert!((w - v * root).abs() < 1e-14, "{w} != {}", v * root);
        }
    }
}

#[test]
fn scale_by_horizon_equals_the_constant() {
    assert_eq!(Scale::ByHorizon.lambda(100), 0.1);
    assert_eq!(Scale::by(0.1).expect("valid").lambda(7), 0.1);
}

#[test]
fn clipping_by_norm_bounds_the_norm_and_keeps_the_direction() {
    let mut clip = ClipByGlobalNorm::new(1.0).expect("valid");
    let parameters = list(&[0.0, 0.0], DType::F64);
    let context = StepContext {
        step: 1,
        horizon: 1,
        learning_rate: 1.0,
        parameters: &parameters,
    };
    let clipped = clip
        .transform(list(&[3.0, 4.0], DType::F64), &context)
        .expect("clips");
    assert!((global_norm(&clipped) - 1.0).abs() < 1e-6);
    let found = values(&clipped);
    assert!((found[0] / found[1] - 0.75).abs() < 1e-12);
    let small = clip
        .transform(list(&[0.3, 0.4], DType::F64), &context)
        .expect("keeps");
    assert_eq!(values(&small), [0.3, 0.4]);
}

#[test]
fn clipping_by_value_bounds_every_element() {
    let mut clip = ClipByValue::new(0.5).expect("valid");
    let parameters = list(&[0.0; 3], DType::F64);
    let context = StepContext {
        step: 1,
        horizon: 1,
        learning_rate: 1.0,
        parameters: &parameters,
    };
    let clipped = clip
        .transform(list(&[3.0, -4.0, 0.1], DType::F64), &context)
        .expect("clips");
    assert_eq!(values(&clipped), [0.5, -0.5, 0.1]);
}

#[test]
fn a_saved_state_continues_to_the_same_bits() {
    let build = || -> Optimizer {
        let chain: Vec<Box<dyn GradientTransform>> = vec![
            Box::new(Momentum::new(0.9, true).expect("valid")),
            Box::new(AdamW::default()),
        ];
        constant(chain, 0.05)
    };
    let curvatures = [0.3, 1.0];
    let run = |optimizer: &mut Optimizer, mut x: ParameterList, steps: usize| {
        for _ in 0..steps {
            let gradient = quadratic_gradient(&x, &curvatures, DType::F32);
            (x, _) = optimizer.step_list(x, gradient).expect("a finite step");
        }
        x
    };
    let mut whole = build();
    let start = list(&[1.0, -2.0], DType::F32);
    let half = run(&mut whole, start, 5);
    let (state, steps_done) = (whole.state(), whole.steps_done());
    assert_eq!(state.len(), 3, "{state:?}");
    assert_eq!(state[1].name, "1.adamw.exp_avg.x");
    let expected = run(&mut whole, half.clone(), 5);
    let mut resumed = build();
    resumed
        .load_state(steps_done, state)
        .expect("its own state");
    assert_eq!(values(&run(&mut resumed, half, 5)), values(&expected));
}

/// Measuring is no part of the state, and may begin anywhere.
#[test]
fn variances_can_be_measured_from_any_step() {
    let mut optimizer = constant(vec![Box::new(AdamW::default())], 0.1);
    let x = || list(&[1.0, 2.0], DType::F64);
    let (_, before) = optimizer.step_list(x(), x()).expect("a step");
    assert_eq!(before.variances, None);
    optimizer.measure_variances();
    let mut found = Vec::new();
    for gradient in [[1.0, 1.0], [3.0, 1.0], [1.0, 1.0]] {
        let (_, report) = optimizer
            .step_list(x(), list(&gradient, DType::F64))
            .expect("a step");
        found.push(report.variances.expect("it is measured").gradient);
    }
    // Nothing varies yet; then two values two apart, whose variance is estimated as 2.
    assert_eq!(found[0], 0.0);
    assert!((found[1] - 2.0).abs() < 1e-12, "{found:?}");
    assert!(found[2] > 0.0 && found[2] < 2.0, "{found:?}");
}

#[test]
fn a_foreign_state_is_refused() {
    let mut optimizer = constant(vec![Box::new(AdamW::default())], 0.1);
    let mut state = list(&[1.0], DType::F32);
    state[0].name = "0.momentum.velocity.x".into();
    let error = optimizer
        .load_state(1, state)
        .expect_err("another chain's state");
    assert!(
        matches!(error, OptimError::UnexpectedState { .. }),
        "{error}"
    );
}

#[test]
fn a_gradient_that_is_not_finite_is_refused_by_name() {
    for bad in [f64::NAN, f64::INFINITY] {
        let mut optimizer = constant(vec![Box::new(AdamW::default())], 0.1);
        let x = list(&[1.0, 2.0], DType::F32);
        let error = optimizer
            .step_list(x, list(&[0.0, bad], DType::F32))
            .expect_err("not finite");
        assert_eq!(error, OptimError::NonFinite { name: "x".into() });
        assert_eq!(optimizer.steps_done(), 0);
    }
}

#[test]
fn settings_out_of_range_are_refused() {
    let horizon = Optimizer::new(Vec::new(), 0.1, Schedule::Constant, 0).map(|_| ());
    let rate = Optimizer::new(Vec::new(), -0.1, Schedule::Constant, 1).map(|_| ());
    let results = [
        horizon,
        rate,
        ClipByGlobalNorm::new(0.0).map(|_| ()),
        ClipByValue::new(f64::NAN).map(|_| ()),
        Scale::by(-1.0).map(|_| ()),
        Momentum::new(1.0, false).map(|_| ()),
        AdamW::new(1.0, 0.9, 1e-8, 0.0).map(|_| ()),
        AdamW::new(0.9, 0.9, 0.0, 0.0).map(|_| ()),
        WeightDecay::new(-1.0).map(|_| ()),
        Schedule::warmup(1, Decay::None, 2.0).map(|_| ()),
    ];
    for result in results {
        assert!(
            matches!(result, Err(OptimError::Schema(SchemaError::Value { .. }))),
            "{result:?}"
        );
    }
}

#[test]
fn a_state_with_a_gap_or_of_another_shape_is_refused() {
    let x = || list(&[1.0, 2.0], DType::F32);
    let trained = || {
        let mut optimizer = constant(vec![Box::new(AdamW::default())], 0.1);
        optimizer.step_list(x(), x()).expect("a finite step");
        optimizer.state()
    };
    let wrong_shape = |mut state: ParameterList| {
        state[0] = NamedTensor {
            name: state[0].name.clone(),
            ..list(&[1.0], DType::F32).remove(0)
        };
        state
    };
    for state in [Vec::new(), trained().split_off(1), wrong_shape(trained())] {
        let mut optimizer = constant(vec![Box::new(AdamW::default())], 0.1);
        optimizer.load_state(1, state).expect("no foreign name");
        let error = optimizer.step_list(x(), x()).expect_err("not its state");
        assert!(matches!(error, OptimError::MissingState { .. }), "{error}");
    }
}

#[test]
fn a_parameter_that_overflows_is_refused_by_name() {
    let mut optimizer = constant(Vec::new(), 1e38);
    let error = optimizer
        .step_list(list(&[1.0], DType::F32), list(&[9.0], DType::F32))
        .expect_err("an overflow");
    assert_eq!(error, OptimError::NonFiniteParameter { name: "x".into() });
    assert_eq!(optimizer.steps_done(), 0);
}
