//! The cache, in the layout of `huggingface_hub`: what it has of a model or a data set, and where its files are.
//!
//! `models--org--name/` holds `blobs/<etag>`, `snapshots/<commit>/<file>` (links to blobs) and `refs/<branch>` (a commit);
//! `.locks/models--org--name/<etag>.lock` is held by whoever downloads a blob.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::names::{Commit, Etag, FileName};
use super::{HubOptions, Repository};
use crate::FormatError;
use crate::atomic::write_file_atomic;
use crate::checkpoint::{INDEX_FILE, ShardIndex};
use crate::tokenizer_files::{OLDER_TOKENIZER_FILES, TOKENIZER_FILE};

/// How much of a model the cache has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cached {
    /// Configuration, tokenizer and weights.
    Complete(PathBuf),
    /// Configuration and weights; whether the repository has a tokenizer is not known.
    Usable(PathBuf),
    Nothing,
}

/// The part of the cache that belongs to a model.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    locks: PathBuf,
}

impl Folder {
    /// Returns the part of the repository with this id, which is a valid one.
    pub(super) fn new(cache: &Path, kind: Repository, id: &str) -> Self {
        let name = format!("{}--{}", kind.plural(), id.replace('/', "--"));
        Self {
            root: cache.join(&name),
            locks: cache.join(".locks").join(name),
        }
    }

    pub(super) fn snapshot(&self, commit: &Commit) -> PathBuf {
        self.root.join("snapshots").join(commit.as_str())
    }

    pub(super) fn pointer(&self, commit: &Commit, file: FileName<'_>) -> PathBuf {
        let mut path = self.snapshot(commit);
        path.extend(file.parts());
        path
    }

    pub(super) fn blob(&self, etag: &Etag) -> PathBuf {
        self.root.join("blobs").join(etag.blob())
    }

    /// Returns where a blob grows until it is whole.
    pub(super) fn partial(&self, etag: &Etag) -> PathBuf {
        let name = format!("{}.incomplete", etag.blob());
        self.root.join("blobs").join(name)
    }

    pub(super) fn lock(&self, etag: &Etag) -> PathBuf {
        self.locks.join(format!("{}.lock", etag.blob()))
    }

    /// Returns the commit that a valid revision stands for, if the cache knows it.
    pub(super) fn commit(&self, revision: &str) -> Option<Commit> {
        Commit::parse(revision).or_else(|| {
            let path = self.root.join("refs").join(revision);
            if !path.is_file() {
                return None;
            }
            let mut text = String::new();
            // One byte more than a commit and its line break have: a longer text is none.
            let file = File::open(path).ok()?;
            file.take(43).read_to_string(&mut text).ok()?;
            Commit::parse(text.trim_end())
        })
    }

    /// Where the names of all files of a commit are, which `huggingface_hub` does not keep.
    fn listing_path(&self, commit: &Commit) -> PathBuf {
        self.root
            .join("listings")
            .join(format!("{}.json", commit.as_str()))
    }

    /// Returns the names of all files of a commit, if they were noted.
    pub(super) fn listing(&self, commit: &Commit) -> Option<Vec<String>> {
        let bytes = crate::file::read(&self.listing_path(commit)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Notes the names of all files of a commit.
    pub(super) fn list(&self, commit: &Commit, files: &[String]) -> Result<(), FormatError> {
        let path = self.listing_path(commit);
        create_parent(&path)?;
        write_file_atomic(&path, serde_json::json!(files).to_string().as_bytes())
    }

    /// Notes which commit a valid revision stands for.
    pub(super) fn note(&self, revision: &str, commit: &Commit) -> Result<(), FormatError> {
        if revision == commit.as_str() {
            return Ok(());
        }
        let path = self.root.join("refs").join(revision);
        create_parent(&path)?;
        write_file_atomic(&path, commit.as_str().as_bytes())
    }

    /// Places a blob in the snapshot of a commit.
    pub(super) fn place(
        &self,
        etag: &Etag,
        commit: &Commit,
        file: FileName<'_>,
    ) -> Result<(), FormatError> {
        let pointer = self.pointer(commit, file);
        create_parent(&pointer)?;
        let placed = place(&self.blob(etag), &pointer, etag, file);
        placed.map_err(|source| FormatError::io("write", &pointer, source))
    }
}

/// Links to the blob by a relative path, so that the cache can be moved; an older link is replaced in one step.
#[cfg(unix)]
fn place(_: &Path, pointer: &Path, etag: &Etag, file: FileName<'_>) -> io::Result<()> {
    let up = "../".repeat(file.parts().count() + 1);
    let target = format!("{up}blobs/{}", etag.blob());
    let directory = pointer.parent().unwrap_or(Path::new("."));
    let temporary = tempfile::Builder::new()
        .prefix(".link.")
        .suffix(".tmp")
        .make_in(directory, |path| std::os::unix::fs::symlink(&target, path))?;
    temporary.persist(pointer).map_err(|error| error.error)?;
    Ok(())
}

/// Moves the blob: links may need a privilege here, and `huggingface_hub` does the same without it.
#[cfg(not(unix))]
fn place(blob: &Path, pointer: &Path, _: &Etag, _: FileName<'_>) -> io::Result<()> {
    fs::rename(blob, pointer)
}

pub(super) fn create_parent(path: &Path) -> Result<(), FormatError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|source| FormatError::io("create", parent, source))
}

pub(super) fn look_up(id: &str, options: &HubOptions) -> Cached {
    let folder = Folder::new(&options.cache_dir, Repository::Model, id);
    let Some(commit) = folder.commit(&options.revision) else {
        return Cached::Nothing;
    };
    let snapshot = folder.snapshot(&commit);
    let has = |file: &str| snapshot.join(file).is_file();
    let has_weights = has("model.safetensors") || has_all_shards(&snapshot);
    // A vocabulary alone has no merges.
    let mut older = OLDER_TOKENIZER_FILES.into_iter();
    let has_older = older.any(|file| has(file) && (file != "vocab.json" || has("merges.txt")));
    let has_tokenizer = has(TOKENIZER_FILE) || has_older;
    match (has("config.json") && has_weights, has_tokenizer) {
        (true, true) => Cached::Complete(snapshot),
        (true, false) => Cached::Usable(snapshot),
        (false, _) => Cached::Nothing,
    }
}

fn has_all_shards(snapshot: &Path) -> bool {
    let path = snapshot.join(INDEX_FILE);
    let Ok(text) = crate::file::read(&path) else {
        return false;
    };
    ShardIndex::parse(&path, &text).is_ok_and(|index| {
        index
            .shards()
            .iter()
            .all(|shard| snapshot.join(shard).is_file())
    })
}
