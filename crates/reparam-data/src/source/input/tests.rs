use std::fs;
use std::io::Write;
use std::path::PathBuf;

use flate2::Compression as Level;
use flate2::write::GzEncoder;

use super::*;
use crate::source::{Format, ReadOptions, read_documents};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Level::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// A skippable frame, as parallel writers put before the others.
fn skippable() -> Vec<u8> {
    [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"skip"].concat()
}

fn written(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, bytes).unwrap();
    (directory, path)
}

#[test]
fn every_format_is_read_through_compression() {
    let files: [(&str, &[u8]); 6] = [
        ("a.txt", "one text\nof two lines 你好\n".as_bytes()),
        ("a.jsonl", b"{\"text\": \"a\"}\n{\"text\": \"b\"}\n"),
        ("a.json", b"[{\"text\": \"a\"}, {\"text\": \"b\"}]"),
        ("a.csv", b"text;n\n\"a;b\";1\n"),
        ("a.tsv", b"text\tn\na\"b\t1\n"),
        ("b.jsonl", "\u{feff}[{\"text\": \"a\"}]".as_bytes()),
    ];
    for (name, content) in files {
        let (_directory, plain) = written(name, content);
        let expected = read_documents(&[plain], &ReadOptions::default()).unwrap();
        let middle = content.len() / 2;
        let (head, tail) = content.split_at(middle);
        let cases = [
            ("gz", gzip(content)),
            ("GZ", [gzip(head), gzip(b""), gzip(tail)].concat()),
            ("zst", zstd(content)),
            (
                "zst",
                [skippable(), zstd(head), skippable(), zstd(tail)].concat(),
            ),
        ];
        for (extension, bytes) in cases {
            // What it is, its content says; its name need not.
            for name in [format!("{name}.{extension}"), name.to_owned()] {
                let (_directory, path) = written(&name, &bytes);
                let read = read_documents(std::slice::from_ref(&path), &ReadOptions::default());
                let read = read.unwrap_or_else(|error| panic!("{name}: {error}"));
                let texts = |source: &crate::source::Source| {
                    let documents = source.documents.iter();
                    let texts = documents.map(|one| (one.text.clone(), one.source.line));
                    texts.collect::<Vec<_>>()
                };
                assert_eq!(texts(&read), texts(&expected), "{name}");
                // The digest is that of the file.
                assert_eq!(read.report.files, [FileDigest::of(&path, &bytes)], "{name}");
            }
        }
    }
    assert_eq!(
        Format::of_name("data/a.jsonl.gz".as_ref()),
        Some(Format::Jsonl)
    );
    assert_eq!(Format::of_name("a.gz".as_ref()), None);
    // A name alone does not make an archive.
    let (_directory, path) = written("a.txt.gz", b"plain");
    assert_eq!(read_data(&path).unwrap().0, b"plain");
}

#[test]
fn broken_archives_are_named() {
    let line = b"{\"text\": \"some words that are compressed\"}\n".repeat(200);
    for (name, whole) in [("a.jsonl.gz", gzip(&line)), ("a.jsonl.zst", zstd(&line))] {
        let mut flipped = whole.clone();
        // The digest of the content is at the end of a gzip file.
        let place = whole.len() - 6;
        flipped[place] ^= 0xff;
        let cut = |n: usize| whole[..whole.len() - n].to_vec();
        let cases = [
            cut(1),
            cut(whole.len() / 2),
            cut(whole.len() - 6),
            flipped,
            [&whole[..], b"rubbish behind it"].concat(),
        ];
        for (case, bytes) in cases.into_iter().enumerate() {
            let (_directory, path) = written(name, &bytes);
            let error = read_documents(std::slice::from_ref(&path), &ReadOptions::default());
            let error = error.unwrap_err();
            let DataError::Damaged { path: found, .. } = &error else {
                panic!("{name} {case}: {error:?}");
            };
            assert_eq!(*found, path);
            assert!(error.hint().unwrap().contains("-t FILE"), "{error}");
        }
    }
}

#[test]
fn what_expands_to_too_much_is_refused() {
    // A thousandth of it.
    let bomb = gzip(&vec![b' '; 1 << 20]);
    let (_directory, path) = written("a.txt.gz", &bomb);
    let open = |limit| Input::open(&path).unwrap().with_limit(limit);
    let too_large = |error: DataError| {
        let is = matches!(error, DataError::ExpandedTooLarge { limit: 1000, .. });
        assert!(is, "{error:?}");
    };
    too_large(open(1000).all().unwrap_err());
    too_large(open(1000).line(&mut Vec::new()).unwrap_err());
    assert_eq!(open(1 << 20).all().unwrap().len(), 1 << 20);
    // Of lines, each may be as long.
    let (_directory, path) = written("a.jsonl.zst", &zstd(&b"0123456789\n".repeat(100)));
    let mut input = Input::open(&path).unwrap().with_limit(11);
    let mut line = Vec::new();
    for _ in 0..100 {
        line.clear();
        input.line(&mut line).unwrap();
        assert_eq!(line, b"0123456789\n");
    }
}

#[test]
fn an_archive_in_an_archive_is_refused() {
    for bytes in [gzip(&gzip(b"text")), zstd(&zstd(b"text"))] {
        for name in ["a.txt", "a.jsonl"] {
            let (_directory, path) = written(name, &bytes);
            let error = read_documents(&[path], &ReadOptions::default()).unwrap_err();
            assert!(matches!(error, DataError::OtherKind { .. }), "{error:?}");
        }
    }
}

#[test]
fn a_long_line_is_one_line() {
    // 50 MB, in quotes and without any.
    let text = "emoji 🦀 and \\\"quotes\\\" ".repeat(2_000_000);
    assert!(text.len() > 50_000_000);
    let expected = text.replace('\\', "");
    let row = format!("{{\"text\": \"{text}\"}}\n{{\"text\": \"behind\"}}\n");
    let cell = format!("text\n\"{}\"\nbehind\n", expected.replace('"', "\"\""));
    for (name, content) in [("a.jsonl", &row), ("a.csv", &cell)] {
        let (_directory, path) = written(name, content.as_bytes());
        let documents = read_documents(&[path], &ReadOptions::default())
            .unwrap()
            .documents;
        assert_eq!(documents.len(), 2, "{name}");
        assert!(documents[0].text == expected, "{name}");
        assert_eq!(documents[1].text, "behind", "{name}");
    }
}
