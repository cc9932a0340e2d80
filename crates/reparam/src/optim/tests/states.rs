//! Every transform's state through a file, and on from there to the same bits.

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::super::transform::map;
use super::super::*;
use crate::parameters::{NamedTensor, ParameterList};

/// Names whose order in a file is not that of the parameters.
const SHAPES: [(&str, [usize; 2]); 3] = [
    ("layers.2.q_proj.lora_B.weight", [5, 2]),
    ("layers.2.q_proj.lora_A.weight", [2, 4]),
    ("layers.10.weight", [4, 3]),
];

fn start(dtype: DType) -> ParameterList {
    SHAPES
        .iter()
        .enumerate()
        .map(|(place, (name, shape))| {
            let len = shape[0] * shape[1];
            let values: Vec<f64> = (0..len)
                .map(|i| ((i * 7 + place * 3) % 11) as f64 / 8.0 - 0.6)
                .collect();
            let data = TensorData::new(values, [len]).convert_dtype(dtype);
            NamedTensor {
                name: (*name).to_owned(),
                shape: shape.to_vec(),
                values: Tensor::from_data(data, (&Device::flex(), dtype)),
            }
        })
        .collect()
}

/// A gradient that is neither zero nor simple.
fn gradient(at: &ParameterList) -> ParameterList {
    map(at.clone(), |parameter| {
        let x = parameter.values.clone();
        (x.clone() * 1.5).sin() + x.cos() * 0.3
    })
}

fn bits(list: &ParameterList) -> Vec<(String, Vec<u8>)> {
    list.iter()
        .map(|tensor| {
            let data = tensor.values.clone().into_data();
            (tensor.name.clone(), data.as_bytes().to_vec())
        })
        .collect()
}

fn advance(optimizer: &mut Optimizer, mut x: ParameterList, steps: usize) -> ParameterList {
    for _ in 0..steps {
        let mut gradients = gradient(&x);
        if let Some(point) = optimizer.probe_list(&x, &gradients).expect("a point") {
            gradients = gradient(&point);
        }
        (x, _) = optimizer.step_list(x, gradients).expect("a finite step");
    }
    x
}

fn optimizer(spec: &TransformSpec) -> Optimizer {
    let catalog = Transforms::builtin();
    let context = BuildContext::new(&catalog).with_lora_scaling(Some(2.0));
    let schedule = Schedule::warmup(3, Decay::Cosine, 0.1).expect("valid");
    let parts = context.build(spec).expect(&spec.kind);
    Optimizer::new(parts, 0.05, schedule, 20).expect("lawful")
}

/// Every transform of the table, with all parts of a state that it can have.
fn specs() -> Vec<TransformSpec> {
    let number = SettingValue::Number;
    let inner = || SettingValue::Chain(vec![TransformSpec::new("adam")]);
    Transforms::builtin()
        .iter()
        .map(|entry| {
            let spec = TransformSpec::new(entry.kind);
            match entry.kind {
                "clip_by_value" => spec.with("max_value", number(0.5)),
                "weight_decay" => spec.with("weight_decay", number(0.1)),
                "sgd" => spec.with("momentum", number(0.9)),
                "rmsprop" => spec
                    .with("momentum", number(0.9))
                    .with("centered", SettingValue::Flag(true)),
                "freeze" => spec.with("pattern", SettingValue::Word(".*lora_A.*".into())),
                "mask" => spec.with("branches", SettingValue::Numbers(vec![0.5, 0.25])),
                "group" => spec
                    .with("pattern", SettingValue::Word(".*lora_B.*".into()))
                    .with("transforms", inner()),
                "accumulate" => spec
                    .with("steps", SettingValue::Count(2))
                    .with("transforms", inner()),
                "galore" => spec
                    .with("rank", SettingValue::Count(2))
                    .with("refresh", SettingValue::Count(3))
                    .with("transforms", inner()),
                _ => spec,
            }
        })
        .collect()
}

#[test]
fn every_state_goes_through_a_file_and_continues_to_the_same_bits() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for spec in specs() {
        for dtype in [DType::F32, DType::F64] {
            let mut whole = optimizer(&spec);
            let half = advance(&mut whole, start(dtype), 5);
            let path = directory.path().join("optimizer.safetensors");
            save_state(&whole, &path).expect(&spec.kind);
            let mut resumed = optimizer(&spec);
            load_state(&mut resumed, &path).expect(&spec.kind);
            assert_eq!(resumed.steps_done(), 5);
            // An average is there at once, in the parameters' order.
            let average = |optimizer: &Optimizer| optimizer.evaluated_list(&half).map(|x| bits(&x));
            assert_eq!(average(&resumed), average(&whole), "{}", spec.kind);
            let expected = advance(&mut whole, half.clone(), 7);
            let found = advance(&mut resumed, half, 7);
            assert_eq!(bits(&found), bits(&expected), "{}", spec.kind);
            let sorted = |optimizer: &Optimizer| {
                let mut state = bits(&optimizer.state());
                state.sort();
                state
            };
            assert_eq!(sorted(&resumed), sorted(&whole), "{}", spec.kind);
            let averages = |optimizer: &Optimizer| optimizer.evaluated_list(&found);
            assert_eq!(
                averages(&resumed).map(|list| bits(&list)),
                averages(&whole).map(|list| bits(&list)),
                "{}",
                spec.kind
            );
        }
    }
}

/// The test above would prove nothing for a transform whose state did not matter.
#[test]
fn a_lost_state_is_noticed() {
    for spec in specs() {
        let mut whole = optimizer(&spec);
        let half = advance(&mut whole, start(DType::F64), 5);
        if whole.state().is_empty() {
            continue;
        }
        let mut forgetful = optimizer(&spec);
        let first_half_lost = forgetful.load_state(5, Vec::new());
        let outcome = first_half_lost.and_then(|()| {
            let gradients = gradient(&half);
            forgetful.step_list(half.clone(), gradients).map(|_| ())
        });
        // A new choice of directions needs no old ones, but Adam inside needs its moments.
        let error = outcome.expect_err(&spec.kind);
        assert!(
            matches!(error, OptimError::MissingState { .. }),
            "{}: {error}",
            spec.kind
        );
    }
}

#[test]
fn a_state_file_that_is_none_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut adamw = optimizer(&TransformSpec::new("adamw"));
    let missing = directory.path().join("missing.safetensors");
    let error = load_state(&mut adamw, &missing).expect_err("no file");
    assert!(matches!(error, OptimError::StateFile { .. }), "{error}");

    let foreign = directory.path().join("foreign.safetensors");
    reparam_formats::safetensors::write_safetensors(&foreign, &[], &Default::default())
        .expect("a file");
    let error = load_state(&mut adamw, &foreign).expect_err("no state");
    assert!(error.to_string().contains("steps_done"), "{error}");

    let other = directory.path().join("other.safetensors");
    let mut lion = optimizer(&TransformSpec::new("lion"));
    advance(&mut lion, start(DType::F32), 1);
    save_state(&lion, &other).expect("a file");
    let error = load_state(&mut adamw, &other).expect_err("another chain's");
    assert!(
        matches!(error, OptimError::UnexpectedState { .. }),
        "{error}"
    );
    assert_eq!(adamw.steps_done(), 0);
}
