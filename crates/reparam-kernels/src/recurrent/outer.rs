//! The product of two matrices over all tokens, the gradient of a weight.

use rayon::prelude::*;

use super::panels::{Lanes, MAX_ROWS, MAX_SUMS, Panels};
use super::schedule::{even, units_of};
use crate::isa::Token;

/// Tokens that are worked through before the next ones: a block of the right factor takes 256 KiB of
/// the second cache.
const DEPTH: usize = 1024;

/// Rows of a task. Together their numbers take 192 KiB.
const ROWS: usize = 48;

/// `to[rows, units] = left' right`, of `left[N, width]` the first `rows` columns, `right[N, units]`.
///
/// Each sum is in the order of the tokens.
pub(super) fn outer_product(
    token: Token,
    left: &[f32],
    width: usize,
    right: &[f32],
    units: usize,
    to: &mut [f32],
) {
    to.fill(0.0);
    let chunks = left.chunks(DEPTH * width).zip(right.chunks(DEPTH * units));
    for (left, right) in chunks {
        let depth = right.len() / units;
        let panels = Panels::plain(token, right, depth, units);
        let tasks = to.par_chunks_mut(ROWS * units).enumerate();
        tasks.for_each(|(task, to)| {
            let left = &left[task * ROWS..];
            add_rows(token, &panels, left, width, depth, units, to);
        });
    }
}

/// Adds the products of the first columns of `left`, as many as `to` has rows.
fn add_rows(
    token: Token,
    panels: &Panels,
    left: &[f32],
    width: usize,
    depth: usize,
    units: usize,
    to: &mut [f32],
) {
    let count = to.len() / units;
    // Not a power of two, for which all columns would share the same few places of the cache.
    let stride = depth.next_multiple_of(32) + 16;
    let mut columns = vec![0.0; count * stride];
    for (k, row) in left.chunks(width).enumerate() {
        for (column, x) in columns.chunks_exact_mut(stride).zip(row) {
            column[k] = *x;
        }
    }
    for block in 0..panels.blocks() {
        for tile in even(count, count.div_ceil(panels.rows)) {
            let mut rows: [&[f32]; MAX_ROWS] = [&[]; MAX_ROWS];
            let rows = &mut rows[..tile.len()];
            for (row, column) in rows.iter_mut().zip(tile.clone()) {
                *row = &columns[column * stride..][..depth];
            }
            let mut sums = [Lanes::ZERO; MAX_SUMS];
            let place = |row: usize, group: usize| {
                let units_of = units_of(block * panels.groups() + group, units);
                let start = (tile.start + row) * units;
                (
                    panels.sum(tile.len(), row, 0, group),
                    start + units_of.start..start + units_of.end,
                )
            };
            for row in 0..tile.len() {
                for group in 0..panels.groups() {
                    let (sum, units) = place(row, group);
                    sums[sum].0[..units.len()].copy_from_slice(&to[units]);
                }
            }
            panels.add(token, block, 0, rows, &mut sums);
            for row in 0..tile.len() {
                for group in 0..panels.groups() {
                    let (sum, units) = place(row, group);
                    to[units.clone()].copy_from_slice(&sums[sum].0[..units.len()]);
                }
            }
        }
    }
}
