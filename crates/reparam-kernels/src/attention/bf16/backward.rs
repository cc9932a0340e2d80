//! The backward pass: a task is a range of keys of one segment and one key head. It owns the
//! gradients of these keys and values; the gradient of the queries is its own if it has all keys,
//! else a part that is joined with those of the other ranges in their order.

use std::ops::Range;

use rayon::prelude::*;

use super::super::AttentionShape;
use super::gather::{padded, write_row};
use super::gradients::run_task;
use super::scratch::{Plan, Task, room, with_scratch};
use super::{AttentionSavedBf16, KEY_BLOCK, QkvGradient};
use crate::Bf16;
use crate::isa::{LANES, PairSimd, Token, simd_entry};
use crate::packed::Sums;
use crate::shared::Shared;

/// With at least so many segments times key heads, keys are not cut into ranges.
const ENOUGH_TASKS: usize = 8;

/// The greatest number of key ranges of a segment and head. Each range has a part of the gradient of
/// the queries, so this bounds the memory.
const MAX_RANGES: usize = 4;

/// Rows of a task that joins parts.
const JOIN_ROWS: usize = 256;

/// What all tasks read, and where they write.
pub(super) struct Job<'a> {
    pub(super) saved: &'a AttentionSavedBf16<'a>,
    pub(super) shape: &'a AttentionShape,
    pub(super) gradient: Shared<'a, Bf16>,
    pub(super) row_stride: usize,
    /// First columns of the gradients of queries, keys and values.
    pub(super) columns: [usize; 3],
    pub(super) parts: Shared<'a, Sums>,
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

/// Rows of the gradient of the queries of a task: a tile of any instruction set may begin at each.
pub(super) fn part_rows(rows: &Range<usize>) -> usize {
    rows.len() + LANES
}

/// Writes the gradient of one row of a task.
#[inline(always)]
pub(super) fn write_query<S: PairSimd>(
    simd: S,
    job: &Job<'_>,
    task: &Task,
    row: usize,
    sums: &[Sums],
) {
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
