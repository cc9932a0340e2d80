//! One task of the backward pass, whose rows and keys are worked through in blocks.

use std::ops::Range;

use super::backward::{Job, part_rows, write_query};
use super::elements::{RowPair, Scaling, Turned, gradient_rows};
use super::gather::{Place, copy_rows, pack_along_rows, pack_along_width, padded, write_row};
use super::scratch::{Scratch, Task, room};
use super::{KEY_BLOCK, KEY_GROUPS, clipped, fill_bounds, groups_of, lanes_of};
use crate::Bf16;
use crate::isa::{LANES, Line, PairSimd, simd_entry};
use crate::packed::{LeftTile, Right, Sums, add_rows, numbers};

/// Rows that are worked through before the gradients of keys and values are added to: so many
/// pairs hide what it costs to load and store the sums.
const ROW_BLOCK: usize = 96;

/// Pairs of rows of such a block.
const ROW_PAIRS: usize = ROW_BLOCK / 2;

simd_entry!(
    /// Computes the gradients of the keys and values of `task`, and its part of that of the queries.
    pub(super) fn run_task<'a, 'b>(
        job: &'b Job<'a>, task: &'b Task, scratch: &'b mut Scratch
    ) = run_task_generic
);

#[inline(always)]
fn run_task_generic<S: PairSimd>(simd: S, job: &Job<'_>, task: &Task, scratch: &mut Scratch) {
    let (shape, saved, segment) = (job.shape, job.saved, &task.segment);
    let (pairs, width) = (shape.head_dim.div_ceil(2), padded(shape.head_dim));
    let panels = width / LANES;
    let n_rep = shape.n_rep();

    let copies = room(&mut scratch.rows, KEY_BLOCK * width, Bf16::ZERO);
    let queries = room(&mut scratch.queries, ROW_BLOCK * width, Bf16::ZERO);
    let douts = room(&mut scratch.douts, ROW_BLOCK * width, Bf16::ZERO);
    let keys = room(&mut scratch.keys, KEY_GROUPS * pairs, Line::ZERO);
    let values = room(&mut scratch.values, KEY_GROUPS * pairs, Line::ZERO);
    let key_lines = panels * KEY_BLOCK / 2;
    let keys_along_rows = room(&mut scratch.keys_along_rows, key_lines, Line::ZERO);
    let row_lines = panels * ROW_PAIRS;
    let queries_along_rows = room(&mut scratch.queries_along_rows, row_lines, Line::ZERO);
    let douts_along_rows = room(&mut scratch.douts_along_rows, row_lines, Line::ZERO);
    let tile_lines = S::ROWS * KEY_GROUPS;
    let mut tile_buffers = TileBuffers {
        scores: room(&mut scratch.scores, tile_lines, Sums::ZERO),
        dprobabilities: room(&mut scratch.dprobabilities, tile_lines, Sums::ZERO),
        dscores: room(&mut scratch.factors, tile_lines, [Bf16::ZERO; LANES]),
    };
    let turned = KEY_GROUPS * ROW_PAIRS;
    let probabilities_turned = room(&mut scratch.probabilities_turned, turned, Line::ZERO);
    let dscores_turned = room(&mut scratch.dscores_turned, turned, Line::ZERO);
    let dkeys = room(&mut scratch.dkeys, KEY_BLOCK * panels, Sums::ZERO);
    let dvalues = room(&mut scratch.dvalues, KEY_BLOCK * panels, Sums::ZERO);
    let tile_rows = part_rows(&task.rows);
    let dqueries = match task.part {
        None => room(&mut scratch.acc, tile_rows * panels, Sums::ZERO),
        // SAFETY: the tasks divide the parts among themselves.
        #[expect(unsafe_code, reason = "writing a part of a shared buffer")]
        Some(part) => unsafe { job.parts.part(part, tile_rows * panels) },
    };
    dqueries.fill(Sums::ZERO);
    let stats = room(&mut scratch.stats, tile_rows, [0.0; 2]);
    row_stats(simd, job, task, stats);
    let bounds = room(&mut scratch.bounds, tile_rows, [0; 2]);
    fill_bounds(shape, segment, &task.rows, bounds);
    let q_place = Place::queries(shape, segment, task.head, saved.q.row_stride);
    let dout_place = Place::queries(shape, segment, task.head, shape.q_width());

    for start in task.keys.clone().step_by(KEY_BLOCK) {
        let block = start..task.keys.end.min(start + KEY_BLOCK);
        let padded_keys = block.len().next_multiple_of(LANES);
        let copies = &mut copies[..padded_keys * width];
        let place = Place::keys(shape, segment, task.head, saved.v.row_stride);
        copy_rows(simd, saved.v.values, &place, block.clone(), copies);
        pack_along_width(simd, copies, width, values, pairs);
        let place = Place::keys(shape, segment, task.head, saved.k.row_stride);
        copy_rows(simd, saved.k.values, &place, block.clone(), copies);
        pack_along_width(simd, copies, width, keys, pairs);
        pack_along_rows(simd, copies, width, keys_along_rows, KEY_BLOCK / 2);
        dkeys[..padded_keys * panels].fill(Sums::ZERO);
        dvalues[..padded_keys * panels].fill(Sums::ZERO);

        let seeing = shape.seeing(segment, &block);
        let block_rows = seeing.start * n_rep..seeing.end * n_rep;
        for first in block_rows.clone().step_by(ROW_BLOCK) {
            let rows = first..block_rows.end.min(first + ROW_BLOCK);
            let tile_rows = rows.len().next_multiple_of(S::ROWS);
            let queries = &mut queries[..tile_rows * width];
            let douts = &mut douts[..tile_rows * width];
            copy_rows(simd, saved.q.values, &q_place, rows.clone(), queries);
            copy_rows(simd, saved.dout, &dout_place, rows.clone(), douts);
            pack_along_rows(simd, queries, width, queries_along_rows, ROW_PAIRS);
            pack_along_rows(simd, douts, width, douts_along_rows, ROW_PAIRS);

            // Tiles that have looked at each group of keys; they follow one another, since neither
            // end of what the rows see ever moves back.
            let mut filled = [(0, 0); KEY_GROUPS];
            for tile in (0..tile_rows).step_by(S::ROWS) {
                let at = rows.start + tile - task.rows.start;
                // Rows of the padding see what the last does, with no probability.
                let there = (rows.len() - tile).min(S::ROWS);
                let seen = [bounds[at][0], bounds[at + there - 1][1]];
                let groups = groups_of(clipped(seen, &block));
                if groups.is_empty() {
                    continue;
                }
                for filled in &mut filled[groups.clone()] {
                    if filled.1 == 0 {
                        filled.0 = tile;
                    }
                    filled.1 = tile + S::ROWS;
                }
                run_tile(
                    simd,
                    Tile {
                        queries: &queries[tile * width..][..S::ROWS * width],
                        douts: &douts[tile * width..][..S::ROWS * width],
                        keys,
                        values,
                        keys_along_rows,
                        width,
                        pairs,
                        block: &block,
                        groups,
                        bounds: &bounds[at..][..there],
                        stats: &stats[at..][..there],
                        scaling: Scaling::new(shape),
                    },
                    &mut tile_buffers,
                    [
                        &mut probabilities_turned[tile / 2..],
                        &mut dscores_turned[tile / 2..],
                    ],
                    &mut dqueries[at * panels..],
                );
            }
            for (group, &(start, end)) in filled.iter().enumerate() {
                let row_pairs = start / 2..end / 2;
                if row_pairs.is_empty() {
                    continue;
                }
                let lines = group * ROW_PAIRS..(group + 1) * ROW_PAIRS;
                let products = [
                    (
                        &mut probabilities_turned[lines.clone()],
                        &*douts_along_rows,
                        &mut *dvalues,
                    ),
                    (
                        &mut dscores_turned[lines],
                        &*queries_along_rows,
                        &mut *dkeys,
                    ),
                ];
                for (left, right, sums) in products {
                    let sums = &mut sums[group * LANES * panels..][..LANES * panels];
                    add_turned(simd, numbers(left), right, row_pairs.clone(), sums);
                }
            }
        }

        let results = [
            (&*dkeys, job.columns[1], shape.scale),
            (&*dvalues, job.columns[2], 1.0),
        ];
        for (sums, column, scale) in results {
            let column = column + task.head * shape.head_dim;
            for (key, sums) in block.clone().zip(sums.chunks_exact(panels)) {
                let at = (segment.k_start + key) * job.row_stride + column;
                // SAFETY: the columns of the gradients do not meet, segments share no keys, and the
                // keys of a segment and head belong to one task each.
                #[expect(unsafe_code, reason = "writing a part of a shared output")]
                let to = unsafe { job.gradient.part(at, shape.head_dim) };
                write_row(simd, sums, scale, to);
            }
        }
    }
    if task.part.is_none() {
        // A query sees its own key at least, so that these are all rows of the segment.
        for (row, sums) in task.rows.clone().zip(dqueries.chunks_exact(panels)) {
            write_query(simd, job, task, row, sums);
        }
    }
}

/// Some rows and the groups of keys that they see, one or the other.
struct Tile<'a> {
    queries: &'a [Bf16],
    douts: &'a [Bf16],
    keys: &'a [Line],
    values: &'a [Line],
    keys_along_rows: &'a [Line],
    /// Numbers of a row of `queries` and `douts`.
    width: usize,
    /// Pairs of a panel of `keys` and `values`.
    pairs: usize,
    block: &'a Range<usize>,
    groups: Range<usize>,
    /// Of the rows that there are.
    bounds: &'a [[usize; 2]],
    stats: &'a [[f32; 2]],
    scaling: Scaling,
}

/// [`PairSimd::ROWS`] rows of [`KEY_GROUPS`] groups each.
struct TileBuffers<'a> {
    scores: &'a mut [Sums],
    dprobabilities: &'a mut [Sums],
    dscores: &'a mut [[Bf16; LANES]],
}

/// Adds to the gradients of the queries of a tile, and leaves the pairs of its rows of probabilities
/// and of gradients of scores for those of the keys and values.
#[inline(always)]
fn run_tile<S: PairSimd>(
    simd: S,
    tile: Tile<'_>,
    buffers: &mut TileBuffers<'_>,
    [probability_pairs, dscore_pairs]: [&mut [Line]; 2],
    dqueries: &mut [Sums],
) {
    let groups = &tile.groups;
    let products = [
        (tile.queries, tile.keys, &mut *buffers.scores),
        (tile.douts, tile.values, &mut *buffers.dprobabilities),
    ];
    for (numbers, lines, sums) in products {
        let left = LeftTile {
            numbers,
            row_stride: tile.width,
            pair_stride: 2,
        };
        let right = Right {
            lines,
            panel_stride: tile.pairs,
        };
        let (all, groups) = (0..tile.pairs, groups.clone());
        add_rows(
            simd,
            left,
            S::ROWS,
            right,
            all,
            groups,
            false,
            sums,
            KEY_GROUPS,
        );
    }

    let scores = buffers.scores.chunks_exact_mut(2 * KEY_GROUPS);
    let dprobabilities = buffers.dprobabilities.chunks_exact_mut(2 * KEY_GROUPS);
    let dscores = buffers.dscores.chunks_exact_mut(2 * KEY_GROUPS);
    for (i, ((scores, dprobabilities), dscores)) in
        scores.zip(dprobabilities).zip(dscores).enumerate()
    {
        let mut seen = [0..0, 0..0];
        // With this `lse` all probabilities are zero.
        let mut stats = [[f32::INFINITY, 0.0]; 2];
        for (row, (seen, stats)) in (2 * i..).zip(seen.iter_mut().zip(&mut stats)) {
            if row < tile.bounds.len() {
                *seen = lanes_of(clipped(tile.bounds[row], tile.block), groups);
                *stats = tile.stats[row];
            }
        }
        let at = groups.start * ROW_PAIRS + i;
        gradient_rows(
            simd,
            RowPair {
                scores: both_rows(scores, groups),
                dprobabilities: both_rows(dprobabilities, groups),
                seen,
                stats,
            },
            tile.scaling,
            Turned {
                dscores: both_rows(dscores, groups),
                probability_pairs: &mut probability_pairs[at..],
                dscore_pairs: &mut dscore_pairs[at..],
                stride: ROW_PAIRS,
            },
        );
    }

    let left = LeftTile {
        numbers: buffers.dscores.as_flattened(),
        row_stride: KEY_BLOCK,
        pair_stride: 2,
    };
    let right = Right {
        lines: tile.keys_along_rows,
        panel_stride: KEY_BLOCK / 2,
    };
    let key_pairs = groups.start * LANES / 2..groups.end * LANES / 2;
    let panels = tile.width / LANES;
    add_rows(
        simd,
        left,
        S::ROWS,
        right,
        key_pairs,
        0..panels,
        true,
        dqueries,
        panels,
    );
}

/// The groups `groups` of two rows of a tile.
#[inline(always)]
fn both_rows<'a, T>(rows: &'a mut [T], groups: &Range<usize>) -> [&'a mut [T]; 2] {
    let (first, second) = rows.split_at_mut(KEY_GROUPS);
    [&mut first[groups.clone()], &mut second[groups.clone()]]
}

/// Adds the products of a group of keys, whose pairs of rows are the lines `numbers`, and of rows in
/// panels.
#[inline(always)]
fn add_turned<S: PairSimd>(
    simd: S,
    numbers: &[Bf16],
    lines: &[Line],
    row_pairs: Range<usize>,
    sums: &mut [Sums],
) {
    let panels = sums.len() / LANES;
    let right = Right {
        lines,
        panel_stride: ROW_PAIRS,
    };
    for key in (0..LANES).step_by(S::ROWS) {
        let left = LeftTile {
            numbers: &numbers[2 * key..],
            row_stride: 2,
            pair_stride: 2 * LANES,
        };
        let sums = &mut sums[key * panels..];
        add_rows(
            simd,
            left,
            S::ROWS,
            right,
            row_pairs.clone(),
            0..panels,
            true,
            sums,
            panels,
        );
    }
}

/// `lse` and `delta = sum(dout * out)` of each row of a task.
#[inline(always)]
fn row_stats<S: PairSimd>(simd: S, job: &Job<'_>, task: &Task, stats: &mut [[f32; 2]]) {
    let (shape, saved) = (job.shape, job.saved);
    let (d, n_rep) = (shape.head_dim, shape.n_rep());
    for (stats, row) in stats.iter_mut().zip(task.rows.clone()) {
        let token = task.segment.q_start + row / n_rep;
        let head = token * shape.n_heads + task.head * n_rep + row % n_rep;
        let (out, dout) = (&saved.out[head * d..][..d], &saved.dout[head * d..][..d]);
        let (out, out_rest) = out.as_chunks::<LANES>();
        let (dout, dout_rest) = dout.as_chunks::<LANES>();
        let mut sums = simd.splat(0.0);
        for (out, dout) in out.iter().zip(dout) {
            sums = simd.mul_add_lanes(simd.widen(out), simd.widen(dout), sums);
        }
        let mut delta = simd.sum(sums);
        for (out, dout) in out_rest.iter().zip(dout_rest) {
            delta = S::mul_add(out.to_f32(), dout.to_f32(), delta);
        }
        *stats = [saved.lse[head], delta];
    }
}
