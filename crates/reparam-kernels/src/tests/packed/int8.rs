//! Weights of 8-bit integers.

use super::*;
use crate::packed::{Int8View, Int8Weight, matmul_int8};

/// What the weight stands for, exactly: its products with unit rows.
fn meant(w: Int8View<'_>) -> Vec<f64> {
    let (n, k) = (w.rows(), w.cols());
    let mut meant = vec![0.0; n * k];
    for col in 0..k {
        let mut x = vec![0.0; k];
        x[col] = 1.0;
        let x = Matrix::new(&x[..], 1, k).unwrap();
        let mut column = vec![0.0; n];
        let out = MatrixMut::new(&mut column[..], 1, n).unwrap();
        matmul_int8(x, w, Epilogue::default(), out).unwrap();
        for (row, x) in column.iter().enumerate() {
            meant[row * k + col] = f64::from(*x);
        }
    }
    meant
}

fn plain(x: &[Bf16], w: Int8View<'_>) -> Vec<f32> {
    let (k, n) = (w.cols(), w.rows());
    let m = x.len().checked_div(k).unwrap_or(1);
    let mut y = vec![0.0; m * n];
    let out = MatrixMut::new(&mut y[..], m, n).unwrap();
    matmul_int8(view(x, m, k), w, Epilogue::default(), out).unwrap();
    y
}

proptest! {
    #![proptest_config(cases(40))]

    /// Every number is off by at most half a scale, and so is a row that is read.
    #[test]
    fn integers_are_the_nearest(
        n in 1_usize..40, k in 1_usize..30, exponent in -125_i32..120, seed in any::<u64>(),
    ) {
        let size = 2_f32.powi(exponent);
        let w: Vec<f32> = numbers(seed, n * k).iter().map(|x| x * size).collect();
        let w = halves(&w);
        let int8 = Int8Weight::new(&PackedWeight::new(view(&w, n, k)).unwrap());
        let meant = meant(Int8View::from(&int8));
        for (row, (w, meant)) in w.chunks(k).zip(meant.chunks(k)).enumerate() {
            let w = wide_bf16(w);
            let scale = w.iter().fold(0.0_f64, |max, x| max.max(x.abs())) / 127.0;
            let mut read = vec![Bf16::ZERO; k];
            int8.read_row(row, &mut read).unwrap();
            for ((w, meant), read) in w.iter().zip(meant).zip(read) {
                // The scale and its inverse are rounded to f32.
                prop_assert!((w - meant).abs() <= scale * 0.50002, "{w} {meant} {scale}");
                prop_assert_eq!(read, Bf16::from_f32(*meant as f32));
            }
        }
    }

    #[test]
    fn products_agree_with_the_definition(
        m in 0_usize..8, k in 0_usize..70, n in 0_usize..70, r in 0_usize..5, accumulate in any::<bool>(),
    ) {
        let layer = Layer::new(m, k, n, r);
        let int8 = Int8Weight::new(&layer.packed());
        let w = transpose(&meant(Int8View::from(&int8)), n, k);
        let plain = reference_matmul(&wide_bf16(&layer.x), &w, m, k, n);
        let b = transpose(&wide_bf16(&layer.b), n, r);
        let low_rank = reference_matmul(&wide_bf16(&layer.t), &b, m, r, n);
        let old = numbers(9, m * n);
        let expected: Vec<f64> = (0..m * n)
            .map(|i| {
                let old = if accumulate { f64::from(old[i]) } else { 0.0 };
                let low_rank = f64::from(layer.scaling) * low_rank[i];
                plain[i] + low_rank + f64::from(layer.bias[i % n]) + old
            })
            .collect();
        // More rows than four multiply numbers that were rounded to bf16.
        let rounding = if m > 4 { BF16_UNIT / 2.0 } else { 0.0 };
        for token in tokens() {
            // Rows of the output lie apart.
            let stride = n + 3;
            let mut out = vec![7.0; m * stride];
            for (out, old) in out.chunks_mut(stride).zip(old.chunks(n.max(1))) {
                out[..n].copy_from_slice(&old[..n]);
            }
            let epilogue = Epilogue {
                low_rank: Some(layer.low_rank(Direction::Forward)),
                bias: Some(&layer.bias[..n]),
                accumulate,
            };
            let x = view(&layer.x, m, k);
            let target = MatrixMut::with_row_stride(&mut out[..], m, n, stride).unwrap();
            matmul_int8(x, &int8, epilogue, target).unwrap();
            let found: Vec<f32> = out.chunks(stride).flat_map(|row| &row[..n]).copied().collect();
            let what = format!("{m} {k} {n} {r} {}", token.isa());
            // Each term is off by `rounding` of itself; none is greater than 1.
            assert_close(&what, &found, &expected, TOLERANCE + rounding * k as f64);
            prop_assert!(out.chunks(stride).all(|row| row[n..].iter().all(|x| *x == 7.0)));
        }
    }
}

#[test]
fn a_part_is_a_weight() {
    let (k, rows) = (37, [20, 5, 16]);
    let parts = rows.map(|n| bf16(n as u64, n * k));
    let views: Vec<_> = parts.iter().zip(rows).map(|(w, n)| view(w, n, k)).collect();
    let int8 = Int8Weight::new(&PackedWeight::stack(&views).unwrap());
    assert_eq!(int8.part_rows(), [0..20, 32..37, 48..64]);
    assert!(int8.part(3).is_none());
    for m in [1, 2, 3, 4, 5] {
        let x = bf16(11, m * k);
        for _ in tokens() {
            let whole = plain(&x, Int8View::from(&int8));
            for (index, rows) in int8.part_rows().iter().enumerate() {
                let part = plain(&x, int8.part(index).unwrap());
                let of_whole: Vec<f32> = whole
                    .chunks(int8.rows())
                    .flat_map(|row| &row[rows.clone()])
                    .copied()
                    .collect();
                assert_eq!(part, of_whole, "{m} {index}");
            }
            assert!(
                whole
                    .chunks(64)
                    .all(|row| row[37..48].iter().all(|x| *x == 0.0))
            );
        }
    }
}

#[test]
fn many_rows_are_the_product_of_the_rounded_weight() {
    let layer = Layer::new(6, 40, 50, 0);
    let int8 = Int8Weight::new(&layer.packed());
    let packed = int8.to_packed();
    assert_eq!(packed.part_rows(), int8.part_rows());
    for _ in tokens() {
        let mut expected = vec![0.0; 6 * 50];
        let out = MatrixMut::new(&mut expected[..], 6, 50).unwrap();
        let x = view(&layer.x, 6, 40);
        let forward = Direction::Forward;
        matmul(x, &packed, forward, Epilogue::default(), out).unwrap();
        assert_eq!(plain(&layer.x, Int8View::from(&int8)), expected);
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (k, n) = (300, 4000);
    let int8 = Int8Weight::new(&PackedWeight::new(view(&bf16(1, n * k), n, k)).unwrap());
    for _ in tokens() {
        for m in [1, 3, 5] {
            let x = bf16(2, m * k);
            assert_threads_agree("int8", || vec![plain(&x, Int8View::from(&int8))]);
        }
    }
}

#[test]
fn rows_of_zeros_and_of_what_is_not_a_number() {
    let k = 6;
    let mut w = bf16(1, 4 * k);
    w[..k].fill(Bf16::ZERO);
    w[k + 2] = Bf16::from_f32(f32::NAN);
    w[2 * k] = Bf16::from_f32(f32::INFINITY);
    let int8 = Int8Weight::new(&PackedWeight::new(view(&w, 4, k)).unwrap());
    for _ in tokens() {
        for m in [1, 5] {
            let y = plain(&bf16(2, m * k), Int8View::from(&int8));
            for row in y.chunks(4) {
                assert_eq!(row[0], 0.0);
                assert!(row[1].is_nan() && row[2].is_nan() && row[3].is_finite());
            }
        }
    }
}

#[test]
fn takes_half_the_memory_and_refuses_what_does_not_fit() {
    let layer = Layer::new(1, 64, 160, 2);
    let packed = layer.packed();
    let int8 = Int8Weight::new(&packed);
    assert_eq!(int8.bytes(), packed.bytes() / 2 + 160 * 4);
    let mut y = vec![0.0; 160];
    let mut run = |x: Matrix<'_>, epilogue| {
        let out = MatrixMut::new(&mut y[..], 1, 160).unwrap();
        matmul_int8(x, &int8, epilogue, out)
    };
    let x = view(&layer.x, 1, 64);
    assert_eq!(run(x, Epilogue::default()), Ok(()));
    let short = view(&layer.x[..63], 1, 63);
    assert!(matches!(
        run(short, Epilogue::default()),
        Err(KernelError::MatmulShapes {
            a_cols: 63,
            b_rows: 64,
            ..
        })
    ));
    let bias = Some(&layer.bias[..3]);
    let epilogue = Epilogue {
        bias,
        ..Epilogue::default()
    };
    assert_refused("bias", run(x, epilogue));
    let low_rank = Some(layer.low_rank(Direction::Backward));
    let epilogue = Epilogue {
        low_rank,
        ..Epilogue::default()
    };
    assert!(matches!(
        run(x, epilogue),
        Err(KernelError::MatmulShapes { .. })
    ));
    let mut row = [Bf16::ZERO; 64];
    assert!(matches!(
        int8.read_row(160, &mut row),
        Err(KernelError::View { rows: 161, .. })
    ));
    assert_refused("to", int8.read_row(0, &mut row[1..]));
}
