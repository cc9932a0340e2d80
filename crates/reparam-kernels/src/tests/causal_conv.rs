use proptest::prelude::*;

use super::reference::{dot, gradient};
use super::{assert_close, assert_refused, assert_threads_agree, cases, numbers, tokens, wide};
use crate::KernelError;
use crate::causal_conv::{ConvShape, causal_conv_backward, causal_conv_forward};

/// An exponential, and sums of up to some hundred terms of size one.
const TOLERANCE: f64 = 5e-6;

fn shape(channels: usize, taps: usize, bounds: &[usize]) -> ConvShape<'_> {
    ConvShape {
        channels,
        taps,
        bounds,
    }
}

/// `y`, as the formula reads.
fn reference(shape: &ConvShape<'_>, x: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
    let (d, taps) = (shape.channels, shape.taps);
    let mut y = vec![0.0; x.len()];
    for pair in shape.bounds.windows(2) {
        for token in pair[0]..pair[1] {
            for channel in 0..d {
                let mut z = bias.get(channel).copied().unwrap_or(0.0);
                for tap in 0..taps {
                    let back = taps - 1 - tap;
                    if token >= pair[0] + back {
                        z += weight[channel * taps + tap] * x[(token - back) * d + channel];
                    }
                }
                y[token * d + channel] = z / (1.0 + (-z).exp());
            }
        }
    }
    y
}

/// `x`, the weight and the bias.
fn inputs(shape: &ConvShape<'_>, has_bias: bool) -> [Vec<f32>; 3] {
    let d = shape.channels;
    let bias = if has_bias { d } else { 0 };
    let lens = [shape.tokens() * d, d * shape.taps, bias];
    [1, 2, 3].map(|i| numbers(i as u64, lens[i - 1]))
}

const NAMES: [&str; 4] = ["y", "dx", "dweight", "dbias"];

fn run(shape: ConvShape<'_>, [x, weight, bias]: &[Vec<f32>; 3]) -> Vec<Vec<f32>> {
    let nan = |len: usize| vec![f32::NAN; len];
    let of_kernel = Some(&bias[..]).filter(|bias| !bias.is_empty());
    let (mut y, mut dx) = (nan(x.len()), nan(x.len()));
    causal_conv_forward(shape, x, weight, of_kernel, &mut y).unwrap();
    let dy = numbers(11, x.len());
    let (mut dweight, mut dbias) = (nan(weight.len()), nan(bias.len()));
    let to_bias = of_kernel.map(|_| &mut dbias[..]);
    causal_conv_backward(
        shape,
        &dy,
        x,
        weight,
        of_kernel,
        &mut dx,
        &mut dweight,
        to_bias,
    )
    .unwrap();
    vec![y, dx, dweight, dbias]
}

#[track_caller]
fn check(shape: ConvShape<'_>, has_bias: bool, differentiate: bool) {
    let inputs = inputs(&shape, has_bias);
    let [x, weight, bias] = inputs.each_ref().map(|x| wide(x));
    let mut expected = vec![reference(&shape, &x, &weight, &bias)];
    if differentiate {
        let dy = wide(&numbers(11, x.len()));
        let loss = |x: &[f64], w: &[f64], b: &[f64]| dot(&dy, &reference(&shape, x, w, b));
        expected.push(gradient(&x, |x| loss(x, &weight, &bias)));
        expected.push(gradient(&weight, |weight| loss(&x, weight, &bias)));
        expected.push(gradient(&bias, |bias| loss(&x, &weight, bias)));
    }
    for token in tokens() {
        let actual = run(shape, &inputs);
        for ((name, actual), expected) in NAMES.iter().zip(&actual).zip(&expected) {
            let ConvShape {
                channels,
                taps,
                bounds,
            } = shape;
            let what = format!("{} {channels} {taps} {bounds:?} {name}", token.isa());
            assert_close(&what, actual, expected, TOLERANCE);
        }
    }
}

/// With sequences shorter and longer than the taps, and more rows than a block has.
#[test]
fn agrees_with_the_definition() {
    for has_bias in [false, true] {
        check(shape(3, 4, &[0, 2, 2, 3, 9]), has_bias, true);
        check(shape(17, 3, &[0, 5]), has_bias, true);
        check(shape(2, 1, &[0, 70]), has_bias, true);
        check(shape(1, 6, &[0, 4, 130]), has_bias, true);
        check(shape(4, 4, &[0, 0]), has_bias, true);
        check(shape(4, 4, &[0]), has_bias, true);
        check(shape(300, 4, &[0, 60, 200]), has_bias, false);
    }
}

proptest! {
    #![proptest_config(cases(32))]
    #[test]
    fn agrees_for_any_sizes(
        channels in 1_usize..40, taps in 1_usize..7, has_bias: bool,
        lengths in proptest::collection::vec(0_usize..20, 0..5),
    ) {
        let mut bounds = vec![0];
        for length in lengths {
            bounds.push(bounds[bounds.len() - 1] + length);
        }
        check(shape(channels, taps, &bounds), has_bias, false);
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for _ in tokens() {
        let shape = shape(70, 4, &[0, 150, 151, 400]);
        let inputs = inputs(&shape, true);
        assert_threads_agree("convolution", || run(shape, &inputs));
    }
}

#[test]
fn refuses_what_does_not_fit() {
    let try_it = |shape: ConvShape<'_>, [x, weight, bias, y]: [usize; 4]| {
        let zeros = |len: usize| vec![0.0; len];
        let bias = zeros(bias);
        causal_conv_forward(shape, &zeros(x), &zeros(weight), Some(&bias), &mut zeros(y))
    };
    let all = shape(2, 3, &[0, 4]);
    try_it(all, [8, 6, 2, 8]).expect("they fit");
    for (name, lens) in [
        ("x", [7, 6, 2, 8]),
        ("weight", [8, 5, 2, 8]),
        ("bias", [8, 6, 3, 8]),
        ("y", [8, 6, 2, 9]),
    ] {
        assert_refused(name, try_it(all, lens));
    }
    let lens = [8, 6, 2, 8];
    let zero = |name| Err(KernelError::Zero { name });
    assert_eq!(try_it(shape(0, 3, &[0, 4]), lens), zero("channels"));
    assert_eq!(try_it(shape(2, 0, &[0, 4]), lens), zero("taps"));
    assert!(matches!(
        try_it(shape(2, 3, &[1, 4]), lens),
        Err(KernelError::Bounds { index: 0, .. })
    ));
    let (zeros, mut out) = ([0.0; 8], [0.0; 8]);
    let mut short = [0.0; 5];
    assert_refused(
        "dweight",
        causal_conv_backward(
            all,
            &zeros,
            &zeros,
            &zeros[..6],
            None,
            &mut out,
            &mut short,
            None,
        ),
    );
}
