//! Splitting rows among threads.
//!
//! Blocks have a fixed number of rows that depends on the shapes alone, never on the number of
//! threads; so everything that is summed by block has the same bits on any machine.

use crate::team;

/// Numbers that one task should touch at least: about 64 KiB, some ten microseconds of work, which
/// is well above the cost of handing a task to another thread.
const TASK_ELEMENTS: usize = 16 * 1024;

/// Rows of one task for rows of `width` numbers.
pub(crate) fn block_rows(width: usize) -> usize {
    (TASK_ELEMENTS / width.max(1)).max(1)
}

/// Runs `task` for each number below `tasks`, on the team that this thread leads, else on the threads
/// of the current rayon pool.
pub(crate) fn for_each_index(tasks: usize, task: impl Fn(usize) + Send + Sync) {
    use rayon::prelude::*;
    if tasks <= 1 {
        (0..tasks).for_each(task);
    } else if !team::run(tasks, &task) {
        (0..tasks).into_par_iter().with_max_len(1).for_each(task);
    }
}

/// Runs `task` for each item, on the threads of the current rayon pool if there is more than one.
pub(crate) fn for_each<T: Send>(items: Vec<T>, task: impl Fn(T) + Send + Sync) {
    use rayon::prelude::*;
    if items.len() <= 1 {
        items.into_iter().for_each(task);
    } else {
        // Blocks are big enough that each may go to another thread.
        items.into_par_iter().with_max_len(1).for_each(task);
    }
}

/// [`for_each`] with tasks that may fail; the error is that of any failed task.
pub(crate) fn try_for_each<T: Send, E: Send>(
    items: Vec<T>,
    task: impl Fn(T) -> Result<(), E> + Send + Sync,
) -> Result<(), E> {
    use rayon::prelude::*;
    if items.len() <= 1 {
        items.into_iter().try_for_each(task)
    } else {
        items.into_par_iter().with_max_len(1).try_for_each(task)
    }
}
