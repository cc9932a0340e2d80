//! Being asked to stop.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::TrainError;

/// Tells long work whether somebody wants it to end.
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering};
///
/// use reparam_train::Stop;
///
/// let flag = AtomicBool::new(false);
/// let stop = Stop::new(&flag);
/// assert!(!stop.is_requested());
/// flag.store(true, Ordering::Relaxed);
/// assert!(stop.is_requested() && !Stop::never().is_requested());
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Stop<'a>(Option<&'a AtomicBool>);

impl<'a> Stop<'a> {
    /// Watches a flag, which another thread or a signal handler sets.
    #[must_use]
    pub fn new(flag: &'a AtomicBool) -> Self {
        Self(Some(flag))
    }

    /// Returns one that is never requested.
    #[must_use]
    pub fn never() -> Stop<'static> {
        Stop(None)
    }

    /// Returns whether the work shall end.
    #[must_use]
    pub fn is_requested(self) -> bool {
        self.0.is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    /// Returns an error if the work shall end.
    ///
    /// # Errors
    ///
    /// [`TrainError::Interrupted`].
    pub fn check(self) -> Result<(), TrainError> {
        if self.is_requested() {
            Err(TrainError::Interrupted)
        } else {
            Ok(())
        }
    }
}
