//! Errors of finding and downloading models.

use std::path::PathBuf;

use crate::FormatError;

/// Says why a model could not be found or downloaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FormatError),
    /// A path was given, and there is no such directory.
    #[error("no such model directory: {spec}")]
    NoSuchModel {
        /// What was asked for.
        spec: String,
        /// The most similar directory beside it.
        nearest: Option<PathBuf>,
    },
    /// The text is neither a directory nor the form of a hub id.
    #[error("'{spec}' is neither a directory nor a hub id")]
    InvalidId {
        /// What was asked for.
        spec: String,
    },
    /// The revision has characters that no branch, tag or commit has.
    #[error("'{revision}' is not a valid revision")]
    InvalidRevision {
        /// What was asked for.
        revision: String,
    },
    /// Offline, and the cache lacks the model or a part of it.
    #[error("'{id}' at revision '{revision}' is not completely in the cache {}", cache.display())]
    NotCached {
        /// The hub id.
        id: String,
        /// The revision.
        revision: String,
        /// The cache directory.
        cache: PathBuf,
        /// A directory that may have been meant instead.
        nearest: Option<PathBuf>,
    },
    /// The hub has no such model, or does not show it.
    #[error("no model '{id}' at {endpoint}")]
    NotFound {
        /// The hub id.
        id: String,
        /// The hub.
        endpoint: String,
        /// A directory that may have been meant instead.
        nearest: Option<PathBuf>,
    },
    /// The hub has the model, but not this revision or file of it.
    #[error("'{id}' has no {what} '{name}'")]
    NotInRepository {
        /// The hub id.
        id: String,
        /// `revision` or `file`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The hub wants to know who asks, or does not let them.
    #[error("access to '{id}' denied (HTTP {status})")]
    Denied {
        /// The hub id.
        id: String,
        /// 401 or 403.
        status: u16,
        /// Whether a token was sent.
        had_token: bool,
    },
    /// The hub answered with an error.
    #[error("{url} answered with HTTP {status}")]
    Status {
        /// The address.
        url: String,
        /// The status code.
        status: u16,
    },
    /// The hub could not be reached.
    #[error("cannot reach {url}: {detail}")]
    Network {
        /// The address.
        url: String,
        /// What went wrong.
        detail: String,
    },
    /// The hub's answer is not what a hub answers.
    #[error("unexpected answer from {url}: {detail}")]
    BadAnswer {
        /// The address.
        url: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The repository has no weights that are read here.
    #[error("'{id}' has no model.safetensors and no model.safetensors.index.json")]
    NoSafetensors {
        /// The hub id.
        id: String,
        /// Whether it has pickled weights.
        has_pickles: bool,
    },
    /// A downloaded file is not the one that was announced.
    #[error("{file} is damaged: its SHA-256 is {found}, the hub says {expected}")]
    Checksum {
        /// The file's name.
        file: String,
        /// The digest that the hub announced.
        expected: String,
        /// The digest of what came.
        found: String,
    },
    /// What an earlier download left behind cannot be gone on with.
    #[error("the partial download of {file} in {} is not a beginning of the file", blobs.display())]
    Partial {
        /// The file's name.
        file: String,
        /// The directory that has it.
        blobs: PathBuf,
    },
    /// Another process has been downloading the same file.
    #[error("{file} is being downloaded by another process, which holds {}", lock.display())]
    Locked {
        /// The file's name.
        file: String,
        /// The lock file.
        lock: PathBuf,
    },
    /// A downloaded file has another size than was announced.
    #[error("{file} is incomplete: {found} of {expected} bytes came")]
    Size {
        /// The file's name.
        file: String,
        /// The size that the hub announced.
        expected: u64,
        /// The size of what came.
        found: u64,
    },
}

impl HubError {
    /// Returns what the user can do about the error, where that is known.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::File(error) => return error.hint(),
            Self::NoSuchModel { nearest: Some(nearest), .. }
            | Self::NotFound { nearest: Some(nearest), .. }
            | Self::NotCached { nearest: Some(nearest), .. } => {
                format!("did you mean the directory {}?", nearest.display())
            }
            Self::NoSuchModel { .. } | Self::InvalidId { .. } => {
                "give a directory with config.json and model.safetensors, or a hub id such as org/name"
                    .to_owned()
            }
            Self::NotCached { .. } => {
                "run once with network access, or copy the model's directory here and give its path"
                    .to_owned()
            }
            Self::NotFound { .. } => {
                "check the spelling; a private model needs a token".to_owned()
            }
            Self::Denied { had_token: false, .. } => {
                "the model is private, gated or does not exist; accept its licence on the hub's page \
                 and give an access token"
                    .to_owned()
            }
            Self::Denied { .. } => {
                "accept the model's licence on the hub's page, and check that the token is valid and \
                 may read this model"
                    .to_owned()
            }
            Self::Status { status: 429, .. } => {
                "the hub is rate-limiting; wait a while, or use an access token".to_owned()
            }
            Self::Status { .. } => "the hub may be down; try again later".to_owned(),
            Self::Network { .. } => {
                "check the network and the proxy; a downloaded model can be given by its directory"
                    .to_owned()
            }
            Self::BadAnswer { .. } => "check that the endpoint is a Hugging Face hub".to_owned(),
            Self::NoSafetensors { has_pickles: true, .. } => {
                "its weights are pickles, and unpickling runs arbitrary code; convert them once with \
                 transformers: save_pretrained(DIR, safe_serialization=True)"
                    .to_owned()
            }
            Self::NoSafetensors { .. } => "choose a model that has safetensors weights".to_owned(),
            Self::Partial { blobs, .. } => {
                format!("delete the files {} and run again", blobs.join("*.part").display())
            }
            Self::Locked { .. } => "wait for the other download to finish, then run again".to_owned(),
            Self::Checksum { .. } | Self::Size { .. } => "run again to download the file again".to_owned(),
            Self::NotInRepository { .. } | Self::InvalidRevision { .. } => return None,
        };
        Some(text)
    }
}
