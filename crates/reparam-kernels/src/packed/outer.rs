//! Sums over many rows: `out[r, K] = left[r, M] right[M, K]` with few rows `r`, the gradients of the
//! small factors.
//!
//! The right factor is read once. Each task puts some rows of its columns at a time in order, where
//! its tiles find them in the first cache; ordered as a whole it would go through memory once more.

use std::ops::Range;

use rayon::prelude::*;

use super::block::Part;
use super::epilogue::Finish;
use super::grid::{TASKS, span};
use super::left::{Left, buffer_lines, gather, numbers};
use super::matrix::Matrix;
use super::right::pack_panels;
use super::tile::{Start, Sums, Terms, add_tile};
use super::workspace::{Purpose, with_buffer};
use crate::Bf16;
use crate::isa::{LANES, Line, PairSimd, Token, simd_entry};

/// The most rows of the output.
pub(super) const MAX_ROWS: usize = 64;

/// Pairs of the summed index that are put in order at a time: 4 KiB of a panel.
const PAIRS: usize = 64;

/// Lines between two panels: one more than the pairs take, so that the panels do not meet in one set
/// of the cache while they are written side by side.
const PANEL_STRIDE: usize = PAIRS + 1;

/// Sums of a task, 24 KiB.
const MAX_SUMS: usize = 384;

/// Panels of a task at least, as long as there are so many: three lines of the cache of each row.
const MIN_PANELS: usize = 6;

/// A product of few rows with everything that belongs to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) left: Matrix<'a>,
    pub(super) right: Matrix<'a>,
    pub(super) finish: Finish<'a>,
}

/// Computes the whole output of `job`, which has at most [`MAX_ROWS`] rows.
#[expect(unsafe_code, reason = "the tasks divide the output")]
pub(super) fn run(token: Token, job: &Job<'_>) {
    let (rows, cols) = (job.left.rows(), job.right.cols());
    if rows == 0 || cols == 0 {
        return;
    }
    let panels = cols.div_ceil(LANES);
    let most = MAX_SUMS / rows.next_multiple_of(8) / 3 * 3;
    // Depends on the shapes alone.
    let task_panels = panels
        .div_ceil(TASKS)
        .next_multiple_of(3)
        .clamp(MIN_PANELS, most);
    let tasks = panels.div_ceil(task_panels);
    with_buffer(Purpose::Right, buffer_lines(&job.left, rows), |lines| {
        let left = order_left(token, &job.left, numbers(lines));
        let task = |index: usize| {
            let panels = span(index, task_panels, panels);
            // SAFETY: `job` holds the mutable borrow of the output, and every panel of it belongs
            // to one task.
            let part = unsafe { Part::new(0..rows, panels) };
            with_buffer(Purpose::Left, task_panels * PANEL_STRIDE, |lines| {
                run_strip(token, job, &left, &part, lines);
            });
        };
        if tasks == 1 {
            task(0);
        } else {
            (0..tasks).into_par_iter().with_max_len(1).for_each(task);
        }
    });
}

simd_entry!(fn order_left<'a, 'b>(
    matrix: &'b Matrix<'a>, buffer: &'a mut [Bf16],
) -> Left<'a> = order_left_generic);

#[inline(always)]
fn order_left_generic<'a, S: PairSimd>(
    simd: S,
    matrix: &Matrix<'a>,
    buffer: &'a mut [Bf16],
) -> Left<'a> {
    gather(simd, matrix, 0..matrix.rows(), S::ROWS, buffer)
}

simd_entry!(fn run_strip<'a, 'b>(
    job: &'b Job<'a>, left: &'b Left<'a>, part: &'b Part, lines: &'b mut [Line],
) = run_strip_generic);

/// All rows and some panels of the output.
#[inline(always)]
fn run_strip_generic<S: PairSimd>(
    simd: S,
    job: &Job<'_>,
    left: &Left<'_>,
    part: &Part,
    lines: &mut [Line],
) {
    let summed = job.right.rows();
    let panels = part.panels();
    let mut sums = [Sums::ZERO; MAX_SUMS];
    for first_row in (0..summed).step_by(2 * PAIRS) {
        let rows = first_row..summed.min(first_row + 2 * PAIRS);
        let pairs = rows.len().div_ceil(2);
        let block = job.right.between(rows.start, rows.end);
        pack_panels(simd, block, panels.clone(), lines, PANEL_STRIDE);
        let block = Block {
            left,
            lines,
            pairs: rows.start / 2..rows.start / 2 + pairs,
        };
        let mut panel = 0;
        while panel < panels.len() {
            let width = S::PANELS.min(panels.len() - panel);
            match (S::ROWS, width) {
                (8, 3) => block.add::<S, 8, 3>(simd, panel, &mut sums),
                (8, 2) => block.add::<S, 8, 2>(simd, panel, &mut sums),
                (8, _) => block.add::<S, 8, 1>(simd, panel, &mut sums),
                (4, _) => block.add::<S, 4, 1>(simd, panel, &mut sums),
                (_, _) => block.add::<S, 2, 1>(simd, panel, &mut sums),
            }
            panel += width;
        }
    }
    let padded = left.tiles() * S::ROWS;
    for panel in (0..panels.len()).step_by(S::PANELS) {
        let width = S::PANELS.min(panels.len() - panel);
        let sums = sums[padded * panel..].chunks_exact(width);
        for (row, sums) in part.rows().zip(sums) {
            for (j, sums) in sums.iter().enumerate() {
                let col = (panels.start + panel + j) * LANES;
                // SAFETY: `part` is the promise that nobody else uses these rows and panels.
                #[expect(unsafe_code, reason = "writing a part of a shared output")]
                unsafe {
                    job.finish.write(simd, row, col, &sums.0);
                }
            }
        }
    }
}

/// Some pairs of the summed index, the right factor in order.
struct Block<'a> {
    left: &'a Left<'a>,
    lines: &'a [Line],
    pairs: Range<usize>,
}

impl Block<'_> {
    /// Adds the terms of all rows and the `P` panels from `panel` on. The sums of a group of panels
    /// follow one another tile by tile.
    #[inline(always)]
    fn add<S: PairSimd, const R: usize, const P: usize>(
        &self,
        simd: S,
        panel: usize,
        sums: &mut [Sums],
    ) {
        let pairs = self.pairs.len();
        let tiles = self.left.tiles();
        let sums = sums[tiles * R * panel..].chunks_exact_mut(R * P);
        for (tile, sums) in (0..tiles).zip(sums) {
            let terms = Terms {
                left: [self.left.tile(tile).skip_pairs(self.pairs.start)],
                right: &self.lines[panel * PANEL_STRIDE..],
                panel_stride: PANEL_STRIDE,
                pairs,
            };
            add_tile::<S, 1, R, P>(simd, Start::Sums, terms, sums);
        }
    }
}
