//! Splitting a product into tasks.

use std::ops::Range;

use super::block::{Job, MAX_ROWS, NARROW_ROWS, Part, run_block};
use super::left::{buffer_lines, padded_lines};
use super::tile_block::run_tile_block;
use super::workspace::{Purpose, with_buffer};
#[cfg(test)]
use crate::isa::tiles::EmulatedTiles;
use crate::isa::{LANES, Token};
use crate::par;

/// Numbers of a left factor that one task may hold: 512 KiB, half of the second cache.
const LEFT_NUMBERS: usize = 256 * 1024;

/// Tasks of a product, so that a few threads end at about the same time.
pub(super) const TASKS: usize = 16;

/// Products of two numbers that a task should have at least, some ten microseconds of work; for a
/// product of one row, which waits for the memory, 128 KiB of the weight.
const TASK_PRODUCTS: usize = 64 * 1024;

/// Rows and panels of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TaskShape {
    rows: usize,
    panels: usize,
}

impl TaskShape {
    /// Depends on the shapes alone.
    fn new(rows: usize, sums: usize, cols: usize) -> Self {
        let panels = cols.div_ceil(LANES);
        if rows <= NARROW_ROWS {
            let tasks = (rows * sums * cols / TASK_PRODUCTS).clamp(1, TASKS);
            return Self {
                rows: rows.max(1),
                panels: panels.div_ceil(tasks).next_multiple_of(8),
            };
        }
        // Whole pairs of the greatest tile.
        let that_fit = (LEFT_NUMBERS / sums.max(1)) / 16 * 16;
        let for_all = rows.div_ceil(TASKS).next_multiple_of(16);
        let block = that_fit.min(for_all).clamp(16, MAX_ROWS);
        let blocks = rows.div_ceil(block);
        let products = block.min(rows) * sums * cols;
        let tasks = (products / TASK_PRODUCTS).clamp(1, TASKS.div_ceil(blocks));
        Self {
            rows: block,
            panels: panels.div_ceil(tasks).next_multiple_of(3),
        }
    }
}

/// Computes the whole output of `job`.
pub(super) fn run(token: Token, job: &Job<'_>) {
    let (rows, cols) = (job.left.rows(), job.right.cols);
    if rows == 0 || cols == 0 {
        return;
    }
    let panels = cols.div_ceil(LANES);
    let shape = TaskShape::new(rows, job.left.cols(), cols);
    let column_tasks = panels.div_ceil(shape.panels);
    let tasks = rows.div_ceil(shape.rows) * column_tasks;
    let task = |index: usize| {
        let rows = span(index / column_tasks, shape.rows, rows);
        let panels = span(index % column_tasks, shape.panels, panels);
        run_task(token, job, rows, panels);
    };
    par::for_each_index(tasks, task);
}

pub(super) fn span(index: usize, size: usize, end: usize) -> Range<usize> {
    index * size..end.min((index + 1) * size)
}

/// The rectangle must belong to this task alone.
#[expect(unsafe_code, reason = "the tasks of `run` divide the output")]
fn run_task(token: Token, job: &Job<'_>, rows: Range<usize>, panels: Range<usize>) {
    // Few rows would leave most of a tile register empty. All tasks of a product go the same way, also
    // a last one of few rows, so that a row has the same bits wherever it is.
    let tiles = token.has_tiles() && job.left.rows() > NARROW_ROWS;
    let lines_of = if tiles { padded_lines } else { buffer_lines };
    let len = lines_of(&job.left, rows.len());
    let low_rank_len = job
        .low_rank
        .as_ref()
        .map_or(0, |low_rank| lines_of(&low_rank.left, rows.len()));
    // SAFETY: `job` holds the mutable borrow of the output, and `run` gives every rectangle of it to
    // one task.
    let part = unsafe { Part::new(rows, panels) };
    with_buffer(Purpose::Left, len, |buffer| {
        with_buffer(
            Purpose::LowRankLeft,
            low_rank_len,
            |low_rank_buffer| match token {
                #[cfg(target_arch = "x86_64")]
                Token::AmxBf16(amx) if tiles => {
                    run_tile_block(token, amx.tiles(), job, &part, buffer, low_rank_buffer);
                }
                #[cfg(test)]
                Token::EmulatedAmx if tiles => {
                    let tiles = EmulatedTiles::new();
                    run_tile_block(token, tiles, job, &part, buffer, low_rank_buffer);
                }
                _ => run_block(token, job, &part, buffer, low_rank_buffer),
            },
        );
    });
}
