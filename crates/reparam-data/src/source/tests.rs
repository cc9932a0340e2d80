use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

mod conversations;
mod examples;
mod readers;
mod rows;

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
        read_documents(
            &paths,
            &ReadOptions {
                format,
                ..ReadOptions::default()
            },
        )
        .map(|source| source.documents[0].text.clone())
    };
    assert_eq!(read(Some(Format::Text)).unwrap(), "{\"text\": \"x\"}");
    assert_eq!(read(Some(Format::Jsonl)).unwrap(), "x");
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
    assert!(matches!(error, DataError::NoFiles { .. }));
    let error = read_file(directory.path()).unwrap_err();
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
    let found = message(&utf8);
    assert!(
        found.starts_with("a.txt:2: invalid UTF-8 at byte 8 of the file"),
        "{found}"
    );
    let after_mark = error("a.jsonl", b"\xef\xbb\xbf\xe9");
    assert!(matches!(
        after_mark,
        DataError::InvalidUtf8 {
            line: 1,
            offset: 3,
            ..
        }
    ));
    let in_lines = error("a.jsonl", b"{\"text\": \"a\"}\n{\"text\": \"\xe9\"}\n");
    assert!(matches!(
        in_lines,
        DataError::InvalidUtf8 {
            line: 2,
            offset: 24,
            ..
        }
    ));
}

/// What `iconv` makes of a text.
#[test]
fn other_encodings_are_named() {
    let gbk = b"\xcb\xfd\xc5\xdc\xc1\xcb\xba\xdc\xd4\xb6\xa1\xa3\xd0\xa1\xb4\xac\xbb\xd8\xbc\xd2\xc1\xcb\xa1\xa3\n";
    let shift_jis = b"\x82\xb1\x82\xf1\x82\xc9\x82\xbf\x82\xcd\x81A\x93\xfa\x96{\x8c\xea\x82\xcc\x95\xb6\x8f\xcd\x82\xc5\x82\xb7\x81B\n";
    let latin = b"Le caf\xe9 \xe9tait tr\xe8s bon, et la for\xeat \xe0 c\xf4t\xe9 aussi.\n";
    let utf16: Vec<u8> = "\u{feff}{\"text\": \"a\"}\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let mut wide = utf16.clone();
    wide.drain(..2);
    let big: Vec<u8> = "Lily saw a boat."
        .encode_utf16()
        .flat_map(u16::to_be_bytes)
        .collect();
    let cases: [(&[u8], &str); 6] = [
        (gbk, "GB18030"),
        (shift_jis, "CP932"),
        (latin, "windows-1252"),
        (&utf16, "UTF-16"),
        (&wide, "UTF-16LE"),
        (&big, "UTF-16BE"),
    ];
    for (bytes, encoding) in cases {
        for name in ["a.txt", "a.jsonl", "a.csv"] {
            let error = error(name, bytes);
            let message = message(&error);
            assert!(
                message.ends_with(&format!("; it looks like {encoding}")),
                "{name}: {message}"
            );
            let hint = error.hint().unwrap();
            assert!(
                hint.contains(&format!("iconv -f {encoding} -t UTF-8")),
                "{hint}"
            );
        }
    }
}

#[test]
fn other_kinds_of_files_are_named() {
    let cases: [(&[u8], &str); 4] = [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 2690\n",
            "a Git LFS pointer",
        ),
        (b"BZh91AY&SY\0\0", "a bzip2 archive"),
        (b"PAR1\x15\x04\x15\x80", "a Parquet file"),
        (b"PK\x03\x04\x14\0\0\0\x08\0", "a ZIP archive"),
    ];
    for (bytes, kind) in cases {
        for name in ["a.txt", "a.jsonl", "a.json", "a.csv", "a.tsv"] {
            let error = error(name, bytes);
            assert_eq!(message(&error), format!("{name} is {kind}, not text"));
            let hint = error.hint().unwrap();
            assert!(!hint.contains("iconv"), "{hint}");
        }
    }
    assert!(matches!(
        error("a.txt", b"ab\0\xff\xfe\0\0"),
        DataError::NotText { .. }
    ));
}

#[test]
fn lines_that_are_not_json_are_located() {
    let error = |line: &str| self::error("a.jsonl", format!("{{\"text\": \"x\"}}\n\n{line}\n"));
    let cases = [
        (
            "{\"text\": x}",
            "a.jsonl:3:10: invalid JSON: expected value (field `text`)",
        ),
        (
            "{\"text\": \"x\"",
            "a.jsonl:3:12: invalid JSON: EOF while parsing an object (field `text`)",
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
        Some(
            "rename the field `texts` to `text`; or leave such rows out with on_error = \"skip\" (--on-error skip)"
        )
    );
    let deep = format!("{{\"text\": {}", "[".repeat(100_000));
    assert!(message(&error(&deep)).starts_with("a.jsonl:3:"));
}

proptest! {
    /// Whatever the bytes, reading returns.
    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..60), kind in 0usize..6, skip: bool) {
        let (_directory, path) = file(["x.txt", "x.jsonl", "x.json", "x.csv", "x.tsv", "x.md"][kind], bytes);
        let on_error = if skip { OnError::Skip } else { OnError::Stop };
        let options = ReadOptions { on_error, ..ReadOptions::default() };
        if let Ok(source) = read_documents(&[path], &options) {
            prop_assert!(!source.documents.is_empty());
        }
    }
}
