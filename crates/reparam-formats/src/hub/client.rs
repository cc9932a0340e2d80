//! The network side: what is downloaded through `hf-hub`, and what its errors mean.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use hf_hub::Cache;
use hf_hub::api::RepoInfo;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};

use super::cache::{cache_of, is_commit, repo};
use super::{HubError, HubOptions, Progress, spec};
use crate::FormatError;
use crate::checkpoint::sha256_file;

/// How often a download that broke off is taken up again.
const RETRIES: usize = 2;
/// How long the description of a repository may take.
const INFO_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest description of a repository that is read, in bytes.
const MAX_INFO_BYTES: u64 = 32 << 20;

pub(super) struct Client<'a> {
    api: Api,
    id: &'a str,
    options: &'a HubOptions,
}

impl<'a> Client<'a> {
    pub(super) fn new(id: &'a str, options: &'a HubOptions) -> Result<Self, HubError> {
        let endpoint = options.endpoint.trim_end_matches('/');
        let is_address = endpoint.parse::<ureq::http::Uri>().is_ok_and(|uri| {
            uri.authority().is_some() && matches!(uri.scheme_str(), Some("http" | "https"))
        });
        if !is_address {
            return Err(HubError::Network {
                url: endpoint.to_owned(),
                detail: "the endpoint has to begin with https:// or http://".to_owned(),
            });
        }
        // Everything is set here, so that the crate's own defaults (a token file beside the cache, a
        // progress bar on the terminal) do not apply.
        let api = ApiBuilder::from_cache(Cache::new(options.cache_dir.clone()))
            .with_endpoint(endpoint.to_owned())
            .with_token(options.token.clone())
            .with_retries(RETRIES)
            .with_progress(false)
            .with_user_agent("reparam", env!("CARGO_PKG_VERSION"))
            .build();
        let client = |api| Self { api, id, options };
        api.map(client).map_err(|error| HubError::Network {
            url: endpoint.to_owned(),
            detail: error.to_string(),
        })
    }

    /// Asks for the commit and the files of the revision.
    ///
    /// The crate's own method returns only the status of a refusal; the hub's error code tells a
    /// missing repository, a missing revision and a missing permission apart.
    pub(super) fn info(&self) -> Result<RepoInfo, HubError> {
        let url = self.url();
        let repo = self.api.repo(repo(self.id, &self.options.revision));
        let request = repo.info_request().config();
        let request = request
            .http_status_as_error(false)
            .timeout_global(Some(INFO_TIMEOUT))
            .build();
        let network = |error: ureq::Error| HubError::Network {
            url: url.clone(),
            detail: error.to_string(),
        };
        let mut response = request.call().map_err(network)?;
        let status = response.status().as_u16();
        if !(200..=299).contains(&status) {
            let code = response.headers().get("x-error-code");
            return Err(self.refusal(status, code.and_then(|code| code.to_str().ok()), None));
        }
        let body = response.body_mut().with_config().limit(MAX_INFO_BYTES);
        let body = body.read_to_vec().map_err(network)?;
        let bad = |detail| self.bad_answer(detail);
        let info: RepoInfo = serde_json::from_slice(&body).map_err(|e| bad(e.to_string()))?;
        if is_commit(&info.sha) {
            Ok(info)
        } else {
            Err(bad(format!("'{}' is not a commit", info.sha)))
        }
    }

    /// Brings a file of a commit into the cache, unless it is there.
    pub(super) fn fetch(
        &self,
        commit: &str,
        file: &str,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), HubError> {
        let wanted = cache_of(self.id, self.options)
            .pointer_path(commit)
            .join(file);
        if wanted.is_file() {
            return Ok(());
        }
        let mut announced = 0;
        let reporter = Reporter {
            file,
            done: 0,
            total: &mut announced,
            progress,
        };
        let path = self
            .api
            .repo(repo(self.id, commit))
            .download_with_progress(file, reporter)
            .map_err(|error| self.failure(file, error))?;
        if path != wanted {
            return Err(self.bad_answer(format!("{file} is not of commit {commit}")));
        }
        verify(&path, file, announced).inspect_err(|_| discard(&path))
    }

    /// Notes that the cache has the commit that the revision stands for.
    pub(super) fn note_revision(&self, commit: &str) -> Result<(), HubError> {
        let cache = cache_of(self.id, self.options);
        let noted = cache.create_ref(commit);
        Ok(noted.map_err(|source| FormatError::io("write", &self.options.cache_dir, source))?)
    }

    fn url(&self) -> String {
        format!(
            "{}/{}",
            self.options.endpoint.trim_end_matches('/'),
            self.id
        )
    }

    fn bad_answer(&self, detail: String) -> HubError {
        HubError::BadAnswer {
            url: self.url(),
            detail,
        }
    }

    /// Says what a status means; `file` is that of a file's request.
    fn refusal(&self, status: u16, code: Option<&str>, file: Option<&str>) -> HubError {
        let id = self.id.to_owned();
        let had_token = self.options.token.is_some();
        match (status, code, file) {
            // The hub hides what it does not show: without a token a missing model is a 401.
            (401, Some("RepoNotFound"), _) if had_token => self.not_found(),
            (401 | 403, ..) => HubError::Denied {
                id,
                status,
                had_token,
            },
            (404, _, Some(file)) => HubError::NotInRepository {
                id,
                what: "file",
                name: file.to_owned(),
            },
            (404, Some("RevisionNotFound"), None) => HubError::NotInRepository {
                id,
                what: "revision",
                name: self.options.revision.clone(),
            },
            (404, ..) => self.not_found(),
            _ => HubError::Status {
                url: self.url(),
                status,
            },
        }
    }

    fn not_found(&self) -> HubError {
        HubError::NotFound {
            id: self.id.to_owned(),
            endpoint: self.options.endpoint.clone(),
            nearest: spec::nearest(self.id),
        }
    }

    /// Says why a file could not be downloaded.
    fn failure(&self, file: &str, error: ApiError) -> HubError {
        let network = |detail: String| HubError::Network {
            url: format!("{}/{file}", self.url()),
            detail,
        };
        match error {
            ApiError::TooManyRetries(error) => self.failure(file, *error),
            ApiError::RequestError(error) => match *error {
                ureq::Error::StatusCode(status) => self.refusal(status, None, Some(file)),
                error => network(error.to_string()),
            },
            ApiError::IoError(error) if is_of_network(&error) => network(error.to_string()),
            ApiError::IoError(source) => {
                FormatError::io("write", &self.options.cache_dir, source).into()
            }
            ApiError::InvalidResume => HubError::Partial {
                file: file.to_owned(),
                blobs: cache_of(self.id, self.options).blob_path(""),
            },
            ApiError::LockAcquisition(lock) => HubError::Locked {
                file: file.to_owned(),
                lock,
            },
            error @ (ApiError::MissingHeader(_)
            | ApiError::InvalidHeader(_)
            | ApiError::ParseIntError(_)) => self.bad_answer(format!("{file}: {error}")),
        }
    }
}

/// Returns whether an error came while the network was read, not while the cache was written.
fn is_of_network(error: &io::Error) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, TimedOut, UnexpectedEof,
    };
    let is_wrapped = error
        .get_ref()
        .is_some_and(|inner| inner.is::<ureq::Error>());
    is_wrapped
        || matches!(
            error.kind(),
            BrokenPipe
                | ConnectionAborted
                | ConnectionRefused
                | ConnectionReset
                | TimedOut
                | UnexpectedEof
        )
}

/// Checks what the crate does not: the size, and the digest of files that are named by it.
///
/// Both are needed: a download that the crate takes up again begins anew, behind what is there, if
/// the first attempt brought nothing.
fn verify(path: &Path, file: &str, announced: u64) -> Result<(), HubError> {
    let failed = |source| FormatError::io("read", path, source);
    let blob = fs::canonicalize(path).map_err(failed)?;
    let found = fs::metadata(&blob).map_err(failed)?.len();
    if found != announced {
        return Err(HubError::Size {
            file: file.to_owned(),
            expected: announced,
            found,
        });
    }
    // Large files are named by their SHA-256, small ones by a Git hash of 40 digits.
    let name = blob.file_name().unwrap_or_default().to_string_lossy();
    if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let found = sha256_file(&blob)?;
        if !found.eq_ignore_ascii_case(&name) {
            return Err(HubError::Checksum {
                file: file.to_owned(),
                expected: name.into_owned(),
                found,
            });
        }
    }
    Ok(())
}

/// Takes a damaged file out of the cache; what cannot be removed is found damaged again.
fn discard(path: &Path) {
    if let Ok(blob) = fs::canonicalize(path) {
        let _ = fs::remove_file(blob);
    }
    let _ = fs::remove_file(path);
}

/// Passes the crate's reports on, and keeps the size that it was told.
struct Reporter<'a> {
    file: &'a str,
    done: u64,
    total: &'a mut u64,
    progress: &'a mut dyn FnMut(Progress<'_>),
}

impl hf_hub::api::Progress for Reporter<'_> {
    fn init(&mut self, size: usize, _: &str) {
        self.done = 0;
        *self.total = size as u64;
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        (self.progress)(Progress {
            file: self.file,
            done: self.done,
            total: *self.total,
        });
    }

    fn finish(&mut self) {}
}
