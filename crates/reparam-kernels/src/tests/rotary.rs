use proptest::prelude::*;

use super::{
    UNIT, assert_close, assert_refused, assert_threads_agree, cases, floats, halves, numbers,
    reference, tokens, wide,
};
use crate::KernelError;
use crate::rotary::{Heads, rotary, rotary_rows, rotary_tables};

/// Two products and a sum of numbers of size one.
const TOLERANCE: f64 = 4.0 * UNIT;

fn expected(x: &[f32], cos: &[f32], sin: &[f32], heads: usize, d: usize, sign: f64) -> Vec<f64> {
    let half = d / 2;
    (0..x.len())
        .map(|at| {
            let (token, i) = (at / (heads * d), at % d);
            let table = token * half + i % half;
            let (cos, sin) = (f64::from(cos[table]), sign * f64::from(sin[table]));
            // rotate_half: minus the second half, then the first.
            if i < half {
                f64::from(x[at]) * cos - f64::from(x[at + half]) * sin
            } else {
                f64::from(x[at]) * cos + f64::from(x[at - half]) * sin
            }
        })
        .collect()
}

fn check(tokens_len: usize, heads: usize, d: usize) {
    let x = numbers(1, tokens_len * heads * d);
    let positions: Vec<u32> = (0..tokens_len as u32).map(|i| i * 3).collect();
    let inv_freq: Vec<f32> = (0..d / 2).map(|i| 0.1_f32.powf(i as f32 / 4.0)).collect();
    let (cos, sin) = rotary_tables(&positions, &inv_freq, 1.0).unwrap();
    let contiguous = Heads {
        row_stride: heads * d,
        n_heads: heads,
        head_dim: d,
        turned: d,
        interleaved: false,
    };
    for token in tokens() {
        let what = format!("{} {tokens_len} x {heads} x {d}", token.isa());
        let mut turned = x.clone();
        rotary_rows(&mut turned, contiguous, &cos, &sin, false).unwrap();
        assert_close(
            &what,
            &turned,
            &expected(&x, &cos, &sin, heads, d, 1.0),
            TOLERANCE,
        );
        rotary_rows(&mut turned, contiguous, &cos, &sin, true).unwrap();
        assert_close(
            &format!("{what} inverse"),
            &turned,
            &wide(&x),
            2.0 * TOLERANCE,
        );
    }
}

#[test]
fn agrees_with_the_definition_and_its_inverse_undoes_it() {
    for d in [2, 8, 16, 20, 34, 64, 256] {
        for (n, heads) in [(0, 1), (1, 1), (5, 3), (70, 9)] {
            check(n, heads, d);
        }
    }
}

proptest! {
    #![proptest_config(cases(64))]
    #[test]
    fn agrees_with_the_definition(n in 0_usize..40, heads in 1_usize..6, half in 1_usize..50) {
        check(n, heads, 2 * half);
    }
}

/// For tables that are no rotation, the inverse is still the transpose: `<R x, y> = <x, R' y>`.
#[test]
fn inverse_is_the_backward_pass_for_any_tables() {
    let (n, heads, d) = (4, 2, 10);
    let (x, y) = (numbers(1, n * heads * d), numbers(2, n * heads * d));
    let (cos, sin) = (numbers(3, n * d / 2), numbers(4, n * d / 2));
    let (mut rx, mut rty) = (x.clone(), y.clone());
    rotary(&mut rx, &cos, &sin, heads, d, false).unwrap();
    rotary(&mut rty, &cos, &sin, heads, d, true).unwrap();
    let left = reference::dot(&wide(&rx), &wide(&y));
    let right = reference::dot(&wide(&x), &wide(&rty));
    assert!((left - right).abs() < 80.0 * TOLERANCE);
}

/// The first heads of longer rows, the last row cut short, in both types.
fn check_rows(n: usize, heads: usize, d: usize, behind: usize) {
    let (width, stride) = (heads * d, heads * d + behind);
    let len = if n == 0 { 0 } else { (n - 1) * stride + width };
    let x = floats(&halves(&numbers(1, len)));
    let (cos, sin) = (numbers(2, n * d / 2), numbers(3, n * d / 2));
    for inverse in [false, true] {
        let mut expected = x.clone();
        for (n, row) in expected.chunks_mut(stride).enumerate() {
            let at = n * d / 2..(n + 1) * d / 2;
            let (cos, sin) = (&cos[at.clone()], &sin[at]);
            rotary(&mut row[..width], cos, sin, heads, d, inverse).unwrap();
        }
        let mut actual = x.clone();
        let heads = Heads {
            row_stride: stride,
            n_heads: heads,
            head_dim: d,
            turned: d,
            interleaved: false,
        };
        rotary_rows(&mut actual, heads, &cos, &sin, inverse).unwrap();
        assert_eq!(actual, expected);
        for token in tokens() {
            let mut expected = x.clone();
            rotary_rows(&mut expected, heads, &cos, &sin, inverse).unwrap();
            let mut actual = halves(&x);
            rotary_rows(&mut actual, heads, &cos, &sin, inverse).unwrap();
            assert_eq!(actual, halves(&expected), "{}", token.isa());
        }
    }
}

proptest! {
    #![proptest_config(cases(64))]
    #[test]
    fn rows_with_something_behind_and_rows_of_bf16_are_turned_alike(
        n in 0_usize..40, heads in 1_usize..5, half in 1_usize..40, behind in 0_usize..70,
    ) {
        check_rows(n, heads, 2 * half, behind);
    }
}

#[test]
fn nan_stays_in_its_pair() {
    let (heads, d) = (2, 42);
    let (cos, sin) = (numbers(2, 3 * d / 2), numbers(3, 3 * d / 2));
    let contiguous = Heads {
        row_stride: heads * d,
        n_heads: heads,
        head_dim: d,
        turned: d,
        interleaved: false,
    };
    for token in tokens() {
        // The last pair of the second head of the second token is in an incomplete group.
        for at in [3, 3 * d + 20, 3 * d + 41] {
            let mut x = numbers(1, 3 * heads * d);
            x[at] = f32::NAN;
            rotary_rows(&mut x, contiguous, &cos, &sin, false).unwrap();
            for (i, x) in x.iter().enumerate() {
                let pair = i / d == at / d && i % (d / 2) == at % (d / 2);
                assert_eq!(x.is_nan(), pair, "{} {at} {i}", token.isa());
            }
        }
    }
}

/// The beginning of each head is turned as a head of its own, and the rest stays to the bit.
#[test]
fn a_part_of_each_head_is_turned_alone() {
    let (n, n_heads) = (5, 3);
    for (head_dim, turned) in [(8, 2), (40, 24), (64, 34), (24, 24)] {
        let x = numbers(1, n * n_heads * head_dim);
        let (cos, sin) = (numbers(2, n * turned / 2), numbers(3, n * turned / 2));
        let heads = Heads {
            row_stride: n_heads * head_dim,
            n_heads,
            head_dim,
            turned,
            interleaved: false,
        };
        let parts = |x: &[f32]| -> Vec<f32> {
            x.chunks(head_dim)
                .flat_map(|head| head[..turned].to_vec())
                .collect()
        };
        for inverse in [false, true] {
            let mut alone = parts(&x);
            rotary(&mut alone, &cos, &sin, n_heads, turned, inverse).unwrap();
            let mut actual = x.clone();
            rotary_rows(&mut actual, heads, &cos, &sin, inverse).unwrap();
            assert_eq!(parts(&actual), alone);
            for (actual, x) in actual.chunks(head_dim).zip(x.chunks(head_dim)) {
                assert_eq!(actual[turned..], x[turned..]);
            }
        }
    }
    let heads = Heads {
        row_stride: 4,
        n_heads: 1,
        head_dim: 4,
        turned: 6,
        interleaved: false,
    };
    let table = [1.0; 3];
    assert!(matches!(
        rotary_rows(&mut [0.0_f32; 4], heads, &table, &table, false),
        Err(KernelError::View {
            cols: 6,
            row_stride: 4,
            ..
        })
    ));
}

/// Neighbours are turned as the two halves of a head are that has them apart.
#[test]
fn neighbours_are_turned_as_the_halves_of_a_sorted_head() {
    let (n, n_heads) = (5, 3);
    for (head_dim, turned) in [(2, 2), (8, 4), (40, 24), (64, 64), (34, 34)] {
        let x = numbers(1, n * n_heads * head_dim);
        let (cos, sin) = (numbers(2, n * turned / 2), numbers(3, n * turned / 2));
        let halved = Heads {
            row_stride: n_heads * head_dim,
            n_heads,
            head_dim,
            turned,
            interleaved: false,
        };
        let interleaved = Heads {
            interleaved: true,
            ..halved
        };
        let sorted = |x: &[f32]| -> Vec<f32> {
            let heads = x.chunks(head_dim).flat_map(|head| {
                let (turned, rest) = head.split_at(turned);
                let even = turned.iter().step_by(2);
                let odd = turned.iter().skip(1).step_by(2);
                even.chain(odd).chain(rest)
            });
            heads.copied().collect()
        };
        for inverse in [false, true] {
            let mut expected = sorted(&x);
            rotary_rows(&mut expected, halved, &cos, &sin, inverse).unwrap();
            for token in tokens() {
                let mut actual = x.clone();
                rotary_rows(&mut actual, interleaved, &cos, &sin, inverse).unwrap();
                let what = format!("{} {turned} of {head_dim}", token.isa());
                assert_close(&what, &sorted(&actual), &wide(&expected), TOLERANCE);
            }
        }
    }
}

#[test]
fn rows_over_several_blocks() {
    check_rows(130, 4, 64, 100);
}

#[test]
fn refuses_rows_that_overlap_or_are_missing() {
    let run = |len: usize, stride: usize, n: usize| {
        let table = vec![0.0; 2 * n];
        let heads = Heads {
            row_stride: stride,
            n_heads: 2,
            head_dim: 4,
            turned: 4,
            interleaved: false,
        };
        rotary_rows(&mut vec![0.0_f32; len], heads, &table, &table, false)
    };
    assert_eq!(run(0, 0, 0), Ok(()));
    assert_eq!(run(8, 0, 1), Ok(()));
    assert_eq!(run(8, usize::MAX, 1), Ok(()));
    assert_eq!(run(18, 10, 2), Ok(()));
    let view = KernelError::View {
        rows: 2,
        cols: 8,
        row_stride: 10,
        col_stride: 1,
        found: 17,
    };
    assert_eq!(run(17, 10, 2), Err(view));
    assert!(matches!(
        run(18, 7, 2),
        Err(KernelError::OverlappingView { row_stride: 7, .. })
    ));
    assert!(matches!(
        run(18, usize::MAX, 3),
        Err(KernelError::Overflow { name: "x" })
    ));
}

#[test]
fn tables_hold_the_cosine_of_the_rounded_angle_times_the_scaling() {
    let (cos, sin) = rotary_tables(&[0, 1, 2047], &[1.0, 0.123], 1.5).unwrap();
    assert_eq!((cos[0], sin[0]), (1.5, 0.0));
    for (n, position) in [0.0_f32, 1.0, 2047.0].into_iter().enumerate() {
        for (i, freq) in [1.0_f32, 0.123].into_iter().enumerate() {
            let angle = f64::from(position * freq);
            assert_eq!(cos[2 * n + i], (1.5 * angle.cos()) as f32);
            assert_eq!(sin[2 * n + i], (1.5 * angle.sin()) as f32);
        }
    }
    assert_eq!(rotary_tables(&[], &[1.0], 1.0), Ok((vec![], vec![])));
    assert_eq!(rotary_tables(&[1], &[], 1.0), Ok((vec![], vec![])));
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let positions: Vec<u32> = (0..500).collect();
    let inv_freq: Vec<f32> = (0..32).map(|i| 1.0 / (1.0 + i as f32)).collect();
    let x = numbers(1, 500 * 3 * 64);
    assert_threads_agree("rotary", || {
        let (cos, sin) = rotary_tables(&positions, &inv_freq, 1.0).unwrap();
        let mut turned = x.clone();
        rotary(&mut turned, &cos, &sin, 3, 64, false).unwrap();
        vec![cos, sin, turned]
    });
}

#[test]
fn refuses_what_does_not_fit() {
    let run = |x: usize, cos: usize, sin: usize, heads: usize, d: usize| {
        rotary(
            &mut vec![0.0; x],
            &vec![0.0; cos],
            &vec![0.0; sin],
            heads,
            d,
            false,
        )
    };
    assert_eq!(run(24, 6, 6, 2, 4), Ok(()));
    assert_eq!(
        run(24, 6, 6, 2, 3),
        Err(KernelError::OddHeadDim { head_dim: 3 })
    );
    assert_eq!(
        run(0, 0, 0, 2, 0),
        Err(KernelError::Zero { name: "head_dim" })
    );
    assert_eq!(
        run(0, 0, 0, 0, 2),
        Err(KernelError::Zero { name: "n_heads" })
    );
    assert_refused("x", run(25, 6, 6, 2, 4));
    assert_refused("sin", run(24, 6, 4, 2, 4));
    assert_refused("cos", run(24, 7, 7, 2, 4));
}
