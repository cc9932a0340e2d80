//! Who makes an entry.

use std::fs::{self, File, TryLockError};
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

/// Takes the lock of another entry, of which the beginning of the name is known, if it is there and nobody has it.
pub(super) fn of_other(directory: &Path, name: &str, extension: &str) -> Option<File> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths = entries.map(|entry| entry.path());
    let path = paths.find(|path| {
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        path.extension().is_some_and(|found| found == extension)
            && stem.is_some_and(|stem| stem.starts_with(name))
    })?;
    let file = File::options().write(true).open(path).ok()?;
    file.try_lock().is_ok().then_some(file)
}
