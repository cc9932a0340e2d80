//! Buffers that belong to a thread and are used again by its next call.

use std::cell::Cell;

use crate::isa::Line;

/// What a buffer is for; one thread may use one of each kind at the same time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// The right factor of a call.
    Right,
    /// The right factor of its low-rank term.
    LowRankRight,
    /// The left factor of a task.
    Left,
    /// The left factor of the low-rank term of a task.
    LowRankLeft,
}

thread_local! {
    static BUFFERS: [Cell<Vec<Line>>; 4] = const { [const { Cell::new(Vec::new()) }; 4] };
}

/// Calls `work` with `len` lines of whatever content.
///
/// While a call waits for its tasks, its thread may begin another call for someone else; that one
/// finds no buffer and makes its own.
pub(super) fn with_buffer<R>(
    purpose: Purpose,
    len: usize,
    work: impl FnOnce(&mut [Line]) -> R,
) -> R {
    if len == 0 {
        return work(&mut []);
    }
    let mut lines = BUFFERS.with(|buffers| buffers[purpose as usize].take());
    if lines.len() < len {
        // The old content is of no use, so it is not copied.
        lines = Vec::new();
        lines.resize(len, Line::ZERO);
    }
    let result = work(&mut lines[..len]);
    BUFFERS.with(|buffers| buffers[purpose as usize].set(lines));
    result
}
