//! Weights of several parts, and weights whose rows come in pieces.

use super::*;
use crate::packed::PackedWeightBuilder;

fn matrices<'a>(parts: &'a [Vec<f32>], cols: usize) -> Vec<Matrix<'a>> {
    parts
        .iter()
        .map(|part| Matrix::new(&part[..], part.len() / cols.max(1), cols).unwrap())
        .collect()
}

fn rows_of(weight: &PackedWeight) -> Vec<Vec<f32>> {
    (0..weight.rows())
        .map(|row| {
            let mut to = vec![Bf16::from_f32(f32::NAN); weight.cols()];
            weight.read_row(row, &mut to).unwrap();
            floats(&to)
        })
        .collect()
}

#[test]
fn parts_begin_at_multiples_of_sixteen_rows_with_zeros_between() {
    let cols = 5;
    let parts = [17, 16, 1, 0, 3].map(|rows| numbers(rows as u64, rows * cols));
    let stack = PackedWeight::stack(&matrices(&parts, cols)).unwrap();
    assert_eq!(stack.part_rows(), [0..17, 32..48, 48..49, 64..64, 64..67]);
    assert_eq!((stack.rows(), stack.cols()), (67, cols));
    assert_eq!(stack.bytes(), 2 * 80 * 6);
    let rows = rows_of(&stack);
    for (part, at) in parts.iter().zip(stack.part_rows()) {
        assert_eq!(rows[at.clone()].concat(), narrow(part));
    }
    for row in [17..32, 49..64].into_iter().flatten() {
        assert_eq!(rows[row], [0.0; 5]);
    }
    for (index, part) in parts.iter().enumerate() {
        let view = stack.part(index).unwrap();
        assert_eq!((view.rows(), view.cols()), (part.len() / cols, cols));
        let mut row = [Bf16::ZERO; 5];
        for (i, expected) in part.chunks(cols).enumerate() {
            view.read_row(i, &mut row).unwrap();
            assert_eq!(floats(&row), narrow(expected));
        }
        assert!(view.read_row(view.rows(), &mut row).is_err());
    }
    assert!(stack.part(5).is_none());
    let none = PackedWeight::stack(&[]).unwrap();
    assert_eq!((none.rows(), none.cols(), none.bytes()), (0, 0, 0));
}

/// Forward part by part into the columns of one output, backward through the whole stack.
#[test]
fn a_stack_multiplies_as_its_parts() {
    let (m, cols) = (21, 40);
    let parts = [48, 9, 19].map(|rows| numbers(rows as u64, rows * cols));
    let stack = PackedWeight::stack(&matrices(&parts, cols)).unwrap();
    let width = stack.rows();
    let x = bf16(1, m * cols);
    let mut dy = bf16(2, m * width);
    for row in dy.chunks_mut(width) {
        row[57..64].fill(Bf16::ZERO);
    }
    for token in tokens() {
        let mut y = vec![f32::NAN; m * width];
        let mut dx_expected = vec![0.0; m * cols];
        for (index, (part, at)) in parts.iter().zip(stack.part_rows()).enumerate() {
            let alone = PackedWeight::new(matrices(std::slice::from_ref(part), cols)[0]).unwrap();
            let n = at.len();
            let bias = numbers(index as u64, n);
            let (t, b) = (bf16(7, m * 3), bf16(8, n * 3));
            let epilogue = Epilogue {
                low_rank: Some(LowRankTerm {
                    left: view(&t, m, 3),
                    right: view(&b, n, 3).t(),
                    scaling: 0.5,
                }),
                bias: Some(&bias),
                accumulate: false,
            };
            let out = MatrixMut::with_row_stride(&mut y[at.start..], m, n, width).unwrap();
            let part_view = stack.part(index).unwrap();
            let forward = Direction::Forward;
            matmul(view(&x, m, cols), part_view, forward, epilogue, out).unwrap();
            let mut expected = vec![0.0; m * n];
            let out = MatrixMut::new(&mut expected[..], m, n).unwrap();
            let x = view(&x, m, cols);
            matmul(x, &alone, forward, epilogue, out).unwrap();
            for (y, expected) in y.chunks(width).zip(expected.chunks(n)) {
                assert_eq!(&y[at.clone()], expected, "{}", token.isa());
            }
            let dy = Matrix::with_row_stride(&dy[at.start..], m, n, width).unwrap();
            let out = MatrixMut::new(&mut dx_expected[..], m, cols).unwrap();
            let accumulate = Epilogue {
                accumulate: index > 0,
                ..Epilogue::default()
            };
            matmul(dy, part_view, Direction::Backward, accumulate, out).unwrap();
        }
        // What lies between the parts was not written.
        for y in y.chunks(width) {
            assert!(y[57..64].iter().all(|y| y.is_nan()));
        }
        let mut dx = vec![f32::NAN; m * cols];
        let out = MatrixMut::new(&mut dx[..], m, cols).unwrap();
        let backward = Direction::Backward;
        let dy = view(&dy, m, width);
        let plain = Epilogue::default();
        matmul(dy, &stack, backward, plain, out).unwrap();
        assert_close("dx", &dx, &wide(&dx_expected), TOLERANCE);
        let mut forward = vec![f32::NAN; m * width];
        let out = MatrixMut::new(&mut forward[..], m, width).unwrap();
        let x = view(&x, m, cols);
        matmul(x, &stack, Direction::Forward, plain, out).unwrap();
        for row in forward.chunks(width) {
            assert!(row[57..64].iter().all(|y| *y == 0.0));
        }
    }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn pieces_in_any_order_make_the_same_weight(
        sizes in proptest::collection::vec(0..70_usize, 1..4), cols in 1..20_usize,
        piece in 1..40_usize, gap in 0..3_usize, backwards: bool, as_bf16: bool,
        transposed: bool,
    ) {
        let parts: Vec<_> = sizes.iter().map(|rows| numbers(*rows as u64, rows * cols)).collect();
        let expected = PackedWeight::stack(&matrices(&parts, cols)).unwrap();
        let mut builder = PackedWeightBuilder::new(&sizes, cols).unwrap();
        let mut pieces: Vec<(usize, usize, usize)> = sizes
            .iter()
            .enumerate()
            .flat_map(|(part, rows)| {
                (0..*rows).step_by(piece).map(move |at| (part, at, piece.min(rows - at)))
            })
            .collect();
        if backwards {
            pieces.reverse();
        }
        for (part, at, rows) in pieces {
            let values = &parts[part][at * cols..][..rows * cols];
            let stride = cols + gap;
            let mut spread = Vec::new();
            for row in values.chunks(cols) {
                spread.extend_from_slice(row);
                spread.extend(std::iter::repeat_n(f32::NAN, gap));
            }
            let narrow: Vec<Bf16> = spread.iter().map(|x| Bf16::from_f32(*x)).collect();
            let turned = transpose_floats(values, rows, cols);
            let matrix = if transposed {
                Matrix::new(&turned[..], cols, rows).unwrap().t()
            } else if as_bf16 {
                Matrix::with_row_stride(&narrow[..], rows, cols, stride).unwrap()
            } else {
                Matrix::with_row_stride(&spread[..], rows, cols, stride).unwrap()
            };
            builder.rows(part, at, matrix).unwrap();
        }
        let actual = builder.build().unwrap();
        prop_assert_eq!(actual.part_rows(), expected.part_rows());
        prop_assert_eq!(rows_of(&actual), rows_of(&expected));
    }
}

#[test]
fn pieces_that_do_not_fit_are_refused() {
    let values = [1.0_f32; 40];
    let rows = |rows, cols| Matrix::new(&values[..rows * cols], rows, cols).unwrap();
    let mut builder = PackedWeightBuilder::new(&[3, 5], 4).unwrap();
    assert_eq!(
        builder.rows(0, 0, rows(3, 5)),
        Err(KernelError::Length {
            name: "rows",
            expected: 12,
            found: 15,
        })
    );
    for (part, first, n) in [(0, 1, 3), (1, 5, 1), (2, 0, 1), (0, usize::MAX, 1)] {
        assert!(matches!(
            builder.rows(part, first, rows(n, 4)),
            Err(KernelError::View { cols: 4, .. })
        ));
    }
    assert_eq!(builder.rows(1, 5, rows(0, 4)), Ok(()));
    builder.rows(0, 0, rows(3, 4)).unwrap();
    builder.rows(1, 0, rows(4, 4)).unwrap();
    // A row that comes twice does not stand for another.
    builder.rows(1, 0, rows(1, 4)).unwrap();
    assert_eq!(
        builder.build().unwrap_err(),
        KernelError::Length {
            name: "rows",
            expected: 8,
            found: 7,
        }
    );
    let overflow = KernelError::Overflow { name: "w" };
    for (rows, cols) in [
        (&[usize::MAX, 1][..], 1),
        (&[usize::MAX], 1),
        (&[1 << 40], 1 << 40),
    ] {
        let refused = PackedWeightBuilder::new(rows, cols).unwrap_err();
        assert_eq!(refused, overflow);
    }
    assert!(PackedWeight::stack(&[rows(2, 3), rows(2, 4)]).is_err());
}
