//! Tokens of texts on disk, so that they are neither made twice nor held in memory.
//!
//! An entry is one file, named by the SHA-256 of all that its tokens follow from: the files' own digests and names, how they are
//! read, the tokenizer and what is done to texts and conversations. So an entry is never wrong, only unused. It is written under
//! a temporary name and renamed when it is whole; its digest is checked each time it is opened, and a damaged one is made anew.
//! Whoever makes one holds its lock; others wait for it.
//!
//! What comes of texts is the same with and without a cache, to the bit.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use reparam_formats::FormatError;
use reparam_formats::atomic::{remove_leftovers, write_through};

use crate::dataset::texts::{Texts, encode};
use crate::error::{DataError, Result};
use crate::pack::{CorpusBuilder, FileSink};
use crate::source::{FileDigest, Files, ReadOptions, ReadReport, digest};
use crate::tokenizer::{Encoded, TextTokenizer};
use crate::watch::{Phase, Watch};

mod entry;
mod key;
mod lock;
#[cfg(test)]
mod tests;

/// Where tokens are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cache {
    /// In this directory, if the files may have [`Cache::LARGE`] bytes of text together; a compressed file and one of Parquet
    /// are counted as [`Cache::EXPANSION`] times their size. If it cannot be written, tokens are in memory.
    Large(PathBuf),
    /// In this directory.
    All(PathBuf),
}

impl Cache {
    /// What is large: the tokens of so many bytes of text take about as many bytes.
    pub const LARGE: u64 = 64 << 20;

    /// How many bytes of text a byte of a compressed file or of Parquet may be. Zstandard and gzip make 3 to 5 of prose, 10 and
    /// more of rows that repeat their keys; what is taken for more than it is costs a file in the cache, what is taken for less,
    /// memory.
    pub const EXPANSION: u64 = 16;

    /// The directory for files of so many bytes of text.
    pub(crate) fn directory(&self, bytes: u64) -> Option<&Path> {
        match self {
            Self::Large(directory) => (bytes >= Self::LARGE).then_some(directory),
            Self::All(directory) => Some(directory),
        }
    }

    /// Whether texts can be read without it.
    pub(crate) fn is_optional(&self) -> bool {
        matches!(self, Self::Large(_))
    }
}

/// How the name of an entry ends, and that of its lock.
const ENTRY: &str = "tokens";
const LOCK: &str = "lock";

/// Returns the tokens of texts that are in the cache, or makes them and puts them there.
///
/// # Errors
///
/// [`DataError::Cache`] if the directory cannot be written; those of reading and encoding.
pub(crate) fn read(
    directory: &Path,
    (files, total): (&Files, u64),
    tokenizer: &TextTokenizer,
    options: &ReadOptions,
    watch: Watch<'_>,
) -> Result<Texts> {
    let digests = digests(files, watch)?;
    let key = key::of(&digests, files, tokenizer, options)?;
    let made = fs::create_dir_all(directory);
    made.map_err(|error| DataError::Cache(FormatError::io("create", directory, error)))?;
    let path = directory.join(format!("{key}.{ENTRY}"));
    let lock = lock::hold(&directory.join(format!("{key}.{LOCK}")), watch)?;
    match entry::open(&path, &key, tokenizer.max_usable_id(), true) {
        Ok(Some(texts)) => return Ok(texts),
        Ok(None) => {}
        Err(reason) => watch.note(&format!("{} is made anew: {reason}", path.display())),
    }
    // Without the lock, another process may be writing what looks left over.
    if lock.is_some() {
        remove_left(directory, &key)?;
    }
    let written: std::result::Result<(), Failure> = write_through(&path, |writer| {
        write(&path, writer, &key, &digests, |corpus| {
            encode(files, total, tokenizer, options, corpus, watch)
        })?;
        Ok(())
    });
    written.map_err(|failure| failure.0)?;
    let opened = entry::open(&path, &key, tokenizer.max_usable_id(), false);
    opened.ok().flatten().ok_or_else(|| {
        // Only who removes it at once comes here.
        DataError::Cache(FormatError::NoSuchFile { path: path.clone() })
    })
}

/// Removes the temporary files that processes have left which have ended: those of the entry whose lock is held, and those of
/// entries whose lock is free.
fn remove_left(directory: &Path, key: &str) -> Result<()> {
    // Temporary names have as much of the key as tells it from all others.
    const TELLS: usize = 32;
    // Held until all are removed, so that none of them is begun anew meanwhile.
    let taken = RefCell::new(Vec::new());
    let is_left = |name: &str| {
        if name.len() < TELLS || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return false;
        }
        let lock = || lock::of_other(directory, name, LOCK);
        key.starts_with(name) || lock().map(|lock| taken.borrow_mut().push(lock)).is_some()
    };
    remove_leftovers(directory, is_left).map_err(DataError::Cache)
}

/// Digests the files, which the name of the entry follows from.
fn digests(files: &Files, watch: Watch<'_>) -> Result<Vec<FileDigest>> {
    let total = files.files.len() as u64;
    let mut digests = Vec::with_capacity(files.files.len());
    for (path, done) in files.files.iter().zip(0..) {
        watch.check()?;
        watch.at(Phase::Reading, done, total);
        digests.push(digest(path)?);
    }
    watch.at(Phase::Reading, total, total);
    Ok(digests)
}

/// What is encoded into a file, and what was read.
type Written<'w, 'f> = (Encoded<FileSink<'w, 'f>>, ReadReport);

/// Encodes into a file that is to be an entry.
fn write<'w, 'f>(
    path: &'w Path,
    writer: &'w mut BufWriter<&'f File>,
    key: &str,
    digests: &[FileDigest],
    encode: impl FnOnce(CorpusBuilder<FileSink<'w, 'f>>) -> Result<Written<'w, 'f>>,
) -> Result<()> {
    let failed = |error| DataError::Cache(FormatError::io("write", path, error));
    let sink = entry::begin(path, writer, key).map_err(failed)?;
    let (encoded, report) = encode(CorpusBuilder::new(sink))?;
    // The name of the entry says what the files were.
    let changed = report
        .files
        .iter()
        .zip(digests)
        .find(|(now, then)| now != then);
    if let Some((file, _)) = changed {
        return Err(DataError::File(FormatError::Changed {
            path: file.path.clone(),
        }));
    }
    entry::finish(encoded, report).map_err(failed)
}

/// What can go wrong while an entry is written.
struct Failure(DataError);

impl From<FormatError> for Failure {
    fn from(error: FormatError) -> Self {
        Self(DataError::Cache(error))
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        Self(error)
    }
}
