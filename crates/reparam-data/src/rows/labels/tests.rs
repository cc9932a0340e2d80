use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::source::DocumentSource;

fn row(labels: Option<RowLabels>) -> TextRow {
    let place = DocumentSource {
        path: Arc::from(Path::new("t")),
        line: 1,
        item: None,
    };
    TextRow {
        text: String::new(),
        text_pair: None,
        labels,
        place,
    }
}

fn one(text: &str) -> TextRow {
    row(Some(RowLabels::One(LabelValue::new(text))))
}

fn several(texts: &[&str]) -> TextRow {
    row(Some(RowLabels::Several(
        texts.iter().map(|text| LabelValue::new(*text)).collect(),
    )))
}

fn labels(names: &[&str]) -> Labels {
    Labels::new(
        names.iter().map(|name| (*name).to_owned()).collect(),
        LabelKind::One,
    )
    .unwrap()
}

/// The classes of rows, or the message of their error.
fn classes(labels: &Labels, rows: Vec<TextRow>) -> Vec<std::result::Result<Vec<usize>, String>> {
    let rows = Rows {
        rows: rows.into_iter().map(Ok).collect(),
        files: Vec::new(),
        left_out: Vec::new(),
    };
    let rows = labels.classes(rows).unwrap().rows.into_iter();
    rows.map(|row| {
        row.map(|row| row.classes)
            .map_err(|error| error.to_string())
    })
    .collect()
}

fn trained(texts: &[&str]) -> Vec<String> {
    let rows: Vec<TextRow> = texts.iter().map(|text| one(text)).collect();
    Labels::of_training(&rows).unwrap().names().to_vec()
}

#[test]
fn training_labels_are_sorted_by_value_or_by_code_point() {
    assert_eq!(
        trained(&["10", "9", "-1", "9", "0.5"]),
        ["-1", "0.5", "9", "10"]
    );
    assert_eq!(trained(&["10", "9", "b"]), ["10", "9", "b"]);
    assert_eq!(
        trained(&["b", "B", "é", "a", "b", "😀", "\u{ffee}"]),
        ["B", "a", "b", "é", "\u{ffee}", "😀"]
    );
    assert_eq!(trained(&["nan", "1"]), ["1", "nan"]);
}

#[test]
fn several_labels_make_a_model_for_several() {
    let rows = [several(&["b"]), several(&[]), one("a")];
    let labels = Labels::of_training(&rows).unwrap();
    assert_eq!(
        (labels.names(), labels.kind()),
        (&["a".to_owned(), "b".to_owned()][..], LabelKind::Several)
    );
    let found = classes(
        &labels,
        vec![several(&["b", "a", "1"]), several(&[]), one("a")],
    );
    assert_eq!(found, [Ok(vec![0, 1]), Ok(vec![]), Ok(vec![0])]);
    // One class can be there or not.
    assert_eq!(Labels::of_training(&[several(&["a"])]).unwrap().len(), 1);
}

#[test]
fn there_must_be_something_to_tell_apart() {
    let error = |rows: &[TextRow]| Labels::of_training(rows).unwrap_err().to_string();
    assert_eq!(error(&[row(None)]), "there are no labels");
    assert_eq!(error(&[several(&[])]), "there are no labels");
    assert_eq!(
        error(&[one("a"), one("a")]),
        "nothing to tell apart: every row has the label `a`"
    );
    let twice = Labels::new(vec!["a".to_owned(), "a".to_owned()], LabelKind::One).unwrap_err();
    assert_eq!(twice.to_string(), "two classes are named `a`");
}

#[test]
fn a_label_is_a_name_or_an_index() {
    let labels = labels(&["ham", "spam"]);
    let found = classes(
        &labels,
        vec![one("spam"), one("0"), one("1"), several(&["ham"])],
    );
    assert_eq!(found, [Ok(vec![1]), Ok(vec![0]), Ok(vec![1]), Ok(vec![0])]);
    let found = classes(
        &labels,
        vec![
            one("2"),
            one("-1"),
            one("Spam"),
            row(None),
            several(&["ham", "spam"]),
        ],
    );
    let unknown = |label| {
        Err(format!(
            "t:1: the model has no label `{label}`, its labels are `ham`, `spam`"
        ))
    };
    let expected = [
        unknown("2"),
        unknown("-1"),
        unknown("Spam"),
        Err("t:1: no label".to_owned()),
        Err("t:1: 2 labels, but the model gives each row one".to_owned()),
    ];
    assert_eq!(found, expected);
}

#[test]
fn names_that_are_numbers_are_told_from_indices_by_all_rows() {
    // Stars from 1 to 3, whose indices are 0 to 2.
    let stars = labels(&["1", "2", "3"]);
    assert_eq!(
        classes(&stars, vec![one("1"), one("3")]),
        [Ok(vec![0]), Ok(vec![2])]
    );
    assert_eq!(
        classes(&stars, vec![one("1"), one("2")]),
        [Ok(vec![0]), Ok(vec![1])]
    );
    // No star is 0, so these are indices, all of them.
    assert_eq!(
        classes(&stars, vec![one("1"), one("0")]),
        [Ok(vec![1]), Ok(vec![0])]
    );
    // A 3 is no index, so these are names and 0 is neither... but it is an index, and 1 is both.
    let rows = [one("0"), one("3"), one("1")].into_iter().map(Ok).collect();
    let error = stars
        .classes(Rows {
            rows,
            files: Vec::new(),
            left_out: Vec::new(),
        })
        .unwrap_err();
    assert!(matches!(error, RowError::AmbiguousLabel { .. }), "{error}");
}
