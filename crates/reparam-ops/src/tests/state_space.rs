//! The parts of state-space layers: native against the reference, and the reference against differences.

use super::*;

type Conv = fn(Tensor<2>, Tensor<2>, Option<Tensor<1>>, &[usize]) -> Tensor<2>;
type Scan = fn(ScanInputs, Option<Tensor<3>>, &[usize]) -> (Tensor<2>, Tensor<3>);

#[test]
fn convolutions() {
    const BOUNDS: [usize; 5] = [0, 2, 2, 9, 12];
    for (channels, taps, has_bias) in [(5, 4, true), (18, 3, false), (3, 1, true)] {
        let run = move |inputs: Vec<Tensor<2>>, f: Conv| {
            let mut inputs = inputs.into_iter();
            let (x, weight) = (inputs.next().expect("x"), inputs.next().expect("a weight"));
            let bias = inputs.next().map(|bias| bias.reshape([channels]));
            f(x, weight, bias, &BOUNDS)
        };
        let mut dims = vec![[12, channels], [channels, taps]];
        if has_bias {
            dims.push([1, channels]);
        }
        Case::new(
            &dims,
            move |inputs| run(inputs, causal_conv),
            move |inputs| run(inputs, reference::causal_conv),
        )
        .check();
    }
}

fn scan_inputs(inputs: Vec<Tensor<2>>) -> ScanInputs {
    let [u, dt, a, b, c, d] = inputs.try_into().expect("six inputs");
    let [_, channels] = d.dims();
    ScanInputs {
        u,
        dt: dt * 2.0,
        // All states decay.
        a: a - 1.1,
        b,
        c,
        d: d.reshape([channels]),
    }
}

fn scan_dims(tokens: usize, channels: usize, states: usize) -> [[usize; 2]; 6] {
    let (rows, coefficients) = ([tokens, channels], [tokens, states]);
    [
        rows,
        rows,
        [channels, states],
        coefficients,
        coefficients,
        [1, channels],
    ]
}

#[test]
fn scans() {
    // The second sequence is longer than what is computed again at once.
    const BOUNDS: [usize; 5] = [0, 3, 3, 39, 44];
    for (channels, states) in [(3, 2), (19, 5)] {
        let run = |inputs: Vec<Tensor<2>>, f: Scan| f(scan_inputs(inputs), None, &BOUNDS).0;
        Case::new(
            &scan_dims(44, channels, states),
            move |inputs| run(inputs, selective_scan),
            move |inputs| run(inputs, reference::selective_scan),
        )
        .check();
    }
}

/// A state that is carried over runs a sequence in two parts as in one, and has no gradient.
#[test]
fn a_scan_goes_on_where_it_ended() {
    let dims = scan_dims(9, 20, 4);
    for (f, dtype) in [
        (selective_scan as Scan, DType::F32),
        (selective_scan, DType::F64),
        (reference::selective_scan, DType::F32),
    ] {
        let inputs = |from: usize, len: usize| {
            let all = dims.iter().enumerate().map(|(seed, dims)| {
                let all = tensor(&numbers(dims[0] * dims[1], seed as u64 + 1), *dims, dtype);
                match dims[0] == 9 {
                    true => all.narrow(0, from, len),
                    false => all,
                }
            });
            scan_inputs(all.collect())
        };
        let (expected, last) = f(inputs(0, 9), None, &[0, 9]);
        let (first, state) = f(inputs(0, 4), None, &[0, 4]);
        assert_eq!(state.dims(), [1, 4, 20]);
        let state = state.autodiff().require_grad();
        let (second, end) = f(inputs(4, 5), Some(state), &[0, 5]);
        let tolerance = if dtype == DType::F64 {
            1e-14
        } else {
            TOLERANCE
        };
        let found = values(Tensor::cat(vec![first, second], 0));
        assert_close(&found, &values(expected), tolerance, "output");
        assert!(!end.is_tracked());
        assert_close(&values(end), &values(last), tolerance, "last states");
    }
}

#[test]
fn a_batch_may_have_no_token() {
    for f in [selective_scan as Scan, reference::selective_scan] {
        let inputs = scan_dims(0, 3, 2).map(|dims| Tensor::zeros(dims, &Device::flex()));
        let (y, last) = f(scan_inputs(inputs.to_vec()), None, &[0, 0]);
        assert_eq!((y.dims(), last.dims()), ([0, 3], [1, 2, 3]));
    }
    for f in [causal_conv as Conv, reference::causal_conv] {
        let weight = Tensor::zeros([3, 4], &Device::flex());
        let y = f(
            Tensor::zeros([0, 3], &Device::flex()),
            weight,
            None,
            &[0, 0],
        );
        assert_eq!(y.dims(), [0, 3]);
    }
}

/// Nothing is allocated by bounds that fall.
#[test]
#[should_panic(expected = "the bounds")]
fn bounds_rise() {
    let inputs = scan_dims(4, 3, 2).map(|dims| Tensor::zeros(dims, &Device::flex().autodiff()));
    let inputs = inputs.map(Tensor::require_grad);
    selective_scan(scan_inputs(inputs.to_vec()), None, &[0, 1 << 60, 4]);
}
