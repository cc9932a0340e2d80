//! The HTTP side: the hub's description of a repository, and its files.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, LOCATION, RANGE};
use ureq::http::{Response, Uri};
use ureq::{Agent, Body, Proxy};

use super::cache::{ModelCache, create_parent, is_commit};
use super::{HubError, HubOptions, Progress, spec};
use crate::FormatError;
use crate::checkpoint::sha256_file;

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 5;
/// How often a request that failed for a passing reason is made again.
const RETRIES: u32 = 2;
/// The largest answer of the hub's API that is read, in bytes.
const MAX_API_BYTES: u64 = 32 << 20;

/// A revision of a repository: its commit and the names of its files.
#[derive(Debug)]
pub(super) struct Repository {
    pub(super) commit: String,
    pub(super) files: Vec<String>,
}

pub(super) struct Client<'a> {
    agent: Agent,
    id: &'a str,
    options: &'a HubOptions,
    /// Scheme, host and port of the hub; the token goes nowhere else.
    endpoint: Uri,
}

/// What the hub says about a file before it is fetched.
struct FileInfo {
    etag: String,
    size: u64,
    /// Where the content is; another host for large files.
    url: String,
}

impl<'a> Client<'a> {
    pub(super) fn new(id: &'a str, options: &'a HubOptions) -> Result<Self, HubError> {
        let bad = |url: &str, detail: String| HubError::Network {
            url: url.to_owned(),
            detail,
        };
        let endpoint: Uri = options.endpoint.parse().map_err(|_| {
            bad(
                &options.endpoint,
                "the endpoint is not a valid address".to_owned(),
            )
        })?;
        if endpoint.authority().is_none() || endpoint.scheme().is_none() {
            let detail = "the endpoint has to begin with https:// or http://".to_owned();
            return Err(bad(&options.endpoint, detail));
        }
        let proxy = match &options.proxy {
            Some(proxy) => {
                let parsed = Proxy::new(proxy);
                // The address may contain a password, so it is not shown.
                Some(parsed.map_err(|error| bad("the proxy", error.to_string()))?)
            }
            None => None,
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy)
            .user_agent(concat!("reparam/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            // A whole checkpoint may take hours; a single read that waits a minute is a dead line.
            .timeout_per_read(Some(Duration::from_secs(60)))
            .build();
        Ok(Self {
            agent: Agent::new_with_config(config),
            id,
            options,
            endpoint,
        })
    }

    /// Asks for the commit and the files of a revision.
    pub(super) fn repository(&self) -> Result<Repository, HubError> {
        #[derive(Deserialize)]
        struct Info {
            sha: String,
            #[serde(default)]
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }

        let url = format!(
            "{}/api/models/{}/revision/{}",
            self.base(),
            self.id,
            escaped(&self.options.revision)
        );
        let (mut response, url) = self.follow("GET", url, 0)?;
        self.check_status(&url, &response)?;
        let body = response
            .body_mut()
            .with_config()
            .limit(MAX_API_BYTES)
            .read_to_vec();
        let body = body.map_err(|error| network(&url, &error))?;
        let bad = |detail: String| HubError::BadAnswer {
            url: url.clone(),
            detail,
        };
        let info: Info = serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?;
        if !is_commit(&info.sha) {
            return Err(bad(format!("'{}' is not a commit", info.sha)));
        }
        let files = info
            .siblings
            .into_iter()
            .map(|sibling| sibling.rfilename)
            .collect();
        Ok(Repository {
            commit: info.sha,
            files,
        })
    }

    /// Brings a file into the cache, unless it is there.
    pub(super) fn fetch(
        &self,
        cache: &ModelCache,
        commit: &str,
        file: &str,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), HubError> {
        if cache.snapshot(commit).join(file).is_file() {
            return Ok(());
        }
        let info = self.file_info(commit, file)?;
        let blob = cache.blob(&info.etag);
        create_parent(&blob)?;
        // Two processes may want the same file; the second waits and finds it done. The lock file
        // stays: removing it would let a third process lock another file of the same name.
        let lock_path = cache.lock_file(&info.etag);
        create_parent(&lock_path)?;
        let lock = File::create(&lock_path)
            .and_then(|lock| lock.lock().map(|()| lock))
            .map_err(|source| FormatError::io("lock", &lock_path, source))?;
        if !blob.is_file() {
            self.download(&info, &blob, file, progress)?;
        }
        drop(lock);
        cache.link(commit, file, &info.etag)?;
        Ok(())
    }

    fn file_info(&self, commit: &str, file: &str) -> Result<FileInfo, HubError> {
        let url = format!(
            "{}/{}/resolve/{commit}/{}",
            self.base(),
            self.id,
            escaped(file)
        );
        // Only redirects within the hub are followed: a renamed repository. A redirect to another
        // host is where the content is, and the answer that has it also describes the file.
        let (response, url) = self.follow("HEAD", url, 0)?;
        let location = header(&response, LOCATION.as_str()).map(str::to_owned);
        if response.status().is_redirection() && location.is_none() {
            let detail = "a redirect without an address".to_owned();
            return Err(HubError::BadAnswer { url, detail });
        }
        if response.status().as_u16() == 404 && error_code(&response) != Some("RepoNotFound") {
            return Err(HubError::NotInRepository {
                id: self.id.to_owned(),
                what: "file",
                name: file.to_owned(),
            });
        }
        if !response.status().is_redirection() {
            self.check_status(&url, &response)?;
        }
        let bad = |detail: &str| HubError::BadAnswer {
            url: url.clone(),
            detail: detail.to_owned(),
        };
        let etag = header(&response, "x-linked-etag")
            .or_else(|| header(&response, ETAG.as_str()))
            .ok_or_else(|| bad("no etag"))?;
        let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if etag.is_empty() || etag.starts_with('.') || !etag.chars().all(is_name) {
            return Err(bad("an etag that cannot be a file name"));
        }
        let size = header(&response, "x-linked-size")
            .or_else(|| header(&response, CONTENT_LENGTH.as_str()))
            .and_then(|size| size.parse().ok())
            .ok_or_else(|| bad("no size"))?;
        Ok(FileInfo {
            etag,
            size,
            url: location.unwrap_or(url),
        })
    }

    /// Downloads into `<etag>.incomplete`, going on where an earlier attempt stopped, and renames
    /// it when size and digest are right.
    fn download(
        &self,
        info: &FileInfo,
        blob: &Path,
        file: &str,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), HubError> {
        let partial = blob.with_file_name(format!("{}.incomplete", info.etag));
        let failed = |source| FormatError::io("write", &partial, source);
        let mut options = File::options();
        let target = options
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&partial);
        let mut target = target.map_err(failed)?;
        let mut attempt = 0;
        loop {
            let mut have = target.seek(SeekFrom::End(0)).map_err(failed)?;
            if have > info.size {
                target.set_len(0).map_err(failed)?;
                have = 0;
            }
            match self.append(info, &mut target, &partial, file, have, progress) {
                Ok(()) => break,
                Err(error) if attempt < RETRIES && is_passing(&error) => {
                    sleep(backoff(attempt));
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
        target.sync_all().map_err(failed)?;
        // Large files are named by their SHA-256, small ones by a Git hash of 40 digits.
        let is_sha256 = info.etag.len() == 64 && info.etag.bytes().all(|b| b.is_ascii_hexdigit());
        if is_sha256 {
            let found = sha256_file(&partial)?;
            if !found.eq_ignore_ascii_case(&info.etag) {
                let _ = fs::remove_file(&partial);
                let expected = info.etag.clone();
                return Err(HubError::Checksum {
                    file: file.to_owned(),
                    expected,
                    found,
                });
            }
        }
        fs::rename(&partial, blob).map_err(failed)?;
        Ok(())
    }

    /// Fetches what is missing after the first `have` bytes.
    fn append(
        &self,
        info: &FileInfo,
        target: &mut File,
        partial: &Path,
        file: &str,
        mut have: u64,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), HubError> {
        let failed = |source| FormatError::io("write", partial, source);
        if have < info.size {
            let (mut response, url) = self.follow_anywhere(info.url.clone(), have)?;
            self.check_status(&url, &response)?;
            let continues = response.status().as_u16() == 206
                && header(&response, CONTENT_RANGE.as_str())
                    .is_some_and(|range| range.starts_with(&format!("bytes {have}-")));
            if have > 0 && !continues {
                // The server sends the whole file again.
                target.set_len(0).map_err(failed)?;
                have = 0;
            }
            target.seek(SeekFrom::Start(have)).map_err(failed)?;
            let mut reader = response.body_mut().as_reader();
            let mut buffer = vec![0; 1 << 18];
            loop {
                let count = match reader.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => {
                        return Err(HubError::Network {
                            url,
                            detail: error.to_string(),
                        });
                    }
                };
                target.write_all(&buffer[..count]).map_err(failed)?;
                have += count as u64;
                progress(Progress {
                    file,
                    done: have,
                    total: info.size,
                });
            }
        }
        if have != info.size {
            return Err(HubError::Size {
                file: file.to_owned(),
                expected: info.size,
                found: have,
            });
        }
        Ok(())
    }

    fn base(&self) -> &str {
        self.options.endpoint.trim_end_matches('/')
    }

    /// Makes a request and follows redirects that stay on the hub.
    fn follow(
        &self,
        method: &'static str,
        mut url: String,
        from: u64,
    ) -> Result<(Response<Body>, String), HubError> {
        for _ in 0..=MAX_REDIRECTS {
            let response = self.request(method, &url, from)?;
            if !response.status().is_redirection() {
                return Ok((response, url));
            }
            match header(&response, LOCATION.as_str()).map(|location| resolve(&url, location)) {
                Some(Some(next)) if self.is_on_hub(&next) => url = next,
                _ => return Ok((response, url)),
            }
        }
        Err(HubError::BadAnswer {
            url,
            detail: "too many redirects".to_owned(),
        })
    }

    /// Makes a request for content and follows redirects wherever they lead.
    fn follow_anywhere(
        &self,
        mut url: String,
        from: u64,
    ) -> Result<(Response<Body>, String), HubError> {
        for _ in 0..=MAX_REDIRECTS {
            let (response, last) = self.follow("GET", url, from)?;
            if !response.status().is_redirection() {
                return Ok((response, last));
            }
            let location = header(&response, LOCATION.as_str());
            let next = location.and_then(|location| resolve(&last, location));
            url = next.ok_or_else(|| HubError::BadAnswer {
                url: last,
                detail: "a redirect without a valid address".to_owned(),
            })?;
        }
        Err(HubError::BadAnswer {
            url,
            detail: "too many redirects".to_owned(),
        })
    }

    /// Makes one request, and makes it again after a passing failure.
    fn request(
        &self,
        method: &'static str,
        url: &str,
        from: u64,
    ) -> Result<Response<Body>, HubError> {
        let mut attempt = 0;
        loop {
            let mut request = match method {
                "HEAD" => self.agent.head(url),
                _ => self.agent.get(url),
            };
            if let Some(token) = &self.options.token
                && self.is_on_hub(url)
            {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            let result = request.call().map_err(|error| network(url, &error));
            let is_passing = match &result {
                Ok(response) => matches!(response.status().as_u16(), 500 | 502 | 503 | 504),
                Err(error) => is_passing(error),
            };
            if !is_passing || attempt == RETRIES {
                return result;
            }
            sleep(backoff(attempt));
            attempt += 1;
        }
    }

    fn is_on_hub(&self, url: &str) -> bool {
        url.parse::<Uri>().is_ok_and(|uri| {
            uri.scheme() == self.endpoint.scheme() && uri.authority() == self.endpoint.authority()
        })
    }

    fn check_status(&self, url: &str, response: &Response<Body>) -> Result<(), HubError> {
        let status = response.status().as_u16();
        let id = self.id.to_owned();
        let not_found = |id| HubError::NotFound {
            id,
            endpoint: self.options.endpoint.clone(),
            nearest: spec::nearest(self.id),
        };
        let had_token = self.options.token.is_some();
        Err(match (status, error_code(response)) {
            (200..=299, _) => return Ok(()),
            // The hub hides what it does not show: without a token a missing model is a 401.
            (401, Some("RepoNotFound")) if had_token => not_found(id),
            (401 | 403, _) => HubError::Denied {
                id,
                status,
                had_token,
            },
            (404, Some("RevisionNotFound")) => HubError::NotInRepository {
                id,
                what: "revision",
                name: self.options.revision.clone(),
            },
            (404, _) => not_found(id),
            _ => HubError::Status {
                url: url.to_owned(),
                status,
            },
        })
    }
}

fn header<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok()
}

fn error_code(response: &Response<Body>) -> Option<&str> {
    header(response, "x-error-code")
}

fn network(url: &str, error: &ureq::Error) -> HubError {
    HubError::Network {
        url: url.to_owned(),
        detail: error.to_string(),
    }
}

/// Returns whether a failure may pass by itself.
fn is_passing(error: &HubError) -> bool {
    matches!(error, HubError::Network { .. } | HubError::Size { .. })
}

fn backoff(attempt: u32) -> Duration {
    Duration::from_millis(300 << (2 * attempt))
}

/// Returns the address that a redirect from `url` leads to.
fn resolve(url: &str, location: &str) -> Option<String> {
    if location.contains("://") {
        return Some(location.to_owned());
    }
    let uri: Uri = url.parse().ok()?;
    let origin = format!("{}://{}", uri.scheme_str()?, uri.authority()?);
    if let Some(rest) = location.strip_prefix("//") {
        return Some(format!("{}://{rest}", uri.scheme_str()?));
    }
    location
        .starts_with('/')
        .then(|| format!("{origin}{location}"))
}

/// Escapes what is not allowed in one part of an address; a slash too.
fn escaped(part: &str) -> String {
    let mut text = String::new();
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}
