//! One task: some rows and some panels of the output.

use std::ops::Range;

use super::epilogue::Finish;
use super::left::{Left, gather, numbers};
use super::matrix::Matrix;
use super::right::Panels;
use super::tile::{Start, Sums, Terms, add_tile};
use crate::isa::{LANES, Line, PairSimd, simd_entry};

/// Rows of a task.
pub(super) const MAX_ROWS: usize = 128;

/// Rows up to which a task has a tile of its own, wide and low: the weight is read once, and what
/// counts is how fast it can be read.
pub(super) const NARROW_ROWS: usize = 4;

/// Pairs of the summed index that are worked through before the next rows: those of three panels
/// take 96 KiB, so that they stay in the second cache while the tiles of a task use them, and those
/// of a row tile 16 KiB of the first.
const PAIRS: usize = 512;

/// A low-rank term that is added to a product: `scaling left right`.
#[derive(Debug, Clone, Copy)]
pub(super) struct LowRank<'a> {
    pub(super) left: Matrix<'a>,
    pub(super) right: Panels<'a>,
    pub(super) scaling: f32,
}

/// A product with everything that belongs to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) left: Matrix<'a>,
    pub(super) right: Panels<'a>,
    /// Column of the output that the first column of `right` is.
    pub(super) first_col: usize,
    pub(super) low_rank: Option<LowRank<'a>>,
    pub(super) finish: Finish<'a>,
}

/// Rows and panels of an output that belong to one task alone.
#[derive(Debug)]
pub(super) struct Part {
    rows: Range<usize>,
    panels: Range<usize>,
}

impl Part {
    /// # Safety
    ///
    /// As long as the value exists nobody else may use those rows and columns of the output.
    #[expect(unsafe_code, reason = "a promise of whoever splits the work")]
    pub(super) unsafe fn new(rows: Range<usize>, panels: Range<usize>) -> Self {
        Self { rows, panels }
    }

    pub(super) fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    pub(super) fn panels(&self) -> Range<usize> {
        self.panels.clone()
    }
}

simd_entry!(
    /// Computes `part` of the output of `job`, with buffers for the left factors.
    pub(super) fn run_block<'a, 'b>(
        job: &'b Job<'a>,
        part: &'b Part,
        buffer: &'b mut [Line],
        low_rank_buffer: &'b mut [Line],
    ) = run_block_generic
);

/// The left factors of a task.
#[derive(Debug, Clone, Copy)]
struct Lefts<'a> {
    main: Left<'a>,
    low_rank: Option<Left<'a>>,
}

#[inline(always)]
fn run_block_generic<S: PairSimd>(
    simd: S,
    job: &Job<'_>,
    part: &Part,
    buffer: &mut [Line],
    low_rank_buffer: &mut [Line],
) {
    let rows = part.rows.clone();
    let narrow = rows.len() <= NARROW_ROWS;
    let tile_rows = if narrow { rows.len() } else { S::ROWS };
    let main = gather(simd, &job.left, rows.clone(), tile_rows, numbers(buffer));
    let mut lefts = Lefts {
        main,
        low_rank: None,
    };
    if let Some(low_rank) = &job.low_rank {
        let buffer = numbers(low_rank_buffer);
        lefts.low_rank = Some(gather(simd, &low_rank.left, rows, tile_rows, buffer));
    }

    // Room for the sums of all rows and one group of panels.
    let mut sums = [Sums::ZERO; MAX_ROWS * 3];
    let mut panel = part.panels.start;
    while panel < part.panels.end {
        let left_over = part.panels.end - panel;
        macro_rules! group {
            ($rows:literal, $panels:literal) => {{
                run_group::<S, $rows, $panels>(simd, job, part, &lefts, panel, &mut sums);
                panel += $panels;
            }};
        }
        if narrow {
            // As many sums as a whole tile has, or half of it.
            let most = (S::ROWS * S::PANELS / tile_rows).min(left_over);
            match (tile_rows, most) {
                (1, 8..) => group!(1, 8),
                (1, 4..) => group!(1, 4),
                (1, 2..) => group!(1, 2),
                (1, _) => group!(1, 1),
                (2, 8..) => group!(2, 8),
                (2, 4..) => group!(2, 4),
                (2, 2..) => group!(2, 2),
                (2, _) => group!(2, 1),
                (3, 8..) => group!(3, 8),
                (3, 4..) => group!(3, 4),
                (3, 2..) => group!(3, 2),
                (3, _) => group!(3, 1),
                (_, 4..) => group!(4, 4),
                (_, 2..) => group!(4, 2),
                (_, _) => group!(4, 1),
            }
        } else {
            match (S::ROWS, S::PANELS.min(left_over)) {
                (8, 3) => group!(8, 3),
                (8, 2) => group!(8, 2),
                (8, _) => group!(8, 1),
                (4, _) => group!(4, 1),
                (_, _) => group!(2, 1),
            }
        }
    }
}

/// All rows of a task and the `P` panels from `panel` on.
#[inline(always)]
fn run_group<S: PairSimd, const R: usize, const P: usize>(
    simd: S,
    job: &Job<'_>,
    part: &Part,
    lefts: &Lefts<'_>,
    panel: usize,
    sums: &mut [Sums],
) {
    let tiles = lefts.main.tiles();
    let whole_tiles = match &lefts.low_rank {
        Some(low_rank) => lefts.main.whole_tiles.min(low_rank.whole_tiles),
        None => lefts.main.whole_tiles,
    };
    // With few rows one would ask for more than the memory can bring meanwhile.
    let next = if R == S::ROWS && tiles > 4 {
        job.right
            .next_panels(panel + P, part.panels.end.min(panel + 2 * P))
    } else {
        &[]
    };
    let share = next.len().div_ceil(tiles.max(1));
    let pairs = job.right.pairs;
    let mut start = 0;
    loop {
        let group = Group {
            job,
            lefts,
            panel,
            pairs: start..pairs.min(start + PAIRS),
        };
        let mut tile = 0;
        while tile < tiles {
            if start == 0 {
                // The first tile of the next panels would have to wait for each line.
                for line in next.iter().skip(tile * share).take(share) {
                    simd.prefetch(line);
                }
            }
            // Between blocks of pairs the sums of all tiles are kept, else those of one.
            let kept = if pairs <= PAIRS { 0 } else { tile * R * P };
            let sums = &mut sums[kept..];
            if group.pairs.end == pairs {
                let first_row = part.rows.start + tile * R;
                for row in first_row..part.rows.end.min(first_row + R) {
                    let col = job.first_col + panel * LANES;
                    job.finish.ask(simd, row, col, P);
                }
            }
            // One panel alone has too few sums to hide the latency of the additions.
            let tiles_at_once = if P == 1 && R == 8 && tile + 2 <= whole_tiles {
                group.add::<S, 2, R, P>(simd, tile, sums);
                2
            } else {
                group.add::<S, 1, R, P>(simd, tile, sums);
                1
            };
            if group.pairs.end == pairs {
                let first_row = part.rows.start + tile * R;
                let rows = first_row..part.rows.end.min(first_row + tiles_at_once * R);
                for (row, sums) in rows.zip(sums.chunks_exact(P)) {
                    for (j, sums) in sums.iter().enumerate() {
                        let col = job.first_col + (panel + j) * LANES;
                        // SAFETY: `part` is the promise that nobody else uses these rows and panels.
                        #[expect(unsafe_code, reason = "writing a part of a shared output")]
                        unsafe {
                            job.finish.write(simd, row, col, &sums.0);
                        }
                    }
                }
            }
            tile += tiles_at_once;
        }
        start += PAIRS;
        if start >= pairs {
            break;
        }
    }
}

/// Some panels and some pairs of the summed index.
struct Group<'a> {
    job: &'a Job<'a>,
    lefts: &'a Lefts<'a>,
    panel: usize,
    pairs: Range<usize>,
}

impl Group<'_> {
    /// Adds the terms of `T` tiles; the first pairs begin with the low-rank term, or with zero.
    #[inline(always)]
    fn add<S: PairSimd, const T: usize, const R: usize, const P: usize>(
        &self,
        simd: S,
        tile: usize,
        sums: &mut [Sums],
    ) {
        let Range { start: first, end } = self.pairs;
        let terms = select::<T, P>(
            &self.lefts.main,
            self.job.right,
            tile,
            self.panel,
            first..end,
        );
        let start = match (&self.job.low_rank, &self.lefts.low_rank) {
            _ if first > 0 => Start::Sums,
            (Some(LowRank { right, scaling, .. }), Some(left)) => {
                let terms = select::<T, P>(left, *right, tile, self.panel, 0..right.pairs);
                Start::Scaled(*scaling, terms)
            }
            _ => Start::Zero,
        };
        add_tile::<S, T, R, P>(simd, start, terms, sums);
    }
}

#[inline(always)]
fn select<'a, const T: usize, const P: usize>(
    left: &Left<'a>,
    right: Panels<'a>,
    tile: usize,
    panel: usize,
    pairs: Range<usize>,
) -> Terms<'a, T> {
    let mut tiles = [left.tile(tile); T];
    for (t, to) in tiles.iter_mut().enumerate() {
        *to = left.tile(tile + t).skip_pairs(pairs.start);
    }
    Terms {
        left: tiles,
        right: &right.range(panel, panel + P)[pairs.start..],
        panel_stride: right.pairs,
        pairs: pairs.len(),
    }
}
