//! Finds a model: a local directory, or a download into the Hugging Face cache.
//!
//! Only files that are read here are downloaded: configuration, tokenizer and safetensors weights,
//! never pickles or code. The cache has the layout of `huggingface_hub`, so models that Python
//! programs downloaded are found, and the other way around.

mod cache;
mod client;
mod error;
mod spec;

use std::fmt;
use std::path::{Path, PathBuf};

pub use error::HubError;

use crate::FormatError;
use crate::checkpoint::{INDEX_FILE, ShardIndex, is_pickle};
use cache::{Cached, ModelCache};
use client::Client;
use spec::Spec;

/// The address of the public hub.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Files without which a model cannot be used, besides its weights.
const REQUIRED_FILES: [&str; 1] = ["config.json"];

/// Files that are wanted where the repository has them.
const OPTIONAL_FILES: [&str; 5] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];

/// Where and how models are looked for. Nothing is taken from the environment.
#[derive(Clone)]
pub struct HubOptions {
    /// The address of the hub; by default [`DEFAULT_ENDPOINT`].
    pub endpoint: String,
    /// The access token; it is sent to the endpoint only, and never shown.
    pub token: Option<String>,
    /// The cache, usually `~/.cache/huggingface/hub`.
    pub cache_dir: PathBuf,
    /// Whether the network must not be used.
    pub offline: bool,
    /// A branch, tag or commit; by default `main`.
    pub revision: String,
    /// The proxy to go through, such as `http://proxy.example:3128`.
    pub proxy: Option<String>,
}

impl HubOptions {
    /// Returns the options for the public hub with the given cache.
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: DEFAULT_ENDPOINT.to_owned(),
            token: None,
            cache_dir: cache_dir.into(),
            offline: false,
            revision: "main".to_owned(),
            proxy: None,
        }
    }
}

impl fmt::Debug for HubOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HubOptions")
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "(hidden)"))
            .field("cache_dir", &self.cache_dir)
            .field("offline", &self.offline)
            .field("revision", &self.revision)
            .field("proxy", &self.proxy.as_ref().map(|_| "(hidden)"))
            .finish()
    }
}

/// How far the download of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file.
    pub file: &'a str,
    /// How many bytes are there, those of an earlier attempt included.
    pub done: u64,
    /// How many there will be.
    pub total: u64,
}

/// Returns the directory of a model.
///
/// An existing directory is used as it is. Else `spec` has to be a hub id, `org/name` or `name`,
/// which is taken from the cache if it is completely there, and is downloaded if not.
///
/// # Errors
///
/// [`HubError::NoSuchModel`] for something that looks like a path, [`HubError::InvalidId`],
/// [`HubError::NotCached`] when offline, and those of the download.
pub fn resolve_model(spec: &str, options: &HubOptions) -> Result<PathBuf, HubError> {
    resolve_model_with_progress(spec, options, &mut |_| {})
}

/// Returns the directory of a model, as [`resolve_model`] does, and reports every piece that comes.
///
/// # Errors
///
/// Those of [`resolve_model`].
pub fn resolve_model_with_progress(
    spec: &str,
    options: &HubOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, HubError> {
    let id = match Spec::parse(spec)? {
        Spec::Directory(directory) => return Ok(directory),
        Spec::Id(id) => id,
    };
    if !spec::is_revision(&options.revision) {
        return Err(HubError::InvalidRevision {
            revision: options.revision.clone(),
        });
    }
    let cache = ModelCache::new(&options.cache_dir, &id);
    match cache.look_up(&options.revision) {
        Cached::Complete(snapshot) => return Ok(snapshot),
        Cached::Usable(snapshot) if options.offline => return Ok(snapshot),
        _ if options.offline => {
            return Err(HubError::NotCached {
                nearest: spec::nearest(&id),
                id,
                revision: options.revision.clone(),
                cache: options.cache_dir.clone(),
            });
        }
        _ => {}
    }
    download(&id, &cache, options, progress)
}

/// Brings a model into the cache and returns its snapshot.
fn download(
    id: &str,
    cache: &ModelCache,
    options: &HubOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, HubError> {
    let client = Client::new(id, options)?;
    let repository = client.repository()?;
    let commit = &repository.commit;
    let has = |name: &str| repository.files.iter().any(|file| file == name);

    // What cannot be used is refused before anything large is fetched.
    let is_sharded = !has("model.safetensors");
    if is_sharded && !has(INDEX_FILE) {
        let has_pickles = repository.files.iter().any(|file| is_pickle(file));
        return Err(HubError::NoSafetensors {
            id: id.to_owned(),
            has_pickles,
        });
    }
    for file in REQUIRED_FILES {
        client.fetch(cache, commit, file, progress)?;
    }
    for file in OPTIONAL_FILES {
        if has(file) {
            client.fetch(cache, commit, file, progress)?;
        } else {
            cache.note_absence(commit, file)?;
        }
    }
    let snapshot = cache.snapshot(commit);
    if is_sharded {
        client.fetch(cache, commit, INDEX_FILE, progress)?;
        for shard in read_index(&snapshot)?.shards() {
            client.fetch(cache, commit, shard, progress)?;
        }
    } else {
        client.fetch(cache, commit, "model.safetensors", progress)?;
    }
    // Noted last: a revision that the cache knows has been fetched whole.
    cache.note_revision(&options.revision, commit)?;
    Ok(snapshot)
}

fn read_index(snapshot: &Path) -> Result<ShardIndex, FormatError> {
    let path = snapshot.join(INDEX_FILE);
    let text = std::fs::read(&path).map_err(|source| FormatError::io("read", &path, source))?;
    ShardIndex::parse(&path, &text)
}
