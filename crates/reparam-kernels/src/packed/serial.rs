//! Products inside of a task: a tile of rows by some panels, with sums where the caller wants them.

use std::ops::Range;

use super::left::LeftTile;
use super::tile::{Lanes, Sums, Terms, add_terms};
use crate::isa::{Line, PairSimd};

/// A right factor in panels: line `p` of panel `j` is `lines[j * panel_stride + p]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Right<'a> {
    pub(crate) lines: &'a [Line],
    pub(crate) panel_stride: usize,
}

/// Adds the terms of `pairs` to a tile of sums, of which the panels `panels` are computed; without
/// `accumulate` the sums are overwritten. The sums of row `i` and panel `j` are
/// `sums[i * stride + j]`. The terms of an element are added in the order of the pairs.
///
/// A tile has [`PairSimd::ROWS`] rows; if only the first `rows` are wanted, what becomes of the
/// others is not said.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "factors, ranges and sums")]
pub(crate) fn add_rows<S: PairSimd>(
    simd: S,
    left: LeftTile<'_>,
    rows: usize,
    right: Right<'_>,
    pairs: Range<usize>,
    panels: Range<usize>,
    accumulate: bool,
    sums: &mut [Sums],
    stride: usize,
) {
    let left = left.skip_pairs(pairs.start);
    let mut panel = panels.start;
    while panel < panels.end {
        let lines = &right.lines[panel * right.panel_stride + pairs.start..];
        let terms = Terms {
            left: [left],
            right: lines,
            panel_stride: right.panel_stride,
            pairs: pairs.len(),
        };
        let sums = &mut sums[panel..];
        macro_rules! tile {
            ($rows:literal, $panels:literal) => {{
                add_tile::<S, $rows, $panels>(simd, terms, accumulate, sums, stride);
                panel += $panels;
            }};
        }
        if S::ROWS == 8 && rows <= 4 {
            // Low and wide, with as many sums.
            match panels.end - panel {
                1 => tile!(4, 1),
                2 | 3 => tile!(4, 2),
                _ => tile!(4, 4),
            }
            continue;
        }
        // One panel alone has too few sums to hide the latency of the additions, so that four are
        // two and two.
        let at_once = match panels.end - panel {
            1 => 1,
            2 | 4 => 2,
            _ => 3,
        };
        match (S::ROWS, S::PANELS.min(at_once)) {
            (8, 3) => tile!(8, 3),
            (8, 2) => tile!(8, 2),
            (8, _) => tile!(8, 1),
            (4, _) => tile!(4, 1),
            (_, _) => tile!(2, 1),
        }
    }
}

#[inline(always)]
fn add_tile<S: PairSimd, const R: usize, const P: usize>(
    simd: S,
    terms: Terms<'_, 1>,
    accumulate: bool,
    sums: &mut [Sums],
    stride: usize,
) {
    let mut lanes: Lanes<S, 1, R, P> = [[[simd.splat(0.0); P]; R]; 1];
    if accumulate {
        for (i, lanes) in lanes[0].iter_mut().enumerate() {
            for (lanes, sums) in lanes.iter_mut().zip(&sums[i * stride..][..P]) {
                *lanes = simd.load(&sums.0);
            }
        }
    }
    add_terms::<S, 1, R, P>(simd, &mut lanes, terms);
    for (i, lanes) in lanes[0].iter().enumerate() {
        for (lanes, sums) in lanes.iter().zip(&mut sums[i * stride..][..P]) {
            simd.store(*lanes, &mut sums.0);
        }
    }
}
