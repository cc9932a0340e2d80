//! Laws for whatever shapes, strides and number formats.

use super::*;

/// Which formats and strides a product uses.
#[derive(Debug, Clone, Copy)]
struct Form {
    direction: Direction,
    /// Numbers before the first, so that nothing is aligned.
    offset: usize,
    /// Numbers between two rows.
    gap: usize,
    x_f32: bool,
    out_bf16: bool,
    accumulate: bool,
    low_rank: bool,
    bias: bool,
}

fn forms() -> impl Strategy<Value = Form> {
    (
        any::<bool>(),
        0..3_usize,
        0..4_usize,
        proptest::array::uniform5(any::<bool>()),
    )
        .prop_map(|(forward, offset, gap, flags)| Form {
            direction: if forward {
                Direction::Forward
            } else {
                Direction::Backward
            },
            offset,
            gap,
            x_f32: flags[0],
            out_bf16: flags[1],
            accumulate: flags[2],
            low_rank: flags[3],
            bias: flags[4],
        })
}

/// Puts rows of `cols` into a slice with other numbers around them.
fn spread<T: Copy>(rows: &[T], cols: usize, form: Form, other: T) -> Vec<T> {
    let mut all = vec![other; form.offset];
    for row in rows.chunks(cols) {
        all.extend_from_slice(row);
        all.extend(std::iter::repeat_n(other, form.gap));
    }
    all
}

fn check(layer: &Layer, form: Form) -> Result<(), TestCaseError> {
    let Form {
        direction, offset, ..
    } = form;
    let (left, sums, cols) = layer.left(direction);
    let m = layer.m;
    let old = bf16(8, m * cols);
    let (plain, full) = layer.expected(direction);
    let (without_term, _) = Layer {
        t: vec![Bf16::ZERO; m * layer.r],
        w: layer.w.clone(),
        x: layer.x.clone(),
        dy: layer.dy.clone(),
        ..Layer::new(m, layer.k, layer.n, layer.r)
    }
    .expected(direction);
    prop_assert_eq!(&plain, &without_term);
    let expected: Vec<f64> = (0..m * cols)
        .map(|i| {
            let bias = f64::from(layer.bias[i % cols]);
            let mut y = plain[i];
            if form.low_rank {
                y = full[i] - bias;
            }
            if form.bias {
                y += bias;
            }
            if form.accumulate {
                y += f64::from(old[i].to_f32());
            }
            y
        })
        .collect();

    // What lies around is never to be read or written.
    let nan = Bf16::from_f32(f32::NAN);
    let (w, k) = (spread(&layer.w, layer.k, form, nan), layer.k);
    let w = Matrix::with_row_stride(&w[offset..], layer.n, k, k + form.gap).unwrap();
    let w = PackedWeight::new(w).unwrap();
    let x = spread(left, sums, form, nan);
    let x_floats = floats(&x);
    let stride = sums + form.gap;
    let x = if form.x_f32 {
        Matrix::with_row_stride(&x_floats[offset..], m, sums, stride).unwrap()
    } else {
        Matrix::with_row_stride(&x[offset..], m, sums, stride).unwrap()
    };
    let epilogue = Epilogue {
        low_rank: form.low_rank.then(|| layer.low_rank(direction)),
        bias: form.bias.then_some(&layer.bias[..cols]),
        accumulate: form.accumulate,
    };
    for _ in tokens() {
        let mut out = spread(&old, cols, form, nan);
        let mut out_floats = floats(&out);
        let view = if form.out_bf16 {
            MatrixMut::with_row_stride(&mut out[offset..], m, cols, cols + form.gap)
        } else {
            MatrixMut::with_row_stride(&mut out_floats[offset..], m, cols, cols + form.gap)
        };
        matmul(x, &w, direction, epilogue, view.unwrap()).unwrap();
        if form.out_bf16 {
            out_floats = floats(&out);
        }
        let (before, rows) = out_floats.split_at(offset);
        prop_assert!(before.iter().all(|x| x.is_nan()));
        let mut actual = Vec::new();
        for row in rows.chunks(cols + form.gap) {
            actual.extend_from_slice(&row[..cols]);
            prop_assert!(row[cols..].iter().all(|x| x.is_nan()));
        }
        let rounding = if form.out_bf16 { BF16_UNIT } else { 0.0 };
        assert_close("form", &actual, &expected, TOLERANCE + rounding);
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn all_forms(
        m in 1..40_usize, k in 1..80_usize, n in 1..80_usize, r in 1..20_usize, form in forms(),
    ) {
        check(&Layer::new(m, k, n, r), form)?;
    }

    /// `t = x A'`, `g = dy B`, `dA = s g' x`, `dB = s dy' t`
    #[test]
    fn products_with_small_factors(
        m in 1..150_usize, k in 1..90_usize, r in 1..20_usize,
        scaling in -2.0..2.0_f32, accumulate: bool, f32_input: bool,
    ) {
        let (x, a, g) = (bf16(1, m * k), bf16(2, r * k), bf16(3, m * r));
        let (x_floats, old) = (floats(&x), numbers(4, r * k.max(m)));
        let x_view = if f32_input { Matrix::new(&x_floats[..], m, k) } else { Matrix::new(&x[..], m, k) };
        let x_view = x_view.unwrap();
        let (a_wide, x_wide, g_wide) = (wide_bf16(&a), wide_bf16(&x), wide_bf16(&g));
        let cases = [
            // x A', the same from the other side, g A, g' x, x' g
            (x_view, view(&a, r, k).t(), reference_matmul(&x_wide, &transpose(&a_wide, r, k), m, k, r)),
            (view(&a, r, k), x_view.t(), reference_matmul(&a_wide, &transpose(&x_wide, m, k), r, k, m)),
            (view(&g, m, r), view(&a, r, k), reference_matmul(&g_wide, &a_wide, m, r, k)),
            (view(&g, m, r).t(), x_view, reference_matmul(&transpose(&g_wide, m, r), &x_wide, r, m, k)),
            (x_view.t(), view(&g, m, r), reference_matmul(&transpose(&x_wide, m, k), &g_wide, k, m, r)),
        ];
        for (left, right, expected) in cases {
            let (rows, cols) = (left.rows(), right.cols());
            let old: Vec<f32> = old.iter().copied().cycle().take(rows * cols).collect();
            let expected: Vec<f64> = expected
                .iter()
                .zip(&old)
                .map(|(x, old)| f64::from(scaling) * x + if accumulate { f64::from(*old) } else { 0.0 })
                .collect();
            for _ in tokens() {
                let mut out = old.clone();
                let view = MatrixMut::new(&mut out[..], rows, cols).unwrap();
                product(left, right, scaling, accumulate, view).unwrap();
                assert_close("product", &out, &expected, TOLERANCE);
                let mut transposed = transpose_floats(&old, rows, cols);
                let view = MatrixMut::new(&mut transposed[..], cols, rows).unwrap().t();
                product(left, right, scaling, accumulate, view).unwrap();
                prop_assert_eq!(&transposed, &transpose_floats(&out, rows, cols));
            }
        }
    }

    #[test]
    fn a_packed_weight_gives_back_its_rows(n in 1..50_usize, k in 1..50_usize, gap in 0..3_usize) {
        let w = numbers(1, n * (k + gap));
        let view = Matrix::with_row_stride(&w[..], n, k, k + gap).unwrap();
        let packed = PackedWeight::new(view).unwrap();
        prop_assert_eq!((packed.rows(), packed.cols()), (n, k));
        prop_assert_eq!(packed.bytes(), 2 * n.next_multiple_of(16) * k.next_multiple_of(2));
        let mut row = vec![Bf16::ZERO; k];
        for i in 0..n {
            packed.read_row(i, &mut row).unwrap();
            prop_assert_eq!(floats(&row), narrow(&w[i * (k + gap)..][..k]));
        }
        prop_assert!(packed.read_row(n, &mut row).is_err());
        prop_assert!(packed.read_row(0, &mut row[1..]).is_err());
    }
}

#[test]
fn sums_over_many_rows_do_not_depend_on_threads() {
    let (m, k, r) = (1100, 70, 5);
    let (x, g) = (bf16(1, m * k), bf16(2, m * r));
    let expected = reference_matmul(&transpose(&wide_bf16(&g), m, r), &wide_bf16(&x), r, m, k);
    for _ in tokens() {
        let run = || {
            let mut da = vec![0.0; r * k];
            let out = MatrixMut::new(&mut da[..], r, k).unwrap();
            product(view(&g, m, r).t(), view(&x, m, k), 1.0, false, out).unwrap();
            da
        };
        assert_close("many rows", &run(), &expected, TOLERANCE);
        assert_threads_agree("many rows", || vec![run()]);
    }
}
