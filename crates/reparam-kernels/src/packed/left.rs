//! The left factor of a task: its rows in tiles, where they lie or in a buffer.

use std::ops::Range;

use super::matrix::{Matrix, Values};
use crate::Bf16;
use crate::isa::{LANES, Line, PairSimd};

/// Rows of one tile. The pair `p` of row `i` begins at `i * row_stride + p * pair_stride`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeftTile<'a> {
    pub(crate) numbers: &'a [Bf16],
    pub(crate) row_stride: usize,
    pub(crate) pair_stride: usize,
}

impl<'a> LeftTile<'a> {
    /// The same rows from pair `pair` on.
    pub(super) fn skip_pairs(self, pair: usize) -> Self {
        Self {
            numbers: &self.numbers[pair * self.pair_stride..],
            ..self
        }
    }
}

/// The rows of one task.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left<'a> {
    /// Tiles whose rows are all there.
    whole: LeftTile<'a>,
    tile_stride: usize,
    pub(super) whole_tiles: usize,
    /// The last tile, completed with zeros, if it lies elsewhere.
    last: Option<LeftTile<'a>>,
}

impl<'a> Left<'a> {
    pub(super) fn tiles(&self) -> usize {
        self.whole_tiles + usize::from(self.last.is_some())
    }

    pub(super) fn tile(&self, tile: usize) -> LeftTile<'a> {
        match self.last {
            Some(last) if tile == self.whole_tiles => last,
            _ => LeftTile {
                numbers: &self.whole.numbers[tile * self.tile_stride..],
                ..self.whole
            },
        }
    }
}

/// Numbers between two rows in the buffer: an odd number of lines, so that the rows of a tile do not
/// meet in one set of the cache.
fn buffer_stride(cols: usize) -> usize {
    32 * ((cols.div_ceil(32)) | 1)
}

/// Lines of the buffer that [`gather`] needs for up to `rows` rows, whatever the tile.
pub(super) fn buffer_lines(matrix: &Matrix<'_>, rows: usize) -> usize {
    let rows = if lies_ready(matrix) {
        rows.min(MAX_TILE_ROWS)
    } else {
        rows
    };
    let rows = rows.next_multiple_of(MAX_TILE_ROWS);
    if matrix.transposed {
        // Smaller tiles take more of the lines that make their number odd.
        (1..=MAX_TILE_ROWS)
            .map(|tile| rows.div_ceil(tile) * tile_stride(matrix.cols(), tile) / 32)
            .max()
            .unwrap_or(0)
    } else {
        rows * buffer_stride(matrix.cols()) / 32
    }
}

/// The greatest tile of any instruction set.
const MAX_TILE_ROWS: usize = 8;

/// Whether tiles can read the matrix where it lies: pairs of one row are neighbours, and no row ends
/// in half a pair.
fn lies_ready(matrix: &Matrix<'_>) -> bool {
    !matrix.transposed
        && matrix.cols().is_multiple_of(2)
        && matches!(matrix.values, Values::Bf16(_))
}

/// Rows of a tile register, and the numbers of one of its rows.
pub(super) const TILE_ROWS: usize = 16;
const TILE_COLS: usize = 32;

/// Lines of the buffer that [`gather_padded`] needs for up to `rows` rows.
pub(super) fn padded_lines(matrix: &Matrix<'_>, rows: usize) -> usize {
    let rows = if fills_tiles(matrix) {
        rows.min(TILE_ROWS)
    } else {
        rows
    };
    rows.next_multiple_of(TILE_ROWS) * buffer_stride(matrix.cols()) / 32
}

/// Whether tile registers can be loaded from where the matrix lies.
fn fills_tiles(matrix: &Matrix<'_>) -> bool {
    lies_ready(matrix) && matrix.cols().is_multiple_of(TILE_COLS)
}

/// Rows `rows` of `matrix` in tiles for tile registers: one row after the other, as many rows and
/// columns as fill the registers, the last ones completed with zeros in `buffer`.
pub(super) fn gather_padded<'a>(
    matrix: &Matrix<'a>,
    rows: Range<usize>,
    buffer: &'a mut [Bf16],
) -> Left<'a> {
    let cols = matrix.cols();
    let padded = cols.next_multiple_of(TILE_COLS);
    let buffer_stride = buffer_stride(cols);
    let ready = match matrix.values {
        Values::Bf16(values) if cols > 0 && fills_tiles(matrix) => Some(values),
        _ => None,
    };
    let whole_tiles = if ready.is_some() {
        rows.len() / TILE_ROWS
    } else {
        0
    };
    let rest = rows.start + whole_tiles * TILE_ROWS..rows.end;
    let rest_rows = rest.len().next_multiple_of(TILE_ROWS);
    let lines = buffer.chunks_mut(buffer_stride).take(rest_rows);
    for (to, row) in lines.zip(rest.start..) {
        let width = if row < rows.end { cols } else { 0 };
        if width > 0 {
            matrix.read_row(row, &mut to[..cols]);
        }
        to[width..padded].fill(Bf16::ZERO);
    }
    let buffered = LeftTile {
        numbers: buffer,
        row_stride: buffer_stride,
        pair_stride: 2,
    };
    match ready {
        Some(values) => Left {
            whole: LeftTile {
                numbers: &values[rows.start * matrix.stride()..],
                row_stride: matrix.stride(),
                pair_stride: 2,
            },
            tile_stride: TILE_ROWS * matrix.stride(),
            whole_tiles,
            last: (rest_rows > 0).then_some(buffered),
        },
        None => Left {
            whole: buffered,
            tile_stride: TILE_ROWS * buffer_stride,
            whole_tiles: rest_rows / TILE_ROWS,
            last: None,
        },
    }
}

/// Rows `rows` of `matrix` in tiles of `tile_rows`, as far as necessary in `buffer`.
#[inline(always)]
pub(super) fn gather<'a, S: PairSimd>(
    simd: S,
    matrix: &Matrix<'a>,
    rows: Range<usize>,
    tile_rows: usize,
    buffer: &'a mut [Bf16],
) -> Left<'a> {
    // Rows without columns have no place that could be looked up.
    let stride = if matrix.cols() == 0 {
        0
    } else {
        matrix.stride()
    };
    let rest = rows.len() % tile_rows;
    if let Values::Bf16(values) = matrix.values
        && lies_ready(matrix)
    {
        let whole_rows = rows.len() - rest;
        let mut last = None;
        if rest > 0 {
            copy_rows(matrix, rows.start + whole_rows..rows.end, tile_rows, buffer);
            last = Some(LeftTile {
                numbers: buffer,
                row_stride: buffer_stride(matrix.cols()),
                pair_stride: 2,
            });
        }
        return Left {
            whole: LeftTile {
                numbers: &values[rows.start * stride..],
                row_stride: stride,
                pair_stride: 2,
            },
            tile_stride: tile_rows * stride,
            whole_tiles: whole_rows / tile_rows,
            last,
        };
    }
    let whole_tiles = rows.len().div_ceil(tile_rows);
    if matrix.transposed {
        let tile_stride = tile_stride(matrix.cols(), tile_rows);
        interleave_rows(simd, matrix, rows, tile_rows, tile_stride, buffer);
        return Left {
            whole: LeftTile {
                numbers: buffer,
                row_stride: 2,
                pair_stride: 2 * tile_rows,
            },
            tile_stride,
            whole_tiles,
            last: None,
        };
    }
    copy_rows(matrix, rows, tile_rows, buffer);
    let row_stride = buffer_stride(matrix.cols());
    Left {
        whole: LeftTile {
            numbers: buffer,
            row_stride,
            pair_stride: 2,
        },
        tile_stride: tile_rows * row_stride,
        whole_tiles,
        last: None,
    }
}

/// Copies rows, then as many rows of zeros as make whole tiles.
#[inline(always)]
fn copy_rows(matrix: &Matrix<'_>, rows: Range<usize>, tile_rows: usize, buffer: &mut [Bf16]) {
    let cols = matrix.cols();
    let padded = rows.len().next_multiple_of(tile_rows);
    let lines = buffer.chunks_mut(buffer_stride(cols)).take(padded);
    for (to, row) in lines.zip(rows.start..) {
        if row < rows.end {
            matrix.read(row * matrix.stride(), &mut to[..cols]);
            // The partner of a last number without one.
            to[cols..cols.next_multiple_of(2)].fill(Bf16::ZERO);
        } else {
            to[..cols.next_multiple_of(2)].fill(Bf16::ZERO);
        }
    }
}

/// Numbers between two tiles of interleaved rows: an odd number of lines, so that the tiles do not
/// meet in one set of the cache while they are written side by side.
fn tile_stride(cols: usize, tile_rows: usize) -> usize {
    32 * ((2 * tile_rows * cols.div_ceil(2)).div_ceil(32) | 1)
}

/// Puts the pairs of the rows of each tile next to one another. Two neighbours of the summed index
/// are two stored lines here.
#[inline(always)]
fn interleave_rows<S: PairSimd>(
    simd: S,
    matrix: &Matrix<'_>,
    rows: Range<usize>,
    tile_rows: usize,
    tile_stride: usize,
    buffer: &mut [Bf16],
) {
    let (cols, stride) = (matrix.cols(), matrix.stride());
    let tiles = rows.len().div_ceil(tile_rows);
    // Whole groups of bf16 numbers for tiles of eight rows need no look at each.
    let ready = match matrix.values {
        Values::Bf16(values) if tile_rows == 8 => {
            let ready = rows.len() / LANES;
            for pair in 0..cols / 2 {
                let at = 2 * pair * stride + rows.start;
                let first = values[at..][..ready * LANES].as_chunks().0;
                let second = values[at + stride..][..ready * LANES].as_chunks().0;
                let to = buffer[16 * pair..].chunks_mut(2 * tile_stride);
                for ((first, second), to) in first.iter().zip(second).zip(to) {
                    let pairs = simd.interleave(first, second);
                    to[..16].copy_from_slice(&pairs.0[..16]);
                    to[tile_stride..][..16].copy_from_slice(&pairs.0[16..]);
                }
            }
            ready
        }
        _ => 0,
    };
    for pair in 0..cols.div_ceil(2) {
        let has_second = 2 * pair + 1 < cols;
        let done = if has_second { ready * LANES } else { 0 };
        for start in (done..rows.len()).step_by(LANES) {
            // Rows beyond the last are zero, as is the partner of a last line without one.
            let len = rows.len() - start;
            let at = 2 * pair * stride + rows.start + start;
            let first = matrix.read_group(simd, at, len);
            let second = if has_second {
                matrix.read_group(simd, at + stride, len)
            } else {
                [Bf16::ZERO; LANES]
            };
            let pairs = simd.interleave(&first, &second);
            for (row, pairs) in (start..tiles * tile_rows).zip(pairs.0.as_chunks::<2>().0) {
                let tile = row / tile_rows * tile_stride;
                let at = tile + 2 * (tile_rows * pair + row % tile_rows);
                buffer[at..][..2].copy_from_slice(pairs);
            }
        }
    }
}

/// The numbers of a buffer one after another.
#[expect(unsafe_code, reason = "a line is an array of numbers")]
pub(crate) fn numbers(lines: &mut [Line]) -> &mut [Bf16] {
    let len = lines.len() * 32;
    // SAFETY: a line is 32 numbers without anything between them, and the lines of a slice follow
    // one another; the borrow is handed on.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), len) }
}
