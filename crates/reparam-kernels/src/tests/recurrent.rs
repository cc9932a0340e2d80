//! Recurrent layers against their formulas in `f64`.

use proptest::prelude::*;

use super::reference::{dot, gradient};
use super::{assert_close, assert_refused, assert_threads_agree, cases, numbers, tokens, wide};
use crate::KernelError;
use crate::recurrent::{
    Cell, RecurrentGrads, RecurrentSaved, RecurrentShape, State, StateMut, Weights,
    recurrent_backward, recurrent_forward,
};

const ALL: [Cell; 4] = [Cell::Tanh, Cell::Relu, Cell::Lstm, Cell::Gru];

/// Sums of up to some hundred terms, passed on over some dozen steps.
const TOLERANCE: f64 = 5e-6;

/// The inputs of a layer, in any type.
#[derive(Clone)]
struct Inputs<T> {
    xw: Vec<T>,
    w_hh: Vec<T>,
    b_hh: Vec<T>,
    /// Empty if there is none.
    h: Vec<T>,
    c: Vec<T>,
}

impl Inputs<f32> {
    fn new(shape: &RecurrentShape<'_>, has_state: bool) -> Self {
        let (n, h, g) = (shape.tokens(), shape.hidden, shape.cell.gates());
        // Products of about the size of one.
        let scale = 1.5 / (h as f32).sqrt();
        let state = if has_state { shape.sequences() * h } else { 0 };
        let c = if shape.cell.has_cell_state() {
            state
        } else {
            0
        };
        Self {
            xw: numbers(1, n * g * h),
            w_hh: numbers(2, g * h * h).iter().map(|w| w * scale).collect(),
            b_hh: numbers(3, g * h),
            h: numbers(4, state),
            c: numbers(5, c),
        }
    }

    fn wide(&self) -> Inputs<f64> {
        let Self {
            xw,
            w_hh,
            b_hh,
            h,
            c,
        } = self;
        Inputs {
            xw: wide(xw),
            w_hh: wide(w_hh),
            b_hh: wide(b_hh),
            h: wide(h),
            c: wide(c),
        }
    }

    fn state(&self, shape: &RecurrentShape<'_>) -> Option<State<'_>> {
        let given = !self.h.is_empty() || shape.sequences() == 0;
        given.then_some(State {
            h: &self.h,
            c: &self.c,
        })
    }
}

/// The states after each token, the last states and the last cell states, as the formulas read.
fn reference(shape: &RecurrentShape<'_>, inputs: &Inputs<f64>) -> [Vec<f64>; 3] {
    let (units, gates) = (shape.hidden, shape.cell.gates());
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let mut out = vec![0.0; shape.tokens() * units];
    let (mut last, mut last_c) = (Vec::new(), Vec::new());
    for (index, pair) in shape.bounds.windows(2).enumerate() {
        let of = |x: &[f64]| match x.get(index * units..(index + 1) * units) {
            Some(row) => row.to_vec(),
            None => vec![0.0; units],
        };
        let (mut h, mut c) = (of(&inputs.h), of(&inputs.c));
        let mut steps: Vec<_> = (pair[0]..pair[1]).collect();
        if shape.reverse {
            steps.reverse();
        }
        for token in steps {
            let x = |gate: usize, unit: usize| inputs.xw[(token * gates + gate) * units + unit];
            let a = |gate: usize, unit: usize| {
                let row = gate * units + unit;
                inputs.b_hh[row] + dot(&inputs.w_hh[row * units..][..units], &h)
            };
            let sum = |gate, unit| x(gate, unit) + a(gate, unit);
            let mut next = vec![0.0; units];
            for unit in 0..units {
                next[unit] = match shape.cell {
                    Cell::Tanh => sum(0, unit).tanh(),
                    Cell::Relu => sum(0, unit).max(0.0),
                    Cell::Lstm => {
                        c[unit] = sigmoid(sum(1, unit)) * c[unit]
                            + sigmoid(sum(0, unit)) * sum(2, unit).tanh();
                        sigmoid(sum(3, unit)) * c[unit].tanh()
                    }
                    Cell::Gru => {
                        let (r, z) = (sigmoid(sum(0, unit)), sigmoid(sum(1, unit)));
                        let n = (x(2, unit) + r * a(2, unit)).tanh();
                        (1.0 - z) * n + z * h[unit]
                    }
                };
            }
            h = next;
            out[token * units..][..units].copy_from_slice(&h);
        }
        last.extend(h);
        if shape.cell.has_cell_state() {
            last_c.extend(c);
        }
    }
    [out, last, last_c]
}

/// All outputs: states, last states, last cell states, and then the gradients of `xw`, the initial
/// states, the weight and the bias, for some gradients of the outputs.
fn run(shape: RecurrentShape<'_>, inputs: &Inputs<f32>) -> Vec<Vec<f32>> {
    let (n, units, gates) = (shape.tokens(), shape.hidden, shape.cell.gates());
    let states = shape.sequences() * units;
    let cells = if shape.cell.has_cell_state() {
        states
    } else {
        0
    };
    let nan = |len: usize| vec![f32::NAN; len];
    let (mut h, mut last, mut last_c) = (nan(n * units), nan(states), nan(cells));
    let mut kept = nan(n * shape.cell.kept() * units);
    let weights = Weights {
        w_hh: &inputs.w_hh,
        b_hh: Some(&inputs.b_hh),
    };
    let to = StateMut {
        h: &mut last,
        c: &mut last_c,
    };
    let initial = inputs.state(&shape);
    recurrent_forward(
        shape,
        &inputs.xw,
        weights,
        initial,
        &mut h,
        to,
        Some(&mut kept),
    )
    .unwrap();
    let [dh, dlast, dlast_c] = gradients_of(&shape);
    let (mut dxw, mut dfirst, mut dfirst_c) = (nan(n * gates * units), nan(states), nan(cells));
    let (mut dw_hh, mut db_hh) = (nan(gates * units * units), nan(gates * units));
    let saved = RecurrentSaved {
        shape,
        dh: &dh,
        dlast: Some(State {
            h: &dlast,
            c: &dlast_c,
        }),
        h: &h,
        kept: &kept,
        w_hh: &inputs.w_hh,
        initial,
    };
    let grads = RecurrentGrads {
        dxw: &mut dxw,
        dinitial: StateMut {
            h: &mut dfirst,
            c: &mut dfirst_c,
        },
        dw_hh: Some(&mut dw_hh),
        db_hh: Some(&mut db_hh),
    };
    recurrent_backward(saved, grads).unwrap();
    vec![h, last, last_c, dxw, dfirst, dfirst_c, dw_hh, db_hh]
}

/// Gradients of the outputs of [`reference`].
fn gradients_of(shape: &RecurrentShape<'_>) -> [Vec<f32>; 3] {
    let states = shape.sequences() * shape.hidden;
    let cells = if shape.cell.has_cell_state() {
        states
    } else {
        0
    };
    [
        numbers(11, shape.tokens() * shape.hidden),
        numbers(12, states),
        numbers(13, cells),
    ]
}

const NAMES: [&str; 8] = [
    "h", "last", "last c", "dxw", "dfirst", "dfirst c", "dw_hh", "db_hh",
];

/// Whether there is a unit of a [`Cell::Relu`] so near to zero that rounding decides its slope.
fn is_near_a_kink(shape: &RecurrentShape<'_>, h: &[f64]) -> bool {
    shape.cell == Cell::Relu && h.iter().any(|&h| h != 0.0 && h < 1e-4)
}

/// Compares outputs, and gradients too if there are few enough inputs for differences.
#[track_caller]
fn check(shape: RecurrentShape<'_>, has_state: bool, differentiate: bool) {
    let inputs = Inputs::new(&shape, has_state);
    let exact = inputs.wide();
    let mut expected = reference(&shape, &exact).to_vec();
    if differentiate {
        assert!(
            !is_near_a_kink(&shape, &expected[0]),
            "choose other numbers"
        );
        let by = gradients_of(&shape).map(|x| wide(&x));
        let objective = |inputs: &Inputs<f64>| -> f64 {
            let outputs = reference(&shape, inputs);
            outputs.iter().zip(&by).map(|(y, by)| dot(y, by)).sum()
        };
        let zeros = |x: &[f64], len: usize| {
            if x.is_empty() {
                vec![0.0; len]
            } else {
                x.to_vec()
            }
        };
        let states = shape.sequences() * shape.hidden;
        let cells = if shape.cell.has_cell_state() {
            states
        } else {
            0
        };
        let start = Inputs {
            h: zeros(&exact.h, states),
            c: zeros(&exact.c, cells),
            ..exact
        };
        macro_rules! by {
            ($field:ident) => {
                expected.push(gradient(&start.$field, |x| {
                    let $field = x.to_vec();
                    objective(&Inputs {
                        $field,
                        ..start.clone()
                    })
                }))
            };
        }
        by!(xw);
        by!(h);
        by!(c);
        by!(w_hh);
        by!(b_hh);
    }
    for token in tokens() {
        let actual = run(shape, &inputs);
        for ((name, actual), expected) in NAMES.iter().zip(&actual).zip(&expected) {
            let what = format!(
                "{} {:?} {} {:?} reverse {} {name}",
                token.isa(),
                shape.cell,
                shape.hidden,
                shape.bounds,
                shape.reverse
            );
            assert_close(&what, actual, expected, TOLERANCE);
        }
    }
}

fn shape(cell: Cell, hidden: usize, bounds: &[usize], reverse: bool) -> RecurrentShape<'_> {
    RecurrentShape {
        cell,
        hidden,
        bounds,
        reverse,
    }
}

/// With sequences of equal and different length and some without a token.
#[test]
fn agrees_with_the_definition() {
    for cell in ALL {
        for reverse in [false, true] {
            for has_state in [false, true] {
                check(shape(cell, 5, &[0, 3, 3, 4, 7], reverse), has_state, true);
                check(shape(cell, 1, &[0, 2], reverse), has_state, true);
                check(shape(cell, 4, &[0, 0], reverse), has_state, true);
                check(shape(cell, 3, &[0], reverse), has_state, true);
            }
        }
    }
}

/// Around groups of units, their blocks, and tiles of rows.
#[test]
fn agrees_with_the_definition_at_sizes_around_blocks() {
    let bounds: Vec<usize> = [3, 1, 2, 5, 1, 4, 4, 2, 1, 3, 2, 2, 6, 1, 2, 3, 3]
        .iter()
        .scan(0, |sum, len| {
            *sum += len;
            Some(*sum)
        })
        .collect();
    let bounds = [vec![0], bounds].concat();
    for cell in ALL {
        for hidden in [15, 16, 17, 64, 70, 100] {
            for sequences in [1, 7, 17] {
                check(
                    shape(cell, hidden, &bounds[..=sequences], sequences == 7),
                    true,
                    false,
                );
            }
        }
        check(shape(cell, 18, &bounds[..3], false), true, true);
    }
}

/// Gradients at the same sizes: those of one layer of few units repeat in one of many that are not
/// connected, whatever tile or block they fall into.
#[test]
fn gradients_of_unconnected_units_repeat() {
    const REPEATS: usize = 13;
    let bounds = [0, 3, 7, 7, 8, 10, 11, 14, 15, 18, 20];
    for cell in ALL {
        let small = shape(cell, 5, &bounds, false);
        let (units, gates, n) = (small.hidden, cell.gates(), small.tokens());
        let large = shape(cell, units * REPEATS, &bounds, false);
        let wide_units = large.hidden;
        let inputs = Inputs::new(&small, true);
        // Unit `u` of copy `r` is unit `u * REPEATS + r`.
        let spread = |x: &[f32]| -> Vec<f32> { x.iter().flat_map(|x| [*x; REPEATS]).collect() };
        let mut w_hh = vec![0.0; gates * wide_units * wide_units];
        for row in 0..gates * units {
            for col in 0..units {
                for copy in 0..REPEATS {
                    let at = (row * REPEATS + copy) * wide_units + col * REPEATS + copy;
                    w_hh[at] = inputs.w_hh[row * units + col];
                }
            }
        }
        let many = Inputs {
            xw: spread(&inputs.xw),
            w_hh,
            b_hh: spread(&inputs.b_hh),
            h: spread(&inputs.h),
            c: spread(&inputs.c),
        };
        let [dh, dlast, dlast_c] = gradients_of(&small);
        let run = |shape: RecurrentShape<'_>, inputs: &Inputs<f32>, by: [Vec<f32>; 3]| {
            let forward = run(shape, inputs);
            let (len, states) = (n * shape.hidden, forward[1].len());
            let mut kept = vec![0.0; len * cell.kept()];
            let (mut h, mut last, mut c) = (vec![0.0; len], vec![0.0; states], by[2].clone());
            let weights = Weights {
                w_hh: &inputs.w_hh,
                b_hh: Some(&inputs.b_hh),
            };
            let initial = inputs.state(&shape);
            let to = StateMut {
                h: &mut last,
                c: &mut c,
            };
            let kept_to = Some(&mut kept[..]);
            recurrent_forward(shape, &inputs.xw, weights, initial, &mut h, to, kept_to).unwrap();
            let (mut dxw, mut dfirst, mut dc) =
                (vec![0.0; len * gates], vec![0.0; states], by[2].clone());
            let saved = RecurrentSaved {
                shape,
                dh: &by[0],
                dlast: Some(State {
                    h: &by[1],
                    c: &by[2],
                }),
                h: &h,
                kept: &kept,
                w_hh: &inputs.w_hh,
                initial,
            };
            let grads = RecurrentGrads {
                dxw: &mut dxw,
                dinitial: StateMut {
                    h: &mut dfirst,
                    c: &mut dc,
                },
                dw_hh: None,
                db_hh: None,
            };
            recurrent_backward(saved, grads).unwrap();
            [h, dxw, dfirst, dc]
        };
        for token in tokens() {
            let by = [dh.clone(), dlast.clone(), dlast_c.clone()];
            let expected = run(small, &inputs, by);
            let by = [spread(&dh), spread(&dlast), spread(&dlast_c)];
            let actual = run(large, &many, by);
            for (actual, expected) in actual.iter().zip(&expected) {
                let what = format!("{} {cell:?}", token.isa());
                assert_close(&what, actual, &wide(&spread(expected)), TOLERANCE);
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(24))]
    #[test]
    fn agrees_with_the_definition_for_any_sequences(
        cell in 0_usize..4, hidden in 1_usize..40, reverse: bool, has_state: bool,
        lengths in prop::collection::vec(0_usize..6, 0..12),
    ) {
        let mut bounds = vec![0];
        for len in lengths {
            bounds.push(bounds[bounds.len() - 1] + len);
        }
        check(shape(ALL[cell], hidden, &bounds, reverse), has_state, false);
    }
}

/// What is computed by each thread for itself, and what is shared.
#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for (sequences, hidden) in [(2, 400), (9, 350), (40, 30)] {
        let bounds: Vec<_> = (0..=sequences).map(|i| i * 3 + i % 2).collect();
        for cell in ALL {
            let shape = shape(cell, hidden, &bounds, false);
            let inputs = Inputs::new(&shape, true);
            assert_threads_agree("recurrent", || run(shape, &inputs));
        }
    }
}

#[test]
fn nan_stays_in_its_sequence() {
    let bounds = [0, 3, 5, 9];
    for cell in ALL {
        let shape = shape(cell, 20, &bounds, false);
        let mut inputs = Inputs::new(&shape, false);
        inputs.xw[(4 * cell.gates()) * 20 + 3] = f32::NAN;
        for token in tokens() {
            let outputs = run(shape, &inputs);
            for n in 0..9 {
                let is_nan = outputs[0][n * 20..][..20].iter().any(|h| h.is_nan());
                assert_eq!(is_nan, n == 4, "{} {cell:?} {n}", token.isa());
                let width = cell.gates() * 20;
                let is_nan = outputs[3][n * width..][..width].iter().any(|h| h.is_nan());
                // The slope of the positive part of NaN is a number.
                let may_be = n == 3 || n == 4;
                assert!(!is_nan || may_be, "{} {cell:?} gradient {n}", token.isa());
            }
        }
    }
}

#[test]
fn without_what_backward_needs_the_outputs_are_the_same() {
    let bounds = [0, 4, 5];
    for cell in ALL {
        let shape = shape(cell, 19, &bounds, true);
        let inputs = Inputs::new(&shape, false);
        let expected = run(shape, &inputs);
        let (mut h, mut last, mut c) = (vec![0.0; 5 * 19], vec![0.0; 38], expected[2].clone());
        let weights = Weights {
            w_hh: &inputs.w_hh,
            b_hh: Some(&inputs.b_hh),
        };
        let to = StateMut {
            h: &mut last,
            c: &mut c,
        };
        recurrent_forward(shape, &inputs.xw, weights, None, &mut h, to, None).unwrap();
        assert_eq!([h, last, c][..], expected[..3]);
    }
}

#[test]
fn refuses_what_does_not_fit() {
    let run = |bounds: &[usize], lens: [usize; 7]| {
        let shape = shape(Cell::Lstm, 2, bounds, false);
        let [xw, w, b, first, c, h, kept] = lens.map(|len| vec![0.0; len]);
        let (mut h, mut kept) = (h, kept);
        let weights = Weights {
            w_hh: &w,
            b_hh: Some(&b),
        };
        let (mut last, mut last_c) = (first.clone(), c.clone());
        let initial = Some(State { h: &first, c: &c });
        let to = StateMut {
            h: &mut last,
            c: &mut last_c,
        };
        recurrent_forward(shape, &xw, weights, initial, &mut h, to, Some(&mut kept))
    };
    let fits = [24, 16, 8, 4, 4, 6, 30];
    assert_eq!(run(&[0, 1, 3], fits), Ok(()));
    for (i, name) in ["xw", "w_hh", "b_hh", "initial.h", "initial.c", "h", "kept"]
        .into_iter()
        .enumerate()
    {
        let mut lens = fits;
        lens[i] += 1;
        assert_refused(name, run(&[0, 1, 3], lens));
    }
    let refused = |index, bound, before| {
        Err(KernelError::Bounds {
            index,
            bound,
            before,
        })
    };
    assert_eq!(run(&[1, 1, 3], fits), refused(0, 1, 0));
    assert_eq!(run(&[0, 4, 3], fits), refused(2, 3, 4));
    let zero = shape(Cell::Tanh, 0, &[0], false);
    let weights = Weights {
        w_hh: &[],
        b_hh: None,
    };
    let to = StateMut {
        h: &mut [],
        c: &mut [],
    };
    let result = recurrent_forward(zero, &[], weights, None, &mut [], to, None);
    assert_eq!(result, Err(KernelError::Zero { name: "hidden" }));
}
