//! A frozen weight in the order in which tiles read it.

use std::ops::Range;

use super::builder::PackedWeightBuilder;
use super::matrix::Matrix;
use super::right::Panels;
use crate::isa::{LANES, Line};
use crate::{Bf16, KernelError};

/// A frozen weight `W[N, K]` as bf16, packed for products with `W'` and with `W`.
///
/// One copy serves both directions. Lines of 64 bytes hold two neighbouring numbers of the summed
/// index `k` for each of 16 rows `n`, as `vdpbf16ps` multiplies them, so [`Direction::Forward`] reads
/// them as they are. [`Direction::Backward`] puts up to 4 MiB at a time into the order of the
/// transpose; with the 2048 rows of a training step that is 1 % of the work, and a second copy of
/// all weights would be the greater cost.
///
/// [`Direction::Forward`]: super::Direction::Forward
/// [`Direction::Backward`]: super::Direction::Backward
///
/// # Parts
///
/// Weights of layers with the same input, as those of queries, keys and values, can lie one below
/// the other: see [`PackedWeight::stack`]. Each begins at a multiple of 16 rows; the rows between two
/// parts are zero. The forward product of a layer takes its [`PackedWeight::part`], and one backward
/// product with the whole weight gives the sum of the gradients of all layers:
///
/// ```text
/// dx = [dq | dk | dv] [Wq; Wk; Wv]
/// ```
///
/// # Memory
///
/// `2 N K` bytes, the rows of each part rounded up to a multiple of 16 and `K` to a multiple of 2.
#[derive(Clone)]
pub struct PackedWeight {
    pub(super) lines: Vec<Line>,
    pub(super) parts: Vec<Range<usize>>,
    pub(super) cols: usize,
}

impl PackedWeight {
    /// Packs `w[N, K]`; `f32` numbers are rounded to the nearest bf16 number.
    ///
    /// Reads `w` once and makes no other copy of it. The panels of 16 rows are packed by the threads
    /// of the current rayon pool. [`PackedWeightBuilder`] does the same with rows that come in
    /// pieces.
    ///
    /// # Errors
    ///
    /// [`KernelError::Overflow`] if the packed weight does not fit into the address space.
    pub fn new(w: Matrix<'_>) -> Result<Self, KernelError> {
        Self::stack(&[w])
    }

    /// Packs weights of the same width one below the other; the width of none is zero.
    ///
    /// # Errors
    ///
    /// [`KernelError::Length`] if the parts differ in width; [`KernelError::Overflow`] if the packed
    /// weight does not fit into the address space.
    ///
    /// ```
    /// use reparam_kernels::packed::{Matrix, PackedWeight};
    ///
    /// let (q, k) = ([1.0_f32; 40], [2.0_f32; 10]);
    /// let w = PackedWeight::stack(&[Matrix::new(&q[..], 20, 2)?, Matrix::new(&k[..], 5, 2)?])?;
    /// assert_eq!(w.part_rows(), [0..20, 32..37]);
    /// assert_eq!(w.rows(), 37);
    /// # Ok::<(), reparam_kernels::KernelError>(())
    /// ```
    pub fn stack(parts: &[Matrix<'_>]) -> Result<Self, KernelError> {
        let rows: Vec<usize> = parts.iter().map(Matrix::rows).collect();
        let cols = parts.first().map_or(0, Matrix::cols);
        let mut builder = PackedWeightBuilder::new(&rows, cols)?;
        for (part, rows) in parts.iter().enumerate() {
            builder.rows(part, 0, *rows)?;
        }
        builder.build()
    }

    /// `N`, the width of the output of the layer: up to the last row of the last part, the rows
    /// between the parts included.
    pub fn rows(&self) -> usize {
        self.parts.last().map_or(0, |part| part.end)
    }

    /// `K`, the width of its input.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The rows of each part, in order.
    pub fn part_rows(&self) -> &[Range<usize>] {
        &self.parts
    }

    /// Part `index` alone, if there is one; it stands for a weight in every product.
    pub fn part(&self, index: usize) -> Option<PackedView<'_>> {
        let rows = self.parts.get(index)?;
        Some(PackedView::from(self).panels_as(panels_of(rows), rows.len()))
    }

    pub(super) fn of_lines(lines: Vec<Line>, parts: Vec<Range<usize>>, cols: usize) -> Self {
        Self { lines, parts, cols }
    }

    /// Bytes that the packed numbers take.
    pub fn bytes(&self) -> usize {
        size_of_val(self.lines.as_slice())
    }

    /// Writes row `row` into `to[K]`, exactly as it was packed.
    ///
    /// # Errors
    ///
    /// [`KernelError::View`] if there is no such row, [`KernelError::Length`] if `to` does not have
    /// `K` elements.
    pub fn read_row(&self, row: usize, to: &mut [Bf16]) -> Result<(), KernelError> {
        PackedView::from(self).read_row(row, to)
    }
}

/// The panels of a part, which begins with a whole one.
pub(super) fn panels_of(rows: &Range<usize>) -> Range<usize> {
    rows.start / LANES..rows.end.div_ceil(LANES)
}

pub(super) fn no_such_row(row: usize, rows: usize, cols: usize) -> KernelError {
    KernelError::View {
        rows: row.saturating_add(1),
        cols,
        row_stride: cols,
        col_stride: 1,
        found: rows * cols,
    }
}

impl std::fmt::Debug for PackedWeight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedWeight")
            .field("parts", &self.parts)
            .field("cols", &self.cols)
            .field("bytes", &self.bytes())
            .finish()
    }
}

/// A [`PackedWeight`], or one of its parts, as a factor of a product.
#[derive(Clone, Copy)]
pub struct PackedView<'a> {
    lines: &'a [Line],
    rows: usize,
    cols: usize,
}

impl<'a> PackedView<'a> {
    /// `N`, the rows of the weight or of the part.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// `K`
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Writes row `row` into `to[K]`, exactly as it was packed.
    ///
    /// # Errors
    ///
    /// As those of [`PackedWeight::read_row`].
    pub fn read_row(&self, row: usize, to: &mut [Bf16]) -> Result<(), KernelError> {
        crate::error::check_len("to", to, &[self.cols])?;
        if row >= self.rows {
            return Err(no_such_row(row, self.rows, self.cols));
        }
        self.copy_row(row, to);
        Ok(())
    }

    /// [`Self::read_row`] of a row that exists.
    pub(super) fn copy_row(&self, row: usize, to: &mut [Bf16]) {
        let lines = self.panels().range(row / LANES, row / LANES + 1);
        let lane = 2 * (row % LANES);
        for (to, line) in to.chunks_mut(2).zip(lines) {
            to.copy_from_slice(&line.0[lane..][..to.len()]);
        }
    }

    pub(super) fn of_lines(lines: &'a [Line], rows: usize, cols: usize) -> Self {
        Self { lines, rows, cols }
    }

    /// `W'` as a right factor.
    pub(super) fn panels(&self) -> Panels<'a> {
        Panels {
            lines: self.lines,
            pairs: self.cols.div_ceil(2),
            cols: self.rows,
        }
    }

    /// The first `rows` rows of some panels.
    pub(super) fn panels_as(self, panels: Range<usize>, rows: usize) -> Self {
        Self {
            lines: self.panels().range(panels.start, panels.end),
            rows,
            ..self
        }
    }
}

impl<'a> From<&'a PackedWeight> for PackedView<'a> {
    fn from(weight: &'a PackedWeight) -> Self {
        Self {
            lines: &weight.lines,
            rows: weight.rows(),
            cols: weight.cols,
        }
    }
}

impl std::fmt::Debug for PackedView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedView")
            .field("rows", &self.rows)
            .field("cols", &self.cols)
            .finish()
    }
}
