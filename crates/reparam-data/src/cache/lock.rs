//! Who makes an entry.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::thread;
use std::time::Duration;

use reparam_formats::FormatError;

use crate::error::{DataError, Result};
use crate::watch::Watch;

/// How often it is looked whether the lock is free.
const GLANCE: Duration = Duration::from_millis(100);

/// Waits until nobody else has the lock, which is the system's and dies with its process. Where the file system knows no locks,
/// there is none: two processes then do the same work, and whose entry is renamed last stays.
///
/// # Errors
///
/// [`DataError::Cache`] if the file cannot be made; [`DataError::Interrupted`].
pub(super) fn hold(path: &Path, watch: Watch<'_>) -> Result<Option<File>> {
    let opened = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path);
    let file = opened.map_err(|error| DataError::Cache(FormatError::io("create", path, error)))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::Error(_)) => return Ok(None),
            Err(TryLockError::WouldBlock) => {
                watch.check()?;
                thread::sleep(GLANCE);
            }
        }
    }
}
