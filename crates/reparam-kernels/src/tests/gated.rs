use proptest::prelude::*;

use super::activation::{ALL, TOLERANCE, reference};
use super::{
    assert_close, assert_refused, assert_threads_agree, cases, floats, halves, numbers, tokens,
    wide,
};
use crate::gated::{Activation, GatedRows, gated_backward_in_place, gated_forward};
use crate::{Bf16, KernelError};

/// What columns hold that must stay as they are.
const UNTOUCHED: f32 = 7.0;

/// Puts gate and up into rows, the last one no longer than it needs to be.
fn side_by_side(rows: GatedRows, gate: &[f32], up: &[f32]) -> Vec<f32> {
    let GatedRows {
        inner,
        row_stride,
        up_at,
    } = rows;
    let n = gate.len() / inner;
    let len = if n == 0 {
        0
    } else {
        (n - 1) * row_stride + up_at + inner
    };
    let mut both = vec![UNTOUCHED; len];
    for (n, row) in both.chunks_mut(row_stride).enumerate() {
        row[..inner].copy_from_slice(&gate[n * inner..][..inner]);
        row[up_at..][..inner].copy_from_slice(&up[n * inner..][..inner]);
    }
    both
}

fn check(n: usize, rows: GatedRows) {
    let len = n * rows.inner;
    let ten_times = |seed| -> Vec<f32> { numbers(seed, len).iter().map(|x| 10.0 * x).collect() };
    let gate = floats(&halves(&ten_times(1)));
    let [up, dout] = [2, 3].map(|seed| floats(&halves(&numbers(seed, len))));
    let gate_up = side_by_side(rows, &gate, &up);
    for activation in ALL {
        let at = |i: usize| reference(activation, f64::from(gate[i]));
        let [u, t] = [&up, &dout].map(|x| wide(x));
        let expected: Vec<f64> = (0..len).map(|i| at(i).0 * u[i]).collect();
        let dgate: Vec<f64> = (0..len).map(|i| t[i] * u[i] * at(i).1).collect();
        let dup: Vec<f64> = (0..len).map(|i| t[i] * at(i).0).collect();
        for token in tokens() {
            let what = |name| format!("{} {activation:?} {n} x {rows:?} {name}", token.isa());
            let mut out = vec![f32::NAN; len];
            gated_forward(activation, &gate_up, rows, &mut out).unwrap();
            assert_close(&what("out"), &out, &expected, TOLERANCE);

            let mut grads = gate_up.clone();
            let mut again = vec![f32::NAN; len];
            let to = Some(&mut again[..]);
            gated_backward_in_place(activation, &mut grads, rows, &dout, to).unwrap();
            assert_eq!(again, out);
            let mut parts = [Vec::new(), Vec::new()];
            for row in grads.chunks(rows.row_stride) {
                parts[0].extend(&row[..rows.inner]);
                parts[1].extend(&row[rows.up_at..][..rows.inner]);
            }
            assert_close(&what("dgate"), &parts[0], &dgate, TOLERANCE);
            assert_close(&what("dup"), &parts[1], &dup, TOLERANCE);
            // Nothing beside gate and up was written.
            assert_eq!(grads, side_by_side(rows, &parts[0], &parts[1]));
            let mut alone = gate_up.clone();
            gated_backward_in_place(activation, &mut alone, rows, &dout, None).unwrap();
            assert_eq!(alone, grads);

            // Over bf16 every result is that over `f32`, rounded once.
            let (mut narrow, dout_half) = (halves(&gate_up), halves(&dout));
            let [mut out_half, mut again] = [0, 1].map(|_| vec![Bf16::ONE; len]);
            gated_forward(activation, &narrow, rows, &mut out_half).unwrap();
            assert_eq!(out_half, halves(&out), "{}", what("bf16 out"));
            let to = Some(&mut again[..]);
            gated_backward_in_place(activation, &mut narrow, rows, &dout_half, to).unwrap();
            assert_eq!((narrow, again), (halves(&grads), out_half));
        }
    }
}

fn gap(inner: usize, between: usize, behind: usize) -> GatedRows {
    GatedRows {
        inner,
        row_stride: 2 * inner + between + behind,
        up_at: inner + between,
    }
}

#[test]
fn agrees_with_the_definition_at_sizes_around_blocks() {
    for inner in [1, 15, 16, 17, 64, 100, 1536] {
        for n in [0, 1, 11] {
            check(n, GatedRows::new(inner));
            check(n, gap(inner, 3, 0));
            check(n, gap(inner, 0, 5));
        }
    }
    // Several blocks of rows, and rows that are a block each.
    check(330, gap(100, 4, 4));
    check(2, gap(20_000, 1, 1));
}

proptest! {
    #![proptest_config(cases(48))]
    #[test]
    fn agrees_with_the_definition(
        n in 0_usize..20, inner in 1_usize..70, between in 0_usize..20, behind in 0_usize..20,
    ) {
        check(n, gap(inner, between, behind));
    }
}

/// In a whole group and in the incomplete one.
#[test]
fn nan_stays_in_its_column() {
    let rows = gap(21, 2, 3);
    for bad in [4, 20] {
        for (gate_at, up_at) in [(bad, 9), (9, bad)] {
            let mut both = side_by_side(rows, &numbers(1, 42), &numbers(2, 42));
            let second = &mut both[rows.row_stride..];
            (second[gate_at], second[rows.up_at + up_at]) = (f32::NAN, f32::NAN);
            for token in tokens() {
                for activation in ALL {
                    let (mut out, mut grads) = (vec![0.0; 42], both.clone());
                    gated_forward(activation, &both, rows, &mut out).unwrap();
                    let dout = [1.0; 42];
                    gated_backward_in_place(activation, &mut grads, rows, &dout, None).unwrap();
                    for (i, out) in out.iter().enumerate() {
                        let is_nan = i == 21 + gate_at || i == 21 + up_at;
                        assert_eq!(out.is_nan(), is_nan, "{} {i}", token.isa());
                    }
                    for (i, grad) in grads.iter().enumerate() {
                        // Both follow the gate, and the gate's follows the up projection.
                        let of = |at: usize| i == rows.row_stride + at;
                        let is_nan = of(gate_at) || of(up_at) || of(rows.up_at + gate_at);
                        assert_eq!(grad.is_nan(), is_nan, "{} gradient {i}", token.isa());
                    }
                }
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (n, rows) = (300, gap(200, 8, 16));
    let len = n * rows.row_stride;
    let (gate_up, dout) = (
        halves(&numbers(1, len)),
        halves(&numbers(2, n * rows.inner)),
    );
    for activation in ALL {
        assert_threads_agree("gated", || {
            let [mut out, mut again] = [0, 1].map(|_| vec![Bf16::ZERO; n * rows.inner]);
            gated_forward(activation, &gate_up, rows, &mut out).unwrap();
            let mut in_place = gate_up.clone();
            let to = Some(&mut again[..]);
            gated_backward_in_place(activation, &mut in_place, rows, &dout, to).unwrap();
            [out, again, in_place].map(|x| floats(&x)).to_vec()
        });
    }
}

#[test]
fn refuses_what_does_not_fit() {
    let run = |len: usize, rows: GatedRows, out: usize| {
        gated_forward(Activation::Silu, &vec![0.0; len], rows, &mut vec![0.0; out])
    };
    let rows = gap(3, 1, 2);
    assert_eq!(run(16, rows, 6), Ok(()));
    assert_eq!(run(0, rows, 0), Ok(()));
    assert_eq!(
        run(0, gap(0, 1, 1), 0),
        Err(KernelError::Zero { name: "inner" })
    );
    assert_refused("out", run(16, rows, 7));
    assert_eq!(
        run(15, rows, 6),
        Err(KernelError::View {
            rows: 2,
            cols: 7,
            row_stride: 9,
            col_stride: 1,
            found: 15
        })
    );
    let overlapping = GatedRows {
        inner: 3,
        row_stride: 6,
        up_at: 2,
    };
    assert!(matches!(
        run(12, overlapping, 6),
        Err(KernelError::OverlappingView { row_stride: 2, .. })
    ));
    let tight = GatedRows {
        inner: 3,
        row_stride: 5,
        up_at: 3,
    };
    assert!(matches!(
        run(12, tight, 6),
        Err(KernelError::OverlappingView { row_stride: 5, .. })
    ));
    // One row may have any stride.
    for row_stride in [0, usize::MAX] {
        assert_eq!(
            run(
                6,
                GatedRows {
                    row_stride,
                    ..tight
                },
                3
            ),
            Ok(())
        );
        assert_eq!(
            run(
                0,
                GatedRows {
                    row_stride,
                    ..tight
                },
                0
            ),
            Ok(())
        );
    }
    let far = GatedRows {
        up_at: usize::MAX,
        ..tight
    };
    assert!(matches!(run(6, far, 3), Err(KernelError::Overflow { .. })));

    let rows = GatedRows::new(3);
    let run = |len: usize, dout: usize, out: Option<&mut [f32]>| {
        let (mut gate_up, dout) = (vec![0.0; len], vec![0.0; dout]);
        gated_backward_in_place(Activation::Silu, &mut gate_up, rows, &dout, out)
    };
    let short = run(11, 6, None);
    assert!(matches!(short, Err(KernelError::View { found: 11, .. })));
    assert_refused("out", run(12, 6, Some(&mut [0.0; 5])));
    assert_refused("dout", run(12, 5, None));
}
