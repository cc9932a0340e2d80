use std::fs;

use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::rows::{LABELLED_TEXT, TEXT};

/// Reads a file of this name and content.
fn read_as(
    name: &str,
    content: &[u8],
    schema: &Schema,
    options: &RowsOptions,
) -> Result<Rows<Row>> {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, content).unwrap();
    read_rows(&[path], schema, options)
}

fn options(fields: &str) -> RowsOptions {
    RowsOptions {
        format: None,
        fields: serde_json::from_value(json!(fields)).unwrap(),
    }
}

fn read(name: &str, content: &str, fields: &str) -> Result<Rows<Row>> {
    read_as(name, content.as_bytes(), &LABELLED_TEXT, &options(fields))
}

/// The text and the label of every row, or its error without the directory.
fn cells(rows: Rows<Row>) -> Vec<std::result::Result<(String, String), String>> {
    let cell = |row: &Row, field| match row.value(field) {
        None => "none".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    rows.rows
        .into_iter()
        .map(|row| match row {
            Ok(row) => Ok((cell(&row, "text"), cell(&row, "label"))),
            Err(error) => Err(short(&error)),
        })
        .collect()
}

fn short(error: &RowError) -> String {
    let message = error.to_string();
    match message.rfind("/t.") {
        Some(at) => message[at + 1..].to_owned(),
        None => message,
    }
}

/// The message and the hint of a file that cannot be read.
fn failure(name: &str, content: &str, fields: &str) -> (String, String) {
    let error = read(name, content, fields).unwrap_err();
    (short(&error), error.hint().unwrap_or_default())
}

fn pair(text: &str, label: &str) -> std::result::Result<(String, String), String> {
    Ok((text.to_owned(), label.to_owned()))
}

#[test]
fn the_same_rows_come_from_every_format() {
    let expected = [pair("a, \"b\"", "x"), pair("c", "1")];
    let files = [
        (
            "t.jsonl",
            "{\"text\":\"a, \\\"b\\\"\",\"label\":\"x\"}\n\n{\"label\":1,\"text\":\"c\"}\n",
            "",
        ),
        (
            "t.json",
            "[{\"text\":\"a, \\\"b\\\"\",\"label\":\"x\"},\n{\"label\":1,\"text\":\"c\"}]",
            "",
        ),
        (
            "t.csv",
            "label,text,more\nx,\"a, \"\"b\"\"\",\n\n1,c,5\n",
            "",
        ),
        ("t.tsv", "text\tlabel\r\na, \"b\"\tx\r\nc\t1\r\n", ""),
        (
            "t.csv",
            "\u{feff}Kind,Body\nx,\"a, \"\"b\"\"\"\n1,c\n",
            "text=Body,label=Kind",
        ),
        ("t.csv", "x,0,\"a, \"\"b\"\"\"\n1,0,c\n", "text=3,label=1"),
        ("t.tsv", "x\t0\ta, \"b\"\n1\t0\tc\n", "label=0,text=2"),
        (
            "t.jsonl",
            "{\"1\":\"a, \\\"b\\\"\",\"2\":\"x\"}\n{\"1\":\"c\",\"2\":1}\n",
            "text=1,label=2",
        ),
    ];
    for (name, content, fields) in files {
        assert_eq!(
            cells(read(name, content, fields).unwrap()),
            expected,
            "{content}"
        );
    }
}

#[test]
fn a_format_that_is_given_is_taken_whatever_the_name() {
    for (name, format) in [
        ("SMSSpamCollection", RowFormat::Tsv),
        ("t.csv", RowFormat::Tsv),
    ] {
        let options = RowsOptions {
            format: Some(format),
            ..options("text=SMS,label=Label")
        };
        let content = b"Label\tSMS\nham\t\"Hey\" he said, ok\n";
        let rows = read_as(name, content, &LABELLED_TEXT, &options).unwrap();
        assert_eq!(cells(rows), [pair("\"Hey\" he said, ok", "ham")]);
    }
}

#[test]
fn every_line_is_a_text_of_its_own() {
    let options = RowsOptions {
        format: Some(RowFormat::Lines),
        ..RowsOptions::default()
    };
    let rows = read_as("t.txt", b"a\n\n b,c \n", &TEXT, &options).unwrap();
    assert_eq!(
        cells(rows),
        [pair("a", "none"), pair("", "none"), pair(" b,c ", "none")]
    );
}

#[test]
fn a_row_that_cannot_be_read_is_an_error_in_its_place() {
    let rows = read(
        "t.jsonl",
        "{\"text\":\"a\"}\nnothing\n[1]\n{\"Text\":\"b\"}\n{\"text\":\"c\"}\n",
        "",
    );
    assert_eq!(
        cells(rows.unwrap()),
        [
            pair("a", "none"),
            Err("t.jsonl:2:2: invalid JSON: expected ident".to_owned()),
            Err("t.jsonl:3: expected a JSON object, found an array".to_owned()),
            Err("t.jsonl:4: no `text` for the field `text`, found `Text`".to_owned()),
            pair("c", "none"),
        ]
    );
    let rows = read("t.csv", "text,label\na,x\nb\n\"c\nd\",y,z\ne,y\n", "").unwrap();
    assert_eq!(
        cells(rows),
        [
            pair("a", "x"),
            Err("t.csv:3: expected 2 cells, found 1".to_owned()),
            Err("t.csv:4: expected 2 cells, found 3".to_owned()),
            pair("e", "y"),
        ]
    );
    let rows = read("t.json", "[{\"text\":\"a\"},\n7,{\"text\":\"b\"}]", "").unwrap();
    assert_eq!(
        cells(rows),
        [
            pair("a", "none"),
            Err("t.json:2 (item 2): expected a JSON object, found a number".to_owned()),
            pair("b", "none"),
        ]
    );
}

#[test]
fn a_row_in_error_stops_or_is_left_out_and_counted() {
    let content = "{\"text\":\"a\"}\n{}\n{\"text\":\"b\"}\nx\n";
    let rows = || read("t.jsonl", content, "").unwrap();
    let error = rows().settle(OnError::Stop).unwrap_err();
    assert_eq!(
        short(&error),
        "t.jsonl:2: no `text` for the field `text`, found none"
    );
    let (left, skipped) = rows().settle(OnError::Skip).unwrap();
    assert_eq!((left.len(), skipped.count), (2, 2));
    assert!(skipped.first[0].ends_with(&short(&error)), "{skipped:?}");

    let error = read("t.jsonl", "{}\n{}\n", "")
        .unwrap()
        .settle(OnError::Skip)
        .unwrap_err();
    assert!(
        matches!(error, RowError::NothingLeft { rows: 2, .. }),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .starts_with("none of 2 rows can be read; the first: "),
        "{error}"
    );
}

#[test]
fn what_spoils_a_whole_file_is_its_error() {
    let quotes = "close the cell with a double quote; a quote inside it is written twice";
    let cases = [
        (
            "t.csv",
            "text\n\"a\nb\n",
            "",
            "t.csv:2: a quoted cell of this record is never closed",
            quotes,
        ),
        ("t.csv", "text\n", "", "t.csv has no rows", ""),
        (
            "t.csv",
            "Text,b\na,b\n",
            "",
            "t.csv:1: no `text` for the field `text`, found `Text`, `b`",
            "set fields (or --fields) to text=Text",
        ),
        (
            "t.csv",
            "zzz,b\na,b\n",
            "",
            "t.csv:1: no `text` for the field `text`, found `zzz`, `b`",
            "say which column it is with fields (or --fields), as in text=NAME; by number, as in text=1, \
             if no line names the columns",
        ),
        (
            "t.csv",
            "text,b\na,b\n",
            "label=kind",
            "t.csv:1: no `kind` for the field `label`, found `text`, `b`",
            "",
        ),
        (
            "t.csv",
            "a,b\n",
            "text=3",
            "t.csv:1: no `3` for the field `text`, found `2 columns`",
            "",
        ),
        (
            "t.csv",
            "text,b,text\na,b,c\n",
            "",
            "t.csv:1: columns 1 and 3 are both named `text`",
            "rename one of the two columns",
        ),
        ("t.csv", "", "", "t.csv is empty", ""),
        (
            "t.json",
            "[{\"text\":\"a\"},{\"text\":]",
            "",
            "t.json:1:23: invalid JSON: expected value (field `text`)",
            "",
        ),
    ];
    for (name, content, fields, message, hint) in cases {
        let (found, found_hint) = failure(name, content, fields);
        assert_eq!(found, message, "{content}");
        assert!(hint.is_empty() || found_hint == hint, "{found_hint}");
    }
    let (message, _) = failure("t.parquet", "x", "");
    assert_eq!(message, "t.parquet as Parquet: it is cut short");
    let (message, hint) = failure("t.docx", "x", "");
    assert_eq!(message, "t.docx from its name");
    assert_eq!(
        hint,
        "set format (or --format) to one of `jsonl`, `csv`, `tsv`, `parquet`, `lines`"
    );
    let invalid = read_as("t.tsv", b"text\na\n\xff\n", &LABELLED_TEXT, &options("")).unwrap_err();
    let invalid = short(&invalid);
    assert!(
        invalid.starts_with("t.tsv:3: invalid UTF-8 at byte 7 of the file"),
        "{invalid}"
    );
}

#[test]
fn only_fields_of_the_task_can_be_named() {
    let (message, hint) = failure("t.csv", "text\na\n", "text=text,lable=b");
    assert_eq!(
        message,
        "no field `lable`, the fields are `text`, `text_pair`, `label`, `labels`"
    );
    assert_eq!(hint, "did you mean `label`?");
    // A field that is known and not read may be named, and its column may be missing.
    let rows = read_as(
        "t.csv",
        b"Body\na\n",
        &TEXT,
        &options("text=Body,label=Kind"),
    )
    .unwrap();
    assert_eq!(cells(rows), [pair("a", "none")]);
}

#[test]
fn files_follow_one_another_each_with_its_digest() {
    let directory = TempDir::new().unwrap();
    let paths = ["t.csv", "u.jsonl"].map(|name| directory.path().join(name));
    fs::write(&paths[0], "text\na\n").unwrap();
    fs::write(&paths[1], "{\"text\":\"b\"}").unwrap();
    let rows = read_rows(&paths, &TEXT, &RowsOptions::default()).unwrap();
    assert_eq!(
        rows.files.iter().map(|file| file.bytes).collect::<Vec<_>>(),
        [7, 12]
    );
    assert_eq!(cells(rows), [pair("a", "none"), pair("b", "none")]);
    assert!(matches!(
        read_rows(&[], &TEXT, &RowsOptions::default()).unwrap_err(),
        RowError::Read(DataError::NoPaths)
    ));
}

#[test]
fn numbers_come_from_json_and_from_cells() {
    let schema = Schema {
        required: &["score"],
        optional: &[],
        unread: &[],
    };
    let content = b"{\"score\":1.5}\n{\"score\":\" 2 \"}\n{\"score\":\"\"}\n{\"score\":\"x\"}\n{\"score\":true}\n{\"score\":\"inf\"}\n";
    let rows = read_as("t.jsonl", content, &schema, &options("")).unwrap();
    let numbers = rows
        .rows
        .into_iter()
        .map(|row| row.unwrap().number("score"));
    let numbers: Vec<_> = numbers
        .map(|number| number.map_err(|error| short(&error)))
        .collect();
    let wrong = |line, found| {
        Err(format!(
            "t.jsonl:{line}: the field `score` is {found}, not a finite number"
        ))
    };
    let expected = [
        Ok(Some(1.5)),
        Ok(Some(2.0)),
        Ok(None),
        wrong(4, "\"x\""),
        wrong(5, "a boolean"),
        wrong(6, "\"inf\""),
    ];
    assert_eq!(numbers, expected);
}

proptest! {
    #[test]
    fn any_cells_survive_every_format(cells_in in prop::collection::vec("[^\r\n\t]{0,12}", 1..8)) {
        let mut json = String::new();
        let mut csv = "text,label\n".to_owned();
        let mut tsv = "text\tlabel\n".to_owned();
        for cell in &cells_in {
            json += &format!("{}\n", json!({"text": cell, "label": "x"}));
            csv += &format!("\"{}\",x\n", cell.replace('"', "\"\""));
            tsv += &format!("{cell}\tx\n");
        }
        let expected: Vec<_> = cells_in.iter().map(|cell| pair(cell, "x")).collect();
        for (name, content) in [("t.jsonl", &json), ("t.csv", &csv), ("t.tsv", &tsv)] {
            prop_assert_eq!(&cells(read(name, content, "").unwrap()), &expected, "{}", content);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), quoted in any::<bool>()) {
        let mut content = b"text,label\n".to_vec();
        if quoted { content.push(b'"'); }
        content.extend(&bytes);
        for format in RowFormat::ALL {
            for fields in ["", "text=1,label=2"] {
                let options = RowsOptions { format: Some(format), ..options(fields) };
                let _ = read_as("t", &content, &LABELLED_TEXT, &options);
            }
        }
    }
}
