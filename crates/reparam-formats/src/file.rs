//! Files that are opened once and read by position.
//!
//! Every reader of this project opens its inputs here. A pipe, a device or a directory is refused at once: reading it would wait
//! for ever, never end, or fail oddly. An open file that is replaced by a rename keeps giving its old bytes; one that is
//! rewritten or cut in place is noticed, and no byte that may be of another version is handed out.

use std::fs::{self, File, FileType};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::FormatError;
use crate::identify::{Kind, expect_kind_of, expect_kind_of_bytes};

/// A regular file, open for reading.
#[derive(Debug)]
pub struct InputFile {
    content: Content,
    path: PathBuf,
}

/// Where the bytes are.
#[derive(Debug)]
enum Content {
    Opened(File, Stamp),
    /// What was never written to a file.
    Memory(Vec<u8>),
}

/// What changes when a file is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    len: u64,
    /// `None` where the system does not say.
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            len: metadata.len(),
            modified: metadata.modified().ok(),
        }
    }
}

impl InputFile {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// [`FormatError::NoSuchFile`], [`FormatError::BrokenLink`], [`FormatError::AnotherKind`], and those of the file system.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let (file, metadata) = open(path)?;
        Ok(Self {
            content: Content::Opened(file, Stamp::of(&metadata)),
            path: path.to_path_buf(),
        })
    }

    /// Takes bytes that are in no file; `path` is what errors call them.
    pub(crate) fn of_bytes(path: &Path, bytes: Vec<u8>) -> Self {
        Self {
            content: Content::Memory(bytes),
            path: path.to_path_buf(),
        }
    }

    /// Returns the path that it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns its length in bytes.
    pub fn len(&self) -> u64 {
        match &self.content {
            Content::Opened(_, stamp) => stamp.len,
            Content::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// Returns whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `to` with the bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// [`FormatError::Shortened`] and [`FormatError::Changed`] if the file is no longer what it was when it was opened; those of
    /// the file system.
    pub fn read_at(&self, to: &mut [u8], offset: u64) -> Result<(), FormatError> {
        let (file, stamp) = match &self.content {
            Content::Opened(file, stamp) => (file, stamp),
            Content::Memory(bytes) => {
                let begin = usize::try_from(offset).unwrap_or(usize::MAX);
                let end = begin.saturating_add(to.len());
                let part = bytes.get(begin..end);
                let part = part.ok_or_else(|| self.failed(io::ErrorKind::UnexpectedEof.into()))?;
                to.copy_from_slice(part);
                return Ok(());
            }
        };
        let result = read_exact_at(file, to, offset);
        match result {
            Ok(()) => self.check_unchanged(file, stamp),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.check_unchanged(file, stamp)?;
                Err(self.failed(error))
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Returns all bytes.
    ///
    /// # Errors
    ///
    /// As [`read_at`](Self::read_at).
    pub fn read_all(&self) -> Result<Vec<u8>, FormatError> {
        let len = usize::try_from(self.len());
        let len = len.map_err(|_| self.failed(io::ErrorKind::FileTooLarge.into()))?;
        let mut bytes = vec![0; len];
        self.read_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Hands the bytes from `begin` to `end` to `take`, a piece of at most `most` bytes at a time.
    ///
    /// # Errors
    ///
    /// As [`read_at`](Self::read_at).
    pub(crate) fn pieces(
        &self,
        begin: u64,
        end: u64,
        most: usize,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), FormatError> {
        let mut buffer = vec![0; (end - begin).min(most as u64) as usize];
        let mut at = begin;
        while at < end {
            let piece = (end - at).min(most as u64) as usize;
            self.read_at(&mut buffer[..piece], at)?;
            take(&buffer[..piece]);
            at += piece as u64;
        }
        Ok(())
    }

    /// Compares length and time of change with those at the opening. (A rename changes neither.)
    fn check_unchanged(&self, file: &File, stamp: &Stamp) -> Result<(), FormatError> {
        let metadata = file.metadata().map_err(|error| self.failed(error))?;
        let now = Stamp::of(&metadata);
        let path = || self.path.clone();
        match now {
            now if now == *stamp => Ok(()),
            now if now.len < stamp.len => Err(FormatError::Shortened {
                path: path(),
                before: stamp.len,
                now: now.len,
            }),
            _ => Err(FormatError::Changed { path: path() }),
        }
    }

    fn failed(&self, source: io::Error) -> FormatError {
        FormatError::io("read", &self.path, source)
    }
}

/// Opens a file to be read from its beginning; what is changed meanwhile is not noticed.
///
/// # Errors
///
/// Those of [`InputFile::open`].
pub fn open_stream(path: &Path) -> Result<File, FormatError> {
    Ok(open(path)?.0)
}

fn open(path: &Path) -> Result<(File, fs::Metadata), FormatError> {
    let failed = |source| FormatError::io("read", path, source);
    // Asked for before it is opened: opening a pipe waits for whoever writes to it.
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if is_absent(&error) => {
            return Err(match broken_link(path) {
                Some(error) => error,
                None => FormatError::NoSuchFile {
                    path: path.to_path_buf(),
                },
            });
        }
        Err(error) => return Err(failed(error)),
    };
    check_kind(path, metadata.file_type())?;
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    check_kind(path, metadata.file_type())?;
    Ok((file, metadata))
}

/// Returns the bytes of a file.
///
/// # Errors
///
/// Those of [`InputFile::open`] and [`InputFile::read_at`].
pub fn read(path: &Path) -> Result<Vec<u8>, FormatError> {
    InputFile::open(path)?.read_all()
}

/// Returns the text of a file, without the byte order mark that some editors put before it.
///
/// # Errors
///
/// Those of [`read`]; [`FormatError::AnotherKind`] for a file that is known to be none of text; [`FormatError::NotText`].
pub fn read_text(path: &Path) -> Result<String, FormatError> {
    let file = InputFile::open(path)?;
    expect_kind_of(&file, &Kind::Text)?;
    text_of(path, file.read_all()?)
}

/// [`read_text`] of the bytes of a file that was read, which is at `path`.
///
/// # Errors
///
/// [`FormatError::AnotherKind`], [`FormatError::NotText`].
pub fn text_of(path: &Path, bytes: Vec<u8>) -> Result<String, FormatError> {
    expect_kind_of_bytes(path, &bytes, &Kind::Text)?;
    let mut text = String::from_utf8(bytes).map_err(|error| FormatError::NotText {
        path: path.to_path_buf(),
        offset: error.utf8_error().valid_up_to(),
    })?;
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    Ok(text)
}

/// Returns whether there is something at a path that need not be there.
///
/// # Errors
///
/// [`FormatError::BrokenLink`]: a link to nothing was meant to be something.
pub fn is_there(path: &Path) -> Result<bool, FormatError> {
    match fs::metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if is_absent(&error) => broken_link(path).map_or(Ok(false), Err),
        Err(error) => Err(FormatError::io("read", path, error)),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Returns the error of a path, or a part of one, that is a link to nothing; `None` if there is none.
fn broken_link(path: &Path) -> Option<FormatError> {
    let target = |path: &Path| {
        let is_broken = fs::symlink_metadata(path).ok()?.is_symlink() && !path.exists();
        is_broken.then(|| fs::read_link(path).ok())?
    };
    path.ancestors().find_map(|path| {
        let target = target(path)?;
        let path = path.to_path_buf();
        Some(FormatError::BrokenLink { path, target })
    })
}

fn check_kind(path: &Path, kind: FileType) -> Result<(), FormatError> {
    if kind.is_file() {
        return Ok(());
    }
    Err(FormatError::AnotherKind {
        path: path.to_path_buf(),
        kind: match kind.is_dir() {
            true => Kind::Directory,
            false => Kind::Special,
        },
        wanted: "a file",
    })
}

#[cfg(unix)]
fn read_exact_at(file: &File, to: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, to, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut to: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !to.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, to, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                to = &mut to[n..];
                offset += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
