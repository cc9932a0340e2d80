//! A download on its way to become a blob: locked, gone on with, and checked.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::cache::create_parent;
use super::http::GLANCE;
use super::names::Etag;
use crate::FormatError;
use crate::atomic::sync_directory;
use crate::checkpoint::hexadecimal;

/// The right to write the partial file of a blob, as long as this lives.
///
/// The lock is the system's, on the file that `huggingface_hub` locks, too: a process that dies frees it.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// Why there is no lock.
pub(super) enum NoLock {
    File(FormatError),
    /// Another process holds it and brings nothing.
    Held,
    Stopped,
}

impl Lock {
    /// Waits for the lock for as long as whoever holds it makes progress with `partial`.
    pub(super) fn wait(
        path: &Path,
        partial: &Path,
        timeout: Duration,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<Self, NoLock> {
        let failed = |source| NoLock::File(FormatError::io("lock", path, source));
        create_parent(path).map_err(NoLock::File)?;
        let size = || fs::metadata(partial).map(|data| data.len()).ok();
        let (mut seen, mut since) = (size(), Instant::now());
        loop {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false);
            let file = file.open(path).map_err(failed)?;
            match file.try_lock() {
                Ok(()) if is_linked(&file).map_err(failed)? => return Ok(Self { _file: file }),
                // `huggingface_hub` may remove the file with its lock: then another one is the right one.
                Ok(()) => continue,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
            if is_stopped() {
                return Err(NoLock::Stopped);
            }
            let now = size();
            if now != seen {
                (seen, since) = (now, Instant::now());
            } else if since.elapsed() > timeout {
                return Err(NoLock::Held);
            }
            thread::sleep(GLANCE);
        }
    }
}

#[cfg(unix)]
fn is_linked(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(file.metadata()?.nlink() > 0)
}

#[cfg(not(unix))]
fn is_linked(_: &File) -> io::Result<bool> {
    Ok(true)
}

/// A blob that is not whole yet.
pub(super) struct Partial {
    path: PathBuf,
    file: File,
    length: u64,
    digest: Digest,
}

/// What came is not what the hub announced.
pub(super) struct Differs {
    pub(super) expected: String,
    pub(super) found: String,
}

impl Partial {
    /// Opens what an earlier attempt left of the blob, or begins anew.
    ///
    /// Only what a digest can prove to be right is gone on with. `size` is that of the blob;
    /// `None` says that the work shall stop.
    pub(super) fn open(
        path: PathBuf,
        etag: &Etag,
        size: u64,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<Option<Self>, FormatError> {
        let failed = |source| FormatError::io("write", &path, source);
        create_parent(&path)?;
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(failed)?;
        let mut length = file.metadata().map_err(failed)?.len();
        if matches!(etag, Etag::Opaque(_)) || length > size {
            file.set_len(0).map_err(failed)?;
            length = 0;
        }
        let mut digest = Digest::new(etag, size);
        if length > 0 {
            let mut buffer = vec![0; 1 << 20];
            loop {
                match file.read(&mut buffer).map_err(failed)? {
                    0 => break,
                    n => digest.update(&buffer[..n]),
                }
                if is_stopped() {
                    return Ok(None);
                }
            }
        }
        Ok(Some(Self {
            path,
            file,
            length,
            digest,
        }))
    }

    /// Returns how many bytes are there.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Begins anew.
    pub(super) fn clear(&mut self, etag: &Etag, size: u64) -> Result<(), FormatError> {
        let cleared = self.file.set_len(0);
        let cleared = cleared.and_then(|()| self.file.seek(SeekFrom::Start(0)));
        cleared.map_err(|source| FormatError::io("write", &self.path, source))?;
        (self.length, self.digest) = (0, Digest::new(etag, size));
        Ok(())
    }

    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), FormatError> {
        let written = self.file.write_all(piece);
        written.map_err(|source| FormatError::io("write", &self.path, source))?;
        self.digest.update(piece);
        self.length += piece.len() as u64;
        Ok(())
    }

    /// Makes the whole file the blob; one that is not what its name says is removed.
    pub(super) fn finish(self, blob: &Path) -> Result<Option<Differs>, FormatError> {
        let failed = |source| FormatError::io("write", blob, source);
        let differs = self.digest.compare();
        if differs.is_some() {
            fs::remove_file(&self.path).map_err(failed)?;
            return Ok(differs);
        }
        self.file.sync_all().map_err(failed)?;
        fs::rename(&self.path, blob).map_err(failed)?;
        sync_directory(blob.parent().unwrap_or(Path::new("."))).map_err(failed)?;
        Ok(None)
    }
}

/// The digest of what has come, to compare with the blob's name.
enum Digest {
    Sha256(Sha256, String),
    /// Git's hash of the file, whose header has the size, and that of the content alone, which some proxies give.
    Git(Sha1, Sha1, String),
    None,
}

impl Digest {
    fn new(etag: &Etag, size: u64) -> Self {
        match etag {
            Etag::Sha256(name) => Self::Sha256(Sha256::new(), name.clone()),
            Etag::Git(name) => {
                let header = format!("blob {size}\0");
                let git = Sha1::new_with_prefix(header);
                Self::Git(git, Sha1::new(), name.clone())
            }
            Etag::Opaque(_) => Self::None,
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(digest, _) => digest.update(bytes),
            Self::Git(git, plain, _) => {
                git.update(bytes);
                plain.update(bytes);
            }
            Self::None => {}
        }
    }

    fn compare(&self) -> Option<Differs> {
        let (expected, found, other) = match self {
            Self::Sha256(digest, name) => (name, hexadecimal(&digest.clone().finalize()), None),
            Self::Git(git, plain, name) => (
                name,
                hexadecimal(&git.clone().finalize()),
                Some(hexadecimal(&plain.clone().finalize())),
            ),
            Self::None => return None,
        };
        let is_right = |found: &str| found.eq_ignore_ascii_case(expected);
        if is_right(&found) || other.as_deref().is_some_and(is_right) {
            return None;
        }
        Some(Differs {
            expected: expected.clone(),
            found,
        })
    }
}
