//! Being asked to stop, and telling how far long work is.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

/// What takes long, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Downloading files; counted in bytes, file by file.
    Downloading,
    /// Reading files; counted in files.
    Reading,
    /// Making tokens of texts; counted in bytes or rows.
    Tokenizing,
    /// Measuring a model; counted in tokens or rows.
    Evaluating,
}

impl Phase {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Downloading => "downloading",
            Self::Reading => "reading",
            Self::Tokenizing => "tokenizing",
            Self::Evaluating => "evaluating",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Wants to know how far long work is. It is told from any thread.
pub trait Progress: Sync {
    /// Is told that `done` of `total` is done, 0 first and `total` last; a phase may come again.
    fn at(&self, phase: Phase, done: u64, total: u64);

    /// Is told something about the data that the user should know and that stops nothing.
    fn note(&self, text: &str);
}

/// The work was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Tells long work whether somebody wants it to end, and is told how far it is.
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering};
///
/// use reparam_data::Watch;
///
/// let flag = AtomicBool::new(false);
/// let watch = Watch::new(&flag);
/// assert!(!watch.is_requested());
/// flag.store(true, Ordering::Relaxed);
/// assert!(watch.is_requested() && !Watch::never().is_requested());
/// ```
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    stop: Option<&'a AtomicBool>,
    progress: Option<&'a dyn Progress>,
}

impl<'a> Watch<'a> {
    /// Watches a flag, which another thread or a signal handler sets.
    #[must_use]
    pub fn new(stop: &'a AtomicBool) -> Self {
        Self {
            stop: Some(stop),
            progress: None,
        }
    }

    /// Returns one that never asks for the end, and that nobody is told by.
    #[must_use]
    pub fn never() -> Watch<'static> {
        Watch {
            stop: None,
            progress: None,
        }
    }

    /// Sets who is told how far the work is.
    #[must_use]
    pub fn with_progress(self, progress: &'a dyn Progress) -> Self {
        Self {
            progress: Some(progress),
            ..self
        }
    }

    /// Returns whether the work shall end.
    #[must_use]
    pub fn is_requested(self) -> bool {
        self.stop.is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    /// Returns an error if the work shall end.
    ///
    /// # Errors
    ///
    /// [`Interrupted`].
    pub fn check(self) -> Result<(), Interrupted> {
        if self.is_requested() {
            Err(Interrupted)
        } else {
            Ok(())
        }
    }

    /// Tells how far a phase is.
    pub fn at(self, phase: Phase, done: u64, total: u64) {
        if let Some(progress) = self.progress {
            progress.at(phase, done, total);
        }
    }

    /// Tells something about the data that the user should know.
    pub fn note(self, text: &str) {
        if let Some(progress) = self.progress {
            progress.note(text);
        }
    }
}

impl<'a> From<&'a AtomicBool> for Watch<'a> {
    fn from(stop: &'a AtomicBool) -> Self {
        Self::new(stop)
    }
}

impl fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}
