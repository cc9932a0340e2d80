//! The right factor of a product, in the order in which tiles read it.

use std::ops::Range;

use super::matrix::{Matrix, Values};
use crate::Bf16;
use crate::isa::{LANES, Line, PairSimd, simd_entry};

/// A right factor of `2 pairs` rows in panels of [`LANES`] columns: line `p` of a panel holds for
/// each of its columns the numbers of rows `2 p` and `2 p + 1`. What is missing is zero.
#[derive(Debug, Clone, Copy)]
pub(super) struct Panels<'a> {
    pub(super) lines: &'a [Line],
    pub(super) pairs: usize,
    pub(super) cols: usize,
}

impl<'a> Panels<'a> {
    /// The factor of panels `start..end` alone.
    pub(super) fn columns(self, start: usize, end: usize) -> Self {
        Self {
            lines: self.range(start, end),
            cols: self.cols.min(end * LANES) - start * LANES,
            ..self
        }
    }

    /// Panels `start..end`, or none if there are none.
    pub(super) fn next_panels(self, start: usize, end: usize) -> &'a [Line] {
        if start < end {
            self.range(start, end)
        } else {
            &[]
        }
    }

    /// Panels `start..end`.
    pub(super) fn range(self, start: usize, end: usize) -> &'a [Line] {
        &self.lines[start * self.pairs..end * self.pairs]
    }
}

/// Lines that a right factor of `rows` by `cols` takes.
pub(super) fn lines_of(rows: usize, cols: usize) -> usize {
    rows.div_ceil(2) * cols.div_ceil(LANES)
}

simd_entry!(
    /// Writes columns `LANES panel..` of `matrix` into the lines of one panel.
    pub(super) fn pack_panel<'a, 'b>(matrix: Matrix<'a>, panel: usize, lines: &'b mut [Line]) = pack_panel_generic
);

/// Pairs of rows that are asked for in advance.
const AHEAD: usize = 8;

/// Writes some panels of `matrix`, row by row as they follow one another in memory, into lines of
/// which those of the next panel begin `panel_stride` later.
#[inline(always)]
pub(super) fn pack_panels<S: PairSimd>(
    simd: S,
    matrix: Matrix<'_>,
    panels: Range<usize>,
    lines: &mut [Line],
    panel_stride: usize,
) {
    let pairs = matrix.rows().div_ceil(2);
    let mut whole_panels = 0;
    if let Values::Bf16(values) = matrix.values
        && !matrix.transposed
        && matrix.rows().is_multiple_of(2)
    {
        // Whole groups need no look at each.
        whole_panels = panels.end.min(matrix.cols() / LANES) - panels.start;
        let stride = matrix.stride();
        let first = panels.start * LANES;
        let width = whole_panels * LANES;
        for pair in 0..pairs {
            let at = 2 * pair * stride + first;
            for row in 0..2 {
                let ahead = at + (2 * AHEAD + row) * stride;
                for line in (0..width).step_by(2 * LANES) {
                    simd.prefetch(values.as_ptr().wrapping_add(ahead + line).cast());
                }
            }
            let upper = values[at..][..width].as_chunks().0;
            let lower = values[at + stride..][..width].as_chunks().0;
            let lines = lines[pair..].iter_mut().step_by(panel_stride);
            for ((upper, lower), line) in upper.iter().zip(lower).zip(lines) {
                *line = simd.interleave(upper, lower);
            }
        }
    }
    for (panel, lines) in panels
        .zip(lines.chunks_mut(panel_stride))
        .skip(whole_panels)
    {
        pack_panel_generic(simd, matrix, panel, &mut lines[..pairs]);
    }
}

#[inline(always)]
fn pack_panel_generic<S: PairSimd>(simd: S, matrix: Matrix<'_>, panel: usize, lines: &mut [Line]) {
    let first = panel * LANES;
    let width = LANES.min(matrix.cols() - first);
    let (rows, stride) = (matrix.rows(), matrix.stride());
    if matrix.transposed {
        // A column of the factor is a row of what is stored: its pairs are neighbours.
        if width < LANES {
            lines.fill(Line::ZERO);
        }
        for column in 0..width {
            let start = (first + column) * stride;
            match matrix.values {
                Values::Bf16(values) => {
                    scatter_pairs(&values[start..][..rows], column, lines, |x| x);
                }
                Values::F32(values) => {
                    scatter_pairs(&values[start..][..rows], column, lines, Bf16::from_f32);
                }
            }
        }
    } else {
        for (pair, line) in lines.iter_mut().enumerate() {
            let at = 2 * pair * stride + first;
            let upper = matrix.read_group(simd, at, width);
            let lower = if 2 * pair + 1 < rows {
                matrix.read_group(simd, at + stride, width)
            } else {
                [Bf16::ZERO; LANES]
            };
            *line = simd.interleave(&upper, &lower);
        }
    }
}

#[inline(always)]
fn scatter_pairs<T: Copy>(values: &[T], column: usize, lines: &mut [Line], to: impl Fn(T) -> Bf16) {
    let (pairs, rest) = values.as_chunks::<2>();
    for (line, pair) in lines.iter_mut().zip(pairs) {
        line.0[2 * column] = to(pair[0]);
        line.0[2 * column + 1] = to(pair[1]);
    }
    if let ([last], Some(line)) = (rest, lines.get_mut(pairs.len())) {
        line.0[2 * column] = to(*last);
        line.0[2 * column + 1] = Bf16::ZERO;
    }
}

/// Writes panel `panel` of the transpose of a packed factor of `cols` columns.
///
/// Two neighbouring columns of one line are a block of two by two numbers; in the transpose the
/// blocks change places and each is transposed in itself.
pub(super) fn transpose_panel(from: Panels<'_>, panel: usize, lines: &mut [Line]) {
    const BLOCKS: usize = LANES / 2;
    let first = panel * BLOCKS;
    let blocks = BLOCKS.min(from.pairs - first);
    for (source, to) in lines.chunks_mut(BLOCKS).enumerate() {
        let mut tile = [[[Bf16::ZERO; 4]; BLOCKS]; BLOCKS];
        let from = &from.range(source, source + 1)[first..][..blocks];
        for (column, line) in from.iter().enumerate() {
            for (row, block) in line.0.as_chunks::<4>().0.iter().enumerate() {
                tile[row][column] = [block[0], block[2], block[1], block[3]];
            }
        }
        for (to, row) in to.iter_mut().zip(&tile) {
            to.0.as_chunks_mut::<4>().0.copy_from_slice(row);
        }
    }
}
