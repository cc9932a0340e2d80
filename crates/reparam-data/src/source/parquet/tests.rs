use std::fs;
use std::path::PathBuf;

use super::*;
use crate::source::{Format, ReadOptions, read_documents};

mod hostile;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/readers")
}

/// The rows of each file as `datasets` reads them.
fn expected() -> Map<String, Value> {
    let text = fs::read_to_string(golden().join("rows.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    all["rows"].as_object().unwrap().clone()
}

fn read(path: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<(Vec<Value>, FileDigest)> {
    let mut read = Vec::new();
    let digest = rows(path, is_wanted, |row, place| {
        assert_eq!(place.line, read.len() + 1);
        read.push(Value::Object(row?));
        Ok(())
    })?;
    Ok((read, digest))
}

#[test]
fn rows_are_those_of_datasets() {
    let files = expected().into_iter();
    let mut files = files
        .filter(|(name, _)| name.ends_with(".parquet"))
        .peekable();
    assert!(files.peek().is_some());
    for (name, rows) in files {
        let path = golden().join(&name);
        let (read, digest) = read(&path, |_| true).unwrap();
        assert_eq!(Value::Array(read), rows, "{name}");
        assert_eq!(
            digest,
            FileDigest::of(&path, &fs::read(&path).unwrap()),
            "{name}"
        );
    }
}

#[test]
fn columns_that_are_not_wanted_are_read_if_they_are_small() {
    let path = golden().join("nested-zstd.parquet");
    let keys = |wanted: &str| {
        let (rows, _) = read(&path, |name| name == wanted).unwrap();
        rows[0]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    let small = [
        "prompt", "word", "large", "number", "small", "real", "half", "flag", "none",
    ];
    assert_eq!(keys("word"), small);
    assert_eq!(keys("messages"), [&["messages"][..], &small].concat());
    // So that an error can say what is there.
    assert!(keys("missing").contains(&"nested".to_owned()));
}

#[test]
fn texts_are_documents() {
    let path = golden().join("classes.parquet");
    let read = read_documents(std::slice::from_ref(&path), &ReadOptions::default()).unwrap();
    let rows = &expected()["classes.parquet"];
    let texts = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["text"].as_str().unwrap());
    let texts: Vec<&str> = texts.collect();
    let found = read.documents.iter().map(|document| &*document.text);
    assert_eq!(found.collect::<Vec<_>>(), texts);
    assert_eq!(read.report.formats, [Format::Parquet]);
    let last = &read.documents[texts.len() - 1].source;
    assert_eq!(
        last.to_string(),
        format!("{}:{}", path.display(), texts.len())
    );
}

#[test]
fn damaged_files_are_errors() {
    let whole = fs::read(golden().join("nested-snappy.parquet")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.parquet");
    let error = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        read(&path, |_| true).err()
    };
    for bytes in [
        &b""[..],
        b"PAR1",
        b"{\"text\": 1}\n",
        &whole[..whole.len() - 9],
        &whole[9..],
    ] {
        let error = error(bytes).unwrap();
        assert!(matches!(error, DataError::Parquet { .. }), "{error:?}");
        assert!(error.hint().is_some());
    }
    // Whatever a byte says, nothing but an error comes of it.
    let mut errors = 0;
    for place in (4..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x55;
        errors += usize::from(error(&bytes).is_some());
    }
    assert!(errors > 100, "{errors}");
    // A compressed one cannot be read by position.
    let compressed = zstd::encode_all(&whole[..], 1).unwrap();
    let error = error(&compressed).unwrap();
    assert!(matches!(
        error,
        DataError::OtherKind {
            kind: reparam_formats::identify::Kind::Zstd,
            ..
        }
    ));
}
