//! The hub client against a small hub on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use reparam_formats::checkpoint::{Checkpoint, sha256_bytes};
use reparam_formats::hub::{HubError, HubOptions, resolve_model, resolve_model_with_progress};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[derive(Debug, Clone)]
struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Close the connection after so many bytes of the body.
    cut_after: Option<usize>,
}

impl Answer {
    fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    fn body(body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            body: body.into(),
            ..Self::default()
        }
    }

    fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;

/// A server on a free port of this machine, which notes all requests.
struct Server {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
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

    fn requests(&self) -> Vec<Request> {
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
    if let (Some((from, to)), 200) = (range, answer.status) {
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
        let end = answer
            .cut_after
            .unwrap_or(answer.body.len())
            .min(answer.body.len());
        stream.write_all(&answer.body[..end]).ok()?;
    }
    stream.flush().ok()
}

/// Describes a repository as the hub's API does.
fn info(files: &[&str]) -> Answer {
    let siblings: Vec<_> = files
        .iter()
        .map(|file| serde_json::json!({"rfilename": file}))
        .collect();
    Answer::body(serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string())
}

/// A small file, which the hub serves itself.
fn small(body: impl Into<Vec<u8>>) -> Answer {
    let body = body.into();
    let etag = &sha256_bytes(&body)[..40];
    let etag = format!("\"{etag}\"");
    Answer::body(body)
        .header("etag", etag)
        .header("x-repo-commit", COMMIT)
}

/// A large file, which is elsewhere.
fn linked(body: &[u8], url: String) -> Answer {
    Answer::status(302)
        .header("location", url)
        .header("x-repo-commit", COMMIT)
        .header("etag", "\"etag-of-the-redirect\"")
        .header("x-linked-etag", format!("\"{}\"", sha256_bytes(body)))
        .header("x-linked-size", body.len().to_string())
}

fn weights() -> Vec<u8> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/stories260K/model.safetensors");
    fs::read(path).unwrap()
}

fn options(server: &Server, cache: &Path) -> HubOptions {
    HubOptions {
        endpoint: server.address.clone(),
        ..HubOptions::new(cache)
    }
}

/// A hub with one model in one file.
fn simple_hub() -> Server {
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

#[test]
fn a_model_is_downloaded_once_into_the_usual_layout() {
    let cache = tempfile::tempdir().unwrap();
    let hub = simple_hub();
    let mut options = options(&hub, cache.path());
    options.token = Some("hf_secret".to_owned());
    assert!(!format!("{options:?}").contains("hf_secret"));

    let mut seen = Vec::new();
    let directory = resolve_model_with_progress("org/tiny", &options, &mut |progress| {
        seen.push((progress.file.to_owned(), progress.done, progress.total));
    })
    .unwrap();
    let root = cache.path().join("models--org--tiny");
    assert_eq!(directory, root.join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(root.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(
        fs::read(directory.join("model.safetensors")).unwrap(),
        weights()
    );
    Checkpoint::open(&directory).unwrap();
    let size = weights().len() as u64;
    assert!(
        seen.contains(&("model.safetensors".to_owned(), size, size)),
        "{seen:?}"
    );
    #[cfg(unix)]
    {
        let link = fs::read_link(directory.join("config.json")).unwrap();
        assert!(link.starts_with("../../blobs"), "{link:?}");
    }
    let leftovers = fs::read_dir(root.join("blobs")).unwrap().filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .path()
            .extension()
            .is_some_and(|end| end == "part")
    });
    assert_eq!(leftovers.count(), 0);

    let requests = hub.requests();
    for request in &requests {
        assert_eq!(request.headers["authorization"], "Bearer hf_secret");
        let is_wanted = ["README", ".bin", ".py"]
            .iter()
            .all(|end| !request.path.contains(end));
        assert!(is_wanted, "{}", request.path);
    }

    // From here on the cache answers, online and offline.
    assert_eq!(resolve_model("org/tiny", &options).unwrap(), directory);
    options.offline = true;
    assert_eq!(resolve_model("org/tiny", &options).unwrap(), directory);
    options.revision = COMMIT.to_owned();
    assert_eq!(resolve_model("org/tiny", &options).unwrap(), directory);
    assert_eq!(hub.requests().len(), requests.len());
    options.revision = "v2".to_owned();
    let error = resolve_model("org/tiny", &options).unwrap_err();
    assert!(matches!(error, HubError::NotCached { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("network"));
}

#[test]
fn without_a_token_none_is_sent() {
    let scratch = tempfile::tempdir().unwrap();
    let hub = simple_hub();
    // Where the login of `huggingface_hub` leaves its token, beside the cache.
    fs::write(scratch.path().join("token"), "hf_of_a_login").unwrap();
    let cache = scratch.path().join("hub");
    resolve_model("org/tiny", &options(&hub, &cache)).unwrap();
    let requests = hub.requests();
    assert!(requests.len() > 3);
    let has_token = |request: &Request| request.headers.contains_key("authorization");
    assert!(!requests.iter().any(has_token));
}

#[test]
fn what_python_downloaded_is_used_offline_and_completed_online() {
    let cache = tempfile::tempdir().unwrap();
    let hub = simple_hub();
    let root = cache.path().join("models--org--tiny");
    let snapshot = root.join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(root.join("refs")).unwrap();
    fs::write(root.join("refs/main"), COMMIT).unwrap();
    fs::write(snapshot.join("config.json"), "{}").unwrap();
    let mut options = options(&hub, cache.path());
    options.offline = true;
    assert!(matches!(
        resolve_model("org/tiny", &options),
        Err(HubError::NotCached { .. })
    ));
    fs::write(snapshot.join("model.safetensors"), weights()).unwrap();
    assert_eq!(resolve_model("org/tiny", &options).unwrap(), snapshot);
    assert!(hub.requests().is_empty());

    // There is no tokenizer, so the hub is asked; if it does not answer, what is there has to do.
    options.offline = false;
    options.endpoint = nobody();
    assert_eq!(resolve_model("org/tiny", &options).unwrap(), snapshot);
    options.endpoint.clone_from(&hub.address);
    assert_eq!(resolve_model("org/tiny", &options).unwrap(), snapshot);
    assert!(snapshot.join("tokenizer.json").is_file());
    assert!(
        hub.requests()
            .iter()
            .all(|request| !request.path.ends_with(".safetensors"))
    );
}

/// A hub whose model is in two shards on another server.
fn sharded_hub(storage: &Server, first: &[u8], second: &[u8]) -> Server {
    let (first, second, base) = (first.to_vec(), second.to_vec(), storage.address.clone());
    let index = r#"{"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}}"#;
    Server::start(
        move |request| match request.path.rsplit('/').next().unwrap() {
            "main" => info(&[
                "config.json",
                "model.safetensors.index.json",
                "m-1.safetensors",
                "m-2.safetensors",
                "extra.safetensors",
            ]),
            "config.json" => small("{}"),
            "model.safetensors.index.json" => small(index),
            "m-1.safetensors" => linked(&first, format!("{base}/1?signature=x")),
            "m-2.safetensors" => linked(&second, format!("{base}/2")),
            _ => Answer::status(404).header("x-error-code", "EntryNotFound"),
        },
    )
}

#[test]
fn shards_come_from_elsewhere_and_go_on_after_a_cut() {
    let cache = tempfile::tempdir().unwrap();
    let first: Vec<u8> = (0..200_000_u32).map(|i| (i % 251) as u8).collect();
    let second = b"second".to_vec();
    let (one, two) = (first.clone(), second.clone());
    let storage = Server::start(move |request| match request.path.as_str() {
        // The first attempt breaks off in the middle.
        "/1?signature=x" if request.headers["range"] == "bytes=0-" => Answer {
            cut_after: Some(70_000),
            ..Answer::body(one.clone())
        },
        "/1?signature=x" => Answer::body(one.clone()),
        _ => Answer::body(two.clone()),
    });
    let hub = sharded_hub(&storage, &first, &second);
    let mut options = options(&hub, cache.path());
    options.token = Some("hf_secret".to_owned());
    let directory = resolve_model("org/big", &options).unwrap();
    assert_eq!(fs::read(directory.join("m-1.safetensors")).unwrap(), first);
    assert_eq!(fs::read(directory.join("m-2.safetensors")).unwrap(), second);
    assert!(!directory.join("extra.safetensors").exists());
    let blob = cache
        .path()
        .join("models--org--big/blobs")
        .join(sha256_bytes(&first));
    assert!(blob.is_file());

    let requests = storage.requests();
    let first_shard = requests
        .iter()
        .filter(|request| request.path.starts_with("/1"));
    let ranges: Vec<_> = first_shard
        .map(|request| request.headers["range"].as_str())
        .collect();
    assert_eq!(ranges, ["bytes=0-0", "bytes=0-", "bytes=70000-"]);
    assert!(
        hub.requests()
            .iter()
            .all(|request| request.headers.contains_key("authorization"))
    );
}

#[test]
fn a_file_that_is_not_what_was_announced_is_thrown_away() {
    let cache = tempfile::tempdir().unwrap();
    let storage = Server::start(|_| Answer::body("tampered"));
    let hub = sharded_hub(&storage, b"original", b"original");
    let options = options(&hub, cache.path());
    for _ in 0..2 {
        match resolve_model("org/big", &options) {
            Err(HubError::Checksum {
                file,
                expected,
                found,
            }) => {
                assert_eq!(file, "m-1.safetensors");
                assert_eq!(expected, sha256_bytes(b"original"));
                assert_eq!(found, sha256_bytes(b"tampered"));
            }
            other => panic!("{other:?}"),
        }
    }
    let mut names: Vec<_> = fs::read_dir(cache.path().join("models--org--big/blobs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    // The small files stay, and the empty lock files of the crate.
    names.retain(|name| name.len() != 40 && !name.ends_with(".lock"));
    assert_eq!(names, [""; 0]);
    assert!(!cache.path().join("models--org--big/refs/main").exists());
}

/// Resolves a model of a hub that gives one answer to everything.
fn resolve_against(answer: Answer, token: Option<&str>) -> (HubError, usize) {
    let cache = tempfile::tempdir().unwrap();
    let hub = Server::start(move |_| answer.clone());
    let mut options = options(&hub, cache.path());
    options.token = token.map(str::to_owned);
    (
        resolve_model("org/none", &options).unwrap_err(),
        hub.requests().len(),
    )
}

#[test]
fn the_hubs_refusals_are_told_apart() {
    let coded = |status, code: &str| Answer::status(status).header("x-error-code", code);
    let (error, n) = resolve_against(Answer::status(401), None);
    assert!(
        matches!(
            error,
            HubError::Denied {
                status: 401,
                had_token: false,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.hint().unwrap().contains("token"));
    assert_eq!(n, 1);
    let (error, _) = resolve_against(coded(403, "GatedRepo"), Some("t"));
    assert!(
        matches!(
            error,
            HubError::Denied {
                status: 403,
                had_token: true,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.hint().unwrap().contains("licence"));
    let (error, _) = resolve_against(coded(401, "RepoNotFound"), Some("t"));
    assert!(matches!(error, HubError::NotFound { .. }), "{error:?}");
    let (error, _) = resolve_against(coded(404, "RepoNotFound"), None);
    assert!(matches!(error, HubError::NotFound { .. }), "{error:?}");
    let (error, _) = resolve_against(coded(404, "RevisionNotFound"), None);
    assert!(
        matches!(&error, HubError::NotInRepository { what: "revision", name, .. } if name == "main")
    );
    let (error, n) = resolve_against(Answer::status(429), None);
    assert!(
        matches!(error, HubError::Status { status: 429, .. }),
        "{error:?}"
    );
    assert_eq!(n, 1);
    let (error, _) = resolve_against(Answer::status(503), None);
    assert!(
        matches!(error, HubError::Status { status: 503, .. }),
        "{error:?}"
    );
    assert!(error.hint().unwrap().contains("later"));
}

/// A hub that describes `org/odd` and answers all requests for its files in one way.
fn resolve_with_files(answer: Answer) -> HubError {
    let cache = tempfile::tempdir().unwrap();
    let hub = Server::start(move |request| match request.path.starts_with("/api") {
        true => info(&["config.json", "model.safetensors"]),
        false => answer.clone(),
    });
    let error = resolve_model("org/odd", &options(&hub, cache.path())).unwrap_err();
    assert!(!cache.path().join("models--org--odd/refs/main").exists());
    error
}

#[test]
fn refusals_and_oddities_of_files_are_told_apart() {
    let error = resolve_with_files(Answer::status(404));
    assert!(
        matches!(&error, HubError::NotInRepository { what: "file", name, .. } if name == "config.json"),
        "{error:?}"
    );
    let error = resolve_with_files(Answer::status(403));
    assert!(
        matches!(error, HubError::Denied { status: 403, .. }),
        "{error:?}"
    );
    let error = resolve_with_files(Answer::body("{}"));
    assert!(
        matches!(&error, HubError::BadAnswer { detail, .. } if detail.contains("config.json")),
        "{error:?}"
    );
    // The file of another commit than the one that was asked for.
    let other = "f".repeat(40);
    let other = Answer::body("{}")
        .header("etag", "\"e\"")
        .header("x-repo-commit", &other);
    let error = resolve_with_files(other);
    assert!(
        matches!(&error, HubError::BadAnswer { detail, .. } if detail.contains(COMMIT)),
        "{error:?}"
    );
}

/// Leaves a partial download of `config.json`, which is `{}`, in an empty cache.
fn cache_with_partial(text: &str) -> (tempfile::TempDir, PathBuf) {
    let cache = tempfile::tempdir().unwrap();
    let blobs = cache.path().join("models--org--tiny/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let partial = blobs.join(format!("{}.part", &sha256_bytes(b"{}")[..40]));
    fs::write(&partial, text).unwrap();
    (cache, partial)
}

#[test]
fn partial_downloads_are_gone_on_with_or_named() {
    let hub = simple_hub();
    let (cache, _) = cache_with_partial("{");
    let directory = resolve_model("org/tiny", &options(&hub, cache.path())).unwrap();
    assert_eq!(
        fs::read_to_string(directory.join("config.json")).unwrap(),
        "{}"
    );

    let (cache, partial) = cache_with_partial("{} and more");
    let error = resolve_model("org/tiny", &options(&hub, cache.path())).unwrap_err();
    assert!(matches!(error, HubError::Partial { .. }), "{error:?}");
    let pattern = partial.with_file_name("*.part");
    assert!(error.hint().unwrap().contains(pattern.to_str().unwrap()));

    // Nothing is missing, and the crate fetches the file once more and appends it.
    let (cache, _) = cache_with_partial("{}");
    let options = options(&hub, cache.path());
    let error = resolve_model("org/tiny", &options).unwrap_err();
    assert!(
        matches!(
            error,
            HubError::Size {
                expected: 2,
                found: 4,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.hint().unwrap().contains("again"));
    let directory = resolve_model("org/tiny", &options).unwrap();
    assert_eq!(
        fs::read_to_string(directory.join("config.json")).unwrap(),
        "{}"
    );
}

#[test]
fn answers_that_are_no_hubs_are_refused() {
    for answer in [
        Answer::body("<html>"),
        Answer::body(r#"{"sha":"../../etc"}"#),
    ] {
        let (error, _) = resolve_against(answer, None);
        assert!(matches!(error, HubError::BadAnswer { .. }), "{error:?}");
    }
    for (files, pickles) in [
        (&["config.json", "pytorch_model.bin"][..], true),
        (&["config.json"][..], false),
    ] {
        let (error, n) = resolve_against(info(files), None);
        assert!(
            matches!(error, HubError::NoSafetensors { has_pickles, .. } if has_pickles == pickles)
        );
        assert_eq!(n, 1);
    }
}

#[test]
fn a_renamed_repository_is_followed() {
    let cache = tempfile::tempdir().unwrap();
    let hub = Server::start(|request| {
        let moved = request.path.replace("/old/", "/org/");
        if request.path != moved {
            Answer::status(307).header("location", moved)
        } else if moved.starts_with("/api") {
            info(&["config.json", "model.safetensors"])
        } else {
            small("{}")
        }
    });
    let directory = resolve_model("old/tiny", &options(&hub, cache.path())).unwrap();
    assert!(directory.starts_with(cache.path().join("models--old--tiny")));
    assert!(directory.join("config.json").is_file());
}

/// The address of a port that was free a moment ago and on which nobody listens.
fn nobody() -> String {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", free.local_addr().unwrap())
}

#[test]
fn an_unreachable_hub_is_a_network_error() {
    let cache = tempfile::tempdir().unwrap();
    let mut options = HubOptions::new(cache.path());
    options.endpoint = nobody();
    let error = resolve_model("org/tiny", &options).unwrap_err();
    assert!(matches!(error, HubError::Network { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("network"));
    for endpoint in ["", "huggingface.co", "not an address", "ftp://hub"] {
        options.endpoint = endpoint.to_owned();
        let error = resolve_model("org/tiny", &options).unwrap_err();
        assert!(matches!(error, HubError::Network { .. }), "{error:?}");
    }
}

#[test]
fn directories_are_used_as_they_are_and_mistyped_ones_are_guessed() {
    let scratch = tempfile::tempdir().unwrap();
    let model = scratch.path().join("stories260K");
    fs::create_dir(&model).unwrap();
    fs::create_dir(scratch.path().join("unrelated")).unwrap();
    let mut options = HubOptions::new(scratch.path().join("cache"));
    options.offline = true;
    assert_eq!(
        resolve_model(model.to_str().unwrap(), &options).unwrap(),
        model
    );

    let mistyped = scratch.path().join("stories26K");
    match resolve_model(mistyped.to_str().unwrap(), &options) {
        Err(error @ HubError::NoSuchModel { .. }) => {
            assert!(
                error.hint().unwrap().contains(model.to_str().unwrap()),
                "{error:?}"
            );
        }
        other => panic!("{other:?}"),
    }
    for path in [
        "./no",
        "../no",
        "a/b/c",
        "no\\where",
        "~/no",
        "/no/such",
        "no/",
        "..",
    ] {
        let result = resolve_model(path, &options);
        let is_right = path == ".." || matches!(result, Err(HubError::NoSuchModel { .. }));
        assert!(is_right, "{path}: {result:?}");
    }
    let file = scratch.path().join("file");
    fs::write(&file, "").unwrap();
    let result = resolve_model(file.to_str().unwrap(), &options);
    assert!(
        matches!(result, Err(HubError::NoSuchModel { .. })),
        "{result:?}"
    );
    for id in [
        "",
        "org/",
        "a b",
        "org/na:me",
        "-x/y",
        "x/y-",
        "a--b",
        "org/a..b",
    ] {
        let result = resolve_model(id, &options);
        assert!(
            matches!(
                result,
                Err(HubError::InvalidId { .. } | HubError::NoSuchModel { .. })
            ),
            "{id}: {result:?}"
        );
    }
    for id in ["gpt2", "org/name", "Qwen/Qwen2.5-0.5B", "a_b/c.d"] {
        let result = resolve_model(id, &options);
        assert!(
            matches!(result, Err(HubError::NotCached { .. })),
            "{id}: {result:?}"
        );
    }
    for revision in ["", "../x", "a b", "a//b", "."] {
        options.revision = revision.to_owned();
        let result = resolve_model("org/name", &options);
        assert!(
            matches!(result, Err(HubError::InvalidRevision { .. })),
            "{revision}: {result:?}"
        );
    }
}
