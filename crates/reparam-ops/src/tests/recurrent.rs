//! Recurrent layers: native against the reference, and both against torch.nn.

use std::collections::BTreeMap;

use super::*;

type Recurrent = fn(
    Tensor<2>,
    Tensor<2>,
    Option<Tensor<1>>,
    Option<RecurrentState>,
    Cell,
    &[usize],
    bool,
) -> (Tensor<2>, RecurrentState);

const CELLS: [Cell; 4] = [Cell::Tanh, Cell::Relu, Cell::Lstm, Cell::Gru];

/// torch's f64 with sums in another order.
const F64_TOLERANCE: f64 = 1e-12;

/// The states and the last states of all, as one matrix.
fn joined((h, last): (Tensor<2>, RecurrentState)) -> Tensor<2> {
    Tensor::cat([h, last.h].into_iter().chain(last.c).collect(), 0)
}

#[test]
fn with_bias_and_initial_states() {
    const BOUNDS: [usize; 5] = [0, 3, 4, 4, 9];
    for cell in CELLS {
        let (hidden, width) = (5, 5 * cell.gates());
        let run = move |inputs: Vec<Tensor<2>>, reverse: bool, f: Recurrent| {
            let mut inputs = inputs.into_iter();
            let mut next = || inputs.next().expect("an input");
            let (xw, w_hh, b_hh) = (next(), next(), next().reshape([width]));
            let (h, c) = (next(), cell.has_cell_state().then(next));
            let initial = Some(RecurrentState { h, c });
            joined(f(xw, w_hh, Some(b_hh), initial, cell, &BOUNDS, reverse))
        };
        for reverse in [false, true] {
            let mut dims = vec![[9, width], [width, hidden], [1, width], [4, hidden]];
            if cell.has_cell_state() {
                dims.push([4, hidden]);
            }
            Case::new(
                &dims,
                move |inputs| run(inputs, reverse, recurrent),
                move |inputs| run(inputs, reverse, reference::recurrent),
            )
            .check();
        }
    }
}

/// Without what is optional, and with the states of the tokens alone.
#[test]
fn of_nothing_but_weights() {
    for cell in CELLS {
        let run = move |inputs: Vec<Tensor<2>>, f: Recurrent| {
            let [xw, w_hh] = inputs.try_into().expect("two inputs");
            f(xw, w_hh, None, None, cell, &[0, 6, 8, 15], false).0
        };
        let width = 20 * cell.gates();
        Case::new(
            &[[15, width], [width, 20]],
            move |inputs| run(inputs, recurrent),
            move |inputs| run(inputs, reference::recurrent),
        )
        .check();
    }
}

/// As with a method on the input's weight alone.
#[test]
fn frozen_weights_have_no_gradient() {
    for cell in CELLS {
        let width = 4 * cell.gates();
        let frozen = |rows: usize, cols: usize, seed| {
            tensor(&numbers(rows * cols, seed), [rows, cols], DType::F32)
        };
        let run = |f: Recurrent| {
            let device = Device::flex().autodiff();
            let on = |x: Tensor<2>| x.to_device(&device);
            let xw = on(frozen(5, width, 1)).require_grad();
            let w_hh = on(frozen(width, 4, 2));
            let b_hh = on(frozen(1, width, 3)).reshape([width]);
            let h = on(frozen(2, 4, 4));
            let c = cell.has_cell_state().then(|| h.clone());
            let initial = Some(RecurrentState { h, c });
            let outputs = f(
                xw.clone(),
                w_hh.clone(),
                Some(b_hh),
                initial,
                cell,
                &[0, 2, 5],
                true,
            );
            let gradients = joined(outputs).sum().backward();
            assert!(w_hh.grad(&gradients).is_none(), "{cell:?}");
            values(xw.grad(&gradients).expect("a gradient"))
        };
        let (found, expected) = (run(recurrent), run(reference::recurrent));
        assert_close(&found, &expected, TOLERANCE, "the gradient of xw");
    }
}

#[test]
fn a_batch_may_have_no_token() {
    for cell in CELLS {
        for f in [recurrent as Recurrent, reference::recurrent] {
            let width = 3 * cell.gates();
            let xw = Tensor::zeros([0, width], &Device::flex());
            let w_hh = Tensor::zeros([width, 3], &Device::flex());
            let (h, last) = f(xw, w_hh, None, None, cell, &[0, 0], false);
            assert_eq!((h.dims(), last.h.dims()), ([0, 3], [1, 3]), "{cell:?}");
        }
    }
}

/// A state that is carried over runs a sequence in two parts as in one.
#[test]
fn a_state_goes_on_where_it_ended() {
    for cell in CELLS {
        let width = 6 * cell.gates();
        let [xw, w_hh] = [(8, 1), (6, 2)].map(|(rows, seed)| {
            let (rows, cols) = if seed == 1 {
                (rows, width)
            } else {
                (width, rows)
            };
            tensor(&numbers(rows * cols, seed), [rows, cols], DType::F32)
        });
        let run = |xw: Tensor<2>, initial, bounds: &[usize]| {
            recurrent(xw, w_hh.clone(), None, initial, cell, bounds, false)
        };
        let (expected, _) = run(xw.clone(), None, &[0, 8]);
        let (first, state) = run(xw.clone().narrow(0, 0, 3), None, &[0, 3]);
        let (second, _) = run(xw.narrow(0, 3, 5), Some(state), &[0, 5]);
        let found = values(Tensor::cat(vec![first, second], 0));
        assert_eq!(found, values(expected), "{cell:?}");
    }
}

/// Named numbers of a golden case.
type Numbers = BTreeMap<String, Vec<f64>>;

fn golden() -> serde_json::Value {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../testdata/golden/recurrent.json"
    );
    let text = std::fs::read_to_string(path).expect("golden");
    serde_json::from_str(&text).expect("JSON")
}

fn group(case: &serde_json::Value, name: &str) -> Numbers {
    serde_json::from_value(case[name].clone()).expect("named numbers")
}

#[test]
fn both_directions_are_those_of_torch() {
    let golden = golden();
    let size = |name: &str| golden[name].as_u64().expect("a size") as usize;
    let (input, hidden) = (size("input"), size("hidden"));
    let bounds: Vec<usize> = serde_json::from_value(golden["bounds"].clone()).expect("bounds");
    let names = ["tanh", "relu", "lstm", "gru"];
    for (name, cell) in names.into_iter().zip(CELLS) {
        let case = &golden["cases"][name];
        let runs: [(DType, Recurrent, f64); 3] = [
            (DType::F32, recurrent, TOLERANCE),
            (DType::F64, recurrent, F64_TOLERANCE),
            (DType::F64, reference::recurrent, F64_TOLERANCE),
        ];
        for (dtype, f, tolerance) in runs {
            let layer = GoldenLayer {
                case,
                input,
                hidden,
                bounds: &bounds,
                cell,
                dtype,
            };
            layer.check(f, tolerance, name);
        }
    }
}

/// A bidirectional layer as torch has it.
struct GoldenLayer<'a> {
    case: &'a serde_json::Value,
    input: usize,
    hidden: usize,
    bounds: &'a [usize],
    cell: Cell,
    dtype: DType,
}

impl GoldenLayer<'_> {
    fn check(&self, f: Recurrent, tolerance: f64, name: &str) {
        let (inputs, parameters) = (group(self.case, "inputs"), group(self.case, "parameters"));
        let (tokens, sequences) = (self.bounds[self.bounds.len() - 1], self.bounds.len() - 1);
        let width = self.cell.gates() * self.hidden;
        let leaf = |values: &[f64], dims| tensor(values, dims, self.dtype).require_grad();
        let x = leaf(&inputs["x"], [tokens, self.input]);
        let states = |name: &str| {
            let values = inputs.get(name)?;
            Some(leaf(values, [2 * sequences, self.hidden]))
        };
        let (h0, c0) = (states("h0").expect("h0"), states("c0"));
        let mut leaves = vec![("x".to_owned(), x.clone()), ("h0".to_owned(), h0.clone())];
        leaves.extend(c0.clone().map(|c0| ("c0".to_owned(), c0)));
        let (mut outputs, mut last_h, mut last_c) = (Vec::new(), Vec::new(), Vec::new());
        for (direction, suffix) in ["", "_reverse"].into_iter().enumerate() {
            let mut parameter = |kind: &str, dims| {
                let name = format!("{kind}_l0{suffix}");
                let leaf = leaf(&parameters[&name], dims);
                leaves.push((name, leaf.clone()));
                leaf
            };
            let w_ih = parameter("weight_ih", [width, self.input]);
            let w_hh = parameter("weight_hh", [width, self.hidden]);
            let b_ih = parameter("bias_ih", [1, width]);
            let b_hh = parameter("bias_hh", [1, width]).reshape([width]);
            let xw = linear(x.clone(), w_ih, LinearPlan::default()) + b_ih;
            let of = |states: &Tensor<2>| {
                let states = states.clone();
                states.narrow(0, direction * sequences, sequences)
            };
            let initial = Some(RecurrentState {
                h: of(&h0),
                c: c0.as_ref().map(of),
            });
            let reverse = direction == 1;
            let (h, last) = f(
                xw,
                w_hh,
                Some(b_hh),
                initial,
                self.cell,
                self.bounds,
                reverse,
            );
            outputs.push(h);
            last_h.push(last.h);
            last_c.extend(last.c);
        }
        let mut found = vec![
            ("output", Tensor::cat(outputs, 1)),
            ("h_n", Tensor::cat(last_h, 0)),
        ];
        if !last_c.is_empty() {
            found.push(("c_n", Tensor::cat(last_c, 0)));
        }
        let (expected, weights) = (group(self.case, "outputs"), group(self.case, "weights"));
        let mut objective = Vec::new();
        for (output, found) in found {
            let what = format!("{name} {:?} {output}", self.dtype);
            let weights = tensor(&weights[output], found.dims(), self.dtype);
            objective.push((found.clone() * weights).sum());
            assert_close(&values(found), &expected[output], tolerance, &what);
        }
        let grads = Tensor::cat(objective, 0).sum().backward();
        let expected = group(self.case, "gradients");
        assert_eq!(leaves.len(), expected.len(), "{name}");
        for (leaf, tensor) in leaves {
            let what = format!("{name} {:?} gradient of {leaf}", self.dtype);
            let found = values(tensor.grad(&grads).expect("a gradient"));
            assert_close(&found, &expected[&leaf], tolerance, &what);
        }
    }
}
