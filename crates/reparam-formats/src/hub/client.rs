//! What is asked of a hub, and what its answers mean.

use std::fs;
use std::sync::atomic::Ordering;
use std::thread;

use serde::Deserialize;
use ureq::http::header::{AUTHORIZATION, RANGE};
use ureq::http::{HeaderMap, HeaderValue, Uri};

use super::address::{self, Endpoint};
use super::cache::Folder;
use super::http::{GLANCE, Http, HttpError, Response};
use super::names::{Commit, Etag, FileName};
use super::partial::{Lock, NoLock, Partial};
use super::{HubError, HubOptions, Progress, Repository, spec};
use crate::FormatError;
use crate::shown;

/// How often in a row a download that breaks off, or that a server cannot answer just now, is taken up again.
const RETRIES: u32 = 2;
/// An attempt that brings so many bytes is none of them: a large file may break off as often as it likes.
const PROGRESS: u64 = 1 << 20;
/// How many redirects are followed.
const MAX_REDIRECTS: usize = 10;
/// The largest description of a repository that is read, in bytes.
const MAX_INFO: usize = 32 << 20;
/// The largest file beside the weights, in bytes: they are read as a whole, and none comes near.
const MAX_TEXT: u64 = 1 << 30;

/// A repository as the hub describes it.
pub(super) struct Info {
    pub(super) commit: Commit,
    /// The names of its files, to be compared; none becomes a path.
    pub(super) files: Vec<String>,
}

pub(super) struct Client<'a> {
    http: Http,
    endpoint: Endpoint,
    token: Option<HeaderValue>,
    folder: Folder,
    kind: Repository,
    id: &'a str,
    options: &'a HubOptions,
}

/// A file of a commit: what the hub says of it, and the answer that brings it.
struct Located {
    etag: Etag,
    size: u64,
    /// Where its bytes are.
    address: Uri,
    response: Response,
}

impl<'a> Client<'a> {
    pub(super) fn new(
        kind: Repository,
        id: &'a str,
        options: &'a HubOptions,
    ) -> Result<Self, HubError> {
        let endpoint = Endpoint::parse(&options.endpoint).ok_or_else(|| HubError::Network {
            url: options.endpoint.clone(),
            detail: "the endpoint has to begin with https:// or http://".to_owned(),
        })?;
        // A cache that cannot be written is better known before anything is asked for.
        let made = fs::create_dir_all(&options.cache_dir);
        made.map_err(|source| FormatError::io("create", &options.cache_dir, source))?;
        let token = options.token.as_deref().map(str::trim);
        let token = token.map(|token| HeaderValue::from_str(&format!("Bearer {token}")));
        let mut token = token.transpose().map_err(|_| HubError::InvalidToken)?;
        if let Some(token) = &mut token {
            token.set_sensitive(true);
        }
        Ok(Self {
            http: Http::new(options.timeout, options.stop.clone()),
            endpoint,
            token,
            folder: Folder::new(&options.cache_dir, kind, id),
            kind,
            id,
            options,
        })
    }

    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Asks for the commit and the files of the revision.
    pub(super) fn info(&self) -> Result<Info, HubError> {
        #[derive(Deserialize)]
        struct Answer {
            sha: String,
            #[serde(default)]
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let parts = ["api", self.kind.plural()];
        let parts = parts.into_iter().chain(self.id.split('/'));
        let address = self.address(parts.chain(["revision", &self.options.revision]))?;
        let (address, response) = self.walk(address, None, &mut |_| Ok(()))?;
        if response.head.status != 200 {
            return Err(self.refusal(&address, &response, None));
        }
        let body = response.read(MAX_INFO);
        let body = body.map_err(|error| self.failure(&address, error))?;
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|error| self.bad_answer(error.to_string()))?;
        let Some(commit) = Commit::parse(&answer.sha) else {
            return Err(self.bad_answer(format!("'{}' is not a commit", shown(&answer.sha))));
        };
        let files = answer.siblings.into_iter().map(|file| file.rfilename);
        Ok(Info {
            commit,
            files: files.collect(),
        })
    }

    /// Brings a file of a commit into the cache, unless it is there.
    pub(super) fn fetch(
        &self,
        commit: &Commit,
        file: &str,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), HubError> {
        let Some(file) = FileName::parse(file) else {
            return Err(self.bad_answer(format!("'{}' cannot be a file's name", shown(file))));
        };
        if self.folder.pointer(commit, file).is_file() {
            return Ok(());
        }
        let mut failures = 0;
        loop {
            let mut brought = 0;
            let mut report = |piece: u64, report: Progress<'_>| {
                brought += piece;
                progress(report);
            };
            match self.attempt(commit, file, &mut report) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(HubError::Network { .. }) if brought >= PROGRESS => failures = 0,
                Err(
                    HubError::Network { .. }
                    | HubError::Status {
                        status: 500..=599, ..
                    },
                ) if failures < RETRIES => failures += 1,
                Err(error) => return Err(error),
            }
            // A server that starts again needs a moment.
            for _ in 0..4 * failures {
                thread::sleep(GLANCE);
                if self.is_stopped() {
                    return Err(HubError::Interrupted);
                }
            }
        }
    }

    /// Tries to bring a file into the cache; says whether it is there, or whether what an earlier attempt left was wrong and
    /// is gone.
    fn attempt(
        &self,
        commit: &Commit,
        file: FileName<'_>,
        report: &mut dyn FnMut(u64, Progress<'_>),
    ) -> Result<bool, HubError> {
        let located = self.locate(commit, file)?;
        let (etag, size) = (located.etag.clone(), located.size);
        let _lock = self.lock(&etag, file)?;
        let blob = self.folder.blob(&etag);
        // Another revision, or another process meanwhile, may have brought the same content.
        let is_there = fs::metadata(&blob).is_ok_and(|data| data.is_file() && data.len() == size);
        if !is_there {
            let path = self.folder.partial(&etag);
            let partial = Partial::open(path, &etag, size, &|| self.is_stopped())?;
            let mut partial = partial.ok_or(HubError::Interrupted)?;
            let is_begun = partial.length() > 0;
            self.receive(located, file, &mut partial, report)?;
            if let Some(differs) = partial.finish(&blob)? {
                return if is_begun {
                    Ok(false)
                } else {
                    Err(HubError::Checksum {
                        file: file.as_str().to_owned(),
                        expected: differs.expected,
                        found: differs.found,
                    })
                };
            }
        }
        self.folder.place(&etag, commit, file)?;
        Ok(true)
    }

    /// Asks the hub for a file.
    ///
    /// Size and digest are what the hub itself says, not the storage that it may send to.
    fn locate(&self, commit: &Commit, file: FileName<'_>) -> Result<Located, HubError> {
        let bad = |detail: String| self.bad_answer(format!("{}: {detail}", file.as_str()));
        let mut etag = None;
        let mut is_linked = false;
        let mut size = None;
        let mut is_of_commit = false;
        let mut read = |response: &Response| {
            if let Some(found) = response.header("x-repo-commit") {
                if found != commit.as_str() {
                    let wanted = commit.as_str();
                    return Err(bad(format!(
                        "it is of commit '{}', not of {wanted}",
                        shown(found)
                    )));
                }
                is_of_commit = true;
            }
            let linked = response.header("x-linked-etag");
            is_linked |= linked.is_some();
            // The storage may be behind the hub's own address: what it calls the file does not replace the digest.
            let plain = response.header("etag").filter(|_| !is_linked);
            if let Some(named) = linked.or(plain) {
                let parsed = Etag::parse(named, file);
                etag = Some(
                    parsed.ok_or_else(|| bad(format!("'{}' cannot be an ETag", shown(named))))?,
                );
            }
            if let Some(linked) = response.header("x-linked-size") {
                let parsed = linked.parse();
                size = Some(parsed.map_err(|_| bad(format!("'{}' is not a size", shown(linked))))?);
            }
            Ok(())
        };
        let parts = self.page().chain(["resolve", commit.as_str()]);
        let address = self.address(parts.chain(file.parts()))?;
        let (address, response) = self.walk(address, None, &mut read)?;
        if response.head.status != 200 {
            return Err(self.refusal(&address, &response, Some(file)));
        }
        let etag = etag.filter(|_| is_of_commit);
        let etag = etag.ok_or_else(|| bad("ETag or X-Repo-Commit is missing".to_owned()))?;
        let announced = response.header("content-length").map(str::parse::<u64>);
        let found = announced.transpose().ok().flatten();
        let size = size
            .or(found)
            .ok_or_else(|| bad("it has no size".to_owned()))?;
        if let Some(found) = found.filter(|found| *found != size) {
            return Err(self.wrong_size(file, size, found));
        }
        let is_large = self.kind == Repository::Dataset || file.as_str().ends_with(".safetensors");
        if size > MAX_TEXT && !is_large {
            return Err(bad(format!("{size} bytes are too many for such a file")));
        }
        Ok(Located {
            etag,
            size,
            address,
            response,
        })
    }

    fn lock(&self, etag: &Etag, file: FileName<'_>) -> Result<Lock, HubError> {
        let (path, partial) = (self.folder.lock(etag), self.folder.partial(etag));
        let lock = Lock::wait(&path, &partial, self.options.timeout, &|| self.is_stopped());
        lock.map_err(|error| match error {
            NoLock::Stopped => HubError::Interrupted,
            NoLock::File(error) => error.into(),
            NoLock::Held => HubError::Locked {
                file: file.as_str().to_owned(),
                lock: path,
            },
        })
    }

    /// Receives what is missing of a file.
    fn receive(
        &self,
        located: Located,
        file: FileName<'_>,
        partial: &mut Partial,
        report: &mut dyn FnMut(u64, Progress<'_>),
    ) -> Result<(), HubError> {
        let Located {
            etag,
            size,
            mut address,
            mut response,
        } = located;
        let mut tell = |piece: u64, done: u64| {
            let (file, total) = (file.as_str(), size);
            report(piece, Progress { file, done, total });
        };
        tell(0, partial.length());
        if partial.length() == size {
            return Ok(());
        }
        if partial.length() > 0 {
            let begin = partial.length();
            (address, response) = self.walk(address, Some(begin), &mut |_| Ok(()))?;
            match response.head.status.as_u16() {
                206 if begins_at(&response, begin) => {}
                // The whole file, or nothing that can be used: the next attempt gets it.
                200 => partial.clear(&etag, size)?,
                206 | 416 => {
                    partial.clear(&etag, size)?;
                    let detail = "another part came than was asked for".to_owned();
                    return Err(self.failure(&address, HttpError::Failed(detail)));
                }
                _ => return Err(self.refusal(&address, &response, Some(file))),
            }
        }
        loop {
            let piece = response.next();
            match piece.map_err(|error| self.failure(&address, error))? {
                None if partial.length() == size => return Ok(()),
                None => {
                    let detail = format!("{} of {size} bytes came", partial.length());
                    return Err(self.failure(&address, HttpError::Failed(detail)));
                }
                Some(piece) => {
                    let done = partial.length() + piece.len() as u64;
                    if done > size {
                        partial.clear(&etag, size)?;
                        return Err(self.wrong_size(file, size, done));
                    }
                    partial.push(&piece)?;
                    tell(piece.len() as u64, done);
                }
            }
        }
    }

    /// Makes a request and follows where it is sent, from byte `begin` on if that is given.
    ///
    /// The token goes to the hub's own host alone; from the first redirect to another one on, nobody gets it. `read` is shown
    /// the hub's own answers.
    fn walk(
        &self,
        mut address: Uri,
        begin: Option<u64>,
        read: &mut dyn FnMut(&Response) -> Result<(), HubError>,
    ) -> Result<(Uri, Response), HubError> {
        let mut is_own = true;
        for _ in 0..=MAX_REDIRECTS {
            is_own &= self.endpoint.is_origin_of(&address);
            let mut headers = HeaderMap::new();
            if let Some(token) = self.token.as_ref().filter(|_| is_own) {
                headers.insert(AUTHORIZATION, token.clone());
            }
            if let Some(range) = begin.and_then(|n| format!("bytes={n}-").parse().ok()) {
                headers.insert(RANGE, range);
            }
            let response = self.http.get(&address, headers);
            let response = response.map_err(|error| self.failure(&address, error))?;
            if is_own {
                read(&response)?;
            }
            if !matches!(response.head.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok((address, response));
            }
            let location = response.header("location").unwrap_or_default();
            address = address::redirected(&address, location).ok_or_else(|| {
                self.bad_answer(format!(
                    "it redirects to '{}', which is not followed",
                    shown(location)
                ))
            })?;
        }
        Err(self.bad_answer(format!("it redirects more than {MAX_REDIRECTS} times")))
    }

    fn is_stopped(&self) -> bool {
        self.options.stop.load(Ordering::Relaxed)
    }

    fn address<'p>(&self, parts: impl Iterator<Item = &'p str>) -> Result<Uri, HubError> {
        let address = self.endpoint.at(parts);
        address.ok_or_else(|| self.bad_answer("a name is too long for an address".to_owned()))
    }

    /// The path of its page.
    fn page(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let before = self.kind.before_id().into_iter();
        before.chain(self.id.split('/'))
    }

    fn url(&self) -> String {
        let address = self.endpoint.at(self.page());
        address.as_ref().map_or_else(String::new, address::public)
    }

    fn bad_answer(&self, detail: String) -> HubError {
        HubError::BadAnswer {
            url: self.url(),
            detail,
        }
    }

    fn wrong_size(&self, file: FileName<'_>, expected: u64, found: u64) -> HubError {
        HubError::Size {
            file: file.as_str().to_owned(),
            expected,
            found,
        }
    }

    /// Says why there is no answer from an address, or not all of it.
    fn failure(&self, address: &Uri, error: HttpError) -> HubError {
        let url = address::public(address);
        match error {
            HttpError::Stopped => HubError::Interrupted,
            HttpError::Silent => HubError::Silent {
                url,
                timeout: self.options.timeout,
            },
            HttpError::Failed(detail) => HubError::Network { url, detail },
        }
    }

    /// Says what a status means; `file` is that of a file's request.
    fn refusal(&self, address: &Uri, response: &Response, file: Option<FileName<'_>>) -> HubError {
        let id = self.id.to_owned();
        let had_token = self.token.is_some();
        let status = response.head.status.as_u16();
        let code = response.header("x-error-code");
        if !self.endpoint.is_origin_of(address) {
            // What a storage refuses says nothing about the model.
            let url = address::public(address);
            return HubError::Status { url, status };
        }
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
                name: file.as_str().to_owned(),
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
            what: self.kind.name(),
            id: self.id.to_owned(),
            endpoint: self.options.endpoint.clone(),
            nearest: spec::nearest(self.id),
        }
    }
}

/// Returns whether a part of a file begins where it was asked to.
fn begins_at(response: &Response, begin: u64) -> bool {
    let range = response.header("content-range");
    let range = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-'));
    range.is_some_and(|(first, _)| first.parse() == Ok(begin))
}
