//! The forward pass: a task is a block of rows of one segment and one key head.

use std::ops::Range;

use rayon::prelude::*;

use super::super::decode::decode_segment;
use super::super::{AttentionShape, Segment};
use super::Rows;
use super::elements::{Row, Scaling, softmax_row};
use super::gather::{Place, copy_rows, pack_along_rows, pack_along_width, padded, write_row};
use super::scratch::{Plan, Scratch, Task, room, with_scratch};
use super::{KEY_BLOCK, KEY_GROUPS, clipped, fill_bounds, groups_of, lanes_of};
use crate::Bf16;
use crate::isa::{LANES, Line, PairSimd, Token, simd_entry};
use crate::packed::{LeftTile, Right, Sums, add_rows};
use crate::shared::Shared;

/// Rows of one task at most: with 64 numbers a head their outputs take 192 KiB of the second cache,
/// and the keys are put into panels once for all of them.
const TASK_ROWS: usize = 768;

/// Tasks of a call, if there is work for so many, so that a few threads end at about the same time.
const TASKS: usize = 12;

/// Rows up to which a segment is also cut by its keys.
const FEW_ROWS: usize = 32;

/// Keys of a task of few rows.
const FEW_ROWS_KEYS: usize = 512;

/// What all tasks read, and where they write.
struct Job<'a> {
    q: Rows<'a>,
    k: Rows<'a>,
    v: Rows<'a>,
    shape: &'a AttentionShape,
    out: Shared<'a, Bf16>,
    lse: Shared<'a, f32>,
    parts: Shared<'a, Sums>,
}

/// Everything is checked; the segments lie in `plan`.
pub(super) fn forward(
    token: Token,
    [q, k, v]: [Rows<'_>; 3],
    shape: &AttentionShape,
    plan: &mut Plan,
    out: &mut [Bf16],
    lse: &mut [f32],
) {
    clear_gaps(shape, &plan.segments, out, lse);
    for segment in plan.segments.iter().filter(|segment| is_decoding(segment)) {
        let out = &mut out[segment.q_start * shape.q_width()..][..shape.q_width()];
        let lse = &mut lse[segment.q_start * shape.n_heads..][..shape.n_heads];
        decode_segment(token, [q, k, v], shape, segment, out, lse);
    }
    let part_lines = cut(shape, plan);
    let parts = room(&mut plan.parts, part_lines, Sums::ZERO);
    let job = Job {
        q,
        k,
        v,
        shape,
        out: Shared::new(out),
        lse: Shared::new(lse),
        parts: Shared::new(parts),
    };
    let tasks = &plan.tasks;
    let run = |task: &Task| with_scratch(|scratch| run_task(token, &job, task, scratch));
    if let [task] = &tasks[..] {
        run(task);
    } else {
        tasks.par_iter().with_max_len(1).for_each(run);
    }
    if part_lines > 0 {
        // Tasks of the same rows lie next to one another.
        for tasks in tasks.chunk_by(|a, b| a.segment == b.segment && a.head == b.head) {
            if tasks[0].part.is_some() {
                join(token, &job, tasks);
            }
        }
    }
}

/// A single query gains nothing from keys in panels, which would take longer to make than to use.
fn is_decoding(segment: &Segment) -> bool {
    segment.q_len == 1
}

/// Writes the outputs of queries of no segment.
fn clear_gaps(shape: &AttentionShape, segments: &[Segment], out: &mut [Bf16], lse: &mut [f32]) {
    let mut at = 0;
    let end = lse.len() / shape.n_heads;
    let starts = segments.iter().map(|segment| segment.q_start).chain([end]);
    let ends = segments
        .iter()
        .map(|segment| segment.q_start + segment.q_len);
    for (start, next) in starts.zip(ends.chain([end])) {
        out[at * shape.q_width()..start * shape.q_width()].fill(Bf16::ZERO);
        lse[at * shape.n_heads..start * shape.n_heads].fill(f32::NEG_INFINITY);
        at = next;
    }
}

/// Keys that the rows see, one or the other.
fn seen(shape: &AttentionShape, segment: &Segment, rows: &Range<usize>) -> Range<usize> {
    let first = shape.visible(segment, rows.start / shape.n_rep());
    let last = shape.visible(segment, (rows.end - 1) / shape.n_rep());
    first.start..last.end
}

/// Cuts the work into tasks by the shapes alone; returns the lines of all parts.
fn cut(shape: &AttentionShape, plan: &mut Plan) -> usize {
    let n_rep = shape.n_rep();
    let in_panels = |segment: &&Segment| !is_decoding(segment);
    let all_rows: usize = plan
        .segments
        .iter()
        .filter(in_panels)
        .map(|s| s.q_len * n_rep)
        .sum();
    let block = (all_rows * shape.n_kv_heads / TASKS)
        .clamp(FEW_ROWS, TASK_ROWS)
        .next_multiple_of(FEW_ROWS);
    let mut lines = 0;
    plan.tasks.clear();
    for &segment in plan.segments.iter().filter(in_panels) {
        let rows = segment.q_len * n_rep;
        for head in 0..shape.n_kv_heads {
            for start in (0..rows).step_by(block) {
                let rows = start..rows.min(start + block);
                let keys = seen(shape, &segment, &rows);
                let task = Task {
                    segment,
                    head,
                    rows,
                    keys,
                    part: None,
                };
                if segment.q_len * n_rep > FEW_ROWS || task.keys.len() <= FEW_ROWS_KEYS {
                    plan.tasks.push(task);
                    continue;
                }
                for start in task.keys.clone().step_by(FEW_ROWS_KEYS) {
                    plan.tasks.push(Task {
                        keys: start..task.keys.end.min(start + FEW_ROWS_KEYS),
                        part: Some(lines),
                        ..task.clone()
                    });
                    lines += task.rows.len() * part_lines(shape);
                }
            }
        }
    }
    // Later blocks see more keys: starting with them keeps the threads busy to the end. Tasks that
    // leave parts are alike and stay in their order.
    if lines == 0 {
        let work = |task: &Task| std::cmp::Reverse(task.rows.len() * task.keys.len());
        plan.tasks.sort_unstable_by_key(work);
    }
    lines
}

/// Lines of one row of a part: the sums of the values, then the greatest score and the sum of the
/// exponentials.
fn part_lines(shape: &AttentionShape) -> usize {
    padded(shape.head_dim) / LANES + 1
}

simd_entry!(fn run_task<'a, 'b>(
    job: &'b Job<'a>, task: &'b Task, scratch: &'b mut Scratch
) = run_task_generic);

#[inline(always)]
fn run_task_generic<S: PairSimd>(simd: S, job: &Job<'_>, task: &Task, scratch: &mut Scratch) {
    let shape = job.shape;
    let segment = &task.segment;
    let (pairs, width) = (shape.head_dim.div_ceil(2), padded(shape.head_dim));
    let panels = width / LANES;
    let rows = task.rows.len();
    let tile_rows = rows.next_multiple_of(S::ROWS);
    let scaling = Scaling::new(shape);

    let queries = room(&mut scratch.queries, tile_rows * width, Bf16::ZERO);
    let place = Place::queries(shape, segment, task.head, job.q.row_stride);
    copy_rows(simd, job.q.values, &place, task.rows.clone(), queries);
    let bounds = room(&mut scratch.bounds, tile_rows, [0; 2]);
    fill_bounds(shape, segment, &task.rows, bounds);
    let acc = room(&mut scratch.acc, tile_rows * panels, Sums::ZERO);
    acc.fill(Sums::ZERO);
    let max = room(&mut scratch.stats, tile_rows, [0.0; 2]);
    max.fill([f32::NEG_INFINITY; 2]);
    let exponentials = room(&mut scratch.exponentials, tile_rows, Sums::ZERO);
    exponentials.fill(Sums::ZERO);
    let scores = room(&mut scratch.scores, S::ROWS * KEY_GROUPS, Sums::ZERO);
    let factors = room(
        &mut scratch.factors,
        S::ROWS * KEY_GROUPS,
        [Bf16::ZERO; LANES],
    );
    let copies = room(&mut scratch.rows, KEY_BLOCK * width, Bf16::ZERO);
    let keys_packed = room(&mut scratch.keys, KEY_GROUPS * pairs, Line::ZERO);
    let value_stride = KEY_BLOCK / 2;
    let values_packed = room(&mut scratch.values, panels * value_stride, Line::ZERO);

    for start in task.keys.clone().step_by(KEY_BLOCK) {
        let block = start..task.keys.end.min(start + KEY_BLOCK);
        let copies = &mut copies[..block.len().next_multiple_of(LANES) * width];
        let place = Place::keys(shape, segment, task.head, job.k.row_stride);
        copy_rows(simd, job.k.values, &place, block.clone(), copies);
        pack_along_width(simd, copies, width, keys_packed, pairs);
        let place = Place::keys(shape, segment, task.head, job.v.row_stride);
        copy_rows(simd, job.v.values, &place, block.clone(), copies);
        pack_along_rows(simd, copies, width, values_packed, value_stride);

        for tile in (0..tile_rows).step_by(S::ROWS) {
            let bounds = &bounds[tile..][..S::ROWS];
            let there = (rows - tile).min(S::ROWS);
            let seen = [bounds[0][0], bounds[S::ROWS - 1][1]];
            let groups = groups_of(clipped(seen, &block));
            if groups.is_empty() {
                continue;
            }
            let left = LeftTile {
                numbers: &queries[tile * width..][..S::ROWS * width],
                row_stride: width,
                pair_stride: 2,
            };
            let right = Right {
                lines: keys_packed,
                panel_stride: pairs,
            };
            add_rows(
                simd,
                left,
                there,
                right,
                0..pairs,
                groups.clone(),
                false,
                scores,
                KEY_GROUPS,
            );
            for (i, bounds) in bounds[..there].iter().enumerate() {
                let row = tile + i;
                let at = i * KEY_GROUPS + groups.start;
                softmax_row(
                    simd,
                    &mut scores[at..][..groups.len()],
                    lanes_of(clipped(*bounds, &block), &groups),
                    scaling,
                    Row {
                        max: &mut max[row][0],
                        exponentials: &mut exponentials[row],
                        acc: &mut acc[row * panels..][..panels],
                    },
                    &mut factors[at..][..groups.len()],
                );
            }
            let left = LeftTile {
                numbers: factors.as_flattened(),
                row_stride: KEY_BLOCK,
                pair_stride: 2,
            };
            let right = Right {
                lines: values_packed,
                panel_stride: value_stride,
            };
            let pairs = groups.start * LANES / 2..groups.end * LANES / 2;
            add_rows(
                simd,
                left,
                there,
                right,
                pairs,
                0..panels,
                true,
                &mut acc[tile * panels..],
                panels,
            );
        }
    }

    let state = max.iter().zip(&*exponentials).take(rows);
    match task.part {
        None => {
            for (row, (max, exponentials)) in (task.rows.start..).zip(state) {
                let acc = &acc[(row - task.rows.start) * panels..][..panels];
                let sum = simd.sum(simd.load(&exponentials.0));
                write_output(simd, job, task, row, acc, [max[0], sum]);
            }
        }
        Some(part) => {
            // SAFETY: the tasks divide the parts among themselves.
            #[expect(unsafe_code, reason = "writing a part of a shared buffer")]
            let part = unsafe { job.parts.part(part, rows * (panels + 1)) };
            let parts = part.chunks_exact_mut(panels + 1);
            for ((to, acc), (max, exponentials)) in parts.zip(acc.chunks_exact(panels)).zip(state) {
                to[..panels].copy_from_slice(acc);
                to[panels].0[0] = max[0];
                to[panels].0[1] = simd.sum(simd.load(&exponentials.0));
            }
        }
    }
}

/// Writes the output and the `lse` of a row of `task`, from the greatest score and the sum of the
/// exponentials.
#[inline(always)]
fn write_output<S: PairSimd>(
    simd: S,
    job: &Job<'_>,
    task: &Task,
    row: usize,
    acc: &[Sums],
    [max, sum]: [f32; 2],
) {
    let shape = job.shape;
    let (d, n_rep) = (shape.head_dim, shape.n_rep());
    let token = task.segment.q_start + row / n_rep;
    let column = task.head * n_rep + row % n_rep;
    // SAFETY: the segments share no query, and the rows of a segment and head belong to one task, or
    // to the thread that joins its parts.
    #[expect(unsafe_code, reason = "writing a part of a shared output")]
    let (out, lse) = unsafe {
        (
            job.out.part(token * shape.q_width() + column * d, d),
            job.lse.part(token * shape.n_heads + column, 1),
        )
    };
    write_row(simd, acc, 1.0 / sum, out);
    lse[0] = max + sum.ln();
}

simd_entry!(
    /// Joins the parts of the same rows, in the order of their keys.
    fn join<'a, 'b>(job: &'b Job<'a>, tasks: &'b [Task]) = join_generic
);

#[inline(always)]
fn join_generic<S: PairSimd>(simd: S, job: &Job<'_>, tasks: &[Task]) {
    let lines = part_lines(job.shape);
    let part = |task: &Task, row: usize| {
        let at = task.part.map_or(0, |part| part + row * lines);
        // SAFETY: all tasks have ended, so that only this thread uses the parts, one of them at a
        // time but for the first, which it joins the others to.
        #[expect(unsafe_code, reason = "reading a part of a shared buffer")]
        unsafe {
            job.parts.part(at, lines)
        }
    };
    for (i, row) in tasks[0].rows.clone().enumerate() {
        let (acc, stats) = part(&tasks[0], i).split_at_mut(lines - 1);
        let [first_max, first_sum, ..] = stats[0].0;
        let others = || tasks[1..].iter().map(|task| &*part(task, i));
        let max = others().fold(first_max, |max, part| max.max(part[lines - 1].0[0]));
        let shift = if max == f32::NEG_INFINITY { 0.0 } else { max };
        let factor = (first_max - shift).exp();
        let mut sum = factor * first_sum;
        for acc in &mut *acc {
            let scaled = simd.mul(simd.load(&acc.0), simd.splat(factor));
            simd.store(scaled, &mut acc.0);
        }
        for part in others() {
            let [part_max, part_sum, ..] = part[lines - 1].0;
            let factor = (part_max - shift).exp();
            sum += factor * part_sum;
            let factor = simd.splat(factor);
            for (acc, part) in acc.iter_mut().zip(part) {
                let sums = simd.mul_add_lanes(simd.load(&part.0), factor, simd.load(&acc.0));
                simd.store(sums, &mut acc.0);
            }
        }
        write_output(simd, job, &tasks[0], row, acc, [max, sum]);
    }
}
