//! Requests that neither wait for ever nor keep from stopping.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use ureq::http::response::Parts;
use ureq::http::{HeaderMap, Request, Uri};
use ureq::{Agent, Timeout};

/// How often a wait looks whether it has to stop.
pub(super) const GLANCE: Duration = Duration::from_millis(50);
/// How much of a body is passed on at once, in bytes.
const PIECE: usize = 256 << 10;
/// How many pieces may wait to be written.
const PIECES: usize = 4;

/// Why a request or its body ended early.
#[derive(Debug)]
pub(super) enum HttpError {
    /// The caller was asked to stop.
    Stopped,
    /// Nothing came for as long as may be waited.
    Silent,
    /// Connection or protocol failed.
    Failed(String),
}

/// Makes requests, one after the other, over connections that are kept.
pub(super) struct Http {
    agent: Agent,
    stop: Arc<AtomicBool>,
}

impl Http {
    /// `timeout` is how long nothing may come: while connecting, before the answer, and within it.
    pub(super) fn new(timeout: Duration, stop: Arc<AtomicBool>) -> Self {
        let timeout = Some(timeout);
        let config = Agent::config_builder()
            // Who gets the token is decided for each address.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("reparam/", env!("CARGO_PKG_VERSION")))
            // Sizes and ranges are those of the file.
            .accept_encoding("identity;q=1, *;q=0")
            .timeout_resolve(timeout)
            .timeout_connect(timeout)
            .timeout_recv_response(timeout)
            .timeout_per_read(timeout)
            .timeout_per_write(timeout)
            .build();
        Self {
            agent: config.new_agent(),
            stop,
        }
    }

    /// Asks for an address, and returns as soon as the head of the answer is there.
    ///
    /// A thread of its own waits for the network, since such a wait cannot be broken off. It ends with the body, or, left
    /// alone by a drop of the [`Response`], after at most another timeout.
    pub(super) fn get(&self, uri: &Uri, headers: HeaderMap) -> Result<Response, HttpError> {
        let mut request = Request::get(uri)
            .body(())
            .map_err(|error| HttpError::Failed(error.to_string()))?;
        *request.headers_mut() = headers;
        let agent = self.agent.clone();
        let (answer, head) = mpsc::sync_channel(1);
        let (sender, pieces) = mpsc::sync_channel(PIECES);
        thread::Builder::new()
            .name("hub".to_owned())
            .spawn(move || exchange(&agent, request, &answer, &sender))
            .map_err(|error| HttpError::Failed(error.to_string()))?;
        let head = wait(&head, &self.stop)?;
        Ok(Response {
            head: head.unwrap_or_else(|| Err(unexplained()))?,
            pieces,
            stop: Arc::clone(&self.stop),
        })
    }
}

/// An answer: its head, and a body that is still coming.
pub(super) struct Response {
    pub(super) head: Parts,
    pieces: Receiver<Result<Vec<u8>, HttpError>>,
    stop: Arc<AtomicBool>,
}

impl Response {
    /// Waits for the next bytes of the body; `None` at its end.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, HttpError> {
        match wait(&self.pieces, &self.stop)? {
            None => Err(unexplained()),
            Some(Ok(piece)) if piece.is_empty() => Ok(None),
            Some(piece) => piece.map(Some),
        }
    }

    /// Reads the whole body, which must not be longer than `limit` bytes.
    pub(super) fn read(mut self, limit: usize) -> Result<Vec<u8>, HttpError> {
        let mut body = Vec::new();
        while let Some(piece) = self.next()? {
            if body.len() + piece.len() > limit {
                return Err(HttpError::Failed(format!("more than {limit} bytes came")));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// Returns a header, if it is there once and is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.head.headers.get_all(name).iter();
        let value = values.next()?;
        values.next().is_none().then_some(value)?.to_str().ok()
    }
}

/// Waits for the other thread; `None` if it has gone.
fn wait<T>(receiver: &Receiver<T>, stop: &AtomicBool) -> Result<Option<T>, HttpError> {
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(HttpError::Stopped);
        }
        match receiver.recv_timeout(GLANCE) {
            Ok(value) => return Ok(Some(value)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
}

/// Makes the request, and passes on what comes for as long as somebody wants it; an empty piece is the end.
fn exchange(
    agent: &Agent,
    request: Request<()>,
    answer: &SyncSender<Result<Parts, HttpError>>,
    pieces: &SyncSender<Result<Vec<u8>, HttpError>>,
) {
    let (head, body) = match agent.run(request) {
        Ok(response) => response.into_parts(),
        Err(error) => {
            // An error that nobody waits for is nobody's.
            let _ = answer.send(Err(failure(error)));
            return;
        }
    };
    if answer.send(Ok(head)).is_err() {
        return;
    }
    let mut reader = body.into_reader();
    loop {
        let mut piece = vec![0; PIECE];
        let read = reader.read(&mut piece);
        let read = read.map_err(|error| failure(ureq::Error::from(error)));
        let is_last = !matches!(read, Ok(1..));
        let piece = read.map(|length| {
            piece.truncate(length);
            piece
        });
        if pieces.send(piece).is_err() || is_last {
            return;
        }
    }
}

fn failure(error: ureq::Error) -> HttpError {
    match error {
        ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
            HttpError::Failed("connecting takes too long".to_owned())
        }
        ureq::Error::Timeout(_) => HttpError::Silent,
        error => HttpError::Failed(error.to_string()),
    }
}

/// The other thread ended without a word, which only a panic of a dependency explains.
fn unexplained() -> HttpError {
    HttpError::Failed("the connection was given up".to_owned())
}
