use std::fs;

use tempfile::TempDir;

use super::*;
use crate::rows::{RowsOptions, read_rows};

/// The rows of a file, errors without the directory.
fn rows(name: &str, content: &str) -> Vec<std::result::Result<TextRow, String>> {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, content).unwrap();
    let rows = read_rows(&[path], &LABELLED_TEXT, &RowsOptions::default()).unwrap();
    let short = |error: RowError| {
        let message = error.to_string();
        message[message.rfind("/t.").unwrap() + 1..].to_owned()
    };
    text_rows(rows)
        .rows
        .into_iter()
        .map(|row| row.map_err(short))
        .collect()
}

fn labels_of(name: &str, content: &str) -> Vec<std::result::Result<Option<RowLabels>, String>> {
    rows(name, content)
        .into_iter()
        .map(|row| row.map(|row| row.labels))
        .collect()
}

fn one(text: &str) -> std::result::Result<Option<RowLabels>, String> {
    Ok(Some(RowLabels::One(LabelValue::new(text))))
}

fn several(texts: &[&str]) -> std::result::Result<Option<RowLabels>, String> {
    let labels = texts.iter().map(|text| LabelValue::new(*text)).collect();
    Ok(Some(RowLabels::Several(labels)))
}

#[test]
fn texts_and_pairs() {
    let found = rows(
        "t.jsonl",
        "{\"text\":\" a\",\"text_pair\":\"b \"}\n{\"text\":\"\",\"text_pair\":null}\n{\"text\":null}\n{\"text\":5}\n",
    );
    let [pair, single, null, number] = &found[..] else {
        panic!("{found:?}")
    };
    let texts = |row: &std::result::Result<TextRow, String>| {
        let row = row.clone().unwrap();
        (row.text, row.text_pair, row.place.line)
    };
    assert_eq!(texts(pair), (" a".to_owned(), Some("b ".to_owned()), 1));
    assert_eq!(texts(single), (String::new(), None, 2));
    assert_eq!(
        null.clone().unwrap_err(),
        "t.jsonl:3: the field `text` is null, not a string"
    );
    assert_eq!(
        number.clone().unwrap_err(),
        "t.jsonl:4: the field `text` is a number, not a string"
    );
    // The cell of a table is a text, an empty one too.
    let table = rows("t.csv", "text,text_pair\na,\n");
    assert_eq!(table[0].clone().unwrap().text_pair, Some(String::new()));
}

#[test]
fn a_label_is_a_name_a_number_or_a_truth_value() {
    let content = r#"{"text":"","label":" ham "}
{"text":"","label":1}
{"text":"","label":-1.50}
{"text":"","label":true}
{"text":"","label":null}
{"text":"","label":"  "}
{"text":""}
{"text":"","label":["ham"]}
"#;
    let wrong = "t.jsonl:8: the field `label` is an array, not a name or an index";
    let expected = [
        one("ham"),
        one("1"),
        one("-1.5"),
        one("true"),
        Ok(None),
        Ok(None),
        Ok(None),
        Err(wrong.to_owned()),
    ];
    assert_eq!(labels_of("t.jsonl", content), expected);
    assert_eq!(
        labels_of("t.csv", "text,label\na, 2 \nb,\n"),
        [one("2"), Ok(None)]
    );
}

#[test]
fn several_labels_are_a_list() {
    let content = r#"{"text":"","labels":["b",0]}
{"text":"","labels":[]}
{"text":"","labels":null}
{"text":"","labels":[["a"]]}
{"text":"","labels":3}
{"text":"","labels":["a"],"label":"a"}
"#;
    let wrong = |line, found| {
        Err(format!(
            "t.jsonl:{line}: the field `labels` is {found}, not a list of names or indices"
        ))
    };
    let expected = [
        several(&["b", "0"]),
        several(&[]),
        Ok(None),
        wrong(4, "a list with an array"),
        wrong(5, "a number"),
        Err("t.jsonl:6: both `label` and `labels` are given".to_owned()),
    ];
    assert_eq!(labels_of("t.jsonl", content), expected);
    let table = "text,labels\na,\"b, a\"\na,\"[\"\"x, y\"\", 1]\"\na,\na,[]\na,[\n";
    let expected = [
        several(&["b", "a"]),
        several(&["x, y", "1"]),
        several(&[]),
        several(&[]),
        Err("t.csv:6: the field `labels` is \"[\", not a list of names or indices".to_owned()),
    ];
    assert_eq!(labels_of("t.csv", table), expected);
    let both = "text,label,labels\na,b,\na,,\na,,b\n";
    let expected = [one("b"), Ok(None), several(&["b"])];
    assert_eq!(labels_of("t.csv", both), expected);
}
