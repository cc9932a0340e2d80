//! Tokens of texts on disk, so that they are neither made twice nor held in memory.
//!
//! An entry is one file, named by the SHA-256 of all that its tokens follow from: the files' own digests and names, how they are
//! read, the tokenizer and what is done to texts and conversations. So an entry is never wrong, only unused. It is written under
//! a temporary name and renamed when it is whole; its digest is checked each time it is opened, and a damaged one is made anew.
//! Whoever makes one holds its lock; others wait for it.
//!
//! What comes of texts is the same with and without a cache, to the bit.

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
    /// In this directory, if the files have [`Cache::LARGE`] bytes together. If it cannot be written, tokens are in memory.
    Large(PathBuf),
    /// In this directory.
    All(PathBuf),
}

impl Cache {
    /// What is large: the tokens of so many bytes of text take about as many bytes.
    pub const LARGE: u64 = 64 << 20;

    /// The directory for files of so many bytes.
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
    let _lock = lock::hold(&directory.join(format!("{key}.{LOCK}")), watch)?;
    match entry::open(&path, &key, tokenizer.max_id(), true) {
        Ok(Some(texts)) => return Ok(texts),
        Ok(None) => {}
        Err(reason) => watch.note(&format!("{} is made anew: {reason}", path.display())),
    }
    // Temporary names have as much of the key as tells it from all others.
    let is_ours = |name: &str| name.len() >= 32 && key.starts_with(name);
    remove_leftovers(directory, is_ours).map_err(DataError::Cache)?;
    let written: std::result::Result<(), Failure> = write_through(&path, |writer| {
        write(&path, writer, &key, &digests, |corpus| {
            encode(files, total, tokenizer, options, corpus, watch)
        })?;
        Ok(())
    });
    written.map_err(|failure| failure.0)?;
    let opened = entry::open(&path, &key, tokenizer.max_id(), false);
    opened.ok().flatten().ok_or_else(|| {
        // Only who removes it at once comes here.
        DataError::Cache(FormatError::NoSuchFile { path: path.clone() })
    })
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
