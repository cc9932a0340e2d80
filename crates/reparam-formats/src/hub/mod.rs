//! Finds a model, a local directory or a download into the Hugging Face cache, or the files of a data set.
//!
//! Only files that are read here are downloaded: configuration, tokenizer and safetensors weights,
//! never pickles or code. Models that Python programs downloaded are found, and the other way around.
//!
//! A hub is not trusted with more than the content of a model: whatever it calls things is checked
//! before it becomes a path, sizes and digests are compared, the token goes to its own host alone,
//! and a server that falls silent is given up.

mod address;
mod cache;
mod client;
mod dataset;
mod error;
mod http;
mod names;
mod partial;
mod spec;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use dataset::{is_dataset, resolve_dataset};
pub use error::HubError;

use crate::FormatError;
use crate::chat_templates::more_name;
use crate::checkpoint::{INDEX_FILE, ShardIndex, is_pickle};
use crate::tokenizer_files::{ADDED_TOKENS_FILE, OLDER_TOKENIZER_FILES, TOKENIZER_FILE};
use cache::Cached;
use client::Client;
use spec::Spec;

/// The address of the public hub.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// How long a download may bring nothing, by default.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Files that are wanted where the repository has them.
const OPTIONAL_FILES: [&str; 9] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
];

/// Where and how models are looked for.
///
/// Nothing is taken from the environment, except that the HTTP client goes through the proxy that
/// `HTTPS_PROXY`, `HTTP_PROXY` or `ALL_PROXY` names, if `NO_PROXY` does not forbid it.
#[derive(Clone)]
pub struct HubOptions {
    /// The address of the hub; by default [`DEFAULT_ENDPOINT`].
    pub endpoint: String,
    /// The access token; it is sent to the endpoint's own host (and port) alone, and never shown.
    pub token: Option<String>,
    /// The cache, usually `~/.cache/huggingface/hub`.
    pub cache_dir: PathBuf,
    /// Whether the network must not be used.
    pub offline: bool,
    /// A branch, tag or commit; by default `main`.
    pub revision: String,
    /// How long nothing may come before a download is given up: while connecting, while waiting for an answer, and
    /// within it; by default [`DEFAULT_TIMEOUT`].
    pub timeout: Duration,
    /// Set to end a download with [`HubError::Interrupted`], within a fraction of a second.
    pub stop: Arc<AtomicBool>,
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
            timeout: DEFAULT_TIMEOUT,
            stop: Arc::default(),
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
            .field("timeout", &self.timeout)
            .field("stop", &self.stop)
            .finish()
    }
}

/// What a repository of the hub holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repository {
    Model,
    Dataset,
}

impl Repository {
    /// What the hub's interface and the cache call them.
    const fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Dataset => "data set",
        }
    }

    /// What stands before an id in the address of a page or a file.
    fn before_id(self) -> Option<&'static str> {
        (self == Self::Dataset).then_some("datasets")
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
/// An existing directory is used as it is. Else `spec` has to be a hub id, `org/name` or `name`.
/// If the cache has its configuration, tokenizer and weights, they are used without a request, also
/// when a branch has moved on since; else what is missing is downloaded. Without a tokenizer the
/// cache is still used if the hub must not or cannot be asked, or has no answer: it is down, refuses more requests, or
/// something else answers in its place.
///
/// # Errors
///
/// [`HubError::NoSuchModel`] for something that looks like a path, [`HubError::InvalidId`],
/// [`HubError::NotCached`] when offline, and those of the download. What a download that failed has brought stays in the
/// cache, and the next one goes on from there.
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
    let cached = match cache::look_up(&id, options) {
        Cached::Complete(snapshot) => return Ok(snapshot),
        Cached::Usable(snapshot) => Some(snapshot),
        Cached::Nothing => None,
    };
    let outcome = if options.offline {
        Err(HubError::NotCached {
            nearest: spec::nearest(&id),
            revision: options.revision.clone(),
            cache: options.cache_dir.clone(),
            id,
        })
    } else {
        download(&id, options, progress)
    };
    match (outcome, cached) {
        (
            Err(
                HubError::NotCached { .. }
                | HubError::Network { .. }
                | HubError::Silent { .. }
                | HubError::BadAnswer { .. }
                | HubError::Status {
                    status: 429 | 500..=599,
                    ..
                },
            ),
            Some(snapshot),
        ) => Ok(snapshot),
        (outcome, _) => outcome,
    }
}

/// Brings a model into the cache and returns its snapshot.
fn download(
    id: &str,
    options: &HubOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, HubError> {
    let client = Client::new(Repository::Model, id, options)?;
    let info = client.info()?;
    let commit = &info.commit;
    let has = |name: &str| info.files.iter().any(|file| file == name);

    // What cannot be used is refused before anything large is fetched.
    let is_sharded = !has("model.safetensors");
    if is_sharded && !has(INDEX_FILE) {
        return Err(HubError::NoSafetensors {
            id: id.to_owned(),
            has_pickles: info.files.iter().any(|file| is_pickle(file)),
        });
    }
    client.fetch(commit, "config.json", progress)?;
    let older: &[&str] = match has(TOKENIZER_FILE) {
        true => &[],
        false => &OLDER_TOKENIZER_FILES,
    };
    let added: &[&str] = if older.is_empty() {
        &[]
    } else {
        &[ADDED_TOKENS_FILE]
    };
    let optional = OPTIONAL_FILES.iter().chain(older).chain(added);
    for file in optional.filter(|file| has(file)) {
        client.fetch(commit, file, progress)?;
    }
    let more_templates = info.files.iter().filter(|file| more_name(file).is_some());
    for file in more_templates {
        client.fetch(commit, file, progress)?;
    }
    let snapshot = client.folder().snapshot(commit);
    if is_sharded {
        client.fetch(commit, INDEX_FILE, progress)?;
        for shard in read_index(&snapshot)?.shards() {
            client.fetch(commit, shard, progress)?;
        }
    } else {
        client.fetch(commit, "model.safetensors", progress)?;
    }
    // Noted last: a revision that the cache knows has been fetched whole.
    client.folder().note(&options.revision, commit)?;
    Ok(snapshot)
}

fn read_index(snapshot: &Path) -> Result<ShardIndex, FormatError> {
    let path = snapshot.join(INDEX_FILE);
    let text = crate::file::read(&path)?;
    ShardIndex::parse(&path, &text)
}
