//! Readers beside those of the `datasets` library, on files that are made up to be hard.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::DataError;
use crate::source::{Format, ReadOptions, read_documents, visit_documents};

#[test]
fn texts_are_those_of_datasets() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/readers");
    let rows: Value =
        serde_json::from_str(&fs::read_to_string(golden.join("rows.json")).unwrap()).unwrap();
    let files = rows["rows"].as_object().unwrap().iter();
    let mut compared = 0;
    for (name, rows) in files.filter(|(name, _)| !name.starts_with("nested-")) {
        let options = ReadOptions {
            format: name.ends_with(".txt").then_some(Format::Lines),
            ..ReadOptions::default()
        };
        let read = read_documents(&[golden.join(name)], &options).unwrap();
        let found = read.documents.iter().map(|document| document.text.as_str());
        let rows = rows.as_array().unwrap().iter();
        let expected = rows.map(|row| row["text"].as_str().unwrap());
        assert_eq!(
            found.collect::<Vec<_>>(),
            expected.collect::<Vec<_>>(),
            "{name}"
        );
        compared += 1;
    }
    assert_eq!(compared, 10);
}

/// Where this reader and that of `datasets` differ on purpose.
#[test]
fn what_datasets_reads_in_silence_is_said_or_refused() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| {
        let path = directory.path().join(name);
        fs::write(&path, content).unwrap();
        [path]
    };
    let read = |paths: &[PathBuf]| read_documents(paths, &ReadOptions::default());
    // `datasets` makes one document of each line of a text; here it is one, with the line ends of Unix.
    let text = read(&write("a.txt", "a\r\nb\r\n")).unwrap();
    assert_eq!(text.documents.len(), 1);
    assert_eq!(
        (&*text.documents[0].text, text.report.line_ends),
        ("a\nb\n", 2)
    );
    // It gives a missing value the type of the others and learns `None`; here a document must be a text.
    assert!(
        read(&write(
            "null.jsonl",
            "{\"text\": \"a\"}\n{\"text\": null}\n"
        ))
        .is_err()
    );
    // It takes a field that only some rows have as null in the others.
    assert!(
        read(&write(
            "fields.jsonl",
            "{\"text\": \"a\"}\n{\"other\": \"b\"}\n"
        ))
        .is_err()
    );
    // pandas makes a number or a missing value of such cells; here a cell is the text that is written.
    let cells = read(&write("cells.csv", "text,n\nNA,1\n007,2\n1.0,3\n")).unwrap();
    let found: Vec<&str> = cells.documents.iter().map(|one| &*one.text).collect();
    assert_eq!(found, ["NA", "007", "1.0"]);
    // pandas reads up to the next quote and loses the row between.
    assert!(read(&write("quotes.csv", "text,n\n\"a,1\nb,2\n\"c,3\n")).is_err());
}

/// Rows are handed over before the file has been read: a fault at its end does not keep those before it from being seen.
#[test]
fn tables_and_lines_are_read_a_row_at_a_time() {
    const ROWS: usize = 60_000;
    let directory = tempfile::tempdir().unwrap();
    let row = |row: usize, cells: [&str; 3]| {
        let [open, between, close] = cells;
        format!("{open}text number {row}, as long as a line{between}{row}{close}\n")
    };
    for (name, head, cells, has_mark) in [
        ("a.csv", "text;n\n", ["", ";", ""], false),
        ("b.csv", "text,n\n", ["\"", "\",", ""], true),
        ("c.tsv", "text\tn\n", ["", "\t", ""], false),
        ("d.json", "", ["{\"text\": \"", "\", \"n\": ", "}"], true),
    ] {
        let mark = if has_mark { "\u{feff}" } else { "" };
        let rows: String = (0..ROWS).map(|number| row(number, cells)).collect();
        let whole = format!("{mark}{head}{rows}");
        assert!(whole.len() > 2 << 20);
        let path = directory.path().join(name);
        let mut bytes = whole.clone().into_bytes();
        bytes.extend(row(ROWS, cells).replace("long", "\u{1}").bytes());
        let at = bytes.iter().rposition(|byte| *byte == 1).unwrap();
        bytes[at] = 0xff;
        fs::write(&path, &bytes).unwrap();
        let (mut visited, mut last) = (0, String::new());
        let error = visit_documents(
            std::slice::from_ref(&path),
            &ReadOptions::default(),
            &mut |document| {
                assert_eq!(
                    document.source.line,
                    visited + 1 + usize::from(!head.is_empty())
                );
                visited += 1;
                last = document.text;
                Ok(())
            },
        );
        let error = error.unwrap_err();
        assert_eq!(visited, ROWS, "{name}: {error}");
        assert_eq!(last, format!("text number {}, as long as a line", ROWS - 1));
        let DataError::InvalidUtf8 { line, offset, .. } = error else {
            panic!("{name}: {error}");
        };
        let lines = whole.matches('\n').count() + 1;
        assert_eq!((line, offset), (lines, at), "{name}");
        // Without the fault, the digest is that of the file.
        fs::write(&path, &whole).unwrap();
        let read = read_documents(std::slice::from_ref(&path), &ReadOptions::default()).unwrap();
        let digest = crate::source::FileDigest::of(&path, whole.as_bytes());
        assert_eq!(read.report.files, [digest], "{name}");
    }
}

#[test]
fn what_separates_cells_is_seen_at_the_beginning() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.csv");
    // The record that the beginning ends in has a comma and semicolons in a cell, as many as to look uneven.
    let long = "a;b;".repeat(300_000);
    let text = format!("text;n\none, two;1\n\"{long}\";2\nlast;3\n");
    fs::write(&path, text).unwrap();
    let read = read_documents(&[path], &ReadOptions::default()).unwrap();
    let texts: Vec<&str> = read.documents.iter().map(|one| &*one.text).collect();
    assert_eq!(texts, ["one, two", &long, "last"]);
}
