//! Buffers that belong to a thread and are used again by its next call.

use std::cell::Cell;
use std::ops::Range;

use super::super::Segment;
use crate::Bf16;
use crate::isa::{LANES, Line};
use crate::packed::Sums;

/// The work of a call, on the thread that calls.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Segments with queries and keys, in the order of their queries.
    pub(super) segments: Vec<Segment>,
    /// Segments with keys, in the order of these.
    pub(super) by_keys: Vec<Segment>,
    pub(super) tasks: Vec<Task>,
    /// In which order the tasks begin.
    pub(super) order: Vec<usize>,
    /// What the tasks of one output leave to be joined.
    pub(super) parts: Vec<Sums>,
}

/// Queries and keys of one segment and one key head. A row is one query head of one token: rows
/// `token * n_rep + rep`, counted from the first query of the segment.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) segment: Segment,
    pub(super) head: usize,
    pub(super) rows: Range<usize>,
    /// Counted from the first key of the segment.
    pub(super) keys: Range<usize>,
    /// Where the result goes in [`Plan::parts`] if other tasks add to the same rows.
    pub(super) part: Option<usize>,
}

/// What a task computes with.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Rows of keys or values on their way into panels.
    pub(super) rows: Vec<Bf16>,
    pub(super) queries: Vec<Bf16>,
    pub(super) douts: Vec<Bf16>,
    /// Keys, values, queries and output gradients as right factors; `along_rows` where the pairs are
    /// neighbouring tokens, else neighbouring numbers of a head.
    pub(super) keys: Vec<Line>,
    pub(super) keys_along_rows: Vec<Line>,
    pub(super) values: Vec<Line>,
    pub(super) queries_along_rows: Vec<Line>,
    pub(super) douts_along_rows: Vec<Line>,
    /// Scores of one tile, and the gradients of its probabilities.
    pub(super) scores: Vec<Sums>,
    pub(super) dprobabilities: Vec<Sums>,
    /// Left factors of one tile: probabilities, or gradients of scores.
    pub(super) factors: Vec<[Bf16; LANES]>,
    /// The transposes of probabilities and gradients of scores, as left factors.
    pub(super) probabilities_turned: Vec<Line>,
    pub(super) dscores_turned: Vec<Line>,
    /// Outputs or gradients of queries, of keys and of values.
    pub(super) acc: Vec<Sums>,
    pub(super) dkeys: Vec<Sums>,
    pub(super) dvalues: Vec<Sums>,
    /// First key and one past the last that each row sees.
    pub(super) bounds: Vec<[usize; 2]>,
    /// Two numbers of each row: the greatest score, or `lse` and `delta`.
    pub(super) stats: Vec<[f32; 2]>,
    /// The sums of the exponentials of a row, lane by lane.
    pub(super) exponentials: Vec<Sums>,
}

thread_local! {
    static PLAN: Cell<Option<Box<Plan>>> = const { Cell::new(None) };
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Calls `work` with the plan of this thread.
///
/// While a call waits for its tasks, its thread may begin another call for someone else; that one
/// finds no plan and makes its own.
pub(super) fn with_plan<R>(work: impl FnOnce(&mut Plan) -> R) -> R {
    let mut plan = PLAN.take().unwrap_or_default();
    let result = work(&mut plan);
    PLAN.set(Some(plan));
    result
}

/// Calls `work` with the buffers of this thread.
pub(super) fn with_scratch<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    let mut scratch = SCRATCH.take().unwrap_or_default();
    let result = work(&mut scratch);
    SCRATCH.set(Some(scratch));
    result
}

/// The first `len` elements of a buffer, of whatever content.
pub(super) fn room<T: Copy>(buffer: &mut Vec<T>, len: usize, fill: T) -> &mut [T] {
    if buffer.len() < len {
        // The old content is of no use, so it is not copied.
        buffer.clear();
        buffer.resize(len, fill);
    }
    &mut buffer[..len]
}
