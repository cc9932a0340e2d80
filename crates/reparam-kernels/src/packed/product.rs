//! The products that callers see.

use rayon::prelude::*;

use super::block::{Job, LowRank};
use super::epilogue::Finish;
use super::grid;
use super::matrix::{Matrix, MatrixMut};
use super::outer;
use super::right::{Panels, lines_of, pack_panel, transpose_panel};
use super::weight::PackedView;
use super::workspace::{Purpose, with_buffer};
use crate::KernelError;
use crate::error::check_len;
use crate::isa::{LANES, Line, Token};

/// By what a [`PackedWeight`](super::PackedWeight) `W[N, K]` multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// By its transpose, as in the forward pass of a linear layer: `y = x W'`, `[M, K]` to `[M, N]`.
    Forward,
    /// By itself, as in the backward pass: `dx = dy W`, `[M, N]` to `[M, K]`.
    Backward,
}

/// What [`matmul`] adds to the product.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// A low-rank term.
    pub low_rank: Option<LowRankTerm<'a>>,
    /// One number for each column of the output.
    pub bias: Option<&'a [f32]>,
    /// Adds to what the output holds, as a residual connection does, instead of overwriting it.
    pub accumulate: bool,
}

/// A low-rank term `scaling left right` of a product.
///
/// For a layer `y = x W' + s (x A') B'` the forward pass has `left = x A'`, `[M, r]`, and `right = B'`,
/// the view [`Matrix::t`] of `B[N, r]`; the backward pass has `left = dy B`, `[M, r]`, and
/// `right = A`, `[r, K]`.
#[derive(Debug, Clone, Copy)]
pub struct LowRankTerm<'a> {
    /// `[M, r]`
    pub left: Matrix<'a>,
    /// `[r, columns of the output]`
    pub right: Matrix<'a>,
    /// The effective multiplier `s`, for LoRA `alpha / r`.
    pub scaling: f32,
}

/// `out = x W' + s left right + bias`, or `out = x W + s left right + bias`
///
/// # Shapes
///
/// With [`Direction::Forward`] `x[M, K]`, `out[M, N]`; with [`Direction::Backward`] `x[M, N]`,
/// `out[M, K]`. `M` may be zero. `w` is a [`PackedWeight`](super::PackedWeight) or one of its parts;
/// the columns of `x` or `out` that stand for the rows between two parts belong to zeros: they are
/// multiplied by zero, or become zero.
///
/// # Errors
///
/// [`KernelError::MatmulShapes`] if the shapes of a product do not fit together;
/// [`KernelError::Length`] if the bias does not have one number for each column of `out`.
///
/// # Cost
///
/// `2 M (N K + r columns)` operations. Up to four rows with [`Direction::Forward`], as in decoding,
/// take as long as reading the weight once. [`Direction::Backward`] with few rows takes as long as
/// putting the weight into the order of the transpose. See [the module](super) for the numerics
/// and for the buffers.
///
/// ```
/// use reparam_kernels::Bf16;
/// use reparam_kernels::packed::{Direction, Epilogue, Matrix, MatrixMut, PackedWeight, matmul};
///
/// let w = PackedWeight::new(Matrix::new(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0][..], 3, 2)?)?;
/// let x = [Bf16::ONE, Bf16::ZERO];
/// let mut y = [0.0_f32; 3];
/// let out = MatrixMut::new(&mut y[..], 1, 3)?;
/// matmul(Matrix::new(&x[..], 1, 2)?, &w, Direction::Forward, Epilogue::default(), out)?;
/// assert_eq!(y, [1.0, 3.0, 5.0]);
/// # Ok::<(), reparam_kernels::KernelError>(())
/// ```
pub fn matmul<'w>(
    x: Matrix<'_>,
    w: impl Into<PackedView<'w>>,
    direction: Direction,
    epilogue: Epilogue<'_>,
    out: MatrixMut<'_>,
) -> Result<(), KernelError> {
    let (token, w) = (Token::current(), w.into());
    let (rows, cols) = match direction {
        Direction::Forward => (w.cols(), w.rows()),
        Direction::Backward => (w.rows(), w.cols()),
    };
    check_epilogue((out.rows(), out.cols()), &x, (rows, cols), &epilogue)?;
    let finish = Finish {
        scale: 1.0,
        bias: epilogue.bias,
        accumulate: epilogue.accumulate,
        target: out.into_target(),
    };
    let run = |low_rank: Option<LowRank<'_>>| match direction {
        Direction::Forward => grid::run(
            token,
            &Job {
                left: x,
                right: w.panels(),
                first_col: 0,
                low_rank,
                finish,
            },
        ),
        Direction::Backward => run_transposed(token, x, w, low_rank, finish),
    };
    match epilogue.low_rank {
        None => run(None),
        Some(low_rank) => with_right(
            token,
            Purpose::LowRankRight,
            low_rank.right,
            |right: Panels<'_>| {
                run(Some(LowRank {
                    left: low_rank.left,
                    right,
                    scaling: low_rank.scaling,
                }));
            },
        ),
    }
    Ok(())
}

/// Lines of the transpose of a weight that are made at a time: 4 MiB.
const TRANSPOSED_LINES: usize = 64 * 1024;

/// Multiplies by the weight as it is, whose panels hold its transpose.
fn run_transposed(
    token: Token,
    x: Matrix<'_>,
    w: PackedView<'_>,
    low_rank: Option<LowRank<'_>>,
    finish: Finish<'_>,
) {
    let pairs = w.rows().div_ceil(2);
    let panels = w.cols().div_ceil(LANES);
    let at_once = (TRANSPOSED_LINES / pairs.max(1)).clamp(1, panels.max(1));
    with_buffer(Purpose::Right, at_once * pairs, |lines| {
        for start in (0..panels).step_by(at_once) {
            let end = panels.min(start + at_once);
            let lines = &mut lines[..(end - start) * pairs];
            if pairs > 0 {
                lines
                    .par_chunks_mut(pairs)
                    .enumerate()
                    .for_each(|(panel, lines)| {
                        transpose_panel(w.panels(), start + panel, lines);
                    });
            }
            let first_col = start * LANES;
            let job = Job {
                left: x,
                right: Panels {
                    lines,
                    pairs,
                    cols: w.cols().min(end * LANES) - first_col,
                },
                first_col,
                low_rank: low_rank.map(|low_rank| LowRank {
                    right: low_rank.right.columns(start, end),
                    ..low_rank
                }),
                finish,
            };
            grid::run(token, &job);
        }
    });
}

/// `out = scaling left right`, or `out += scaling left right`
///
/// For the small trainable factors of a layer `y = x W' + s (x A') B'`, with `g = dy B`:
///
/// ```text
/// t  = x A'          product(x, A.t(), 1, ..)        [M, r]
/// g  = dy B          product(dy, B, 1, ..)           [M, r]
/// dA = s g' x        product(g.t(), x, s, ..)        [r, K]
/// dB = s dy' t       product(dy.t(), t, s, ..)       [N, r]
/// ```
///
/// One of the two factors, the one with fewer rows or columns of the output, should be small: it is
/// put in order as a whole at every call.
///
/// # Errors
///
/// [`KernelError::MatmulShapes`] if the shapes do not fit together.
///
/// # Cost
///
/// `2 M K N` operations for `left[M, K]` and `right[K, N]`; with 16 small rows or columns about as
/// long as reading the great factor from memory, which is done once. See [the module](super) for the numerics.
pub fn product(
    left: Matrix<'_>,
    right: Matrix<'_>,
    scaling: f32,
    accumulate: bool,
    out: MatrixMut<'_>,
) -> Result<(), KernelError> {
    let token = Token::current();
    let shape = (out.rows(), out.cols());
    check_shapes(shape, &left, (right.rows(), right.cols()))?;
    // A product of two numbers has no order, so the bits are the same.
    let (left, right, out) = if left.rows() < right.cols() {
        (right.t(), left.t(), out.t())
    } else {
        (left, right, out)
    };
    let finish = Finish {
        scale: scaling,
        bias: None,
        accumulate,
        target: out.into_target(),
    };
    if left.transposed && right.cols() <= outer::MAX_ROWS {
        let job = outer::Job {
            left: right.t(),
            right: left.t(),
            finish: finish.t(),
        };
        outer::run(token, &job);
        return Ok(());
    }
    // The right factor is put in order as a whole, the left one task by task.
    with_right(token, Purpose::Right, right, |right| {
        let job = Job {
            left,
            right,
            first_col: 0,
            low_rank: None,
            finish,
        };
        grid::run(token, &job);
    });
    Ok(())
}

/// Lines of a right factor that one thread puts in order as fast as it would find help: 64 KiB.
const TASK_LINES: usize = 1024;

/// Puts a right factor in order.
fn with_right(token: Token, purpose: Purpose, right: Matrix<'_>, work: impl FnOnce(Panels<'_>)) {
    let pairs = right.rows().div_ceil(2);
    with_buffer(purpose, lines_of(right.rows(), right.cols()), |lines| {
        if pairs > 0 {
            let pack = |(panel, lines): (usize, &mut [Line])| {
                pack_panel(token, right, panel, lines);
            };
            if lines.len() <= TASK_LINES {
                lines.chunks_mut(pairs).enumerate().for_each(pack);
            } else {
                lines.par_chunks_mut(pairs).enumerate().for_each(pack);
            }
        }
        work(Panels {
            lines,
            pairs,
            cols: right.cols(),
        });
    });
}

/// Checks a product `x right` and what is added to it; `right` is rows and columns.
pub(super) fn check_epilogue(
    out: (usize, usize),
    x: &Matrix<'_>,
    right: (usize, usize),
    epilogue: &Epilogue<'_>,
) -> Result<(), KernelError> {
    check_shapes(out, x, right)?;
    if let Some(low_rank) = &epilogue.low_rank {
        let right = (low_rank.right.rows(), low_rank.right.cols());
        check_shapes(out, &low_rank.left, right)?;
    }
    match epilogue.bias {
        Some(bias) => check_len("bias", bias, &[right.1]),
        None => Ok(()),
    }
}

fn check_shapes(
    out: (usize, usize),
    left: &Matrix<'_>,
    right: (usize, usize),
) -> Result<(), KernelError> {
    if left.cols() == right.0 && out == (left.rows(), right.1) {
        return Ok(());
    }
    Err(KernelError::MatmulShapes {
        a_rows: left.rows(),
        a_cols: left.cols(),
        b_rows: right.0,
        b_cols: right.1,
        dst_rows: out.0,
        dst_cols: out.1,
    })
}
