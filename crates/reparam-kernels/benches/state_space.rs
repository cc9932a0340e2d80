//! The convolution and the selective scan of a layer of Mamba 130M, 2048 tokens in four sequences.

use divan::{Bencher, black_box};
use reparam_kernels::causal_conv::{ConvShape, causal_conv_backward, causal_conv_forward};
use reparam_kernels::selective_scan::{
    ScanGrads, ScanInputs, ScanShape, selective_scan_backward, selective_scan_forward,
};

mod support;
use support::{N, check, flops, numbers, numbers_within};

const CHANNELS: usize = 1536;
const STATES: usize = 16;
const TAPS: usize = 4;
const BOUNDS: [usize; 5] = [0, 300, 1000, 1900, N];

fn main() {
    divan::main();
}

fn conv() -> ConvShape<'static> {
    ConvShape {
        channels: CHANNELS,
        taps: TAPS,
        bounds: &BOUNDS,
    }
}

fn scan() -> ScanShape<'static> {
    ScanShape {
        channels: CHANNELS,
        states: STATES,
        bounds: &BOUNDS,
    }
}

#[divan::bench]
fn conv_forward(bencher: Bencher) {
    let (x, weight, bias) = (
        numbers(1, N * CHANNELS),
        numbers(2, CHANNELS * TAPS),
        numbers(3, CHANNELS),
    );
    let mut y = vec![0.0; x.len()];
    causal_conv_forward(conv(), &x, &weight, Some(&bias), &mut y).expect("shapes fit");
    // The second token of the second sequence sees itself and the first.
    let expected: Vec<f32> = (0..CHANNELS)
        .map(|c| {
            let at = |token: usize| x[token * CHANNELS + c];
            let z = bias[c] + weight[c * TAPS + 3] * at(301) + weight[c * TAPS + 2] * at(300);
            z / (1.0 + (-z).exp())
        })
        .collect();
    check("y", &y[301 * CHANNELS..][..CHANNELS], &expected, 1e-5);
    bencher
        .counter(flops(2 * N * CHANNELS * TAPS))
        .bench_local(|| {
            causal_conv_forward(conv(), black_box(&x), &weight, Some(&bias), &mut y)
                .expect("shapes fit");
        });
}

#[divan::bench]
fn conv_backward(bencher: Bencher) {
    let (x, weight, dy) = (
        numbers(1, N * CHANNELS),
        numbers(2, CHANNELS * TAPS),
        numbers(4, N * CHANNELS),
    );
    let (mut dx, mut dweight) = (vec![0.0; x.len()], vec![0.0; weight.len()]);
    let mut run = || {
        let to = (&mut dx, &mut dweight);
        causal_conv_backward(conv(), black_box(&dy), &x, &weight, None, to.0, to.1, None)
            .expect("shapes fit");
    };
    run();
    bencher
        .counter(flops(6 * N * CHANNELS * TAPS))
        .bench_local(run);
}

/// What a scan reads: `u`, `dt`, `A`, `B`, `C` and `D`.
fn inputs() -> [Vec<f32>; 6] {
    let a = numbers(3, CHANNELS * STATES)
        .iter()
        .map(|a| 0.9 * a - 1.0)
        .collect();
    [
        numbers(1, N * CHANNELS),
        numbers_within(3.0, 2, N * CHANNELS),
        a,
        numbers(4, N * STATES),
        numbers(5, N * STATES),
        numbers(6, CHANNELS),
    ]
}

fn of_kernel(inputs: &[Vec<f32>; 6]) -> ScanInputs<'_> {
    let [u, dt, a, b, c, d] = inputs;
    ScanInputs { u, dt, a, b, c, d }
}

#[divan::bench]
fn scan_forward(bencher: Bencher) {
    let inputs = inputs();
    let [u, dt, _, b, c, d] = &inputs;
    let (mut y, mut last) = (vec![0.0; N * CHANNELS], vec![0.0; 4 * STATES * CHANNELS]);
    selective_scan_forward(scan(), of_kernel(&inputs), None, &mut y, &mut last, None)
        .expect("shapes fit");
    // The first token of the second sequence begins with nothing.
    let token = 300;
    let both = (0..STATES).map(|j| b[token * STATES + j] * c[token * STATES + j]);
    let both: f32 = both.sum();
    let expected: Vec<f32> = (0..CHANNELS)
        .map(|channel| {
            let at = token * CHANNELS + channel;
            u[at] * (dt[at].exp().ln_1p() * both + d[channel])
        })
        .collect();
    check("y", &y[token * CHANNELS..][..CHANNELS], &expected, 1e-5);
    bencher
        .counter(flops(6 * N * CHANNELS * STATES))
        .bench_local(|| {
            let inputs = of_kernel(black_box(&inputs));
            selective_scan_forward(scan(), inputs, None, &mut y, &mut last, None)
                .expect("shapes fit");
        });
}

#[divan::bench]
fn scan_backward(bencher: Bencher) {
    let inputs = inputs();
    let (mut y, mut last) = (vec![0.0; N * CHANNELS], vec![0.0; 4 * STATES * CHANNELS]);
    let mut kept = vec![0.0; scan().kept()];
    let to = (&mut y, &mut last, Some(&mut kept[..]));
    selective_scan_forward(scan(), of_kernel(&inputs), None, to.0, to.1, to.2).expect("shapes fit");
    let dy = numbers(7, N * CHANNELS);
    let (mut du, mut ddt) = (vec![0.0; N * CHANNELS], vec![0.0; N * CHANNELS]);
    let (mut da, mut dd) = (vec![0.0; CHANNELS * STATES], vec![0.0; CHANNELS]);
    let (mut db, mut dc) = (vec![0.0; N * STATES], vec![0.0; N * STATES]);
    let grads = ScanGrads {
        du: &mut du,
        ddt: &mut ddt,
        da: &mut da,
        db: &mut db,
        dc: &mut dc,
        dd: &mut dd,
    };
    selective_scan_backward(scan(), of_kernel(&inputs), &dy, &kept, grads).expect("shapes fit");
    let expected: Vec<f32> = (0..CHANNELS)
        .map(|c| {
            let tokens = (0..N).map(|t| t * CHANNELS + c);
            tokens
                .map(|at| f64::from(dy[at]) * f64::from(inputs[0][at]))
                .sum::<f64>() as f32
        })
        .collect();
    check("dd", &dd, &expected, 1e-4);
    bencher
        .counter(flops(18 * N * CHANNELS * STATES))
        .bench_local(|| {
            let grads = ScanGrads {
                du: &mut du,
                ddt: &mut ddt,
                da: &mut da,
                db: &mut db,
                dc: &mut dc,
                dd: &mut dd,
            };
            let inputs = of_kernel(&inputs);
            selective_scan_backward(scan(), inputs, black_box(&dy), &kept, grads)
                .expect("shapes fit");
        });
}
