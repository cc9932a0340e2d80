//! Signals: the first Ctrl-C asks the run to stop, the second ends the process.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::{CliError, Result, exit_code};

/// How long work that has nothing to save may take to end by itself: a model is opened without looking at the flag.
const PATIENCE: Duration = Duration::from_millis(700);

/// Watches for interrupts (and for the termination signals) until the process ends.
///
/// `said` is what the first one is answered with where there is something to save, which `keeps` says; a command that never
/// saves anything has none. Where there is nothing, the process ends soon, whatever it does.
pub(crate) fn watch(
    stop: Arc<AtomicBool>,
    keeps: Arc<AtomicBool>,
    said: Option<&'static str>,
) -> Result<()> {
    ctrlc::set_handler(move || {
        if is_second(&stop) {
            exit_now();
        }
        // There is nobody to tell if standard error is closed.
        if let Some(said) = said.filter(|_| keeps.load(Ordering::Relaxed)) {
            let _ = writeln!(
                std::io::stderr(),
                "\n{said}; press Ctrl-C again to quit at once"
            );
            return;
        }
        std::thread::sleep(PATIENCE);
        if !keeps.load(Ordering::Relaxed) {
            let _ = writeln!(std::io::stderr(), "error: interrupted");
            exit_now();
        }
    })
    .map_err(CliError::Interrupts)
}

/// Watches for interrupts of a conversation: while `answering`, one sets `stop`, which ends the answer, and a second one ends the
/// process; else the first one does.
pub(crate) fn watch_answers(stop: Arc<AtomicBool>, answering: Arc<AtomicBool>) -> Result<()> {
    ctrlc::set_handler(move || {
        let is_second = is_second(&stop);
        if answering.load(Ordering::Relaxed) && !is_second {
            return;
        }
        let _ = writeln!(std::io::stderr(), "\nerror: interrupted");
        exit_now();
    })
    .map_err(CliError::Interrupts)
}

/// Makes a write beyond the file-size limit fail like one to a full disk.
///
/// The system's own answer is a signal that ends the process, with temporary files left behind.
#[cfg(unix)]
pub(crate) fn survive_file_size_limit() -> Result<()> {
    let unread = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, unread)
        .map(drop)
        .map_err(CliError::Signals)
}

/// Does nothing: there is no such signal.
#[cfg(not(unix))]
pub(crate) fn survive_file_size_limit() -> Result<()> {
    Ok(())
}

/// Sets the flag, and says whether it was set before.
fn is_second(stop: &AtomicBool) -> bool {
    stop.swap(true, Ordering::Relaxed)
}

#[expect(
    clippy::exit,
    reason = "the user asked to end at once, from a thread that cannot unwind the main one"
)]
fn exit_now() {
    std::process::exit(i32::from(exit_code::INTERRUPTED));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_interrupt_asks_and_the_second_ends() {
        let stop = AtomicBool::new(false);
        assert!(!is_second(&stop));
        assert!(stop.load(Ordering::Relaxed));
        assert!(is_second(&stop));
    }
}
