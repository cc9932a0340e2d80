use super::*;

#[test]
fn addresses_are_those_of_the_hubs_file_system() {
    let address = |id: &str, revision: Option<&str>, within: Option<&str>| Address {
        id: id.to_owned(),
        revision: revision.map(str::to_owned),
        within: within.map(str::to_owned),
    };
    for (text, expected) in [
        ("hf://datasets/a/b", Some(address("a/b", None, None))),
        ("hf://datasets/a/b/", Some(address("a/b", None, None))),
        (
            "hf://datasets/a/b@v1/en/x",
            Some(address("a/b", Some("v1"), Some("en/x"))),
        ),
        (
            "hf://datasets/a/b@~parquet",
            Some(address("a/b", Some(CONVERTED), None)),
        ),
        ("hf://datasets/a", None),
        ("hf://a/b", None),
        ("hf://datasets/a/b/../c", None),
        ("hf://datasets/a/b@/c", None),
        ("hf://datasets/a/..", None),
        ("hf://datasets/a/b@../c", None),
        ("datasets/a/b", None),
    ] {
        assert_eq!(Address::parse(text), expected, "{text}");
        assert_eq!(is_dataset(text), text.starts_with("hf:"));
    }
}

#[test]
fn the_files_of_training_are_told_by_their_names() {
    let list = |files: &[&str]| {
        files
            .iter()
            .map(|file| (*file).to_owned())
            .collect::<Vec<_>>()
    };
    let cases: [(&[&str], Option<&str>, &[&str]); 8] = [
        (
            &[
                "README.md",
                "data/test-00000-of-00001.parquet",
                "data/train-00001-of-00002.parquet",
                "data/train-00000-of-00002.parquet",
            ],
            None,
            &[
                "data/train-00000-of-00002.parquet",
                "data/train-00001-of-00002.parquet",
            ],
        ),
        (
            &[
                "default/train/0000.parquet",
                "default/validation/0000.parquet",
            ],
            None,
            &["default/train/0000.parquet"],
        ),
        (
            &["a.parquet", "b.parquet", "c.csv"],
            None,
            &["a.parquet", "b.parquet"],
        ),
        // A word inside of another one says nothing.
        (
            &["trainers.parquet", "latest.parquet"],
            None,
            &["latest.parquet", "trainers.parquet"],
        ),
        (
            &["en/train.parquet", "de/train.parquet"],
            Some("de"),
            &["de/train.parquet"],
        ),
        (
            &["en/train.parquet", "english/train.parquet"],
            Some("en"),
            &["en/train.parquet"],
        ),
        (
            &["en/test.parquet", "en/train.parquet"],
            Some("en/test.parquet"),
            &["en/test.parquet"],
        ),
        (
            &["x/train/0.parquet", "x/partial-train/0.parquet"],
            None,
            &["x/train/0.parquet"],
        ),
    ];
    for (files, within, expected) in cases {
        let found = training_files("a/b", &list(files), within).unwrap();
        assert_eq!(found, list(expected), "{files:?}");
    }
    let error = training_files(
        "a/b",
        &list(&["en/train.parquet", "de/train/0.parquet"]),
        None,
    );
    let error = error.unwrap_err();
    assert!(
        matches!(&error, HubError::SeveralConfigs { configs, .. } if configs[..] == ["de", "en"])
    );
    assert!(
        error.hint().unwrap().contains("hf://datasets/a/b/de"),
        "{error}"
    );
    for files in [
        &["a.csv"][..],
        &["test.parquet"],
        &["x/partial-train/0.parquet"],
        &["../train.parquet"],
        &[],
    ] {
        let error = training_files("a/b", &list(files), None).unwrap_err();
        assert!(matches!(error, HubError::NoParquet { .. }), "{files:?}");
    }
}
