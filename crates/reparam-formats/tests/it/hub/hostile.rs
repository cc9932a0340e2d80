//! Hubs and caches that lie, stall, or ask for what is not theirs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use reparam_formats::checkpoint::sha256_bytes;
use reparam_formats::hub::{HubError, HubOptions, resolve_model, resolve_model_with_progress};

use super::server::{Answer, COMMIT, Server, described, info, linked, options, simple_hub, small};

/// Every file below a directory.
fn files(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(files(&path));
        } else {
            found.insert(path);
        }
    }
    found
}

/// A cache three levels deep, and a file beside it that nobody may touch.
struct Cage {
    scratch: tempfile::TempDir,
    cache: PathBuf,
    victim: PathBuf,
}

impl Cage {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let victim = scratch.path().join("victim");
        fs::write(&victim, "mine").unwrap();
        Self {
            cache: scratch.path().join("a/b/hub"),
            victim,
            scratch,
        }
    }

    /// Asserts that nothing was written beside the cache.
    fn check(&self) {
        assert_eq!(fs::read_to_string(&self.victim).unwrap(), "mine");
        let outside = files(self.scratch.path());
        let outside = outside.iter().filter(|path| !path.starts_with(&self.cache));
        assert_eq!(outside.collect::<Vec<_>>(), [&self.victim]);
    }
}

/// A hub that describes one model and answers for its files with `answer`.
fn hub_of(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Server {
    Server::start(move |request| match request.path.rsplit_once('/') {
        Some((_, "main")) => info(&["config.json", "model.safetensors"]),
        Some((_, file)) => answer(file),
        None => Answer::status(404),
    })
}

#[test]
fn an_etag_is_no_path() {
    let cage = Cage::new();
    let victim = cage.victim.to_str().unwrap().to_owned();
    for etag in [&victim, "../../../PWN", "..", "a/b", "C:\\x", "e-1"] {
        let quoted = format!("\"{etag}\"");
        let hub = hub_of(move |file| described(file, &quoted));
        let _ = fs::remove_dir_all(&cage.cache);
        let directory = resolve_model("org/tiny", &options(&hub, &cage.cache)).unwrap();
        cage.check();
        // Both files have it, and each its own content.
        for file in ["config.json", "model.safetensors"] {
            assert_eq!(fs::read_to_string(directory.join(file)).unwrap(), file);
        }
        let config = fs::canonicalize(directory.join("config.json")).unwrap();
        let blobs = fs::canonicalize(cage.cache.join("models--org--tiny/blobs")).unwrap();
        assert_eq!(config.parent().unwrap(), blobs);
    }
}

#[test]
fn a_commit_is_no_path() {
    for sha in ["../../../../CMT", "", "main", &"/".repeat(40)] {
        let cage = Cage::new();
        let (of_api, of_file) = (sha.to_owned(), sha.to_owned());
        let hub = Server::start(move |_| {
            Answer::body(serde_json::json!({"sha": of_api, "siblings": []}).to_string())
        });
        let error = resolve_model("org/tiny", &options(&hub, &cage.cache)).unwrap_err();
        assert!(matches!(error, HubError::BadAnswer { .. }), "{error:?}");
        let hub = hub_of(move |file| {
            Answer::body(file)
                .header("etag", "\"e\"")
                .header("x-repo-commit", &of_file)
        });
        let error = resolve_model("org/tiny", &options(&hub, &cage.cache)).unwrap_err();
        assert!(matches!(error, HubError::BadAnswer { .. }), "{error:?}");
        cage.check();
    }
}

#[test]
fn names_of_files_are_no_paths() {
    for name in [
        "../../../PWN.safetensors",
        "/PWN.safetensors",
        "a\\b.safetensors",
    ] {
        let cage = Cage::new();
        let index = serde_json::json!({"weight_map": {"a": name}}).to_string();
        let described = serde_json::json!({"sha": COMMIT, "siblings": [
            {"rfilename": "model.safetensors.index.json"}, {"rfilename": name},
            {"rfilename": "../../../../../tokenizer.json"},
        ]});
        let hub = Server::start(move |request| match request.path.rsplit('/').next() {
            Some("main") => Answer::body(described.to_string()),
            Some("model.safetensors.index.json") => small(index.clone()),
            _ => small("{}"),
        });
        let error = resolve_model("org/tiny", &options(&hub, &cage.cache)).unwrap_err();
        assert!(
            error.to_string().contains("is not a plain file name"),
            "{error}"
        );
        cage.check();
    }
}

/// The text of a reference in the cache is as little a path.
#[test]
fn a_reference_is_no_path() {
    let long = format!("{COMMIT}{COMMIT}");
    for text in [
        "../../../elsewhere",
        "/elsewhere",
        "",
        &COMMIT[1..],
        &long,
        "\u{0}",
    ] {
        let cage = Cage::new();
        let elsewhere = cage.scratch.path().join("elsewhere");
        let text = text.replace("/elsewhere", elsewhere.to_str().unwrap());
        let refs = cage.cache.join("models--org--tiny/refs");
        fs::create_dir_all(&refs).unwrap();
        fs::write(refs.join("main"), text).unwrap();
        fs::create_dir_all(&elsewhere).unwrap();
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            fs::write(elsewhere.join(file), "{}").unwrap();
        }
        let mut options = HubOptions::new(&cage.cache);
        options.offline = true;
        let error = resolve_model("org/tiny", &options).unwrap_err();
        assert!(matches!(error, HubError::NotCached { .. }), "{error:?}");
        // The hub knows better.
        let hub = simple_hub();
        options.offline = false;
        options.endpoint.clone_from(&hub.address);
        resolve_model("org/tiny", &options).unwrap();
        assert_eq!(fs::read_to_string(refs.join("main")).unwrap(), COMMIT);
    }
    // A line break is what a text editor leaves.
    let cage = Cage::new();
    let hub = simple_hub();
    let mut options = options(&hub, &cage.cache);
    let directory = resolve_model("org/tiny", &options).unwrap();
    let main = cage.cache.join("models--org--tiny/refs/main");
    fs::write(main, format!("{COMMIT}\n")).unwrap();
    options.offline = true;
    assert_eq!(resolve_model("org/tiny", &options).unwrap(), directory);
}

#[test]
fn the_token_stays_with_the_hub() {
    let weights = b"weights".to_vec();
    let body = weights.clone();
    let storage = Server::start(move |_| Answer::body(body.clone()));
    // Another port is another host; so is another name of this one.
    let by_name = storage.address.replace("127.0.0.1", "localhost");
    for base in [storage.address.clone(), by_name] {
        let cache = tempfile::tempdir().unwrap();
        let weights = weights.clone();
        let hub = Server::start(move |request| {
            // The hub moves its pages, keeps small files, and sends for large ones.
            match request.path.as_str() {
                "/api/models/org/tiny/revision/main" => {
                    Answer::status(307).header("location", "/moved/main")
                }
                "/moved/main" => info(&["config.json", "model.safetensors"]),
                path if path.ends_with("/config.json") => small("{}"),
                _ => linked(&weights, format!("{base}/blob?signature=s3cret")),
            }
        });
        let mut options = options(&hub, cache.path());
        options.token = Some("hf_secret\n".to_owned());
        resolve_model("org/tiny", &options).unwrap();
        assert_eq!(hub.requests().len(), 4);
        for request in hub.requests() {
            assert_eq!(request.headers["authorization"], "Bearer hf_secret");
        }
    }
    assert_eq!(storage.requests().len(), 2);
    for request in storage.requests() {
        assert!(
            !request.headers.contains_key("authorization"),
            "{request:?}"
        );
    }
    let cache = tempfile::tempdir().unwrap();
    let mut options = HubOptions::new(cache.path());
    options.token = Some("hf\nX-Injected: 1".to_owned());
    let error = resolve_model("org/tiny", &options).unwrap_err();
    assert!(matches!(error, HubError::InvalidToken), "{error:?}");
    assert!(!error.to_string().contains("Injected"));
}

/// Once a redirect has left the hub, a way back does not bring the token along.
#[test]
fn a_storage_that_sends_back_gets_no_token() {
    let cache = tempfile::tempdir().unwrap();
    let storage = Server::start(|request| {
        let home = request.path.strip_prefix("/to/").unwrap();
        Answer::status(302).header("location", format!("http://{home}"))
    });
    let away = storage.address.clone();
    let hub = Server::start(move |request| match request.path.as_str() {
        "/private" => Answer::body("weights"),
        path if path.starts_with("/api") => info(&["config.json", "model.safetensors"]),
        path if path.ends_with("config.json") => small("{}"),
        _ => linked(
            b"weights",
            format!("{away}/to/{}/private", request.headers["host"]),
        ),
    });
    let mut options = options(&hub, cache.path());
    options.token = Some("hf_secret".to_owned());
    resolve_model("org/tiny", &options).unwrap();
    let requests = hub.requests();
    let private = requests.iter().filter(|request| request.path == "/private");
    let tokens: Vec<_> = private
        .map(|request| request.headers.get("authorization"))
        .collect();
    assert_eq!(tokens, [None]);
}

#[test]
fn redirects_have_an_end() {
    for location in [
        "/again",
        "file:///etc/passwd",
        "http://user:pass@127.0.0.1/",
        "",
    ] {
        let cache = tempfile::tempdir().unwrap();
        let hub = Server::start(move |_| Answer::status(302).header("location", location));
        let error = resolve_model("org/tiny", &options(&hub, cache.path())).unwrap_err();
        assert!(matches!(error, HubError::BadAnswer { .. }), "{error:?}");
        assert!(hub.requests().len() <= 11);
    }
}

/// A hub of a model whose weights stop coming after 10 bytes, or whose every answer does.
fn silent_hub(everything: bool) -> Server {
    Server::start(move |request| {
        let answer = match request.path.rsplit('/').next() {
            Some("main") => info(&["config.json", "model.safetensors"]),
            Some("config.json") => small("{}"),
            _ => Answer {
                silent_after: Some(10),
                ..small("more than ten bytes")
            },
        };
        Answer {
            silent_after: everything.then_some(0).or(answer.silent_after),
            ..answer
        }
    })
}

#[test]
fn silence_is_given_up() {
    for everything in [true, false] {
        let cache = tempfile::tempdir().unwrap();
        let hub = silent_hub(everything);
        let mut options = options(&hub, cache.path());
        options.timeout = Duration::from_millis(300);
        let start = Instant::now();
        let error = resolve_model("org/tiny", &options).unwrap_err();
        assert!(matches!(error, HubError::Silent { .. }), "{error:?}");
        assert!(
            error.to_string().ends_with("has sent nothing for 0.3 s"),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("run again"));
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    // Nobody answers at all.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let cache = tempfile::tempdir().unwrap();
    let mut options = HubOptions::new(cache.path());
    options.endpoint = format!("http://{}", listener.local_addr().unwrap());
    options.timeout = Duration::from_millis(300);
    let error = resolve_model("org/tiny", &options).unwrap_err();
    assert!(matches!(error, HubError::Silent { .. }), "{error:?}");
}

#[test]
fn a_download_stops_when_asked() {
    for everything in [true, false] {
        let cache = tempfile::tempdir().unwrap();
        let hub = silent_hub(everything);
        let options = options(&hub, cache.path());
        let stop = Arc::clone(&options.stop);
        let asking = thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            stop.store(true, Ordering::Relaxed);
            Instant::now()
        });
        let error = resolve_model("org/tiny", &options).unwrap_err();
        let waited = asking.join().unwrap().elapsed();
        assert!(matches!(error, HubError::Interrupted), "{error:?}");
        assert!(waited < Duration::from_secs(1), "{waited:?}");
    }
}

#[test]
fn sizes_and_digests_have_to_agree() {
    let announced = |size: &str| small("{}").header("x-linked-size", size);
    for (answer, expected) in [
        (announced("3"), "Size"),
        (announced("-1"), "BadAnswer"),
        (announced("99999999999999999999"), "BadAnswer"),
        // 1 EiB of configuration.
        (
            described("{}", "\"e\"").header("x-linked-size", "1152921504606846976"),
            "Size",
        ),
        (
            described("{}", format!("\"{}\"", "a".repeat(40))),
            "Checksum",
        ),
        (
            described("{}", format!("\"{}\"", "a".repeat(64))),
            "Checksum",
        ),
        (described("{}", ""), "BadAnswer"),
        (described("{}", "x".repeat(10_000)), "BadAnswer"),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let hub = hub_of(move |_| answer.clone());
        let error = resolve_model("org/tiny", &options(&hub, cache.path())).unwrap_err();
        let found = format!("{error:?}");
        assert!(found.starts_with(expected), "{expected}: {found}");
        assert!(error.to_string().len() < 1000, "{error}");
        let blobs = cache.path().join("models--org--tiny/blobs");
        let left = fs::read_dir(blobs).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{expected}");
    }
}

/// What some proxies name a file by: its plain SHA-1.
#[test]
fn a_plain_sha1_will_do() {
    let cache = tempfile::tempdir().unwrap();
    // printf '{}' | sha1sum
    let hub = hub_of(|_| described("{}", "\"bf21a9e8fbc5a3846fb05b4fa0859e0917b2202f\""));
    resolve_model("org/tiny", &options(&hub, cache.path())).unwrap();
}

#[test]
fn two_processes_do_not_write_one_file() {
    let cache = tempfile::tempdir().unwrap();
    let body = b"weights".to_vec();
    let etag = sha256_bytes(&body);
    let quoted = format!("\"{etag}\"");
    let hub = hub_of(move |file| match file {
        "config.json" => small("{}"),
        _ => described(body.clone(), &quoted),
    });
    let mut options = options(&hub, cache.path());
    options.timeout = Duration::from_millis(300);
    // Another process has the lock and does nothing.
    let locks = cache.path().join(".locks/models--org--tiny");
    fs::create_dir_all(&locks).unwrap();
    let lock = fs::File::create(locks.join(format!("{etag}.lock"))).unwrap();
    lock.lock().unwrap();
    let error = resolve_model("org/tiny", &options).unwrap_err();
    assert!(matches!(error, HubError::Locked { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("other process"));
    // It ends while we wait.
    options.timeout = Duration::from_secs(60);
    let other = thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        drop(lock);
    });
    resolve_model("org/tiny", &options).unwrap();
    other.join().unwrap();
}

/// Many at once, as runs of a study on several machines with one cache may be.
#[test]
fn many_downloads_of_one_model_get_it_whole() {
    let cache = tempfile::tempdir().unwrap();
    let hub = simple_hub();
    let options = options(&hub, cache.path());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut last = 0;
                resolve_model_with_progress("org/tiny", &options, &mut |progress| {
                    assert!(progress.done <= progress.total);
                    last = progress.done;
                })
                .unwrap();
            });
        }
    });
    let blobs = cache.path().join("models--org--tiny/blobs");
    assert_eq!(fs::read_dir(blobs).unwrap().count(), 3);
}
