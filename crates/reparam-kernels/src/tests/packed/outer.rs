//! Sums over many rows with a small factor.

use super::*;

/// `dA = s g' x` and its transpose, added to what is there, of rows with other numbers between them.
fn check(m: usize, k: usize, r: usize, as_f32: bool) {
    let (g, x, old) = (bf16(3, m * r), bf16(1, m * k), numbers(4, r * k));
    let scaling = -1.5;
    let g_wide = transpose(&wide_bf16(&g), m, r);
    let expected: Vec<f64> = reference_matmul(&g_wide, &wide_bf16(&x), r, m, k)
        .iter()
        .zip(&old)
        .map(|(sum, old)| f64::from(scaling) * sum + f64::from(*old))
        .collect();
    let stride = k + 3;
    let mut spread = vec![Bf16::from_f32(f32::NAN); m * stride];
    for (to, x) in spread.chunks_mut(stride).zip(x.chunks(k)) {
        to[..k].copy_from_slice(x);
    }
    let spread_floats = floats(&spread);
    let x = if as_f32 {
        Matrix::with_row_stride(&spread_floats[..], m, k, stride).unwrap()
    } else {
        Matrix::with_row_stride(&spread[..], m, k, stride).unwrap()
    };
    let g_turned: Vec<Bf16> = (0..r * m).map(|i| g[i % m * r + i / m]).collect();
    for token in tokens() {
        let what = format!("{} {m} x {k} x {r}", token.isa());
        let run = |g: Matrix<'_>| {
            let mut da = old.clone();
            let out = MatrixMut::new(&mut da[..], r, k).unwrap();
            product(g, x, scaling, true, out).unwrap();
            da
        };
        let da = run(view(&g, m, r).t());
        assert_close(&what, &da, &expected, TOLERANCE);
        // The small factor may lie the other way round, and so may the output. Tile registers compute
        // some of these, and sum in another order.
        let agree = |what: &str, actual: &[f32], expected: &[f32]| {
            if token.has_tiles() {
                assert_close(what, actual, &wide(expected), TOLERANCE);
            } else {
                assert!(actual == expected, "{what}");
            }
        };
        agree(&what, &run(view(&g_turned, r, m)), &da);
        let mut db = transpose_floats(&old, r, k);
        let out = MatrixMut::new(&mut db[..], k, r).unwrap();
        product(x.t(), view(&g, m, r), scaling, true, out).unwrap();
        agree(&what, &db, &transpose_floats(&da, r, k));
    }
}

#[test]
fn sums_of_sizes_around_blocks() {
    // 128 rows a block, 16 columns a panel, at least six panels a task, up to 64 rows of the output.
    for (m, k, r) in [
        (1, 1, 1),
        (2, 16, 8),
        (127, 97, 7),
        (128, 96, 64),
        (129, 95, 63),
        (257, 193, 17),
        (256, 700, 48),
        (40, 1700, 3),
        // More rows go another way.
        (131, 90, 65),
        (131, 90, 90),
    ] {
        for as_f32 in [false, true] {
            check(m, k, r, as_f32);
        }
    }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn sums_of_any_size(
        m in 1..300_usize, k in 1..200_usize, r in 1..70_usize, as_f32: bool,
    ) {
        check(m, k, r, as_f32);
    }
}

#[test]
fn nothing_to_sum_is_zero() {
    for _ in tokens() {
        let mut out = [7.0_f32; 6];
        let (g, x) = (
            Matrix::new(&[] as &[f32], 0, 2),
            Matrix::new(&[] as &[f32], 0, 3),
        );
        let view = MatrixMut::new(&mut out[..], 2, 3).unwrap();
        product(g.unwrap().t(), x.unwrap(), 1.0, false, view).unwrap();
        assert_eq!(out, [0.0; 6]);
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let (m, k, r) = (700, 500, 20);
    let (x, g) = (bf16(1, m * k), bf16(2, m * r));
    for _ in tokens() {
        assert_threads_agree("sums over rows", || {
            let (mut da, mut db) = (vec![0.0; r * k], vec![0.0; k * r]);
            let out = MatrixMut::new(&mut da[..], r, k).unwrap();
            product(view(&g, m, r).t(), view(&x, m, k), 1.0, false, out).unwrap();
            let out = MatrixMut::new(&mut db[..], k, r).unwrap();
            product(view(&x, m, k).t(), view(&g, m, r), 1.0, false, out).unwrap();
            vec![da, db]
        });
    }
}
