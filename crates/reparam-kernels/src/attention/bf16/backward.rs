//! The backward pass: a task is a range of keys of one segment and one key head. It owns the
//! gradients of these keys and values; the gradient of the queries is its own if it has all keys,
//! else a part that is joined with those of the other ranges in their order.

use std::ops::Range;

use rayon::prelude::*;

use super::super::AttentionShape;
use super::elements::{RowPair, Scaling, Turned, gradient_rows};
use super::gather::{Place, copy_rows, pack_along_rows, pack_along_width, padded, write_row};
use super::scratch::{Plan, Scratch, Task, room, with_scratch};
use super::shared::Shared;
use super::{AttentionSavedBf16, KEY_BLOCK, KEY_GROUPS, QkvGradient, clipped, groups_of};
use crate::Bf16;
use crate::isa::{LANES, Line, PairSimd, Token, simd_entry};
use crate::packed::{LeftTile, Right, Sums, add_rows, numbers};

/// Rows that are worked through before the gradients of keys and values are added to: so many
/// pairs hide what it costs to load and store the sums.
const ROW_BLOCK: usize = 96;

/// Pairs of rows of such a block.
const ROW_PAIRS: usize = ROW_BLOCK / 2;

/// With at least so many segments times key heads, keys are not cut into ranges.
const ENOUGH_TASKS: usize = 8;

/// The greatest number of key ranges of a segment and head. Each range has a part of the gradient of
/// the queries, so this bounds the memory.
const MAX_RANGES: usize = 4;

/// Rows of a task that joins parts.
const JOIN_ROWS: usize = 256;

/// What all tasks read, and where they write.
struct Job<'a> {
    saved: &'a AttentionSavedBf16<'a>,
    shape: &'a AttentionShape,
    gradient: Shared<'a, Bf16>,
    row_stride: usize,
    /// First columns of the gradients of queries, keys and values.
    columns: [usize; 3],
    parts: Shared<'a, Sums>,
}

/// Everything is checked; the segments lie in `plan`. `tokens` are the numbers of queries and keys.
pub(super) fn backward(
    token: Token,
    saved: &AttentionSavedBf16<'_>,
    shape: &AttentionShape,
    plan: &mut Plan,
    gradient: QkvGradient<'_>,
    tokens: [usize; 2],
) {
    clear_gaps(
        shape,
        plan,
        &gradient_columns(&gradient),
        gradient.values,
        gradient.row_stride,
        tokens,
    );
    let part_lines = cut(shape, plan);
    let parts = room(&mut plan.parts, part_lines, Sums::ZERO);
    let job = Job {
        saved,
        shape,
        columns: gradient_columns(&gradient),
        row_stride: gradient.row_stride,
        gradient: Shared::new(gradient.values),
        parts: Shared::new(parts),
    };
    let (tasks, order) = (&plan.tasks, &plan.order);
    let run = |&task: &usize| {
        with_scratch(|scratch| run_task(token, &job, &tasks[task], scratch));
    };
    if let [task] = &order[..] {
        run(task);
    } else {
        order.par_iter().with_max_len(1).for_each(run);
    }
    if part_lines == 0 {
        return;
    }
    for tasks in tasks.chunk_by(|a, b| a.segment == b.segment && a.head == b.head) {
        if tasks[0].part.is_some() {
            let rows = tasks[0].segment.q_len * shape.n_rep();
            let blocks = rows.div_ceil(JOIN_ROWS);
            (0..blocks).into_par_iter().for_each(|block| {
                let start = block * JOIN_ROWS;
                join(token, &job, tasks, start..rows.min(start + JOIN_ROWS));
            });
        }
    }
}

fn gradient_columns(gradient: &QkvGradient<'_>) -> [usize; 3] {
    [gradient.q_at, gradient.k_at, gradient.v_at]
}

/// Writes zeros to the gradients of tokens of no segment.
fn clear_gaps(
    shape: &AttentionShape,
    plan: &Plan,
    columns: &[usize; 3],
    values: &mut [Bf16],
    row_stride: usize,
    tokens: [usize; 2],
) {
    let mut clear = |rows: Range<usize>, column: usize, width: usize| {
        for row in rows {
            values[row * row_stride + column..][..width].fill(Bf16::ZERO);
        }
    };
    let mut at = 0;
    for segment in &plan.segments {
        clear(at..segment.q_start, columns[0], shape.q_width());
        at = segment.q_start + segment.q_len;
    }
    clear(at..tokens[0], columns[0], shape.q_width());
    for column in &columns[1..] {
        let mut at = 0;
        // Keys of segments without queries have no gradient either.
        for segment in plan.by_keys.iter().filter(|segment| segment.q_len > 0) {
            clear(at..segment.k_start, *column, shape.kv_width());
            at = segment.k_start + segment.k_len;
        }
        clear(at..tokens[1], *column, shape.kv_width());
    }
}

/// Cuts the work into tasks by the shapes alone; returns the lines of all parts.
fn cut(shape: &AttentionShape, plan: &mut Plan) -> usize {
    let n_rep = shape.n_rep();
    let panels = padded(shape.head_dim) / LANES;
    let units = plan.segments.len() * shape.n_kv_heads;
    let ranges = if units >= ENOUGH_TASKS { 1 } else { MAX_RANGES };
    let mut lines = 0;
    plan.tasks.clear();
    for &segment in &plan.segments {
        let len = segment.k_len.div_ceil(ranges).next_multiple_of(KEY_BLOCK);
        for head in 0..shape.n_kv_heads {
            for start in (0..segment.k_len).step_by(len) {
                let keys = start..segment.k_len.min(start + len);
                let seeing = shape.seeing(&segment, &keys);
                let rows = seeing.start * n_rep..seeing.end * n_rep;
                let part = (len < segment.k_len).then_some(lines);
                if part.is_some() {
                    lines += part_rows(&rows) * panels;
                }
                plan.tasks.push(Task {
                    segment,
                    head,
                    rows,
                    keys,
                    part,
                });
            }
        }
    }
    let tasks = &plan.tasks;
    let work = |&task: &usize| {
        let task: &Task = &tasks[task];
        std::cmp::Reverse(task.rows.len() * task.keys.len())
    };
    plan.order.clear();
    plan.order.extend(0..tasks.len());
    plan.order.sort_unstable_by_key(|task| (work(task), *task));
    lines
}

/// Rows of the gradient of the queries of a task: whole tiles of any instruction set.
fn part_rows(rows: &Range<usize>) -> usize {
    rows.len().next_multiple_of(LANES)
}

simd_entry!(fn run_task<'a, 'b>(
    job: &'b Job<'a>, task: &'b Task, scratch: &'b mut Scratch
) = run_task_generic);

#[inline(always)]
fn run_task_generic<S: PairSimd>(simd: S, job: &Job<'_>, task: &Task, scratch: &mut Scratch) {
    let shape = job.shape;
    let segment = &task.segment;
    let saved = job.saved;
    let (pairs, width) = (shape.head_dim.div_ceil(2), padded(shape.head_dim));
    let panels = width / LANES;
    let n_rep = shape.n_rep();
    let scaling = Scaling::new(shape);

    let copies = room(&mut scratch.rows, KEY_BLOCK * width, Bf16::ZERO);
    let queries = room(&mut scratch.queries, ROW_BLOCK * width, Bf16::ZERO);
    let douts = room(&mut scratch.douts, ROW_BLOCK * width, Bf16::ZERO);
    let keys_packed = room(&mut scratch.keys, KEY_GROUPS * pairs, Line::ZERO);
    let values_packed = room(&mut scratch.values, KEY_GROUPS * pairs, Line::ZERO);
    let key_stride = KEY_BLOCK / 2;
    let keys_along_rows = room(
        &mut scratch.keys_along_rows,
        panels * key_stride,
        Line::ZERO,
    );
    let row_lines = panels * ROW_PAIRS;
    let queries_along_rows = room(&mut scratch.queries_along_rows, row_lines, Line::ZERO);
    let douts_along_rows = room(&mut scratch.douts_along_rows, row_lines, Line::ZERO);
    let tile_lines = S::ROWS * KEY_GROUPS;
    let scores = room(&mut scratch.scores, tile_lines, Sums::ZERO);
    let dprobabilities = room(&mut scratch.dprobabilities, tile_lines, Sums::ZERO);
    let factors = room(&mut scratch.factors, tile_lines, [Bf16::ZERO; LANES]);
    let turned_lines = KEY_GROUPS * ROW_PAIRS;
    let p_turned = room(&mut scratch.probabilities_turned, turned_lines, Line::ZERO);
    let ds_turned = room(&mut scratch.dscores_turned, turned_lines, Line::ZERO);
    let dkeys = room(&mut scratch.dkeys, KEY_BLOCK * panels, Sums::ZERO);
    let dvalues = room(&mut scratch.dvalues, KEY_BLOCK * panels, Sums::ZERO);
    let stats = room(&mut scratch.stats, task.rows.len(), [0.0; 2]);
    let dq_lines = part_rows(&task.rows) * panels;
    let dqueries = match task.part {
        None => room(&mut scratch.acc, dq_lines, Sums::ZERO),
        // SAFETY: the tasks divide the parts among themselves.
        #[expect(unsafe_code, reason = "writing a part of a shared buffer")]
        Some(part) => unsafe { job.parts.part(part, dq_lines) },
    };
    dqueries.fill(Sums::ZERO);
    row_stats(simd, job, task, stats);
    let q_place = Place::queries(shape, segment, task.head, saved.q.row_stride);
    let dout_place = Place::queries(shape, segment, task.head, shape.q_width());

    for start in task.keys.clone().step_by(KEY_BLOCK) {
        let block = start..task.keys.end.min(start + KEY_BLOCK);
        let padded_keys = block.len().next_multiple_of(LANES);
        let copies = &mut copies[..padded_keys * width];
        let place = Place::keys(shape, segment, task.head, saved.v.row_stride);
        copy_rows(simd, saved.v.values, &place, block.clone(), copies);
        pack_along_width(simd, copies, width, values_packed, pairs);
        let place = Place::keys(shape, segment, task.head, saved.k.row_stride);
        copy_rows(simd, saved.k.values, &place, block.clone(), copies);
        pack_along_width(simd, copies, width, keys_packed, pairs);
        pack_along_rows(simd, copies, width, keys_along_rows, key_stride);
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

            // Rows whose tiles have been computed for each group of keys; their ends never go back.
            let mut filled = [(0, 0); KEY_GROUPS];
            for tile in (0..tile_rows).step_by(S::ROWS) {
                let last = rows.end.min(rows.start + tile + S::ROWS) - 1;
                let seen = |row: usize| {
                    let row = (rows.start + row).min(last);
                    clipped(&shape.visible(segment, row / n_rep), &block)
                };
                let groups = groups_of(seen(tile).start..seen(tile + S::ROWS - 1).end);
                if groups.is_empty() {
                    continue;
                }
                for filled in &mut filled[groups.clone()] {
                    if filled.1 == 0 {
                        filled.0 = tile;
                    }
                    filled.1 = tile + S::ROWS;
                }
                let products = [
                    (&*queries, &*keys_packed, &mut *scores),
                    (&*douts, &*values_packed, &mut *dprobabilities),
                ];
                for (left, lines, sums) in products {
                    let left = LeftTile {
                        numbers: &left[tile * width..][..S::ROWS * width],
                        row_stride: width,
                        pair_stride: 2,
                    };
                    let right = Right {
                        lines,
                        panel_stride: pairs,
                    };
                    let all = 0..pairs;
                    add_rows(
                        simd,
                        left,
                        right,
                        all,
                        groups.clone(),
                        false,
                        sums,
                        KEY_GROUPS,
                    );
                }
                let of_rows = sums_of_pairs(scores, dprobabilities, factors, &groups);
                for (i, (scores, dprobabilities, dscores)) in of_rows.enumerate() {
                    let row = tile + 2 * i;
                    let from = groups.start * LANES;
                    let lane = |row| {
                        let seen = seen(row);
                        seen.start.saturating_sub(from)..seen.end.saturating_sub(from)
                    };
                    let stat = |row: usize| {
                        let row = rows.start + row;
                        if row <= last {
                            stats[row - task.rows.start]
                        } else {
                            // All probabilities become zero.
                            [f32::INFINITY, 0.0]
                        }
                    };
                    let at = groups.start * ROW_PAIRS + row / 2;
                    gradient_rows(
                        simd,
                        RowPair {
                            scores,
                            dprobabilities,
                            seen: [lane(row), lane(row + 1)],
                            stats: [stat(row), stat(row + 1)],
                        },
                        scaling,
                        Turned {
                            dscores,
                            probability_pairs: &mut p_turned[at..],
                            dscore_pairs: &mut ds_turned[at..],
                            stride: ROW_PAIRS,
                        },
                    );
                }
                let left = LeftTile {
                    numbers: factors.as_flattened(),
                    row_stride: KEY_BLOCK,
                    pair_stride: 2,
                };
                let right = Right {
                    lines: keys_along_rows,
                    panel_stride: key_stride,
                };
                let key_pairs = groups.start * LANES / 2..groups.end * LANES / 2;
                let at = (rows.start + tile - task.rows.start) * panels;
                let sums = &mut dqueries[at..];
                add_rows(simd, left, right, key_pairs, 0..panels, true, sums, panels);
            }

            for (group, &(start, end)) in filled.iter().enumerate() {
                if start == end {
                    continue;
                }
                let row_pairs = start / 2..end / 2;
                let products = [
                    (&mut *p_turned, &*douts_along_rows, &mut *dvalues),
                    (&mut *ds_turned, &*queries_along_rows, &mut *dkeys),
                ];
                for (turned, lines, sums) in products {
                    let numbers = numbers(&mut turned[group * ROW_PAIRS..][..ROW_PAIRS]);
                    for key in (0..LANES).step_by(S::ROWS) {
                        let left = LeftTile {
                            numbers: &numbers[2 * key..],
                            row_stride: 2,
                            pair_stride: 2 * LANES,
                        };
                        let right = Right {
                            lines,
                            panel_stride: ROW_PAIRS,
                        };
                        let sums = &mut sums[(group * LANES + key) * panels..];
                        let pairs = row_pairs.clone();
                        add_rows(simd, left, right, pairs, 0..panels, true, sums, panels);
                    }
                }
            }
        }

        let results = [
            (&*dkeys, job.columns[1], shape.scale),
            (&*dvalues, job.columns[2], 1.0),
        ];
        for (sums, column, scale) in results {
            for (key, sums) in block.clone().zip(sums.chunks_exact(panels)) {
                let at =
                    (segment.k_start + key) * job.row_stride + column + task.head * shape.head_dim;
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

/// Two rows of a tile at a time: the scores, gradients and factors of the groups `groups`.
#[inline(always)]
fn sums_of_pairs<'a>(
    scores: &'a mut [Sums],
    dprobabilities: &'a mut [Sums],
    factors: &'a mut [[Bf16; LANES]],
    groups: &Range<usize>,
) -> impl Iterator<
    Item = (
        [&'a mut [Sums]; 2],
        [&'a mut [Sums]; 2],
        [&'a mut [[Bf16; LANES]]; 2],
    ),
> {
    let (start, len) = (groups.start, groups.len());
    fn halves<T>(rows: &mut [T], start: usize, len: usize) -> [&mut [T]; 2] {
        let (first, second) = rows.split_at_mut(KEY_GROUPS);
        [&mut first[start..][..len], &mut second[start..][..len]]
    }
    scores
        .chunks_exact_mut(2 * KEY_GROUPS)
        .zip(dprobabilities.chunks_exact_mut(2 * KEY_GROUPS))
        .zip(factors.chunks_exact_mut(2 * KEY_GROUPS))
        .map(move |((scores, dprobabilities), factors)| {
            (
                halves(scores, start, len),
                halves(dprobabilities, start, len),
                halves(factors, start, len),
            )
        })
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

/// Writes the gradient of one row of a task.
#[inline(always)]
fn write_query<S: PairSimd>(simd: S, job: &Job<'_>, task: &Task, row: usize, sums: &[Sums]) {
    let shape = job.shape;
    let (d, n_rep) = (shape.head_dim, shape.n_rep());
    let token = task.segment.q_start + row / n_rep;
    let column = job.columns[0] + (task.head * n_rep + row % n_rep) * d;
    // SAFETY: the columns of the gradients do not meet, segments share no queries, and a row of a
    // segment and head is written by its only task, or by the one that joins the parts.
    #[expect(unsafe_code, reason = "writing a part of a shared output")]
    let to = unsafe { job.gradient.part(token * job.row_stride + column, d) };
    write_row(simd, sums, shape.scale, to);
}

simd_entry!(
    /// Joins the parts of some rows, in the order of their keys.
    fn join<'a, 'b>(job: &'b Job<'a>, tasks: &'b [Task], rows: Range<usize>) = join_generic
);

#[inline(always)]
fn join_generic<S: PairSimd>(simd: S, job: &Job<'_>, tasks: &[Task], rows: Range<usize>) {
    let panels = padded(job.shape.head_dim) / LANES;
    for row in rows {
        let parts = || {
            tasks.iter().filter_map(move |task| {
                let part = task.part.filter(|_| task.rows.contains(&row))?;
                let at = part + (row - task.rows.start) * panels;
                // SAFETY: all tasks have ended, and the parts of a row are used by one thread, one
                // of them at a time but for the first, which it joins the others to.
                #[expect(unsafe_code, reason = "a part of a shared buffer")]
                let part = unsafe { job.parts.part(at, panels) };
                Some(part)
            })
        };
        let mut others = parts();
        let Some(sums) = others.next() else {
            continue;
        };
        for part in others {
            for (sums, part) in sums.iter_mut().zip(part) {
                let both = simd.add(simd.load(&sums.0), simd.load(&part.0));
                simd.store(both, &mut sums.0);
            }
        }
        write_query(simd, job, &tasks[0], row, sums);
    }
}
