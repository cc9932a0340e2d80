//! A training step of a recurrent layer, its products with the input weight included: 32 sequences of
//! 20 to 60 tokens, 256 inputs. `bench/torch_recurrent.py` runs the same step with torch.nn.
//!
//! Milliseconds of CPU on one thread of a Xeon with AVX-512 that other programs shared, medians, 256 units
//! unless it says otherwise. Torch runs padded to the longest sequence, or packed, the packing not timed:
//!
//! | layer | here | torch, padded | torch, packed |
//! | --- | --- | --- | --- |
//! | LSTM | 39 | 59 | 123 |
//! | LSTM, 512 units | 138 | 197 | 330 |
//! | GRU | 36 | 67 | 102 |
//! | RNN, tanh | 11 | 25 | 28 |

use divan::{Bencher, black_box};
use reparam_kernels::linear::{LinearShape, dense_backward_weight, low_rank_forward};
use reparam_kernels::matmul::{MatMut, MatRef, matmul};
use reparam_kernels::recurrent::{
    Cell, RecurrentGrads, RecurrentSaved, RecurrentShape, StateMut, Weights, recurrent_backward,
    recurrent_forward,
};

mod support;
use support::{check, flops, numbers_within};

const SEQUENCES: usize = 32;
const INPUT: usize = 256;

fn main() {
    divan::main();
}

/// A layer with the numbers of its step.
struct Step {
    cell: Cell,
    hidden: usize,
    bounds: Vec<usize>,
    x: Vec<f32>,
    w_ih: Vec<f32>,
    w_hh: Vec<f32>,
    b_hh: Vec<f32>,
    xw: Vec<f32>,
    h: Vec<f32>,
    kept: Vec<f32>,
    dh: Vec<f32>,
    dxw: Vec<f32>,
    dx: Vec<f32>,
    dw_ih: Vec<f32>,
    dw_hh: Vec<f32>,
    db_hh: Vec<f32>,
    /// States of the sequences: hidden, then of an LSTM the cell states.
    state: [Vec<f32>; 2],
}

impl Step {
    fn new(cell: Cell, hidden: usize) -> Self {
        let mut bounds = vec![0];
        for i in 0..SEQUENCES {
            bounds.push(bounds[i] + 20 + i * 7919 % 41);
        }
        let (n, width) = (bounds[SEQUENCES], cell.gates() * hidden);
        let scale = 1.0 / (hidden as f32).sqrt();
        let cells = usize::from(cell.has_cell_state()) * SEQUENCES * hidden;
        Self {
            cell,
            hidden,
            x: numbers_within(1.0, 1, n * INPUT),
            w_ih: numbers_within(scale, 2, width * INPUT),
            w_hh: numbers_within(scale, 3, width * hidden),
            b_hh: numbers_within(scale, 4, width),
            dh: numbers_within(1.0, 5, n * hidden),
            xw: vec![0.0; n * width],
            h: vec![0.0; n * hidden],
            kept: vec![0.0; n * cell.kept() * hidden],
            dxw: vec![0.0; n * width],
            dx: vec![0.0; n * INPUT],
            dw_ih: vec![0.0; width * INPUT],
            dw_hh: vec![0.0; width * hidden],
            db_hh: vec![0.0; width],
            state: [vec![0.0; SEQUENCES * hidden], vec![0.0; cells]],
            bounds,
        }
    }

    fn input_shape(&self) -> LinearShape {
        LinearShape {
            tokens: self.bounds[SEQUENCES],
            d_in: INPUT,
            d_out: self.cell.gates() * self.hidden,
        }
    }

    fn run(&mut self) {
        let input = self.input_shape();
        let shape = RecurrentShape {
            cell: self.cell,
            hidden: self.hidden,
            bounds: &self.bounds,
            reverse: false,
        };
        let (x, w_ih) = (black_box(&self.x), &self.w_ih);
        low_rank_forward(input, x, w_ih, None, None, &mut self.xw, &mut []).expect("shapes fit");
        let weights = Weights {
            w_hh: &self.w_hh,
            b_hh: Some(&self.b_hh),
        };
        let [h, c] = &mut self.state;
        let last = StateMut { h, c };
        let kept = Some(&mut self.kept[..]);
        recurrent_forward(shape, &self.xw, weights, None, &mut self.h, last, kept)
            .expect("shapes fit");
        let saved = RecurrentSaved {
            shape,
            dh: &self.dh,
            dlast: None,
            h: &self.h,
            kept: &self.kept,
            w_hh: &self.w_hh,
            initial: None,
        };
        let [h, c] = &mut self.state;
        let grads = RecurrentGrads {
            dxw: &mut self.dxw,
            dinitial: StateMut { h, c },
            dw_hh: Some(&mut self.dw_hh),
            db_hh: Some(&mut self.db_hh),
        };
        recurrent_backward(saved, grads).expect("shapes fit");
        let (n, width) = (input.tokens, input.d_out);
        let dxw = MatRef::new(&self.dxw, n, width).expect("dxw");
        let w_ih = MatRef::new(&self.w_ih, width, INPUT).expect("w_ih");
        let dx = MatMut::new(&mut self.dx, n, INPUT).expect("dx");
        matmul(dx, dxw, w_ih, 1.0, 0.0).expect("shapes fit");
        dense_backward_weight(input, &self.dxw, &self.x, &mut self.dw_ih).expect("shapes fit");
    }

    /// The states of the first sequence, and the gradient of the bias by differences.
    fn check(&self) {
        let (units, gates) = (self.hidden, self.cell.gates());
        let width = gates * units;
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let (mut h, mut c) = (vec![0.0_f64; units], vec![0.0_f64; units]);
        let mut expected = Vec::new();
        for token in 0..self.bounds[1] {
            let x = |row: usize| f64::from(self.xw[token * width + row]);
            let a = |row: usize| -> f64 {
                let products = self.w_hh[row * units..][..units].iter().zip(&h);
                let sum: f64 = products.map(|(w, h)| f64::from(*w) * h).sum();
                sum + f64::from(self.b_hh[row])
            };
            let next = |unit: usize| {
                let sum = |gate: usize| x(gate * units + unit) + a(gate * units + unit);
                match self.cell {
                    Cell::Tanh => (sum(0).tanh(), 0.0),
                    Cell::Relu => (sum(0).max(0.0), 0.0),
                    Cell::Lstm => {
                        let c = sigmoid(sum(1)) * c[unit] + sigmoid(sum(0)) * sum(2).tanh();
                        (sigmoid(sum(3)) * c.tanh(), c)
                    }
                    Cell::Gru => {
                        let row = 2 * units + unit;
                        let n = (x(row) + sigmoid(sum(0)) * a(row)).tanh();
                        (n + sigmoid(sum(1)) * (h[unit] - n), 0.0)
                    }
                }
            };
            (h, c) = (0..units).map(next).unzip();
            expected.extend(h.iter().map(|&h| h as f32));
        }
        check("h", &self.h[..expected.len()], &expected, 1e-5);
        // Along its own gradient the objective changes by the square of that, through all of time.
        let step = 1e-3 / self.db_hh.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
        let change = (self.objective(step) - self.objective(-step)) / (2.0 * f64::from(step));
        let square: f64 = self.db_hh.iter().map(|x| f64::from(*x).powi(2)).sum();
        check("db_hh", &[square as f32], &[change as f32], 1e-2);
    }

    /// `sum dh h` with the bias moved along its gradient.
    fn objective(&self, step: f32) -> f64 {
        let moved = self.b_hh.iter().zip(&self.db_hh);
        let moved: Vec<f32> = moved.map(|(b, db)| b + step * db).collect();
        let shape = RecurrentShape {
            cell: self.cell,
            hidden: self.hidden,
            bounds: &self.bounds,
            reverse: false,
        };
        let weights = Weights {
            w_hh: &self.w_hh,
            b_hh: Some(&moved),
        };
        let mut states = vec![0.0; self.h.len()];
        let [mut h, mut c] = self.state.clone();
        let last = StateMut {
            h: &mut h,
            c: &mut c,
        };
        recurrent_forward(shape, &self.xw, weights, None, &mut states, last, None)
            .expect("shapes fit");
        let products = states.iter().zip(&self.dh);
        products.map(|(h, dh)| f64::from(*h) * f64::from(*dh)).sum()
    }
}

const ARGS: [(Cell, usize); 4] = [
    (Cell::Lstm, 256),
    (Cell::Lstm, 512),
    (Cell::Gru, 256),
    (Cell::Tanh, 256),
];

#[divan::bench(args = ARGS)]
fn step(bencher: Bencher<'_, '_>, (cell, hidden): (Cell, usize)) {
    let mut step = Step::new(cell, hidden);
    step.run();
    step.check();
    let input = step.input_shape();
    let products = 3 * 2 * input.tokens * input.d_out * (INPUT + hidden);
    bencher.counter(flops(products)).bench_local(|| step.run());
}
