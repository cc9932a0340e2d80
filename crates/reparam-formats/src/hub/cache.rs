//! The Hugging Face cache: the directory layout that `huggingface_hub` uses.
//!
//! ```text
//! models--org--name/
//!   refs/main                      the commit that a revision stands for
//!   blobs/<etag>                   the content of each file, once
//!   snapshots/<commit>/<file>      links to the blobs
//!   .no_exist/<commit>/<file>      empty; a file that the repository lacks
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{OPTIONAL_FILES, REQUIRED_FILES};
use crate::FormatError;
use crate::atomic::write_file_atomic;
use crate::checkpoint::{INDEX_FILE, ShardIndex};

/// How much of a model the cache has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cached {
    /// Everything that the repository has to offer.
    Complete(PathBuf),
    /// What is needed to run the model; whether there is more is not known.
    Usable(PathBuf),
    Nothing,
}

/// The part of the cache that belongs to one model.
#[derive(Debug, Clone)]
pub(super) struct ModelCache {
    root: PathBuf,
}

impl ModelCache {
    pub(super) fn new(cache_dir: &Path, id: &str) -> Self {
        Self {
            root: cache_dir.join(format!("models--{}", id.replace('/', "--"))),
        }
    }

    /// Returns the commit of a revision, if it is known.
    fn commit_of(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let text = fs::read_to_string(self.root.join("refs").join(revision)).ok()?;
        let commit = text.trim();
        is_commit(commit).then(|| commit.to_owned())
    }

    pub(super) fn look_up(&self, revision: &str) -> Cached {
        let Some(commit) = self.commit_of(revision) else {
            return Cached::Nothing;
        };
        let snapshot = self.snapshot(&commit);
        let has = |file: &str| snapshot.join(file).is_file();
        let has_weights = has("model.safetensors") || has_all_shards(&snapshot);
        if !has_weights || !REQUIRED_FILES.iter().all(|file| has(file)) {
            return Cached::Nothing;
        }
        let is_known = |file: &&str| has(file) || self.absence(&commit, file).exists();
        if OPTIONAL_FILES.iter().all(is_known) {
            Cached::Complete(snapshot)
        } else {
            Cached::Usable(snapshot)
        }
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    /// Returns the file whose lock a download of the blob holds; the one that Python takes too.
    pub(super) fn lock_file(&self, etag: &str) -> PathBuf {
        let model = self.root.file_name().unwrap_or_default();
        self.root
            .with_file_name(".locks")
            .join(model)
            .join(format!("{etag}.lock"))
    }

    fn absence(&self, commit: &str, file: &str) -> PathBuf {
        self.root.join(".no_exist").join(commit).join(file)
    }

    pub(super) fn note_revision(&self, revision: &str, commit: &str) -> Result<(), FormatError> {
        if revision == commit {
            return Ok(());
        }
        let path = self.root.join("refs").join(revision);
        create_parent(&path)?;
        write_file_atomic(&path, commit.as_bytes())
    }

    pub(super) fn note_absence(&self, commit: &str, file: &str) -> Result<(), FormatError> {
        let path = self.absence(commit, file);
        create_parent(&path)?;
        write_file_atomic(&path, b"")
    }

    /// Makes a blob appear under its name in a snapshot.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<(), FormatError> {
        let link = self.snapshot(commit).join(file);
        create_parent(&link)?;
        if link.is_file() {
            return Ok(());
        }
        let failed = |source| FormatError::io("create", &link, source);
        // A link whose blob is gone is in the way.
        if link.is_symlink() {
            fs::remove_file(&link).map_err(failed)?;
        }
        match link_relative(&self.blob(etag), etag, &link) {
            // Another process that downloads the same model may have been faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result.map_err(failed),
        }
    }
}

/// Links as `huggingface_hub` does, so that the cache can be moved; copies where links are not
/// common.
fn link_relative(blob: &Path, etag: &str, link: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        // Files of a snapshot are at its top, so the way to the blobs is always the same.
        let _ = blob;
        std::os::unix::fs::symlink(Path::new("../../blobs").join(etag), link)
    }
    #[cfg(not(unix))]
    {
        let _ = etag;
        fs::copy(blob, link).map(|_| ())
    }
}

pub(super) fn create_parent(path: &Path) -> Result<(), FormatError> {
    match path.parent() {
        Some(parent) => {
            fs::create_dir_all(parent).map_err(|source| FormatError::io("create", parent, source))
        }
        None => Ok(()),
    }
}

fn has_all_shards(snapshot: &Path) -> bool {
    let path = snapshot.join(INDEX_FILE);
    let Ok(text) = fs::read(&path) else {
        return false;
    };
    ShardIndex::parse(&path, &text).is_ok_and(|index| {
        index
            .shards()
            .iter()
            .all(|shard| snapshot.join(shard).is_file())
    })
}

/// Returns whether a text is a full Git commit.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
