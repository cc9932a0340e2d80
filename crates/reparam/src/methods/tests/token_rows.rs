//! Rows of a table: the effective weight by its definition, the two short ways to it, and their gradients.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use reparam_ops::embedding;

use super::super::{TrainableRows, attach_rows, planned, trained_rows};
use crate::methods::{self, LoraConfig, MethodError};
use crate::{ForwardContext, Linear, Weight, parameters};

const N_ROWS: usize = 7;
const WIDTH: usize = 3;
const ROWS: &str = "table.token_adapter.trainable_tokens_delta";

/// A table that is looked up and multiplied with, beside a layer that is none of it.
#[derive(Module, Debug)]
struct Tied {
    table: Table,
    inner: Linear,
}

#[derive(Module, Debug)]
struct Table {
    weight: Weight,
}

fn numbers(count: usize, seed: f64) -> Vec<f64> {
    (0..count)
        .map(|at| (at as f64 * 0.7 + seed).sin())
        .collect()
}

fn tensor(values: Vec<f64>, dims: [usize; 2]) -> Tensor<2> {
    let device = Device::flex().autodiff();
    Tensor::from_data(TensorData::new(values, dims), (&device, DType::F64))
}

fn model() -> Tied {
    let frozen =
        |weight: Tensor<2>| Weight::Dense(Param::from_tensor(weight).set_require_grad(false));
    Tied {
        table: Table {
            weight: frozen(tensor(numbers(N_ROWS * WIDTH, 0.3), [N_ROWS, WIDTH])),
        },
        inner: Linear {
            weight: frozen(tensor(numbers(WIDTH * WIDTH, 1.1), [WIDTH, WIDTH])),
            bias: None,
        },
    }
}

fn rows(indices: &[u32], values: Option<Vec<f32>>) -> TrainableRows {
    TrainableRows {
        module: "table".to_owned(),
        indices: indices.to_vec(),
        values,
    }
}

fn flat(tensor: Tensor<2>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

/// What is looked up, and the logits of it: as a tied model computes them.
fn short(model: &Tied, ids: &[u32]) -> (Tensor<2>, Tensor<2>) {
    let param = model.table.weight.param();
    let attached = model.table.weight.attached().expect("rows");
    let looked_up = attached.rows(embedding(param.base(), ids), ids);
    let looked_up = looked_up.expect("rows look up");
    let (weight, plan) = planned(param, &ForwardContext::inference());
    assert_eq!(plan.low_rank.len(), 1);
    (
        looked_up.clone(),
        reparam_ops::linear(looked_up, weight, plan),
    )
}

#[test]
fn rows_take_the_place_of_those_of_the_table() {
    let values: Vec<f32> = (0..2 * WIDTH).map(|at| at as f32 - 2.5).collect();
    let model = attach_rows(model(), &[rows(&[5, 2], Some(values.clone()))]).expect("attaches");
    let mut expected = numbers(N_ROWS * WIDTH, 0.3);
    for (index, row) in [5, 2].into_iter().zip(values.chunks_exact(WIDTH)) {
        for (place, value) in row.iter().enumerate() {
            expected[index * WIDTH + place] = f64::from(*value);
        }
    }
    assert_eq!(
        flat(model.table.weight.dense().expect("a tensor")),
        expected
    );
    let ids = [5, 0, 2, 2, 6];
    let (looked_up, logits) = short(&model, &ids);
    let wanted = embedding(tensor(expected.clone(), [N_ROWS, WIDTH]), &ids);
    assert_eq!(flat(looked_up), flat(wanted.clone()));
    let wanted = flat(wanted.matmul(tensor(expected, [N_ROWS, WIDTH]).transpose()));
    for (found, wanted) in flat(logits).into_iter().zip(wanted) {
        assert!((found - wanted).abs() < 1e-12, "{found} {wanted}");
    }
    let names: Vec<String> = parameters::trainable(&model)
        .into_iter()
        .map(|tensor| tensor.name)
        .collect();
    assert_eq!(names, [ROWS]);
    assert_eq!(trained_rows(&model)["table"], [5, 2]);
}

/// Without values the rows are those of the table, so that nothing changes.
#[test]
fn rows_begin_as_those_of_the_table() {
    let before = model();
    let after = attach_rows(model(), &[rows(&[1, 6], None)]).expect("attaches");
    let weight = |model: &Tied| flat(model.table.weight.dense().expect("a tensor"));
    assert_eq!(weight(&before), weight(&after));
}

/// The gradient reaches the rows from the look-up and from the head, by both ways to the weight as central differences say.
#[test]
fn the_gradient_is_that_of_central_differences() {
    let ids = [5_u32, 0, 2, 2, 6];
    let values: Vec<f32> = (0..2 * WIDTH).map(|at| 0.25 * at as f32 - 0.5).collect();
    let at =
        |values: Vec<f32>| attach_rows(model(), &[rows(&[5, 2], Some(values))]).expect("attaches");
    let loss = |model: &Tied, is_short: bool| -> Tensor<1> {
        let (h, logits) = match is_short {
            true => short(model, &ids),
            false => {
                let weight = model.table.weight.dense().expect("a tensor");
                let h = embedding(weight.clone(), &ids);
                (h.clone(), h.matmul(weight.transpose()))
            }
        };
        (logits.clone() * logits.tanh()).sum() + h.powi_scalar(3).sum()
    };
    let number = |model: &Tied| flat(loss(model, true).unsqueeze::<2>())[0];
    for is_short in [true, false] {
        let model = at(values.clone());
        let mut graph = loss(&model, is_short).backward();
        let gradients = parameters::take_gradients(&model, &mut graph);
        let gradient: Vec<f64> = gradients[0].values.clone().into_data().iter().collect();
        for (place, found) in gradient.iter().enumerate() {
            // A step that f32 holds exactly.
            let step = 2.0_f32.powi(-12);
            let moved = |by: f32| {
                let mut values = values.clone();
                values[place] += by;
                number(&at(values))
            };
            let expected = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
            assert!(
                (found - expected).abs() < 1e-5,
                "{is_short} {place}: {found} {expected}"
            );
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let attached = || attach_rows(model(), &[rows(&[1], None)]).expect("attaches");
    let elsewhere = TrainableRows {
        module: "nowhere".to_owned(),
        ..rows(&[1], None)
    };
    for (model, rows, problem) in [
        (model(), elsewhere, "no such table"),
        (model(), rows(&[7], None), "fewer rows"),
        (model(), rows(&[1, 1], None), "each once"),
        (model(), rows(&[], None), "has to be a token"),
        (model(), rows(&[1], Some(vec![0.0; 2])), "another width"),
        (attached(), rows(&[2], None), "a method is attached"),
    ] {
        let error = attach_rows(model, &[rows]).map(|_| ()).expect_err(problem);
        assert!(matches!(error, MethodError::TokenRows { .. }), "{error}");
        assert!(error.to_string().contains(problem), "{error}");
        assert!(error.hint().is_some());
    }
    // It stands beside the methods of layers.
    let config = LoraConfig::new(2, 4.0);
    let (lora, _) = methods::attach(model(), &config, 0).expect("attaches");
    let both = attach_rows(lora, &[rows(&[3], None)]).expect("attaches");
    let names: Vec<String> = parameters::trainable(&both)
        .into_iter()
        .map(|tensor| tensor.name)
        .collect();
    assert_eq!(names, [ROWS, "inner.lora_A.weight", "inner.lora_B.weight"]);
}
