//! What stays of the way of a run: its newest checkpoints, and the best models that they and the run itself refer to.

use std::fs;
use std::path::Path;

use crate::run_dir::RunDir;
use crate::state::TrainState;

/// Removes the checkpoints before the newest `keep_last` (0 keeps all), and the best models that nothing refers to any more.
///
/// `step` is where the run stands, and `best` the step of its own best model. A checkpoint of which something is missing counts
/// for nothing: the run could not go on from it. One of a later step is damaged, or the run would have gone on from it; it
/// must not push out those that are whole. What cannot be removed stays; the next call tries again.
pub(crate) fn tidy(directory: &RunDir, keep_last: u64, step: u64, best: Option<u64>) {
    let known = directory.checkpoints().into_iter();
    let known = known.filter_map(|path| Some((TrainState::read(&path)?, path)));
    let (later, whole): (Vec<_>, Vec<_>) = known.partition(|(state, _)| state.step > step);
    for (_, path) in later {
        remove(&path);
    }
    let n_kept = match keep_last {
        0 => whole.len(),
        n => usize::try_from(n).unwrap_or(usize::MAX).min(whole.len()),
    };
    let (kept, old) = whole.split_at(n_kept);
    for (_, path) in old {
        remove(path);
    }
    let of_checkpoints = kept.iter().filter_map(|(state, _)| Some(state.best?.step));
    let needed: Vec<u64> = of_checkpoints.chain(best).collect();
    for (step, path) in directory.bests() {
        if !needed.contains(&step) {
            remove(&path);
        }
    }
}

/// Removes the best models, once the result is there.
pub(crate) fn remove_bests(directory: &RunDir) {
    for (_, path) in directory.bests() {
        remove(&path);
    }
}

/// Removes a directory, which is never seen half removed: under its own name it is whole or gone.
fn remove(path: &Path) {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return;
    };
    let hidden = path.with_file_name(format!(".{name}.delete.tmp"));
    // One that a killed run has left would be in the way. (The name is one that the next run tidies up.)
    let _ = fs::remove_dir_all(&hidden);
    if fs::rename(path, &hidden).is_ok() {
        let _ = fs::remove_dir_all(&hidden);
    }
}
