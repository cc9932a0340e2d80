//! Errors of finding and downloading models.

use std::path::PathBuf;
use std::time::Duration;

use crate::{FormatError, shown, shown_sentence};

/// Says why a model could not be found or downloaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FormatError),
    /// A path was given, and there is no such directory.
    #[error("no such model directory: {}", shown(spec))]
    NoSuchModel {
        /// What was asked for.
        spec: String,
        /// The most similar directory beside it.
        nearest: Option<PathBuf>,
    },
    /// The text is neither a directory nor the form of a hub id.
    #[error("'{}' is neither a directory nor a hub id", shown(spec))]
    InvalidId {
        /// What was asked for.
        spec: String,
    },
    /// The revision has characters that no branch, tag or commit has.
    #[error("'{}' is not a valid revision", shown(revision))]
    InvalidRevision {
        /// What was asked for.
        revision: String,
    },
    /// Offline, and the cache lacks the model or a part of it.
    #[error("'{id}' at revision '{}' is not completely in the cache {}", shown(revision), cache.display())]
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
    #[error("no {what} '{id}' at {}", shown(endpoint))]
    NotFound {
        /// A model or a data set.
        what: &'static str,
        /// The hub id.
        id: String,
        /// The hub.
        endpoint: String,
        /// A directory that may have been meant instead.
        nearest: Option<PathBuf>,
    },
    /// The hub has the model, but not this revision or file of it.
    #[error("'{id}' has no {what} '{}'", shown(name))]
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
    #[error("{} answered with HTTP {status}", shown(url))]
    Status {
        /// The address.
        url: String,
        /// The status code.
        status: u16,
    },
    /// The hub could not be reached.
    #[error("cannot reach {}: {}", shown(url), shown_sentence(detail))]
    Network {
        /// The address.
        url: String,
        /// What went wrong.
        detail: String,
    },
    /// The hub's answer is not what a hub answers.
    #[error("unexpected answer from {}: {}", shown(url), shown_sentence(detail))]
    BadAnswer {
        /// The address.
        url: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The address of a data set is none.
    #[error("'{}' is not the address of a data set", shown(spec))]
    InvalidDataset {
        /// What was asked for.
        spec: String,
    },
    /// A data set has no Parquet files to train on.
    #[error("'{id}' has no Parquet files of a training split")]
    NoParquet {
        /// The id.
        id: String,
    },
    /// A data set has several configurations.
    #[error("{} has several configurations: {}", shown(address), listed(configs))]
    SeveralConfigs {
        /// The address, with its revision if one was asked for.
        address: String,
        /// Their folders; empty is that of the repository itself.
        configs: Vec<String>,
    },
    /// A data set has no split that is called `train`, and several that begin with it.
    #[error("{} has no split `train`, but {}", shown(address), listed(splits))]
    SeveralSplits {
        /// The address, with its revision if one was asked for.
        address: String,
        /// What their files are called, up to the number.
        splits: Vec<String>,
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
    #[error(
        "{} is damaged: its digest is {found}, the hub says {expected}",
        shown(file)
    )]
    Checksum {
        /// The file's name.
        file: String,
        /// The digest that the hub announced.
        expected: String,
        /// The digest of what came.
        found: String,
    },
    /// Another process has been downloading the same file.
    #[error("{} is being downloaded by another process, which holds {} and makes no progress", shown(file), lock.display())]
    Locked {
        /// The file's name.
        file: String,
        /// The lock file.
        lock: PathBuf,
    },
    /// A downloaded file has another size than was announced.
    #[error(
        "{} has another size than the hub says: {found} instead of {expected} bytes",
        shown(file)
    )]
    Size {
        /// The file's name.
        file: String,
        /// The size that the hub announced.
        expected: u64,
        /// The size of what came.
        found: u64,
    },
    /// A server has sent nothing for too long.
    #[error("{} has sent nothing for {} s", shown(url), timeout.as_secs_f64())]
    Silent {
        /// The address.
        url: String,
        /// How long was waited.
        timeout: Duration,
    },
    /// The access token has characters that no token has.
    #[error("the access token has characters that no token has")]
    InvalidToken,
    /// [`HubOptions::stop`](super::HubOptions::stop) was set.
    #[error("interrupted")]
    Interrupted,
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
            Self::NotFound { what, .. } => {
                format!("check the spelling; a private {what} needs a token")
            }
            Self::InvalidDataset { .. } => {
                "write hf://datasets/OWNER/NAME, with @REVISION and with /FOLDER or /FILE behind it if need be".to_owned()
            }
            Self::NoParquet { id } => format!(
                "look at its files on the hub, and name a folder or a file of them: hf://datasets/{id}/FOLDER; files that are \
                 no Parquet are downloaded with `hf download {id} --repo-type dataset --local-dir data`"
            ),
            Self::SeveralConfigs { address, configs: names } | Self::SeveralSplits { address, splits: names } => {
                let first = names.iter().find(|name| !name.is_empty());
                format!("name one of them: {}/{}", shown(address), shown(first.map_or("FOLDER", String::as_str)))
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
                 transformers: save_pretrained(DIR)"
                    .to_owned()
            }
            Self::NoSafetensors { .. } => "choose a model that has safetensors weights".to_owned(),
            Self::Locked { .. } => {
                "end the other process or wait until it has finished, then run again".to_owned()
            }
            Self::Checksum { .. } | Self::Size { .. } => "run again to download the file again".to_owned(),
            Self::Silent { .. } => {
                "check the network and the proxy, then run again: the download goes on where it stopped"
                    .to_owned()
            }
            Self::InvalidToken => "copy the token again; it is one line of letters and digits".to_owned(),
            Self::NotInRepository { .. } | Self::InvalidRevision { .. } | Self::Interrupted => return None,
        };
        Some(text)
    }
}

/// The first names of a list.
fn listed(names: &[String]) -> String {
    let named: Vec<String> = names
        .iter()
        .take(10)
        .map(|name| match name.as_str() {
            "" => "the files in no folder".to_owned(),
            name => shown(name).to_string(),
        })
        .collect();
    let rest = match names.len().saturating_sub(named.len()) {
        0 => String::new(),
        rest => format!(" and {rest} more"),
    };
    format!("{}{rest}", named.join(", "))
}
