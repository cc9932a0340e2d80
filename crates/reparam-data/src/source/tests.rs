use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

mod examples;

/// A directory, and the path of the file in it that has these bytes.
fn file(name: &str, bytes: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, bytes).unwrap();
    (directory, path)
}

fn read(name: &str, bytes: impl AsRef<[u8]>) -> Result<Vec<(String, usize)>> {
    let (_directory, path) = file(name, bytes);
    let source = read_documents(std::slice::from_ref(&path), &ReadOptions::default())?;
    assert!(
        source
            .documents
            .iter()
            .all(|document| *document.source.path == *path)
    );
    Ok(source
        .documents
        .into_iter()
        .map(|document| (document.text, document.source.line))
        .collect())
}

fn error(name: &str, bytes: impl AsRef<[u8]>) -> DataError {
    read(name, bytes).unwrap_err()
}

/// The message without the directory.
fn message(error: &DataError) -> String {
    let message = error.to_string();
    message
        .rsplit(std::path::MAIN_SEPARATOR)
        .next()
        .unwrap()
        .to_owned()
}

#[test]
fn a_text_file_is_one_document() {
    assert_eq!(
        read("a.txt", "one\ntwo\n").unwrap(),
        [("one\ntwo\n".to_owned(), 1)]
    );
    assert_eq!(read("a.TXT", "x").unwrap(), [("x".to_owned(), 1)]);
}

#[test]
fn bytes_are_kept_but_for_a_byte_order_mark() {
    assert_eq!(
        read("a.txt", " \r\ne\u{301}\u{feff}\r\n").unwrap()[0].0,
        " \ne\u{301}\u{feff}\n"
    );
    assert_eq!(read("a.txt", "\u{feff}text").unwrap()[0].0, "text");
    assert_eq!(
        read("a.txt", "\u{feff}\u{feff}text").unwrap()[0].0,
        "\u{feff}text"
    );
    assert_eq!(
        read("a.jsonl", "\u{feff}{\"text\": \"a\\r\\n\"}\r\n").unwrap()[0].0,
        "a\r\n"
    );
}

#[test]
fn a_line_is_a_document() {
    let documents = read(
        "a.jsonl",
        "{\"text\": \"one\"}\n\n  \r\n{\"id\": 7, \"text\": \"tw\\u006f\", \"x\": [{}]}\r\n{\"text\": \"\"}",
    );
    let expected = [
        ("one".to_owned(), 1),
        ("two".to_owned(), 4),
        (String::new(), 5),
    ];
    assert_eq!(documents.unwrap(), expected);
}

#[test]
fn files_follow_each_other_with_their_digests() {
    let (_one, text) = file("a.txt", "abc");
    let (_two, lines) = file("b.jsonl", "{\"text\": \"x\"}\n{\"text\": \"y\"}\n");
    let source = read_documents(
        &[lines.clone(), text.clone(), lines.clone()],
        &ReadOptions::default(),
    )
    .unwrap();
    let texts: Vec<_> = source
        .documents
        .iter()
        .map(|document| document.text.as_str())
        .collect();
    assert_eq!(texts, ["x", "y", "abc", "x", "y"]);
    assert_eq!(source.report.files.len(), 3);
    // The test vector of FIPS 180-2 for "abc".
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".to_owned();
    assert_eq!(
        source.report.files[1],
        FileDigest {
            path: text,
            bytes: 3,
            sha256
        }
    );
    assert_eq!(source.report.files[0], source.report.files[2]);
}

#[test]
fn a_format_that_is_given_wins() {
    let (_directory, path) = file("a.data", "{\"text\": \"x\"}");
    let paths = [path];
    let read = |format| {
        read_documents(&paths, &ReadOptions { format })
            .map(|source| source.documents[0].text.clone())
    };
    assert_eq!(read(Some(Format::Text)).unwrap(), "{\"text\": \"x\"}");
    assert_eq!(read(Some(Format::Documents)).unwrap(), "x");
    let error = read(None).unwrap_err();
    assert_eq!(message(&error), "a.data from its name");
    assert!(error.hint().unwrap().contains("set format"));
    assert!(matches!(
        self::error("noextension", "x"),
        DataError::UnknownExtension { .. }
    ));
}

#[test]
fn formats_have_names() {
    for format in Format::ALL {
        assert_eq!(format.to_string().parse::<Format>().unwrap(), format);
        assert_eq!(serde_json::to_value(format).unwrap(), format.to_string());
    }
    let error = "json".parse::<Format>().unwrap_err();
    assert_eq!(error.to_string(), "unknown data format `json`");
    assert!(error.hint().is_some());
}

#[test]
fn a_missing_file_is_reported_with_its_neighbour() {
    let (directory, _path) = file("tinyshakespeare.txt", "x");
    let error = |path: PathBuf| read_documents(&[path], &ReadOptions::default()).unwrap_err();
    let hint = |name: &str| error(directory.path().join(name)).hint();
    assert_eq!(
        hint("tinyshakespear.txt").as_deref(),
        Some("did you mean `tinyshakespeare.txt`?")
    );
    assert_eq!(
        hint("TinyShakespeare.txt").as_deref(),
        Some("did you mean `tinyshakespeare.txt`?")
    );
    assert_eq!(hint("zzz.jsonl"), None);
    let missing = directory.path().join("no");
    let expected = format!("the directory {} does not exist", missing.display());
    assert_eq!(
        error(missing.join("such").join("a.txt")).hint(),
        Some(expected)
    );
    let error = error(PathBuf::from("surely-not-here.txt"));
    assert_eq!(error.to_string(), "no such file: surely-not-here.txt");
}

#[test]
fn other_unreadable_paths() {
    assert!(matches!(
        read_documents(&[], &ReadOptions::default()).unwrap_err(),
        DataError::NoPaths
    ));
    let directory = tempfile::tempdir().unwrap();
    let error =
        read_documents(&[directory.path().to_owned()], &ReadOptions::default()).unwrap_err();
    assert!(matches!(error, DataError::IsDirectory { .. }));
    // A name with a zero byte is one that no system can open.
    let error = read_documents(&[PathBuf::from("a\0b.txt")], &ReadOptions::default()).unwrap_err();
    assert!(matches!(error, DataError::File(_)), "{error}");
}

#[test]
fn files_without_text_are_errors() {
    for name in ["a.txt", "a.jsonl"] {
        for bytes in ["", "\u{feff}"] {
            assert_eq!(message(&error(name, bytes)), format!("{name} is empty"));
        }
    }
    let blank = error("a.jsonl", "\n \n\r\n");
    assert_eq!(
        message(&blank),
        "a.jsonl holds no document: every one of its 3 lines is blank"
    );
    let empty = error("a.jsonl", "{\"text\": \"\"}\n{\"text\": \" \\n\"}\n");
    assert_eq!(message(&empty), "a.jsonl holds only empty documents (2)");
    assert!(matches!(
        error("a.txt", " \n"),
        DataError::OnlyEmptyDocuments { documents: 1, .. }
    ));
    assert!(empty.hint().is_some());
}

#[test]
fn bytes_that_are_not_utf8_are_located() {
    let utf8 = error("a.txt", b"one\ntwo \xff\n");
    assert_eq!(
        message(&utf8),
        "a.txt:2: invalid UTF-8 at byte 8 of the file"
    );
    assert!(utf8.hint().unwrap().contains("LATIN1"));
    let after_mark = error("a.jsonl", b"\xef\xbb\xbf\xe9");
    assert!(matches!(
        after_mark,
        DataError::InvalidUtf8 {
            line: 1,
            offset: 3,
            utf16: false,
            ..
        }
    ));
    let utf16 = error("a.txt", b"\xff\xfea\0b\0");
    assert!(matches!(
        utf16,
        DataError::InvalidUtf8 {
            line: 1,
            offset: 0,
            utf16: true,
            ..
        }
    ));
    assert!(utf16.hint().unwrap().contains("UTF-16"));
}

#[test]
fn lines_that_are_not_json_are_located() {
    let error = |line: &str| self::error("a.jsonl", format!("{{\"text\": \"x\"}}\n\n{line}\n"));
    let cases = [
        (
            "{\"text\": x}",
            "a.jsonl:3:10: invalid JSON: expected value",
        ),
        (
            "{\"text\": \"x\"",
            "a.jsonl:3:12: invalid JSON: EOF while parsing an object",
        ),
        (
            "{\"text\": \"x\"} {}",
            "a.jsonl:3:15: invalid JSON: trailing characters",
        ),
        ("[1]", "a.jsonl:3: expected a JSON object, found an array"),
        ("\"x\"", "a.jsonl:3: expected a JSON object, found a string"),
        (
            "{\"text\": null}",
            "a.jsonl:3: the field `text` is null, not a string",
        ),
        (
            "{\"text\": [\"x\"]}",
            "a.jsonl:3: the field `text` is an array, not a string",
        ),
        (
            "{\"a\": 1, \"Text\": \"x\"}",
            "a.jsonl:3: no field `text`, found `a`, `Text`",
        ),
        ("{}", "a.jsonl:3: no field `text`, found none"),
    ];
    for (line, expected) in cases {
        let error = error(line);
        assert_eq!(message(&error), expected);
        assert!(error.hint().is_some(), "{expected}");
    }
    let nearest = error("{\"content\": 1, \"texts\": \"x\"}");
    assert_eq!(
        nearest.hint().as_deref(),
        Some("rename the field `texts` to `text`")
    );
    let deep = format!("{{\"text\": {}", "[".repeat(100_000));
    assert!(matches!(
        error(&deep),
        DataError::InvalidJson { line: 3, .. }
    ));
}

proptest! {
    /// Whatever the bytes, reading returns.
    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..60), kind in 0usize..3) {
        let mut documents = Vec::new();
        let path = ["x.txt", "x.jsonl", "x.json"][kind];
        let outcome = parse(Path::new(path), &bytes, None, &mut |document| { documents.push(document); Ok(()) });
        prop_assert_eq!(outcome.is_ok(), !documents.is_empty());
    }
}
