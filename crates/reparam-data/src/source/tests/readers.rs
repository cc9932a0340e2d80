//! Readers beside those of the `datasets` library, on files that are made up to be hard.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::source::{Format, ReadOptions, read_documents};

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
        let read = read_documents(&[PathBuf::from(golden.join(name))], &options).unwrap();
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
