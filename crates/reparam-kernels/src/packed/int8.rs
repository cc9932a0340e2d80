//! Frozen weights as 8-bit integers, for decoding.

use std::ops::Range;

use rayon::prelude::*;

use super::epilogue::Finish;
use super::grid::{TASKS, span};
use super::matrix::{Matrix, MatrixMut, Values};
use super::product::{Direction, Epilogue, check_epilogue, matmul, product};
use super::right::lines_of;
use super::weight::{PackedView, PackedWeight, no_such_row, panels_of};
use crate::error::check_len;
use crate::isa::{LANES, Line, PairSimd, Token, simd_entry};
use crate::{Bf16, KernelError, par};

/// Numbers of the summed index in one line.
const QUAD: usize = 4;

/// [`QUAD`] numbers of each of [`LANES`] rows, the first numbers of all rows first: as long as a line
/// of the cache, and aligned to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
struct Int8Line([[i8; LANES]; QUAD]);

/// A frozen weight `W[N, K]` whose rows are integers times a scale of their own.
///
/// ```text
/// W_nk ~ s_n q_nk,   s_n = max_k |W_nk| / 127,   q_nk = round(W_nk / s_n)
/// ```
///
/// Reading the weight is what one token takes its time for, and this one is half as long as a
/// [`PackedWeight`]. It is for inference: see [`matmul_int8`].
///
/// # Numerics
///
/// `|W_nk - s_n q_nk| <= s_n / 2`, ties go away from zero. A row that has NaN or infinity becomes NaN.
///
/// # Memory
///
/// `N K + 4 N` bytes, the rows of each part rounded up to a multiple of 16 and `K` to one of 4.
///
/// ```
/// use reparam_kernels::Bf16;
/// use reparam_kernels::packed::{Int8Weight, Matrix, PackedWeight};
///
/// let w = PackedWeight::new(Matrix::new(&[1.0, -254.0, 0.5, 0.25][..], 2, 2)?)?;
/// let mut row = [Bf16::ZERO; 2];
/// Int8Weight::new(&w).read_row(0, &mut row)?;
/// assert_eq!(row.map(Bf16::to_f32), [2.0, -254.0]);
/// # Ok::<(), reparam_kernels::KernelError>(())
/// ```
#[derive(Clone)]
pub struct Int8Weight {
    lines: Vec<Int8Line>,
    /// One a row, those between the parts included.
    scales: Vec<[f32; LANES]>,
    parts: Vec<Range<usize>>,
    cols: usize,
}

impl Int8Weight {
    /// Rounds a packed weight, with the same parts, on the threads of the current rayon pool.
    pub fn new(weight: &PackedWeight) -> Self {
        let (cols, panels) = (weight.cols(), weight.rows().div_ceil(LANES));
        let quads = cols.div_ceil(QUAD);
        let mut lines = vec![Int8Line([[0; LANES]; QUAD]); panels * quads];
        let mut scales = vec![[0.0; LANES]; panels];
        let view = PackedView::from(weight);
        lines
            .par_chunks_mut(quads.max(1))
            .zip(&mut scales)
            .enumerate()
            .for_each(|(panel, (lines, scales))| {
                let mut row = vec![Bf16::ZERO; cols];
                let first = panel * LANES;
                for (lane, scale) in scales.iter_mut().enumerate().take(view.rows() - first) {
                    view.copy_row(first + lane, &mut row);
                    *scale = scale_of(&row);
                    for (k, x) in row.iter().enumerate() {
                        // Of zero by zero and of NaN the cast makes zero. Not times an inverse, which
                        // is infinite where the scale is subnormal.
                        let q = (x.to_f32() / *scale).round() as i8;
                        lines[k / QUAD].0[k % QUAD][lane] = q;
                    }
                }
            });
        Self {
            lines,
            scales,
            parts: weight.part_rows().to_vec(),
            cols,
        }
    }

    /// `N`, up to the last row of the last part, the rows between the parts included.
    pub fn rows(&self) -> usize {
        self.parts.last().map_or(0, |part| part.end)
    }

    /// `K`
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The rows of each part, in order.
    pub fn part_rows(&self) -> &[Range<usize>] {
        &self.parts
    }

    /// Part `index` alone, if there is one.
    pub fn part(&self, index: usize) -> Option<Int8View<'_>> {
        let rows = self.parts.get(index)?.clone();
        let panels = panels_of(&rows);
        let quads = self.cols.div_ceil(QUAD);
        Some(Int8View {
            lines: &self.lines[panels.start * quads..panels.end * quads],
            scales: &self.scales[panels],
            rows: rows.len(),
            cols: self.cols,
        })
    }

    /// Bytes that the numbers and scales take.
    pub fn bytes(&self) -> usize {
        size_of_val(self.lines.as_slice()) + size_of_val(self.scales.as_slice())
    }

    /// Writes row `row`, rounded to bf16, into `to[K]`.
    ///
    /// # Errors
    ///
    /// As those of [`PackedWeight::read_row`].
    pub fn read_row(&self, row: usize, to: &mut [Bf16]) -> Result<(), KernelError> {
        check_len("to", to, &[self.cols])?;
        if row >= self.rows() {
            return Err(no_such_row(row, self.rows(), self.cols));
        }
        Int8View::from(self).copy_row(row, to);
        Ok(())
    }

    /// The weight with its numbers rounded to bf16, for products of many rows.
    pub fn to_packed(&self) -> PackedWeight {
        let lines = Int8View::from(self).to_lines();
        PackedWeight::of_lines(lines, self.parts.clone(), self.cols)
    }
}

/// `max |x| / 127`, or NaN if a number is not finite.
fn scale_of(row: &[Bf16]) -> f32 {
    let mut greatest = 0.0_f32;
    for x in row {
        let x = x.to_f32();
        if !x.is_finite() {
            return f32::NAN;
        }
        greatest = greatest.max(x.abs());
    }
    greatest / 127.0
}

impl std::fmt::Debug for Int8Weight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Int8Weight")
            .field("parts", &self.parts)
            .field("cols", &self.cols)
            .field("bytes", &self.bytes())
            .finish()
    }
}

/// An [`Int8Weight`], or one of its parts, as a factor of a product.
#[derive(Clone, Copy)]
pub struct Int8View<'a> {
    lines: &'a [Int8Line],
    scales: &'a [[f32; LANES]],
    rows: usize,
    cols: usize,
}

impl<'a> From<&'a Int8Weight> for Int8View<'a> {
    fn from(weight: &'a Int8Weight) -> Self {
        Self {
            lines: &weight.lines,
            scales: &weight.scales,
            rows: weight.rows(),
            cols: weight.cols,
        }
    }
}

impl Int8View<'_> {
    /// `N`, the rows of the weight or of the part.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// `K`
    pub fn cols(&self) -> usize {
        self.cols
    }

    fn quads(&self) -> usize {
        self.cols.div_ceil(QUAD)
    }

    /// The number of row `LANES panel + lane` in column `k`, rounded to bf16.
    fn number(&self, panel: usize, lane: usize, k: usize) -> Bf16 {
        let line = &self.lines[panel * self.quads() + k / QUAD];
        Bf16::from_f32(self.scales[panel][lane] * f32::from(line.0[k % QUAD][lane]))
    }

    fn copy_row(&self, row: usize, to: &mut [Bf16]) {
        for (k, to) in to.iter_mut().enumerate() {
            *to = self.number(row / LANES, row % LANES, k);
        }
    }

    /// Lines of a [`PackedWeight`].
    fn to_lines(self) -> Vec<Line> {
        let pairs = self.cols.div_ceil(2);
        let mut lines = vec![Line::ZERO; lines_of(self.cols, self.rows)];
        if pairs > 0 {
            let panels = lines.par_chunks_mut(pairs).enumerate();
            panels.for_each(|(panel, lines)| {
                for k in 0..self.cols {
                    for lane in 0..LANES {
                        lines[k / 2].0[2 * lane + k % 2] = self.number(panel, lane, k);
                    }
                }
            });
        }
        lines
    }
}

impl std::fmt::Debug for Int8View<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Int8View")
            .field("rows", &self.rows)
            .field("cols", &self.cols)
            .finish()
    }
}

/// Rows up to which a product reads the integers themselves.
const NARROW_ROWS: usize = 4;

/// `out = x W' + s left right + bias`, as [`matmul`](super::matmul) with
/// [`Direction::Forward`], for a weight of 8-bit integers.
///
/// # Numerics
///
/// Up to four rows of `x` are multiplied by the integers as they are, exact in `f32`: four sums of
/// every fourth term are added up, then multiplied by the scale of the row of `W`. With more rows the
/// weight is rounded to bf16 first, which moves it by up to 2^-9 of itself, less than half of what the
/// integers moved the greatest numbers of a row; then it is [`matmul`](super::matmul).
///
/// # Errors
///
/// Those of [`matmul`](super::matmul).
///
/// # Cost
///
/// Up to four rows take as long as reading the weight once. More rows take a pass over the weight
/// and a copy of it in bf16 besides the product.
pub fn matmul_int8<'w>(
    x: Matrix<'_>,
    w: impl Into<Int8View<'w>>,
    epilogue: Epilogue<'_>,
    out: MatrixMut<'_>,
) -> Result<(), KernelError> {
    let (token, w) = (Token::current(), w.into());
    if x.rows() > NARROW_ROWS {
        let lines = w.to_lines();
        let packed = PackedView::of_lines(&lines, w.rows, w.cols);
        return matmul(x, packed, Direction::Forward, epilogue, out);
    }
    let (rows, cols) = (out.rows(), out.cols());
    check_epilogue((rows, cols), &x, (w.cols, w.rows), &epilogue)?;
    if rows == 0 || cols == 0 {
        return Ok(());
    }
    let mut low_rank = Vec::new();
    if let Some(term) = &epilogue.low_rank {
        low_rank.resize(rows * cols, 0.0);
        let out = MatrixMut::new(&mut low_rank[..], rows, cols)?;
        product(term.left, term.right, term.scaling, false, out)?;
    }
    let job = Job {
        x: &quads(&x),
        rows,
        w,
        low_rank: &low_rank,
        finish: Finish {
            scale: 1.0,
            bias: epilogue.bias,
            accumulate: epilogue.accumulate,
            target: out.into_target(),
        },
    };
    let panels = cols.div_ceil(LANES);
    let tasks = (cols * w.cols / TASK_NUMBERS).clamp(1, TASKS);
    let task_panels = panels.div_ceil(tasks);
    let task = |index| run_job(token, &job, span(index, task_panels, panels));
    par::for_each_index(panels.div_ceil(task_panels), task);
    Ok(())
}

/// Integers of a task at least; they wait for the memory, as those of a narrow bf16 product.
const TASK_NUMBERS: usize = 128 * 1024;

/// The rows of `x` as `f32` numbers, completed with zeros to whole quads, and to four rows if there
/// are three.
fn quads(x: &Matrix<'_>) -> Vec<[f32; QUAD]> {
    let (rows, cols) = (x.rows(), x.cols());
    let quads = cols.div_ceil(QUAD);
    let mut all = vec![[0.0; QUAD]; rows.next_power_of_two() * quads];
    let (row_stride, col_stride) = (x.layout.row_stride, x.layout.col_stride);
    for row in 0..rows {
        let to = all[row * quads..].as_flattened_mut();
        for (col, to) in to[..cols].iter_mut().enumerate() {
            let at = row * row_stride + col * col_stride;
            *to = match x.values {
                Values::Bf16(values) => values[at].to_f32(),
                Values::F32(values) => Bf16::from_f32(values[at]).to_f32(),
            };
        }
    }
    all
}

/// A product of few rows.
struct Job<'a> {
    x: &'a [[f32; QUAD]],
    rows: usize,
    w: Int8View<'a>,
    /// As long as the output, or empty.
    low_rank: &'a [f32],
    finish: Finish<'a>,
}

simd_entry!(fn run_job<'a, 'b>(job: &'b Job<'a>, panels: Range<usize>) = run_panels);

#[inline(always)]
fn run_panels<S: PairSimd>(simd: S, job: &Job<'_>, panels: Range<usize>) {
    match job.rows {
        1 => run_rows::<S, 1>(simd, job, panels),
        2 => run_rows::<S, 2>(simd, job, panels),
        _ => run_rows::<S, 4>(simd, job, panels),
    }
}

/// Computes some panels of the output; they must belong to this task alone.
#[inline(always)]
fn run_rows<S: PairSimd, const R: usize>(simd: S, job: &Job<'_>, panels: Range<usize>) {
    let quads = job.w.quads();
    let x: [&[[f32; QUAD]]; R] = std::array::from_fn(|row| &job.x[row * quads..][..quads]);
    for panel in panels {
        let lines = &job.w.lines[panel * quads..][..quads];
        let mut sums = [[simd.splat(0.0); QUAD]; R];
        for (at, line) in lines.iter().enumerate() {
            for (i, numbers) in line.0.iter().enumerate() {
                let mut wide = [0.0; LANES];
                for (wide, number) in wide.iter_mut().zip(numbers) {
                    *wide = f32::from(*number);
                }
                let wide = simd.load(&wide);
                for (sums, x) in sums.iter_mut().zip(&x) {
                    sums[i] = simd.mul_add_lanes(wide, simd.splat(x[at][i]), sums[i]);
                }
            }
        }
        let (scale, col) = (simd.load(&job.w.scales[panel]), panel * LANES);
        for (row, sums) in sums.iter().enumerate().take(job.rows) {
            let sum = simd.add(simd.add(sums[0], sums[1]), simd.add(sums[2], sums[3]));
            let mut lanes = [0.0; LANES];
            simd.store(simd.mul(sum, scale), &mut lanes);
            if !job.low_rank.is_empty() {
                let low_rank = &job.low_rank[row * job.w.rows..][..job.w.rows][col..];
                for (lane, low_rank) in lanes.iter_mut().zip(low_rank) {
                    *lane += low_rank;
                }
            }
            // SAFETY: the tasks divide the panels among themselves, and `job` holds the mutable
            // borrow of the output.
            #[expect(unsafe_code, reason = "writing a part of a shared output")]
            unsafe {
                job.finish.write(simd, row, col, &lanes);
            }
        }
    }
}
