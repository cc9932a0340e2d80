//! A small hub on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use reparam_formats::checkpoint::sha256_bytes;
use reparam_formats::hub::HubOptions;
use sha1::{Digest as _, Sha1};

pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// Close the connection after so many bytes of the body.
    pub(super) cut_after: Option<usize>,
    /// Send everything, whatever part is asked for.
    pub(super) ignores_ranges: bool,
    /// Say nothing more after so many bytes of the body, and keep the connection.
    pub(super) silent_after: Option<usize>,
}

impl Answer {
    pub(super) fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub(super) fn body(body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            body: body.into(),
            ..Self::default()
        }
    }

    pub(super) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;

/// A server on a free port of this machine, which notes all requests.
pub(super) struct Server {
    pub(super) address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub(super) fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let handler: Arc<Handler> = Arc::new(handler);
        let log = Arc::clone(&requests);
        // The thread ends with the test process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (handler, log) = (Arc::clone(&handler), Arc::clone(&log));
                thread::spawn(move || serve(stream, &*handler, &log));
            }
        });
        Self { address, requests }
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

/// Answers one request and closes the connection.
fn serve(mut stream: TcpStream, handler: &Handler, log: &Mutex<Vec<Request>>) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(": ") else {
            break;
        };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let request = Request {
        method,
        path,
        headers,
    };
    let mut answer = handler(&request);
    let range = request.headers.get("range").and_then(|range| {
        let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((from.parse::<usize>().ok()?, to.parse::<usize>().ok()))
    });
    log.lock().unwrap().push(request.clone());
    if let (Some((from, to)), 200, false) = (range, answer.status, answer.ignores_ranges) {
        let total = answer.body.len();
        if from < total {
            let last = to.unwrap_or(total - 1).min(total - 1);
            answer.status = 206;
            answer = answer.header("content-range", format!("bytes {from}-{last}/{total}"));
            answer.body = answer.body[from..=last].to_vec();
        } else {
            answer = Answer::status(416);
        }
    }
    let mut head = format!(
        "HTTP/1.1 {} x\r\nconnection: close\r\ncontent-length: {}\r\n",
        answer.status,
        answer.body.len()
    );
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    if request.method != "HEAD" {
        let all = answer.body.len();
        let end = answer.cut_after.or(answer.silent_after).unwrap_or(all);
        stream.write_all(&answer.body[..end.min(all)]).ok()?;
    }
    stream.flush().ok()?;
    if answer.silent_after.is_some() {
        // Until the other side gives up.
        let _ = stream.read(&mut [0; 1]);
    }
    Some(())
}

/// Describes a repository as the hub's API does.
pub(super) fn info(files: &[&str]) -> Answer {
    info_at(COMMIT, files)
}

/// The same at another commit.
pub(super) fn info_at(commit: &str, files: &[&str]) -> Answer {
    let siblings: Vec<_> = files
        .iter()
        .map(|file| serde_json::json!({"rfilename": file}))
        .collect();
    Answer::body(serde_json::json!({"sha": commit, "siblings": siblings}).to_string())
}

/// What Git calls a file: 40 hexadecimal digits.
pub(super) fn git_hash(body: &[u8]) -> String {
    let header = format!("blob {}\0", body.len());
    let hash = Sha1::new_with_prefix(header).chain_update(body).finalize();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A small file, which the hub serves itself.
pub(super) fn small(body: impl Into<Vec<u8>>) -> Answer {
    let body = body.into();
    let etag = format!("\"{}\"", git_hash(&body));
    described(body, etag)
}

/// The same at another commit.
pub(super) fn small_at(commit: &str, body: impl Into<Vec<u8>>) -> Answer {
    let body = body.into();
    let etag = format!("\"{}\"", git_hash(&body));
    Answer::body(body)
        .header("etag", etag)
        .header("x-repo-commit", commit)
}

/// A file that the hub serves itself, under this `ETag`.
pub(super) fn described(body: impl Into<Vec<u8>>, etag: impl Into<String>) -> Answer {
    Answer::body(body)
        .header("etag", etag)
        .header("x-repo-commit", COMMIT)
}

/// A large file, which is elsewhere.
pub(super) fn linked(body: &[u8], url: String) -> Answer {
    Answer::status(302)
        .header("location", url)
        .header("x-repo-commit", COMMIT)
        .header("etag", "\"etag-of-the-redirect\"")
        .header("x-linked-etag", format!("\"{}\"", sha256_bytes(body)))
        .header("x-linked-size", body.len().to_string())
}

pub(super) fn weights() -> Vec<u8> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/stories260K/model.safetensors");
    fs::read(path).unwrap()
}

pub(super) fn options(server: &Server, cache: &Path) -> HubOptions {
    HubOptions {
        endpoint: server.address.clone(),
        ..HubOptions::new(cache)
    }
}

/// A hub with one model in one file.
pub(super) fn simple_hub() -> Server {
    Server::start(|request| {
        let file = request
            .path
            .strip_prefix(&format!("/org/tiny/resolve/{COMMIT}/"));
        match (request.path.as_str(), file) {
            ("/api/models/org/tiny/revision/main", _) => info(&[
                "README.md",
                "config.json",
                "model.safetensors",
                "pytorch_model.bin",
                "modeling_tiny.py",
                "tokenizer.json",
            ]),
            (_, Some("config.json")) => small("{}"),
            (_, Some("tokenizer.json")) => small("{\"model\":{}}"),
            (_, Some("model.safetensors")) => small(weights()),
            _ => Answer::status(404).header("x-error-code", "RepoNotFound"),
        }
    })
}

/// The address of a port that was free a moment ago and on which nobody listens.
pub(super) fn nobody() -> String {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", free.local_addr().unwrap())
}
