//! What the layers of state-space models are made of beside products: a convolution over the last tokens, and a selective scan.

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use reparam_kernels::causal_conv::{ConvShape, causal_conv_backward, causal_conv_forward};
use reparam_kernels::selective_scan as kernels;
use reparam_kernels::selective_scan::{ScanGrads, ScanShape};

use crate::native::{self, Operation, from_values, values};
use crate::profile::{self, Work};
use crate::reference;

/// Convolves each channel over a token and those before it in its sequence, and applies SiLU.
///
/// ```text
/// z_tc = bias_c + sum_k weight_ck x_(t - K + 1 + k)c      k in 0..K, 0 before the sequence
/// y_tc = silu(z_tc)
/// ```
///
/// # Shapes
///
/// - x, output: `[N, d]`
/// - weight: `[d, K]`, bias: `[d]`
/// - bounds: `[0, n1, n1 + n2, ..., N]`
///
/// # Panics
///
/// Panics unless all have these shapes and the bounds rise.
///
/// # Cost
///
/// `2 N d K` operations in the forward pass, three times that in the backward pass. Keeps `x`; `z` is computed again.
///
/// # References
///
/// `torch.nn.Conv1d` with as many groups as channels, as in Gu and Dao, *Mamba* (arXiv 2312.00752), section 3.4.
pub fn causal_conv(
    x: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    bounds: &[usize],
) -> Tensor<2> {
    let [n, d] = x.dims();
    let [channels, taps] = weight.dims();
    assert_eq!(channels, d, "a weight for each channel");
    assert_eq!(bounds.last().copied().unwrap_or(0), n, "the bounds");
    assert!(bounds.is_sorted(), "the bounds");
    let is_native = native::is_native(&x)
        && native::is_native(&weight)
        && bias.as_ref().is_none_or(native::is_native);
    if !is_native {
        return reference::causal_conv(x, weight, bias, bounds);
    }
    let mut operation = Operation::default();
    let (x, weight) = (operation.input(x), operation.input(weight));
    let bias = operation.optional_input(bias);
    let bounds = bounds.to_vec();
    let operations = 2.0 * (n * d * taps) as f64;
    let mut y = vec![0.0; n * d];
    profile::measure(Work::Recurrent, operations, || {
        native::run(causal_conv_forward(
            conv_shape([d, taps], &bounds),
            values(&x),
            values(&weight),
            bias.as_ref().map(values),
            &mut y,
        ));
    });
    operation.output(from_values(y, [n, d]), move |dy, [_, _, wants_bias]| {
        let (mut dx, mut dweight) = (vec![0.0; n * d], vec![0.0; d * taps]);
        let mut dbias = wants_bias.then(|| vec![0.0; d]);
        profile::measure(Work::Recurrent, 3.0 * operations, || {
            native::run(causal_conv_backward(
                conv_shape([d, taps], &bounds),
                values(&dy),
                values(&x),
                values(&weight),
                bias.as_ref().map(values),
                &mut dx,
                &mut dweight,
                dbias.as_deref_mut(),
            ));
        });
        [
            Some(from_values(dx, [n, d])),
            Some(from_values(dweight, [d, taps])),
            dbias.map(|dbias| from_values(dbias, [d])),
        ]
    })
}

fn conv_shape([channels, taps]: [usize; 2], bounds: &[usize]) -> ConvShape<'_> {
    ConvShape {
        channels,
        taps,
        bounds,
    }
}

/// What a [selective scan](selective_scan) reads.
#[derive(Debug, Clone)]
pub struct ScanInputs {
    /// `u`, `[N, d]`
    pub u: Tensor<2>,
    /// `dt`, `[N, d]`, before the softplus.
    pub dt: Tensor<2>,
    /// `A`, `[d, n]`
    pub a: Tensor<2>,
    /// `B`, `[N, n]`
    pub b: Tensor<2>,
    /// `C`, `[N, n]`
    pub c: Tensor<2>,
    /// `D`, `[d]`
    pub d: Tensor<1>,
}

/// Runs a selective scan over the sequences of a flat batch. Returns its output and the states after the last token of each.
///
/// With `s = softplus(dt)`, for each channel `c` and each of its `n` states `j`:
///
/// ```text
/// h_tcj = exp(s_tc A_cj) h_(t-1)cj + s_tc B_tj u_tc
/// y_tc  = sum_j C_tj h_tcj + D_c u_tc
/// ```
///
/// A sequence begins with zeros, or with the states of `initial`.
///
/// # Shapes
///
/// `N` tokens, `B` sequences.
///
/// - output: `[N, d]`
/// - initial, last states: `[B, n, d]`
/// - bounds: `[0, n1, n1 + n2, ..., N]`
///
/// # Panics
///
/// Panics unless all have these shapes and the bounds rise.
///
/// # Gradients
///
/// Of all six inputs, from the output alone: none flows into the initial states, nor from the last ones.
///
/// # Cost
///
/// About `N d n` exponentials in the forward pass, as many in the backward pass. Keeps the inputs and the states before every 32nd
/// token of a sequence, `N d n / 32` numbers; those between are computed again. The backward pass takes `2 N n` numbers for each
/// 64 channels in addition.
///
/// # References
///
/// Gu and Dao, *Mamba: Linear-Time Sequence Modeling with Selective State Spaces* (arXiv 2312.00752), algorithm 2. Differs from the
/// paper as its authors' code does: `B` is discretized as `s B` in place of `(exp(s A) - 1) / A B`.
pub fn selective_scan(
    inputs: ScanInputs,
    initial: Option<Tensor<3>>,
    bounds: &[usize],
) -> (Tensor<2>, Tensor<3>) {
    let [n, d] = inputs.u.dims();
    let [_, states] = inputs.a.dims();
    let sequences = bounds.len().saturating_sub(1);
    assert_eq!(inputs.dt.dims(), [n, d], "dt");
    assert_eq!(inputs.a.dims(), [d, states], "A");
    assert_eq!(inputs.b.dims(), [n, states], "B");
    assert_eq!(inputs.c.dims(), [n, states], "C");
    assert_eq!(inputs.d.dims(), [d], "D");
    assert_eq!(bounds.last().copied().unwrap_or(0), n, "the bounds");
    assert!(bounds.is_sorted(), "the bounds");
    if let Some(initial) = &initial {
        assert_eq!(initial.dims(), [sequences, states, d], "initial states");
    }
    let matrices = [&inputs.u, &inputs.dt, &inputs.a, &inputs.b, &inputs.c];
    let is_native = matrices.into_iter().all(native::is_native)
        && native::is_native(&inputs.d)
        && initial.as_ref().is_none_or(native::is_native);
    if !is_native {
        return reference::selective_scan(inputs, initial, bounds);
    }
    let mut operation = Operation::default();
    let inputs = {
        let ScanInputs { u, dt, a, b, c, d } = inputs;
        let [u, dt, a, b, c] = [u, dt, a, b, c].map(|input| operation.input(input));
        [u, dt, a, b, c, operation.input(d)]
    };
    let initial = initial.map(native::primitive);
    let bounds = bounds.to_vec();
    let mut y = vec![0.0; n * d];
    let mut last = vec![0.0; sequences * states * d];
    let is_tracked = operation.is_tracked();
    let mut kept = is_tracked.then(|| vec![0.0; scan_shape([d, states], &bounds).kept()]);
    // An exponential counts as one.
    let operations = 6.0 * (n * d * states) as f64;
    profile::measure(Work::Recurrent, operations, || {
        native::run(kernels::selective_scan_forward(
            scan_shape([d, states], &bounds),
            of_kernel(&inputs),
            initial.as_ref().map(values),
            &mut y,
            &mut last,
            kept.as_deref_mut(),
        ));
    });
    let last = from_values(last, [sequences, states, d]);
    let last = native::untracked(last, false);
    let output = operation.output(from_values(y, [n, d]), move |dy, _: [bool; 6]| {
        let zeros = |len: usize| vec![0.0; len];
        let (mut du, mut ddt, mut da) = (zeros(n * d), zeros(n * d), zeros(d * states));
        let (mut db, mut dc, mut dd) = (zeros(n * states), zeros(n * states), zeros(d));
        profile::measure(Work::Recurrent, 3.0 * operations, || {
            native::run(kernels::selective_scan_backward(
                scan_shape([d, states], &bounds),
                of_kernel(&inputs),
                values(&dy),
                kept.as_deref().unwrap_or(&[]),
                ScanGrads {
                    du: &mut du,
                    ddt: &mut ddt,
                    da: &mut da,
                    db: &mut db,
                    dc: &mut dc,
                    dd: &mut dd,
                },
            ));
        });
        [
            Some(from_values(du, [n, d])),
            Some(from_values(ddt, [n, d])),
            Some(from_values(da, [d, states])),
            Some(from_values(db, [n, states])),
            Some(from_values(dc, [n, states])),
            Some(from_values(dd, [d])),
        ]
    });
    (output, last)
}

fn scan_shape([channels, states]: [usize; 2], bounds: &[usize]) -> ScanShape<'_> {
    ScanShape {
        channels,
        states,
        bounds,
    }
}

fn of_kernel(inputs: &[FlexTensor; 6]) -> kernels::ScanInputs<'_> {
    let [u, dt, a, b, c, d] = inputs.each_ref().map(values);
    kernels::ScanInputs { u, dt, a, b, c, d }
}
