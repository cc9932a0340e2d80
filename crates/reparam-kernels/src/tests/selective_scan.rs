use proptest::prelude::*;

use super::reference::{dot, gradient};
use super::{assert_close, assert_refused, assert_threads_agree, cases, numbers, tokens, wide};
use crate::KernelError;
use crate::selective_scan::{
    ScanGrads, ScanInputs, ScanShape, selective_scan_backward, selective_scan_forward,
};

/// Sums of some hundred terms of size one; an exponential and a softplus within a few units.
const TOLERANCE: f64 = 1e-5;

/// What a scan reads: `u`, `dt`, `A`, `B`, `C`, `D` and the initial states.
#[derive(Clone)]
struct Inputs<T>([Vec<T>; 7]);

impl Inputs<f32> {
    fn new(shape: &ScanShape<'_>, has_state: bool) -> Self {
        let (tokens, d, n) = (shape.tokens(), shape.channels, shape.states);
        let states = if has_state {
            shape.sequences() * n * d
        } else {
            0
        };
        let lens = [
            tokens * d,
            tokens * d,
            d * n,
            tokens * n,
            tokens * n,
            d,
            states,
        ];
        let mut inputs = [1, 2, 3, 4, 5, 6, 7].map(|i| numbers(i as u64, lens[i - 1]));
        inputs[1].iter_mut().for_each(|dt| *dt *= 3.0);
        // All states decay.
        inputs[2].iter_mut().for_each(|a| *a = 0.9 * *a - 1.0);
        Self(inputs)
    }

    fn wide(&self) -> Inputs<f64> {
        Inputs(self.0.each_ref().map(|x| wide(x)))
    }

    fn of_kernel(&self) -> ScanInputs<'_> {
        let [u, dt, a, b, c, d, _] = &self.0;
        ScanInputs { u, dt, a, b, c, d }
    }

    fn initial(&self) -> Option<&[f32]> {
        Some(&self.0[6][..]).filter(|states| !states.is_empty())
    }
}

/// `y` and the last states, as the formulas read.
fn reference(shape: &ScanShape<'_>, inputs: &Inputs<f64>) -> [Vec<f64>; 2] {
    let (channels, n) = (shape.channels, shape.states);
    let [u, dt, a, b, c, skip, initial] = &inputs.0;
    let mut y = vec![0.0; u.len()];
    let mut last = vec![0.0; shape.sequences() * n * channels];
    for (sequence, pair) in shape.bounds.windows(2).enumerate() {
        for channel in 0..channels {
            let place = |state: usize| (sequence * n + state) * channels + channel;
            let before = |state| initial.get(place(state)).copied().unwrap_or(0.0);
            let mut h: Vec<f64> = (0..n).map(before).collect();
            for token in pair[0]..pair[1] {
                let at = token * channels + channel;
                let s = dt[at].exp().ln_1p();
                y[at] = skip[channel] * u[at];
                for (state, h) in h.iter_mut().enumerate() {
                    let coefficient = token * n + state;
                    *h = (s * a[channel * n + state]).exp() * *h + s * b[coefficient] * u[at];
                    y[at] += c[coefficient] * *h;
                }
            }
            for (state, h) in h.into_iter().enumerate() {
                last[place(state)] = h;
            }
        }
    }
    [y, last]
}

const NAMES: [&str; 8] = ["y", "last", "du", "ddt", "da", "db", "dc", "dd"];

/// All outputs and gradients, for some gradient of `y`.
fn run(shape: ScanShape<'_>, inputs: &Inputs<f32>) -> Vec<Vec<f32>> {
    let (tokens, d, n) = (shape.tokens(), shape.channels, shape.states);
    let nan = |len: usize| vec![f32::NAN; len];
    let (mut y, mut last) = (nan(tokens * d), nan(shape.sequences() * n * d));
    let mut kept = nan(shape.kept());
    let of_kernel = inputs.of_kernel();
    let initial = inputs.initial();
    selective_scan_forward(
        shape,
        of_kernel,
        initial,
        &mut y,
        &mut last,
        Some(&mut kept),
    )
    .unwrap();
    let dy = numbers(11, tokens * d);
    let (mut du, mut ddt, mut da) = (nan(tokens * d), nan(tokens * d), nan(d * n));
    let (mut db, mut dc, mut dd) = (nan(tokens * n), nan(tokens * n), nan(d));
    let grads = ScanGrads {
        du: &mut du,
        ddt: &mut ddt,
        da: &mut da,
        db: &mut db,
        dc: &mut dc,
        dd: &mut dd,
    };
    selective_scan_backward(shape, of_kernel, &dy, &kept, grads).unwrap();
    vec![y, last, du, ddt, da, db, dc, dd]
}

#[track_caller]
fn check(shape: ScanShape<'_>, has_state: bool, differentiate: bool) {
    let inputs = Inputs::new(&shape, has_state);
    let exact = inputs.wide();
    let mut expected = reference(&shape, &exact).to_vec();
    if differentiate {
        let dy = wide(&numbers(11, shape.tokens() * shape.channels));
        expected.extend((0..6).map(|which| {
            let mut moved = exact.clone();
            let start = exact.0[which].clone();
            let moved = std::cell::RefCell::new(&mut moved);
            gradient(&start, |x| {
                let mut moved = moved.borrow_mut();
                moved.0[which].copy_from_slice(x);
                dot(&dy, &reference(&shape, &moved)[0])
            })
        }));
    }
    for token in tokens() {
        let actual = run(shape, &inputs);
        for ((name, actual), expected) in NAMES.iter().zip(&actual).zip(&expected) {
            let ScanShape {
                channels,
                states,
                bounds,
            } = shape;
            let what = format!("{} {channels} {states} {bounds:?} {name}", token.isa());
            assert_close(&what, actual, expected, TOLERANCE);
        }
    }
}

fn shape(channels: usize, states: usize, bounds: &[usize]) -> ScanShape<'_> {
    ScanShape {
        channels,
        states,
        bounds,
    }
}

/// With sequences around the length of a chunk and some without a token, and channels around the sizes
/// of a vector and of a block.
#[test]
fn agrees_with_the_definition() {
    for has_state in [false, true] {
        check(shape(3, 2, &[0, 33, 33, 40]), has_state, true);
        check(shape(17, 5, &[0, 1, 4]), has_state, true);
        check(shape(65, 1, &[0, 3]), has_state, true);
        check(shape(1, 16, &[0, 31, 63]), has_state, true);
        check(shape(2, 3, &[0, 0]), has_state, true);
        check(shape(2, 3, &[0]), has_state, true);
        check(shape(64, 16, &[0, 65, 70]), has_state, false);
        check(shape(130, 7, &[0, 32, 96, 97]), has_state, false);
    }
}

proptest! {
    #![proptest_config(cases(24))]
    #[test]
    fn agrees_for_any_sizes(
        channels in 1_usize..80, states in 1_usize..18, has_state: bool,
        lengths in proptest::collection::vec(0_usize..40, 0..4),
    ) {
        let mut bounds = vec![0];
        for length in lengths {
            bounds.push(bounds[bounds.len() - 1] + length);
        }
        check(shape(channels, states, &bounds), has_state, false);
    }
}

/// Numbers of which no gradient is zero but for rounding: the forward pass differentiated at sizes of
/// several blocks, along one direction of each input.
#[test]
fn gradients_of_blocks_are_slopes() {
    let shape = shape(100, 4, &[0, 40, 70]);
    let inputs = Inputs::new(&shape, false);
    let exact = inputs.wide();
    let dy = wide(&numbers(11, 70 * 100));
    for token in tokens() {
        let actual = run(shape, &inputs);
        for which in 0..6 {
            let along = wide(&numbers(20 + which as u64, exact.0[which].len()));
            let at = |step: f64| {
                let mut moved = exact.clone();
                let of_input = moved.0[which].iter_mut().zip(&along);
                of_input.for_each(|(x, along)| *x += step * along);
                dot(&dy, &reference(&shape, &moved)[0])
            };
            let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
            let found = dot(&wide(&actual[2 + which]), &along);
            let size = dot(&along, &along).sqrt();
            assert!(
                (found - expected).abs() <= TOLERANCE * expected.abs().max(size),
                "{} {}: {found} is not {expected}",
                token.isa(),
                NAMES[2 + which]
            );
        }
    }
}

/// Steps so great that a state forgets everything, and so small that it takes up nothing.
#[test]
fn great_and_small_steps_stay_finite() {
    for _ in tokens() {
        let dt = [-1e30, -200.0, 200.0, 1e30];
        let inputs = ScanInputs {
            u: &[1.0; 4],
            dt: &dt,
            a: &[-1.0],
            b: &[1.0; 4],
            c: &[1.0; 4],
            d: &[0.5],
        };
        let (mut y, mut last) = ([f32::NAN; 4], [f32::NAN]);
        let shape = shape(1, 1, &[0, 4]);
        selective_scan_forward(shape, inputs, None, &mut y, &mut last, None).unwrap();
        assert_eq!(y[..3], [0.5, 0.5, 200.5]);
        assert_eq!(last, [1e30]);
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for _ in tokens() {
        let shape = shape(150, 6, &[0, 50, 51, 90]);
        let inputs = Inputs::new(&shape, true);
        assert_threads_agree("selective scan", || run(shape, &inputs));
    }
}

#[test]
fn refuses_what_does_not_fit() {
    let all = shape(2, 3, &[0, 4]);
    let inputs = Inputs::new(&all, false);
    let try_it = |shape: ScanShape<'_>, inputs: ScanInputs<'_>, y: usize, kept: Option<usize>| {
        let mut kept = kept.map(|len| vec![0.0; len]);
        selective_scan_forward(
            shape,
            inputs,
            None,
            &mut vec![0.0; y],
            &mut [0.0; 6],
            kept.as_deref_mut(),
        )
    };
    let good = inputs.of_kernel();
    try_it(all, good, 8, Some(6)).expect("they fit");
    assert_refused("y", try_it(all, good, 7, None));
    assert_refused("kept", try_it(all, good, 8, Some(7)));
    let short = &good.u[..6];
    assert_refused("u", try_it(all, ScanInputs { u: short, ..good }, 8, None));
    assert_refused("dt", try_it(all, ScanInputs { dt: short, ..good }, 8, None));
    assert_refused(
        "a",
        try_it(
            all,
            ScanInputs {
                a: &good.a[1..],
                ..good
            },
            8,
            None,
        ),
    );
    assert_refused(
        "b",
        try_it(
            all,
            ScanInputs {
                b: &good.b[1..],
                ..good
            },
            8,
            None,
        ),
    );
    assert_refused(
        "c",
        try_it(
            all,
            ScanInputs {
                c: &good.c[1..],
                ..good
            },
            8,
            None,
        ),
    );
    assert_refused(
        "d",
        try_it(
            all,
            ScanInputs {
                d: &good.d[1..],
                ..good
            },
            8,
            None,
        ),
    );
    let zero = |name| Err(KernelError::Zero { name });
    assert_eq!(
        try_it(shape(0, 3, &[0, 4]), good, 8, None),
        zero("channels")
    );
    assert_eq!(try_it(shape(2, 0, &[0, 4]), good, 8, None), zero("states"));
    assert!(matches!(
        try_it(shape(2, 3, &[0, 3, 2]), good, 8, None),
        Err(KernelError::Bounds { index: 2, .. })
    ));
    assert_eq!(shape(2, 3, &[0, 3, 2]).kept(), 6);
    assert_eq!(shape(usize::MAX, 3, &[0, 40]).kept(), usize::MAX);
    assert!(matches!(
        try_it(shape(usize::MAX / 2, 3, &[0, 4]), good, 8, None),
        Err(KernelError::Overflow { .. })
    ));
}
