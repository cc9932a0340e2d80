//! Products over bf16 against references in `f64`.

use proptest::prelude::*;

use super::reference::{matmul as reference_matmul, transpose};
use super::{
    assert_close, assert_refused, assert_threads_agree, cases, floats, halves, numbers,
    tokens_with_tiles as tokens, wide,
};
use crate::packed::{
    Direction, Epilogue, LowRankTerm, Matrix, MatrixMut, PackedWeight, matmul, product,
};
use crate::{Bf16, Isa, KernelError};

mod cross_entropy;
mod int8;
mod outer;
mod outputs;
mod properties;
mod tiles;
mod weight;

/// For sums of a few hundred terms, relative to the greatest of them all.
const TOLERANCE: f64 = 2e-5;

/// Half the spacing of bf16, for one rounding of an output.
const BF16_UNIT: f64 = 1.0 / 256.0;

fn bf16(seed: u64, len: usize) -> Vec<Bf16> {
    halves(&numbers(seed, len))
}

fn narrow(x: &[f32]) -> Vec<f32> {
    x.iter().map(|x| Bf16::from_f32(*x).to_f32()).collect()
}

fn wide_bf16(x: &[Bf16]) -> Vec<f64> {
    wide(&floats(x))
}

fn view(x: &[Bf16], rows: usize, cols: usize) -> Matrix<'_> {
    Matrix::new(x, rows, cols).unwrap()
}

fn transpose_floats(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..rows * cols)
        .map(|i| x[(i % rows) * cols + i / rows])
        .collect()
}

/// A layer with everything: `y = x W' + s (x A') B' + bias + residual` and its parts.
struct Layer {
    m: usize,
    k: usize,
    n: usize,
    r: usize,
    x: Vec<Bf16>,
    dy: Vec<Bf16>,
    w: Vec<Bf16>,
    a: Vec<Bf16>,
    b: Vec<Bf16>,
    t: Vec<Bf16>,
    bias: Vec<f32>,
    scaling: f32,
}

impl Layer {
    fn new(m: usize, k: usize, n: usize, r: usize) -> Self {
        Self {
            m,
            k,
            n,
            r,
            x: bf16(1, m * k),
            dy: bf16(2, m * n),
            w: bf16(3, n * k),
            a: bf16(4, r * k),
            b: bf16(5, n * r),
            t: bf16(6, m * r),
            bias: numbers(7, n.max(k)),
            scaling: 1.7,
        }
    }

    fn packed(&self) -> PackedWeight {
        PackedWeight::new(view(&self.w, self.n, self.k)).unwrap()
    }

    fn left(&self, direction: Direction) -> (&[Bf16], usize, usize) {
        match direction {
            Direction::Forward => (&self.x, self.k, self.n),
            Direction::Backward => (&self.dy, self.n, self.k),
        }
    }

    fn low_rank(&self, direction: Direction) -> LowRankTerm<'_> {
        LowRankTerm {
            left: view(&self.t, self.m, self.r),
            right: match direction {
                Direction::Forward => view(&self.b, self.n, self.r).t(),
                Direction::Backward => view(&self.a, self.r, self.k),
            },
            scaling: self.scaling,
        }
    }

    /// The product alone, and with the low-rank term and the bias.
    fn expected(&self, direction: Direction) -> (Vec<f64>, Vec<f64>) {
        let (m, r) = (self.m, self.r);
        let w = wide_bf16(&self.w);
        let (left, sums, cols) = self.left(direction);
        let (w, small) = match direction {
            Direction::Forward => (
                transpose(&w, self.n, self.k),
                transpose(&wide_bf16(&self.b), self.n, r),
            ),
            Direction::Backward => (w, wide_bf16(&self.a)),
        };
        let plain = reference_matmul(&wide_bf16(left), &w, m, sums, cols);
        let low_rank = reference_matmul(&wide_bf16(&self.t), &small, m, r, cols);
        let full = plain
            .iter()
            .zip(&low_rank)
            .enumerate()
            .map(|(i, (y, low_rank))| {
                y + f64::from(self.scaling) * low_rank + f64::from(self.bias[i % cols])
            })
            .collect();
        (plain, full)
    }

    fn run(&self, direction: Direction) -> Vec<f32> {
        let (left, sums, cols) = self.left(direction);
        let mut y = vec![f32::NAN; self.m * cols];
        let out = MatrixMut::new(&mut y[..], self.m, cols).unwrap();
        let x = view(left, self.m, sums);
        matmul(x, &self.packed(), direction, Epilogue::default(), out).unwrap();
        y
    }

    fn run_full(&self, direction: Direction) -> Vec<f32> {
        let (left, sums, cols) = self.left(direction);
        let mut y = vec![f32::NAN; self.m * cols];
        let out = MatrixMut::new(&mut y[..], self.m, cols).unwrap();
        let epilogue = Epilogue {
            low_rank: Some(self.low_rank(direction)),
            bias: Some(&self.bias[..cols]),
            accumulate: false,
        };
        let x = view(left, self.m, sums);
        matmul(x, &self.packed(), direction, epilogue, out).unwrap();
        y
    }

    #[track_caller]
    fn check(&self) {
        for direction in [Direction::Forward, Direction::Backward] {
            let (plain, full) = self.expected(direction);
            for token in tokens() {
                let what = format!(
                    "{} {direction:?} {}x{}x{} rank {}",
                    token.isa(),
                    self.m,
                    self.k,
                    self.n,
                    self.r
                );
                assert_close(&what, &self.run(direction), &plain, TOLERANCE);
                let actual = self.run_full(direction);
                assert_close(&format!("{what} full"), &actual, &full, TOLERANCE);
            }
        }
    }
}

const SIZES: [usize; 12] = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 49];

#[test]
fn products_of_all_small_sizes() {
    for m in SIZES {
        for n in SIZES {
            for k in [1, 2, 3, 8, 17, 33, 65] {
                Layer::new(m, k, n, 1 + (m + n) % 5).check();
            }
        }
    }
}

#[test]
fn products_of_sizes_around_blocks() {
    // 128 rows a task, 16 columns a panel, 48 a tile, 1024 terms a block.
    for (m, k, n) in [
        (127, 40, 48),
        (128, 33, 49),
        (129, 64, 47),
        (145, 16, 97),
        (300, 30, 63),
        (9, 1023, 33),
        (9, 1024, 50),
        (9, 1025, 16),
        (17, 2050, 48),
        (3, 2051, 130),
        (1, 1100, 300),
    ] {
        Layer::new(m, k, n, 16).check();
    }
}

#[test]
fn a_weight_that_is_transposed_in_several_pieces() {
    // 300 pairs of rows and 250 panels are more than the 65536 lines that are made at a time.
    Layer::new(5, 4000, 600, 3).check();
}

#[test]
fn empty_products() {
    for _ in tokens() {
        for direction in [Direction::Forward, Direction::Backward] {
            for (m, k, n, r) in [
                (0, 5, 7, 2),
                (5, 0, 7, 2),
                (200, 0, 7, 2),
                (5, 7, 0, 2),
                (3, 4, 5, 0),
                (40, 4, 5, 0),
            ] {
                let layer = Layer::new(m, k, n, r);
                let (_, full) = layer.expected(direction);
                assert_close("empty", &layer.run_full(direction), &full, TOLERANCE);
            }
        }
        let mut out = [3.0_f32, 4.0];
        let left = Matrix::new(&[] as &[f32], 1, 0).unwrap();
        let right = Matrix::new(&[] as &[f32], 0, 2).unwrap();
        let view = MatrixMut::new(&mut out[..], 1, 2).unwrap();
        product(left, right, 2.0, true, view).unwrap();
        assert_eq!(out, [3.0, 4.0]);
    }
}

#[test]
fn rows_do_not_depend_on_how_many_there_are() {
    let (k, n) = (1030, 83);
    for token in tokens() {
        for direction in [Direction::Forward, Direction::Backward] {
            let many = Layer::new(37, k, n, 5);
            let expected = many.run_full(direction);
            let (left, sums, cols) = many.left(direction);
            for rows in [1, 2, 3, 4, 5, 9, 16, 20] {
                if token.has_tiles() && rows <= 4 {
                    // Too few rows for a tile.
                    continue;
                }
                let few = Layer {
                    m: rows,
                    x: left[..rows * sums].to_vec(),
                    dy: left[..rows * sums].to_vec(),
                    t: many.t[..rows * 5].to_vec(),
                    ..Layer::new(1, k, n, 5)
                };
                let actual = few.run_full(direction);
                assert_eq!(
                    actual.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
                    expected[..rows * cols]
                        .iter()
                        .map(|x| x.to_bits())
                        .collect::<Vec<_>>(),
                    "{} {direction:?} {rows}",
                    token.isa()
                );
            }
        }
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let layer = Layer::new(150, 300, 200, 7);
    let few_rows = Layer::new(3, 600, 3000, 7);
    for _ in tokens() {
        for layer in [&layer, &few_rows] {
            assert_threads_agree("packed", || {
                [Direction::Forward, Direction::Backward]
                    .map(|direction| layer.run_full(direction))
                    .to_vec()
            });
        }
    }
}

#[test]
fn not_a_number_and_infinity_stay_in_their_row_and_column() {
    let (m, k, n) = (19, 35, 37);
    for _ in tokens() {
        for direction in [Direction::Forward, Direction::Backward] {
            let mut layer = Layer::new(m, k, n, 3);
            let clean = layer.run_full(direction);
            let cols = clean.len() / m;
            let sums = layer.left(direction).1;
            let left = match direction {
                Direction::Forward => &mut layer.x,
                Direction::Backward => &mut layer.dy,
            };
            // The last number of a row is the one that has no partner.
            left[7 * sums + sums - 1] = Bf16::from_f32(f32::NAN);
            let dirty = layer.run_full(direction);
            for (i, (dirty, clean)) in dirty.iter().zip(&clean).enumerate() {
                if i / cols == 7 {
                    assert!(dirty.is_nan(), "{i}");
                } else {
                    assert_eq!(dirty.to_bits(), clean.to_bits(), "{i}");
                }
            }

            let mut layer = Layer::new(m, k, n, 3);
            let column = cols - 1;
            let (at, partner) = match direction {
                Direction::Forward => (column * k + k - 1, k - 1),
                Direction::Backward => ((n - 1) * k + column, n - 1),
            };
            layer.w[at] = Bf16::from_f32(f32::INFINITY);
            let infinite = layer.run_full(direction);
            for (i, (infinite, clean)) in infinite.iter().zip(&clean).enumerate() {
                let factor = layer.left(direction).0[i / cols * sums + partner].to_f32();
                if i % cols == column {
                    assert_eq!(*infinite, f32::INFINITY * factor, "{i}");
                } else {
                    assert_eq!(infinite.to_bits(), clean.to_bits(), "{i}");
                }
            }
        }
    }
}

#[test]
fn infinity_times_zero_is_not_a_number() {
    let w = PackedWeight::new(Matrix::new(&[f32::INFINITY; 3][..], 1, 3).unwrap()).unwrap();
    for _ in tokens() {
        let mut y = [0.0_f32];
        let x = Matrix::new(&[1.0_f32, 0.0, 1.0][..], 1, 3).unwrap();
        let out = MatrixMut::new(&mut y[..], 1, 1).unwrap();
        matmul(x, &w, Direction::Forward, Epilogue::default(), out).unwrap();
        assert!(y[0].is_nan());
    }
}

#[test]
fn subnormal_factors_are_kept_except_by_the_instruction_for_pairs() {
    let tiny = f32::MIN_POSITIVE / 4.0;
    let w = PackedWeight::new(Matrix::new(&[tiny, 0.0][..], 1, 2).unwrap()).unwrap();
    for token in tokens() {
        let mut y = [1.0_f32];
        let x = Matrix::new(&[1024.0_f32, 0.0][..], 1, 2).unwrap();
        let out = MatrixMut::new(&mut y[..], 1, 1).unwrap();
        matmul(x, &w, Direction::Forward, Epilogue::default(), out).unwrap();
        let expected = if Isa::best() >= Isa::Avx512Bf16 && token.isa() >= Isa::Avx512Bf16 {
            0.0
        } else {
            tiny * 1024.0
        };
        assert_eq!(y[0], expected, "{}", token.isa());
    }
}

/// What an earlier call has left in the buffers must not show.
#[test]
fn buffers_are_used_again_for_other_shapes() {
    let shapes = [
        (140, 70, 90, 9),
        (3, 5, 7, 1),
        (21, 33, 35, 4),
        (9, 1, 1, 1),
    ];
    let clean: Vec<_> = shapes
        .map(|(m, k, n, r)| Layer::new(m, k, n, r))
        .into_iter()
        .collect();
    for _ in tokens() {
        for direction in [Direction::Forward, Direction::Backward] {
            for layer in &clean {
                let mut dirty = Layer::new(150, 201, 203, 11);
                for values in [&mut dirty.x, &mut dirty.dy, &mut dirty.w, &mut dirty.t] {
                    values.fill(Bf16::from_f32(f32::NAN));
                }
                dirty.run_full(direction);
                let (_, full) = layer.expected(direction);
                let actual = layer.run_full(direction);
                assert_close("after others", &actual, &full, TOLERANCE);
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let w = PackedWeight::new(Matrix::new(&[1.0_f32; 6][..], 2, 3).unwrap()).unwrap();
    let x = [Bf16::ONE; 12];
    let mut y = [0.0_f32; 12];
    let mut run = |cols: usize, out: usize, direction, epilogue: Epilogue<'_>| {
        let out = MatrixMut::new(&mut y[..2 * out], 2, out).unwrap();
        matmul(view(&x[..2 * cols], 2, cols), &w, direction, epilogue, out)
    };
    let plain = Epilogue::default();
    assert_eq!(run(3, 2, Direction::Forward, plain), Ok(()));
    assert_eq!(run(2, 3, Direction::Backward, plain), Ok(()));
    assert_eq!(
        run(2, 2, Direction::Forward, plain),
        Err(KernelError::MatmulShapes {
            a_rows: 2,
            a_cols: 2,
            b_rows: 3,
            b_cols: 2,
            dst_rows: 2,
            dst_cols: 2,
        })
    );
    assert!(run(2, 2, Direction::Backward, plain).is_err());
    let bias = Epilogue {
        bias: Some(&[0.0; 3]),
        ..plain
    };
    assert_eq!(
        run(3, 2, Direction::Forward, bias),
        Err(KernelError::Length {
            name: "bias",
            expected: 2,
            found: 3,
        })
    );
    let low_rank = Epilogue {
        low_rank: Some(LowRankTerm {
            left: view(&x[..2], 2, 1),
            right: view(&x[..3], 1, 3),
            scaling: 1.0,
        }),
        ..plain
    };
    assert!(run(3, 2, Direction::Forward, low_rank).is_err());
    assert_eq!(run(2, 3, Direction::Backward, low_rank), Ok(()));
    let mut out = [0.0_f32; 4];
    let out = MatrixMut::new(&mut out[..], 2, 2).unwrap();
    let (left, right) = (view(&x[..4], 2, 2), view(&x[..6], 3, 2));
    assert!(crate::packed::product(left, right, 1.0, false, out).is_err());
    assert!(Matrix::with_row_stride(&x[..], 3, 4, 5).is_err());
    assert!(Matrix::with_row_stride(&x[..], 3, 4, 4).is_ok());
    assert!(Matrix::new(&x[..], 3, 5).is_err());
    let mut out = [0.0_f32; 6];
    assert!(MatrixMut::with_row_stride(&mut out[..], 2, 3, 2).is_err());
}
