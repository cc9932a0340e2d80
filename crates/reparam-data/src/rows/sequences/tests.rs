use std::path::Path;

use super::*;
use crate::rows::testing::{read, short, told};
use crate::rows::{OnError, RowFormat};
use crate::tokenizer::SpecialIds;

fn tell(row: SequenceRow) -> String {
    let told = match row.target {
        Some(target) => format!("{}>{target}", row.source),
        None => row.source,
    };
    let more = row.more_targets.iter();
    more.fold(told, |told, target| format!("{told}|{target}"))
}

fn rows(name: &str, content: &str, format: Option<RowFormat>, fields: &str) -> Rows<SequenceRow> {
    sequence_rows(read(name, content, &SOURCE_AND_TARGET, format, fields).unwrap())
}

#[test]
fn the_same_rows_come_from_every_format() {
    let bars = Some(RowFormat::Bars);
    for (name, content, format, fields) in [
        ("t.jsonl", r#"{"source":"a, b","target":"c"}"#, None, ""),
        (
            "t.json",
            r#"[{"source":"a, b","target":"c","more":1}]"#,
            None,
            "",
        ),
        ("t.csv", "target,source\nc,\"a, b\"\n", None, ""),
        ("t.tsv", "source\ttarget\r\na, b\tc\r\n", None, ""),
        ("t.tsv", "a, b\t0\tc\n", None, "source=1,target=3"),
        ("t.txt", "a, b||c\n", bars, ""),
        ("t.txt", "\n c || a, b \n", bars, "source=2,target=1"),
        // Names that data sets have.
        (
            "t.jsonl",
            r#"{"document":"a, b","summary":"c","id":1}"#,
            None,
            "",
        ),
        ("t.csv", "mr,ref\n\"a, b\",c\n", None, ""),
        (
            "t.jsonl",
            r#"{"dialogue":"a, b","Zusammenfassung":"c"}"#,
            None,
            "target=Zusammenfassung",
        ),
        (
            "t.jsonl",
            r#"{"translation":{"en":"a, b","de":"c"}}"#,
            None,
            "source=translation.en,target=translation.de",
        ),
        ("t.json", r#"{"data":[{"src":"a, b","tgt":"c"}]}"#, None, ""),
        (
            "t.json",
            "{\"text\":\"a, b\",\n\"summary\":\"c\"}",
            None,
            "",
        ),
    ] {
        let rows = told(rows(name, content, format, fields), tell);
        assert_eq!(rows, [Ok("a, b>c".to_owned())], "{content}");
    }
}

#[test]
fn a_row_may_have_several_targets() {
    let content = [
        r#"{"source":"a","target":["b","c","d"]}"#,
        r#"{"source":"a","target":["b"]}"#,
        r#"{"source":"a","target":[]}"#,
        r#"{"source":"a","target":["b",1]}"#,
        r#"{"source":"a","target":["b"," "]}"#,
    ]
    .join("\n");
    let told = told(rows("t.jsonl", &content, None, ""), tell);
    assert_eq!(told[..2], [Ok("a>b|c|d".to_owned()), Ok("a>b".to_owned())]);
    for (found, row) in ["an empty list", "a list with a number", "blank"]
        .iter()
        .zip(&told[2..])
    {
        assert!(
            row.as_ref().is_err_and(|said| said.contains(found)),
            "{found}: {row:?}"
        );
    }
}

#[test]
fn what_is_wrong_with_a_row_is_in_its_place() {
    let content = [
        r#"{"source":"a","target":"b"}"#,
        r#"{"source":" ","target":"b"}"#,
        r#"{"source":"a","target":""}"#,
        r#"{"source":"a","target":null}"#,
        r#"{"source":"a"}"#,
        r#"{"article":"a","document":"a","target":"b"}"#,
        r#"{"instruction":"a","input":"b","output":"c"}"#,
        r#"{"source":["a"],"target":"b"}"#,
    ]
    .join("\n");
    let missing = |line: usize, field: &str, found: &str| {
        Err(format!(
            "t.jsonl:{line}: no `{field}` for the field `{field}`, found {found}"
        ))
    };
    assert_eq!(
        told(rows("t.jsonl", &content, None, ""), tell),
        [
            Ok("a>b".to_owned()),
            Err("t.jsonl:2: the field `source` is blank".to_owned()),
            Err("t.jsonl:3: the field `target` is blank".to_owned()),
            Err("t.jsonl:4: the field `target` is null, not a string".to_owned()),
            missing(5, "target", "`source`"),
            // Nobody knows which of two is meant.
            missing(6, "source", "`article`, `document`, `target`"),
            missing(7, "source", "`instruction`, `input`, `output`"),
            Err("t.jsonl:8: the field `source` is an array, not a string".to_owned()),
        ]
    );
    let (kept, skipped) = rows("t.jsonl", &content, None, "")
        .settle(OnError::Skip)
        .unwrap();
    assert_eq!((kept.len(), skipped.count), (1, 7));
}

#[test]
fn a_source_is_read_without_its_target() {
    for (name, content, format) in [
        (
            "t.jsonl",
            "{\"source\":\"a\",\"target\":null}\n{\"source\":\"b\"}\n",
            None,
        ),
        ("t.csv", "source,target\na,\nb,\n", None),
        ("t.txt", "a||\nb||c\n", Some(RowFormat::Bars)),
        ("t.txt", "a\nb\n", Some(RowFormat::Bars)),
        ("t.txt", "a\nb\n", Some(RowFormat::Lines)),
    ] {
        let rows = read(name, content, &SOURCE, format, "").unwrap();
        let expected = ["a", "b"].map(|row| Ok(row.to_owned()));
        assert_eq!(told(sequence_rows(rows), tell), expected, "{content}");
    }
    let error = read(
        "t.txt",
        "a\n",
        &SOURCE_AND_TARGET,
        Some(RowFormat::Lines),
        "",
    );
    let message = "rows in the format `lines` have no field `target`";
    assert_eq!(short(&error.unwrap_err()), message);
}

#[test]
fn all_targets_of_a_source_are_on_one_side() {
    let content = "source\ttarget\na\tb\na\tc\nb\tc\n";
    let rows = rows("t.tsv", content, None, "").rows.into_iter();
    let contents: Vec<_> = rows.map(|row| row.unwrap().content()).collect();
    assert_eq!(contents[0], contents[1]);
    assert_ne!(contents[0], contents[2]);
}

#[test]
fn rows_are_encoded_with_what_is_wrong_in_its_place() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/stories260K");
    let tokenizer = TextTokenizer::from_model_dir(&directory, &SpecialIds::default()).unwrap();
    let options = SequenceOptions {
        max_source: 6,
        max_target: 3,
        first: None,
    };
    let content = "source\ttarget\nOnce\tupon a time\n\tx\nOnce upon a time there was\tx\n";
    let rows = rows("t.tsv", content, None, "");
    let rows = encode_sequences(rows, &tokenizer, options, |row| row, Watch::never()).unwrap();
    let lengths = rows.rows.iter().map(|row| {
        let (_, encoded) = row.as_ref().ok()?;
        let target = encoded.target.as_ref()?;
        let (source, labels) = (encoded.source.ids.len(), target.labels.len());
        Some((source, encoded.source.truncated, labels, target.truncated))
    });
    let lengths: Vec<_> = lengths.collect();
    assert!(lengths[1].is_none(), "{lengths:?}");
    assert!(
        matches!(lengths[0], Some((_, false, 3, true))),
        "{lengths:?}"
    );
    assert!(
        matches!(lengths[2], Some((6, true, _, false))),
        "{lengths:?}"
    );
}
