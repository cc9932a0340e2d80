//! What a download brings, and where it puts it.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use reparam_formats::checkpoint::{Checkpoint, sha256_bytes};
use reparam_formats::hub::{HubError, resolve_model, resolve_model_with_progress};

use super::server::{
    Answer, COMMIT, Request, Server, described, git_hash, info, linked, nobody, options,
    simple_hub, small, weights,
};

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
            .is_some_and(|end| end == "incomplete")
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
    for answer in [
        Answer::status(503),
        Answer::status(429),
        Answer::body("<html>"),
    ] {
        let broken = Server::start(move |_| answer.clone());
        options.endpoint.clone_from(&broken.address);
        assert_eq!(resolve_model("org/tiny", &options).unwrap(), snapshot);
    }
    // That the model is gone or private is an answer.
    let gone = Server::start(|_| Answer::status(404));
    options.endpoint.clone_from(&gone.address);
    let error = resolve_model("org/tiny", &options).unwrap_err();
    assert!(matches!(error, HubError::NotFound { .. }), "{error:?}");
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
    let attempts = AtomicUsize::new(0);
    let storage = Server::start(move |request| match request.path.as_str() {
        // The first attempt breaks off in the middle.
        "/1?signature=x" if attempts.fetch_add(1, Ordering::Relaxed) == 0 => Answer {
            cut_after: Some(70_000),
            ..Answer::body(one.clone())
        },
        "/1?signature=x" => Answer::body(one.clone()),
        _ => Answer::body(two.clone()),
    });
    let hub = sharded_hub(&storage, &first, &second);
    let options = options(&hub, cache.path());
    let mut seen = Vec::new();
    let directory = resolve_model_with_progress("org/big", &options, &mut |progress| {
        if progress.file == "m-1.safetensors" {
            seen.push((progress.done, progress.total));
        }
    })
    .unwrap();
    assert_eq!(fs::read(directory.join("m-1.safetensors")).unwrap(), first);
    assert_eq!(fs::read(directory.join("m-2.safetensors")).unwrap(), second);
    assert!(!directory.join("extra.safetensors").exists());
    assert!(
        seen.is_sorted() && seen.contains(&(70_000, 200_000)),
        "{seen:?}"
    );
    assert_eq!(seen.last(), Some(&(200_000, 200_000)));
    let blob = cache
        .path()
        .join("models--org--big/blobs")
        .join(sha256_bytes(&first));
    assert!(blob.is_file());

    let requests = storage.requests();
    let ranges = requests
        .iter()
        .filter(|request| request.path.starts_with("/1"))
        .map(|request| request.headers.get("range").map(String::as_str));
    let ranges: Vec<_> = ranges.collect();
    assert_eq!(ranges, [None, None, Some("bytes=70000-")]);
}

/// Two models with one blob, or two revisions of a model, need it once.
#[test]
fn a_blob_that_is_there_is_linked() {
    let cache = tempfile::tempdir().unwrap();
    let hub = simple_hub();
    let options = options(&hub, cache.path());
    let directory = resolve_model("org/tiny", &options).unwrap();
    let blob = fs::canonicalize(directory.join("config.json")).unwrap();
    assert_eq!(blob.file_name().unwrap().to_str().unwrap(), git_hash(b"{}"));
    let before = fs::metadata(&blob).unwrap().modified().unwrap();
    fs::remove_dir_all(&directory).unwrap();
    assert_eq!(resolve_model("org/tiny", &options).unwrap(), directory);
    assert_eq!(
        fs::canonicalize(directory.join("config.json")).unwrap(),
        blob
    );
    assert_eq!(fs::metadata(&blob).unwrap().modified().unwrap(), before);

    // One of another size is not what its name says.
    fs::remove_dir_all(&directory).unwrap();
    fs::write(&blob, "damaged").unwrap();
    resolve_model("org/tiny", &options).unwrap();
    assert_eq!(fs::read_to_string(&blob).unwrap(), "{}");
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
    // The small files stay.
    names.retain(|name| name.len() != 40);
    assert_eq!(names, [""; 0]);
    assert!(!cache.path().join("models--org--big/refs/main").exists());
}

/// The storage may answer under the hub's own address, with an `ETag` of its own.
#[test]
fn a_redirect_to_the_hub_itself_keeps_the_digest() {
    let answer = |body: &'static str| {
        let cache = tempfile::tempdir().unwrap();
        let hub = Server::start(
            move |request| match request.path.rsplit('/').next().unwrap() {
                "main" => info(&["config.json", "model.safetensors"]),
                "config.json" => small("{}"),
                "model.safetensors" => linked(b"original", "/storage/blob".to_owned()),
                _ => described(body, "\"of-the-storage\""),
            },
        );
        let outcome = resolve_model("org/tiny", &options(&hub, cache.path()));
        outcome.map(|directory| fs::read(directory.join("model.safetensors")).unwrap())
    };
    assert_eq!(answer("original").unwrap(), b"original");
    let error = answer("tampered").unwrap_err();
    assert!(matches!(error, HubError::Checksum { .. }), "{error:?}");
}

#[test]
fn a_server_that_cannot_answer_just_now_is_asked_again() {
    let cache = tempfile::tempdir().unwrap();
    let attempts = AtomicUsize::new(0);
    let hub = Server::start(move |request| {
        if request.path.starts_with("/api") {
            info(&["config.json", "model.safetensors"])
        } else if attempts.fetch_add(1, Ordering::Relaxed) < 2 {
            Answer::status(503)
        } else {
            small("{}")
        }
    });
    let options = options(&hub, cache.path());
    let directory = resolve_model("org/tiny", &options).unwrap();
    assert!(directory.join("config.json").is_file());
}

/// The large file of [`resumed`].
fn large() -> Vec<u8> {
    (0..5_000_u32).flat_map(u32::to_le_bytes).collect()
}

/// Downloads a model after an earlier attempt left `partial` of its weights; returns the ranges that were asked for.
fn resumed(partial: &[u8], etag: &str, ignores_ranges: bool) -> Vec<Option<String>> {
    let cache = tempfile::tempdir().unwrap();
    let blobs = cache.path().join("models--org--tiny/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let blob = blobs.join(etag);
    fs::write(blobs.join(format!("{etag}.incomplete")), partial).unwrap();
    let quoted = format!("\"{etag}\"");
    let hub = Server::start(move |request| {
        if request.path.starts_with("/api") {
            info(&["config.json", "model.safetensors"])
        } else if request.path.ends_with("config.json") {
            small("{}")
        } else {
            Answer {
                ignores_ranges,
                ..described(large(), &quoted)
            }
        }
    });
    let directory = resolve_model("org/tiny", &options(&hub, cache.path())).unwrap();
    let weights = directory.join("model.safetensors");
    assert_eq!(fs::read(&weights).unwrap(), large());
    assert_eq!(
        fs::canonicalize(weights).unwrap(),
        fs::canonicalize(blob).unwrap()
    );
    let requests = hub.requests();
    let ranges = requests
        .iter()
        .filter(|request| request.path.ends_with(".safetensors"))
        .map(|request| request.headers.get("range").cloned());
    ranges.collect()
}

#[test]
fn what_an_earlier_attempt_left_is_gone_on_with_if_it_is_right() {
    let (sha, git) = (sha256_bytes(&large()), git_hash(&large()));
    let range = |n: usize| Some(format!("bytes={n}-"));
    for etag in [sha, git] {
        assert_eq!(resumed(&[], &etag, false), [None]);
        assert_eq!(
            resumed(&large()[..7_000], &etag, false),
            [None, range(7_000)]
        );
        // Nothing is missing.
        assert_eq!(resumed(&large(), &etag, false), [None]);
        // Too much, or something else: it begins anew.
        assert_eq!(resumed(&[0; 30_000], &etag, false), [None]);
        let other = resumed(&[0; 7_000], &etag, false);
        assert_eq!(other, [None, range(7_000), None]);
        assert_eq!(resumed(&[0; 20_000], &etag, false), [None, None]);
        // A server without ranges sends the whole.
        let whole = resumed(&large()[..7_000], &etag, true);
        assert_eq!(whole, [None, range(7_000)]);
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
