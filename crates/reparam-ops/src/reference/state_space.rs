//! The parts of state-space layers as compositions of Burn operations.

use burn::tensor::{Tensor, activation};

use crate::ScanInputs;

/// See [`crate::causal_conv`].
pub fn causal_conv(
    x: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    bounds: &[usize],
) -> Tensor<2> {
    let [d, taps] = weight.dims();
    let sequences = bounds.windows(2).filter(|pair| pair[1] > pair[0]);
    let rows = sequences.map(|pair| {
        let len = pair[1] - pair[0];
        let mut padded = vec![x.clone().narrow(0, pair[0], len)];
        if taps > 1 {
            let zeros = Tensor::zeros([taps - 1, d], (&x.device(), x.dtype()));
            padded.insert(0, zeros);
        }
        let x = Tensor::cat(padded, 0);
        let tap = |tap: usize| {
            let weight = weight.clone().narrow(1, tap, 1).transpose();
            x.clone().narrow(0, tap, len) * weight
        };
        let z = (1..taps).fold(tap(0), |sum, next| sum + tap(next));
        match &bias {
            Some(bias) => z + bias.clone().unsqueeze::<2>(),
            None => z,
        }
    });
    let rows: Vec<Tensor<2>> = rows.collect();
    match rows.is_empty() {
        true => x,
        false => activation::silu(Tensor::cat(rows, 0)),
    }
}

/// See [`crate::selective_scan`].
pub fn selective_scan(
    inputs: ScanInputs,
    initial: Option<Tensor<3>>,
    bounds: &[usize],
) -> (Tensor<2>, Tensor<3>) {
    let ScanInputs { u, dt, a, b, c, d } = inputs;
    let [channels, states] = a.dims();
    let sequences = bounds.len().saturating_sub(1);
    let place = (u.device(), u.dtype());
    // ln(1 + exp(x)), which the logarithm of the sigmoid has without overflow.
    let s = activation::log_sigmoid(-dt).neg();
    let (su, a) = (s.clone() * u.clone(), a.transpose());
    let (mut outputs, mut last) = (Vec::new(), Vec::with_capacity(sequences));
    for (sequence, pair) in bounds.windows(2).enumerate() {
        let mut h: Tensor<2> = match &initial {
            Some(initial) => {
                let of_sequence = initial.clone().narrow(0, sequence, 1);
                of_sequence.detach().reshape([states, channels])
            }
            None => Tensor::zeros([states, channels], (&place.0, place.1)),
        };
        for token in pair[0]..pair[1] {
            let row = |of: &Tensor<2>| of.clone().narrow(0, token, 1);
            let decay = (a.clone() * row(&s)).exp();
            h = decay * h + row(&b).transpose() * row(&su);
            outputs.push((row(&c).transpose() * h.clone()).sum_dim(0));
        }
        last.push(h.detach().reshape([1, states, channels]));
    }
    let last = match last.is_empty() {
        true => Tensor::zeros([0, states, channels], (&place.0, place.1)),
        false => Tensor::cat(last, 0),
    };
    let skip = u * d.unsqueeze::<2>();
    match outputs.is_empty() {
        true => (skip, last),
        false => (Tensor::cat(outputs, 0) + skip, last),
    }
}
