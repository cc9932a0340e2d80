//! What the Hugging Face cache has of a model.

use std::fs;
use std::path::{Path, PathBuf};

use hf_hub::{Cache, CacheRepo, Repo, RepoType};

use super::HubOptions;
use crate::checkpoint::{INDEX_FILE, ShardIndex};

/// How much of a model the cache has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cached {
    /// Configuration, tokenizer and weights.
    Complete(PathBuf),
    /// Configuration and weights; whether the repository has a tokenizer is not known.
    Usable(PathBuf),
    Nothing,
}

/// Returns a revision of a model as `hf-hub` names it.
pub(super) fn repo(id: &str, revision: &str) -> Repo {
    Repo::with_revision(id.to_owned(), RepoType::Model, revision.to_owned())
}

/// Returns the part of the cache that belongs to a revision of a model.
pub(super) fn cache_of(id: &str, options: &HubOptions) -> CacheRepo {
    Cache::new(options.cache_dir.clone()).repo(repo(id, &options.revision))
}

pub(super) fn look_up(id: &str, options: &HubOptions) -> Cached {
    let cache = cache_of(id, options);
    let snapshot = if is_commit(&options.revision) {
        Some(cache.pointer_path(&options.revision))
    } else {
        // The crate follows a branch or tag to its commit only together with a file.
        let config = cache.get("config.json");
        config.and_then(|config| config.parent().map(Path::to_path_buf))
    };
    let Some(snapshot) = snapshot else {
        return Cached::Nothing;
    };
    let has = |file: &str| snapshot.join(file).is_file();
    let has_weights = has("model.safetensors") || has_all_shards(&snapshot);
    match (has("config.json") && has_weights, has("tokenizer.json")) {
        (true, true) => Cached::Complete(snapshot),
        (true, false) => Cached::Usable(snapshot),
        (false, _) => Cached::Nothing,
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
