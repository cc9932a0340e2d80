//! Products over bf16 against references in `f64`.

use proptest::prelude::*;

use super::reference::{matmul as reference_matmul, transpose};
use super::{assert_close, assert_threads_agree, numbers, tokens, wide};
use crate::isa::Token;
use crate::packed::{
    Direction, Epilogue, LowRankTerm, Matrix, MatrixMut, PackedWeight, matmul_with, product_with,
};
use crate::{Bf16, Isa, KernelError};

/// For sums of a few hundred terms, relative to the greatest of them all.
const TOLERANCE: f64 = 2e-5;

/// Half the spacing of bf16, for one rounding of an output.
const BF16_UNIT: f64 = 1.0 / 256.0;

fn bf16(seed: u64, len: usize) -> Vec<Bf16> {
    numbers(seed, len).into_iter().map(Bf16::from_f32).collect()
}

fn narrow(x: &[f32]) -> Vec<f32> {
    x.iter().map(|x| Bf16::from_f32(*x).to_f32()).collect()
}

fn floats(x: &[Bf16]) -> Vec<f32> {
    x.iter().map(|x| x.to_f32()).collect()
}

fn wide_bf16(x: &[Bf16]) -> Vec<f64> {
    wide(&floats(x))
}

fn view(x: &[Bf16], rows: usize, cols: usize) -> Matrix<'_> {
    Matrix::new(x, rows, cols).unwrap()
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

    fn run(&self, token: Token, direction: Direction) -> Vec<f32> {
        let (left, sums, cols) = self.left(direction);
        let mut y = vec![f32::NAN; self.m * cols];
        let out = MatrixMut::new(&mut y[..], self.m, cols).unwrap();
        let x = view(left, self.m, sums);
        matmul_with(token, x, &self.packed(), direction, Epilogue::default(), out).unwrap();
        y
    }

    fn run_full(&self, token: Token, direction: Direction) -> Vec<f32> {
        let (left, sums, cols) = self.left(direction);
        let mut y = vec![f32::NAN; self.m * cols];
        let out = MatrixMut::new(&mut y[..], self.m, cols).unwrap();
        let epilogue = Epilogue {
            low_rank: Some(self.low_rank(direction)),
            bias: Some(&self.bias[..cols]),
            accumulate: false,
        };
        let x = view(left, self.m, sums);
        matmul_with(token, x, &self.packed(), direction, epilogue, out).unwrap();
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
                assert_close(&what, &self.run(token, direction), &plain, TOLERANCE);
                let actual = self.run_full(token, direction);
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
