//! Data sets by their addresses.

use std::fs;

use reparam_formats::hub::{HubError, HubOptions, resolve_dataset};

use super::server::{Answer, COMMIT, Server, info, info_at, options, small, small_at};

/// The commit of what the hub has converted.
const CONVERTED: &str = "fedcba9876543210fedcba9876543210fedcba98";

/// A hub with a data set of two files and one that it has converted.
fn hub() -> Server {
    Server::start(|request| {
        let path = request.path.as_str();
        let own = format!("/datasets/org/rows/resolve/{COMMIT}/");
        let converted = format!("/datasets/org/texts/resolve/{CONVERTED}/");
        if let Some(file) = path.strip_prefix(&own) {
            return small(format!("bytes of {file}"));
        }
        if let Some(file) = path.strip_prefix(&converted) {
            return small_at(CONVERTED, format!("bytes of {file}"));
        }
        match path {
            "/api/datasets/org/rows/revision/main" => info(&[
                "README.md",
                "data/test.parquet",
                "data/train-0.parquet",
                "data/train-1.parquet",
                "../../outside/train.parquet",
            ]),
            "/api/datasets/org/texts/revision/main" => info(&["README.md", "texts.csv"]),
            "/api/datasets/org/texts/revision/refs%2Fconvert%2Fparquet" => {
                let files = ["default/train/0000.parquet", "default/test/0000.parquet"];
                info_at(CONVERTED, &files)
            }
            "/api/datasets/org/plain/revision/main" => info(&["texts.csv"]),
            "/api/datasets/org/plain/revision/refs%2Fconvert%2Fparquet"
            | "/api/datasets/org/rows/revision/refs%2Fconvert%2Fparquet" => {
                Answer::status(404).header("x-error-code", "RevisionNotFound")
            }
            _ => Answer::status(404).header("x-error-code", "RepoNotFound"),
        }
    })
}

fn resolve(address: &str, options: &HubOptions) -> Result<Vec<std::path::PathBuf>, HubError> {
    resolve_dataset(address, options, &mut |_| {})
}

#[test]
fn files_of_training_are_brought_once() {
    let cache = tempfile::tempdir().unwrap();
    let hub = hub();
    let mut options = options(&hub, cache.path());
    // That of a model.
    options.revision = "of-a-model".to_owned();
    for (id, commit, files) in [
        (
            "org/rows",
            COMMIT,
            &["data/train-0.parquet", "data/train-1.parquet"][..],
        ),
        ("org/texts", CONVERTED, &["default/train/0000.parquet"]),
    ] {
        let address = format!("hf://datasets/{id}");
        options.offline = true;
        let error = resolve(&address, &options).unwrap_err();
        assert!(matches!(error, HubError::NotCached { .. }), "{error:?}");
        options.offline = false;
        let found = resolve(&address, &options).unwrap();
        let root = cache
            .path()
            .join(format!("datasets--{}", id.replace('/', "--")));
        let expected = files
            .iter()
            .map(|file| root.join("snapshots").join(commit).join(file));
        assert_eq!(found, expected.collect::<Vec<_>>());
        for (path, file) in found.iter().zip(files) {
            assert_eq!(
                fs::read_to_string(path).unwrap(),
                format!("bytes of {file}")
            );
        }
        // Once it is there, nobody is asked, and nothing but it was.
        let asked = hub.requests().len();
        for offline in [false, true] {
            options.offline = offline;
            assert_eq!(resolve(&address, &options).unwrap(), found);
        }
        assert_eq!(hub.requests().len(), asked);
        // What is missing is brought again.
        options.offline = false;
        fs::remove_file(&found[0]).unwrap();
        assert_eq!(resolve(&address, &options).unwrap(), found);
        assert!(found[0].is_file());
    }
    let requests = hub.requests();
    assert!(
        requests
            .iter()
            .all(|request| !request.path.contains("test"))
    );
    // Another file, by its name.
    let found = resolve("hf://datasets/org/rows/data/test.parquet", &options).unwrap();
    assert_eq!(
        fs::read_to_string(&found[0]).unwrap(),
        "bytes of data/test.parquet"
    );
}

#[test]
fn what_is_no_data_set_is_refused() {
    let cache = tempfile::tempdir().unwrap();
    let hub = hub();
    let options = options(&hub, cache.path());
    type Check = fn(&HubError) -> bool;
    let cases: [(&str, Check); 4] = [
        ("hf://org/rows", |error| {
            matches!(error, HubError::InvalidDataset { .. })
        }),
        ("hf://datasets/org/plain", |error| {
            matches!(error, HubError::NoParquet { .. })
        }),
        ("hf://datasets/org/none", |error| {
            matches!(
                error,
                HubError::NotFound {
                    what: "data set",
                    ..
                }
            )
        }),
        ("hf://datasets/org/rows/data/none", |error| {
            matches!(error, HubError::NoParquet { .. })
        }),
    ];
    for (address, is_expected) in cases {
        let error = resolve(address, &options).unwrap_err();
        assert!(is_expected(&error), "{address}: {error:?}");
        assert!(error.hint().is_some(), "{address}");
    }
    assert!(!cache.path().join("outside").exists());
}
