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

/// What is chosen of files, without the ends of their names.
fn chosen(within: Option<&str>, files: &[&str]) -> Result<Vec<String>, HubError> {
    let files: Vec<String> = files.iter().map(|file| format!("{file}.parquet")).collect();
    let asked = Address {
        id: "a/b".to_owned(),
        revision: Some("v1".to_owned()),
        within: within.map(str::to_owned),
    };
    let chosen = training_files(&asked, &files)?.into_iter();
    Ok(chosen
        .map(|file| file.trim_end_matches(".parquet").to_owned())
        .collect())
}

#[test]
fn the_files_of_training_are_told_by_their_names() {
    type Case<'a> = (Option<&'a str>, &'a [&'a str], &'a [&'a str]);
    let splits: &[&str] = &[
        "data/test_sft-00000-of-00001",
        "data/train_gen-00000-of-00001",
        "data/train_sft-00000-of-00002-0123456789abcdef",
        "data/train_sft-00001-of-00002-0123456789abcdef",
    ];
    let cases: [Case<'_>; 15] = [
        (
            None,
            &[
                "data/test-00000-of-00001",
                "data/train-00001-of-00002",
                "data/train-00000-of-00002",
                "data/train_gen-00000-of-00001",
            ],
            &["data/train-00000-of-00002", "data/train-00001-of-00002"],
        ),
        (
            None,
            &["default/train/0000", "default/validation/0000"],
            &["default/train/0000"],
        ),
        (None, &["a", "b"], &["a", "b"]),
        // A word inside of another one says nothing.
        (None, &["trainers", "latest"], &["latest", "trainers"]),
        (Some("de"), &["en/train", "de/train"], &["de/train"]),
        (Some("en"), &["en/train", "english/train"], &["en/train"]),
        (
            Some("en/test.parquet"),
            &["en/test", "en/train"],
            &["en/test"],
        ),
        (None, &["x/train/0", "x/partial-train/0"], &["x/train/0"]),
        // A folder or the files of a number that say another split.
        (
            Some("en/test"),
            &["en/test/0", "en/test/1", "en/train/0"],
            &["en/test/0", "en/test/1"],
        ),
        (Some("test"), &["test/en/0", "train/en/0"], &["test/en/0"]),
        (Some("data/train_sft"), splits, &splits[2..]),
        (Some("data/test_sft"), splits, &splits[..1]),
        (
            Some("data/test"),
            &["data/test-00000-of-00001", "data/train-00000-of-00001"],
            &["data/test-00000-of-00001"],
        ),
        // The only one that begins with the word.
        (
            None,
            &["train_clean-00000-of-00001", "test-00000-of-00001"],
            &["train_clean-00000-of-00001"],
        ),
        // No number, so no split but by its words.
        (None, &["train-of-0", "test-of-0"], &["train-of-0"]),
    ];
    for (within, files, expected) in cases {
        assert_eq!(chosen(within, files).unwrap(), expected, "{files:?}");
    }
    let error = chosen(None, splits).unwrap_err();
    assert_eq!(
        error.to_string(),
        "hf://datasets/a/b@v1 has no split `train`, but data/train_gen, data/train_sft"
    );
    assert_eq!(
        error.hint().unwrap(),
        "name one of them: hf://datasets/a/b@v1/data/train_gen"
    );
}

#[test]
fn of_several_configurations_one_has_to_be_named() {
    for (within, files, folders) in [
        (None, &["en/train", "de/train/0"][..], ["de", "en"]),
        (
            None,
            &["data/en/train-0", "data/de/train-0"],
            ["data/de", "data/en"],
        ),
        (
            Some("x"),
            &["x/data/en/train-0", "x/de/train-0"],
            ["x/de", "x/data/en"],
        ),
    ] {
        let error = chosen(within, files).unwrap_err();
        let hint = error.hint().unwrap();
        let HubError::SeveralConfigs { configs, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!(configs, folders);
        assert!(
            hint.ends_with(&format!("hf://datasets/a/b@v1/{}", folders[0])),
            "{hint}"
        );
        // What the hint says is found.
        for (folder, file) in folders.iter().zip(files.iter().rev()) {
            assert_eq!(chosen(Some(folder), files).unwrap(), [*file]);
        }
    }
    let error = chosen(None, &["train", "en/train"]).unwrap_err();
    assert!(error.to_string().ends_with("the files in no folder, en"));
    assert!(error.hint().unwrap().ends_with("@v1/en"));
}

#[test]
fn without_files_of_training_there_is_no_data_set() {
    let asked = Address::parse("hf://datasets/a/b").unwrap();
    for files in [
        &["a.csv"][..],
        &["test.parquet"],
        &["x/partial-train/0.parquet"],
        &["../train.parquet"],
        &[],
    ] {
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        let error = training_files(&asked, &files).unwrap_err();
        assert!(matches!(error, HubError::NoParquet { .. }), "{files:?}");
    }
    let parquet = Address::parse("hf://datasets/a/b@~parquet/x").unwrap();
    assert_eq!(parquet.root(), "hf://datasets/a/b@~parquet");
}
