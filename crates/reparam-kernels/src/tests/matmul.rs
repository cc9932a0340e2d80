use proptest::prelude::*;

use super::{UNIT, assert_threads_agree, cases, numbers, reference, wide};
use crate::KernelError;
use crate::matmul::{MatMut, MatRef, matmul};

/// Asserts the classic bound: a sum of `k` products in any order errs by at most `k + 2` roundings
/// of the sum of magnitudes (Higham, "Accuracy and Stability", eq. 3.5, plus alpha and beta).
#[track_caller]
fn assert_product(
    actual: &[f32],
    dst: &[f32],
    [a, b]: [&[f32]; 2],
    [m, k, n]: [usize; 3],
    [alpha, beta]: [f32; 2],
) {
    let (a, b) = (wide(a), wide(b));
    let product = reference::matmul(&a, &b, m, k, n);
    let abs = |x: &[f64]| x.iter().map(|x| x.abs()).collect::<Vec<_>>();
    let magnitude = reference::matmul(&abs(&a), &abs(&b), m, k, n);
    for i in 0..m * n {
        let old = if beta == 0.0 {
            0.0
        } else {
            f64::from(beta) * f64::from(dst[i])
        };
        let expected = old + f64::from(alpha) * product[i];
        let size = old.abs() + f64::from(alpha).abs() * magnitude[i];
        let error = (f64::from(actual[i]) - expected).abs();
        let bound = 1.01 * (k + 2) as f64 * UNIT * size;
        assert!(
            error <= bound,
            "{m} x {k} x {n}, element {i}: {} is not {expected}",
            actual[i]
        );
    }
}

fn check([m, k, n]: [usize; 3], [a_t, b_t, dst_t]: [bool; 3], [alpha, beta]: [f32; 2]) {
    let (a, b, old) = (numbers(1, m * k), numbers(2, k * n), numbers(3, m * n));
    let transposed = |x: &[f32], rows: usize, cols: usize| -> Vec<f32> {
        reference::transpose(&wide(x), rows, cols)
            .iter()
            .map(|&x| x as f32)
            .collect()
    };
    let (a_data, b_data) = (
        if a_t { transposed(&a, m, k) } else { a.clone() },
        if b_t { transposed(&b, k, n) } else { b.clone() },
    );
    let a_view = if a_t {
        MatRef::new(&a_data, k, m).unwrap().t()
    } else {
        MatRef::new(&a_data, m, k).unwrap()
    };
    let b_view = if b_t {
        MatRef::new(&b_data, n, k).unwrap().t()
    } else {
        MatRef::new(&b_data, k, n).unwrap()
    };
    // Not read if beta is zero.
    let mut dst = if beta == 0.0 {
        vec![f32::NAN; m * n]
    } else if dst_t {
        transposed(&old, m, n)
    } else {
        old.clone()
    };
    let dst_view = if dst_t {
        MatMut::new(&mut dst, n, m).unwrap().t()
    } else {
        MatMut::new(&mut dst, m, n).unwrap()
    };
    matmul(dst_view, a_view, b_view, alpha, beta).unwrap();
    let actual = if dst_t { transposed(&dst, n, m) } else { dst };
    assert_product(&actual, &old, [&a, &b], [m, k, n], [alpha, beta]);
}

#[test]
fn agrees_with_the_definition_at_sizes_around_blocks() {
    for &m in &[0, 1, 2, 7, 16, 17, 48, 49, 97] {
        for &k in &[0, 1, 2, 3, 64, 65] {
            for &n in &[0, 1, 5, 16, 33, 64] {
                check([m, k, n], [false, false, false], [1.0, 0.0]);
                check([m, k, n], [false, true, false], [0.5, 1.0]);
            }
        }
    }
    // More than one block of the inner dimension and of the columns of a single row.
    check([3, 2000, 65], [false, true, false], [1.0, 0.0]);
    check([1, 700, 3000], [false, true, false], [1.0, 0.0]);
    check([1, 700, 3000], [false, false, false], [2.0, 1.0]);
    check([3000, 700, 1], [false, false, false], [1.0, 0.0]);
    check([3000, 300, 1], [true, true, false], [1.0, -1.0]);
}

#[test]
fn agrees_with_the_definition_for_all_transpositions() {
    for bits in 0..8 {
        let transposed = [bits & 1 != 0, bits & 2 != 0, bits & 4 != 0];
        for size in [[33, 20, 17], [1, 9, 40], [40, 9, 1], [1, 1, 1]] {
            check(size, transposed, [1.0, 0.0]);
            check(size, transposed, [-0.5, 2.0]);
        }
    }
}

proptest! {
    #![proptest_config(cases(64))]
    #[test]
    fn agrees_with_the_definition(
        m in 0_usize..70, k in 0_usize..70, n in 0_usize..70, bits in 0_usize..8,
        alpha in -2.0_f32..2.0, beta in prop_oneof![Just(0.0_f32), -2.0_f32..2.0],
    ) {
        check([m, k, n], [bits & 1 != 0, bits & 2 != 0, bits & 4 != 0], [alpha, beta]);
    }
}

#[test]
fn reads_and_writes_views_with_gaps() {
    // 3 x 2 with columns two apart in rows of five, times 2 x 2 in rows of three.
    let a: Vec<f32> = (0..15).map(|i| i as f32).collect();
    let b: Vec<f32> = (0..6).map(|i| i as f32).collect();
    let mut dst = vec![-1.0_f32; 3 * 4];
    matmul(
        MatMut::with_strides(&mut dst, 3, 2, 4, 1).unwrap(),
        MatRef::with_strides(&a, 3, 2, 5, 2).unwrap(),
        MatRef::with_strides(&b, 2, 2, 3, 1).unwrap(),
        1.0,
        0.0,
    )
    .unwrap();
    // Rows of a: (0 2), (5 7), (10 12); of b: (0 1), (3 4).
    let expected = [6., 8., -1., -1., 21., 33., -1., -1., 36., 58., -1., -1.];
    assert_eq!(dst, expected);
}

/// In sums of whole registers and in those of what is left over.
#[test]
fn nan_stays_in_its_row_or_column() {
    let [m, k, n] = [35, 21, 37];
    for (row, inner, col) in [(0, 0, 0), (17, 20, 36), (34, 5, 16)] {
        let (mut a, mut b) = (numbers(1, m * k), numbers(2, k * n));
        a[row * k + inner] = f32::NAN;
        b[inner * n + col] = f32::INFINITY;
        let mut dst = vec![0.0; m * n];
        matmul(
            MatMut::new(&mut dst, m, n).unwrap(),
            MatRef::new(&a, m, k).unwrap(),
            MatRef::new(&b, k, n).unwrap(),
            1.0,
            0.0,
        )
        .unwrap();
        for (i, x) in dst.iter().enumerate() {
            assert_eq!(x.is_nan(), i / n == row, "{i}");
            assert_eq!(x.is_finite(), i / n != row && i % n != col, "{i}");
        }
    }
}

#[test]
fn multiplies_f64() {
    let a: Vec<f64> = wide(&numbers(1, 50 * 40));
    let b: Vec<f64> = wide(&numbers(2, 40 * 30));
    let mut dst = vec![f64::NAN; 50 * 30];
    matmul(
        MatMut::new(&mut dst, 50, 30).unwrap(),
        MatRef::new(&a, 50, 40).unwrap(),
        MatRef::new(&b, 40, 30).unwrap(),
        1.0,
        0.0,
    )
    .unwrap();
    for (x, y) in dst.iter().zip(reference::matmul(&a, &b, 50, 40, 30)) {
        // 42 roundings of at most 40 products below one.
        assert!((x - y).abs() <= 42.0 * f64::EPSILON * 40.0);
    }
}

#[test]
fn refuses_views_and_shapes_that_do_not_fit() {
    let data = [0.0_f32; 12];
    assert!(matches!(
        MatRef::new(&data, 3, 5),
        Err(KernelError::Length {
            expected: 15,
            found: 12,
            ..
        })
    ));
    assert!(matches!(
        MatRef::new(&data, usize::MAX, 2),
        Err(KernelError::Overflow { .. })
    ));
    // The last element is at 2 * 5 + 2 * 1 = 12, one beyond the end.
    assert!(matches!(
        MatRef::with_strides(&data, 3, 3, 5, 1),
        Err(KernelError::View { .. })
    ));
    assert!(MatRef::with_strides(&data, 3, 2, 5, 1).is_ok());
    assert!(matches!(
        MatRef::with_strides(&data, usize::MAX, 2, usize::MAX, 1),
        Err(KernelError::Overflow { .. })
    ));
    // A row of one element repeated is fine to read, not to write.
    assert!(MatRef::with_strides(&data, 4, 3, 0, 1).is_ok());
    let mut out = [0.0_f32; 12];
    assert!(matches!(
        MatMut::with_strides(&mut out, 4, 3, 0, 1),
        Err(KernelError::OverlappingView { .. })
    ));
    assert!(matches!(
        MatMut::with_strides(&mut out, 3, 3, 2, 1),
        Err(KernelError::OverlappingView { .. })
    ));
    assert!(MatMut::with_strides(&mut out, 3, 3, 1, 4).is_ok());
    let result = matmul(
        MatMut::new(&mut out, 3, 4).unwrap(),
        MatRef::new(&data, 3, 4).unwrap(),
        MatRef::new(&data, 3, 4).unwrap(),
        1.0,
        0.0,
    );
    assert!(matches!(
        result,
        Err(KernelError::MatmulShapes {
            a_cols: 4,
            b_rows: 3,
            ..
        })
    ));
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    // Shapes that `gemm` gives to several threads, with one and with several blocks of the inner
    // dimension, wide, tall, transposed; and single rows and columns.
    for ([m, k, n], b_t) in [
        ([300, 200, 250], false),
        ([300, 200, 250], true),
        ([64, 3000, 130], true),
        ([16, 2048, 577], false),
        ([2000, 64, 16], true),
        ([1, 576, 4097], true),
        ([5, 576, 4097], true),
        ([4097, 576, 1], false),
    ] {
        let (a, b) = (numbers(1, m * k), numbers(2, k * n));
        assert_threads_agree(&format!("{m} x {k} x {n}"), || {
            let mut dst = vec![0.0; m * n];
            let b = if b_t {
                MatRef::new(&b, n, k).unwrap().t()
            } else {
                MatRef::new(&b, k, n).unwrap()
            };
            matmul(
                MatMut::new(&mut dst, m, n).unwrap(),
                MatRef::new(&a, m, k).unwrap(),
                b,
                1.0,
                0.0,
            )
            .unwrap();
            vec![dst]
        });
    }
}
