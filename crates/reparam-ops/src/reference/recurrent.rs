//! Recurrent layers as a composition of Burn operations.

use burn::tensor::activation::{relu, sigmoid};
use burn::tensor::{Int, Tensor, TensorData};
use reparam_kernels::recurrent::Cell;

use crate::RecurrentState;

/// See [`crate::recurrent`].
///
/// At each step the sequences that still go on are the first ones of those sorted by length.
pub fn recurrent(
    xw: Tensor<2>,
    w_hh: Tensor<2>,
    b_hh: Option<Tensor<1>>,
    initial: Option<RecurrentState>,
    cell: Cell,
    bounds: &[usize],
    reverse: bool,
) -> (Tensor<2>, RecurrentState) {
    let [_, hidden] = w_hh.dims();
    let lengths: Vec<usize> = bounds.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&sequence| std::cmp::Reverse(lengths[sequence]));
    let zeros = || Tensor::zeros([lengths.len(), hidden], (&xw.device(), xw.dtype()));
    let sorted = |state: Tensor<2>| rows(state, &order);
    let (h, c) = initial.map_or((None, None), |state| (Some(state.h), state.c));
    let mut h = h.map_or_else(zeros, sorted);
    let mut c = c.map_or_else(zeros, sorted);
    let mut outputs = Vec::new();
    let mut places = Vec::new();
    // The last states of those that have ended; the first of them ended last.
    let (mut ended_h, mut ended_c) = (Vec::new(), Vec::new());
    let longest = lengths.iter().copied().max().unwrap_or(0);
    for step in 1..=longest {
        let alive = order.partition_point(|&sequence| lengths[sequence] >= step);
        let [before, _] = h.dims();
        if alive < before {
            ended_h.push(h.clone().narrow(0, alive, before - alive));
            ended_c.push(c.clone().narrow(0, alive, before - alive));
            h = h.narrow(0, 0, alive);
            c = c.narrow(0, 0, alive);
        }
        let token = |&sequence: &usize| match reverse {
            false => bounds[sequence] + step - 1,
            true => bounds[sequence + 1] - step,
        };
        let tokens: Vec<usize> = order[..alive].iter().map(token).collect();
        let mut a = h.clone().matmul(w_hh.clone().transpose());
        if let Some(bias) = &b_hh {
            a = a + bias.clone().unsqueeze::<2>();
        }
        (h, c) = next(cell, rows(xw.clone(), &tokens), a, h, c);
        outputs.push(h.clone());
        places.extend(tokens);
    }
    ended_h.push(h);
    ended_c.push(c);
    let joined = |mut ended: Vec<Tensor<2>>| {
        ended.reverse();
        rows(Tensor::cat(ended, 0), &inverse(&order))
    };
    let last = RecurrentState {
        h: joined(ended_h),
        c: cell.has_cell_state().then(|| joined(ended_c)),
    };
    if outputs.is_empty() {
        return (Tensor::zeros([0, hidden], (&xw.device(), xw.dtype())), last);
    }
    (rows(Tensor::cat(outputs, 0), &inverse(&places)), last)
}

/// The new states, of the gates' parts from the input and from the states before.
fn next(
    cell: Cell,
    x: Tensor<2>,
    a: Tensor<2>,
    h: Tensor<2>,
    c: Tensor<2>,
) -> (Tensor<2>, Tensor<2>) {
    let [_, hidden] = h.dims();
    let gate = |of: &Tensor<2>, gate: usize| of.clone().narrow(1, gate * hidden, hidden);
    let sum = |index: usize| gate(&x, index) + gate(&a, index);
    match cell {
        Cell::Tanh => (sum(0).tanh(), c),
        Cell::Relu => (relu(sum(0)), c),
        Cell::Lstm => {
            let c = sigmoid(sum(1)) * c + sigmoid(sum(0)) * sum(2).tanh();
            (sigmoid(sum(3)) * c.clone().tanh(), c)
        }
        Cell::Gru => {
            let n = (gate(&x, 2) + sigmoid(sum(0)) * gate(&a, 2)).tanh();
            (n.clone() + sigmoid(sum(1)) * (h - n), c)
        }
    }
}

/// Some rows of a tensor.
fn rows(of: Tensor<2>, rows: &[usize]) -> Tensor<2> {
    let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    let data = TensorData::new(rows.clone(), [rows.len()]);
    let rows = Tensor::<1, Int>::from_data(data, &of.device());
    of.select(0, rows)
}

/// Where each number of a permutation stands in it.
fn inverse(permutation: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; permutation.len()];
    for (place, &number) in permutation.iter().enumerate() {
        inverse[number] = place;
    }
    inverse
}
