use super::*;
use crate::rows::testing::{read, told};

fn tell(row: PairRow) -> String {
    match row.pair {
        Pair::Scored {
            text,
            text_pair,
            score,
        } => format!("{text}~{text_pair}={score}"),
        Pair::Ranked {
            anchor,
            positive,
            negative,
        } => format!("{anchor}>{positive}>{}", negative.unwrap_or_default()),
    }
}

#[test]
fn rows_are_scored_or_ranked() {
    let table = "A man, dancing.,\"A \"\"man\"\".\",4.75\n";
    let table = format!("\"A man, dancing.\",{}", table.split_once(".,").unwrap().1);
    let rows = read(
        "t.csv",
        &table,
        &EMBEDDING,
        None,
        "text=1,text_pair=2,score=3",
    )
    .unwrap();
    assert_eq!(
        told(pair_rows(rows), tell),
        [Ok("A man, dancing.~A \"man\".=4.75".to_owned())]
    );

    let content = [
        r#"{"text":"a","text_pair":"","score":-1}"#,
        r#"{"anchor":"a","positive":"b"}"#,
        r#"{"anchor":"a","positive":"b","negative":"c","score":1}"#,
        r#"{"anchor":"a","positive":"b","negative":" "}"#,
        r#"{"text":"a","score":1}"#,
        r#"{"positive":"b"}"#,
        r#"{"sentence1":"b"}"#,
        r#"{"text":"a","text_pair":"b","score":"x"}"#,
    ];
    let rows = read("t.jsonl", &content.join("\n"), &EMBEDDING, None, "").unwrap();
    let neither = |line: usize, missing: &str| {
        let forms = "neither `text`, `text_pair` and `score` nor `anchor` and `positive`";
        Err(format!("t.jsonl:{line}: {forms}: no {missing}"))
    };
    let expected = [
        Ok("a~=-1".to_owned()),
        Ok("a>b>".to_owned()),
        Ok("a>b>c".to_owned()),
        Ok("a>b>".to_owned()),
        neither(5, "`text_pair`"),
        neither(6, "`anchor`"),
        neither(7, "`text`, `text_pair`, `score`"),
        Err("t.jsonl:8: the field `score` is \"x\", not a finite number".to_owned()),
    ];
    assert_eq!(told(pair_rows(rows), tell), expected);
}

#[test]
fn what_a_row_says() {
    let content = [
        r#"{"text":"a","text_pair":"b","score":1}"#,
        r#"{"text":"a","text_pair":"b","score":2}"#,
        r#"{"anchor":"a","positive":"b"}"#,
        r#"{"anchor":"a","positive":"b","negative":"c"}"#,
        r#"{"anchor":"a","positive":"c"}"#,
    ];
    let rows = read("t.jsonl", &content.join("\n"), &EMBEDDING, None, "").unwrap();
    let contents = pair_rows(rows)
        .rows
        .into_iter()
        .map(|row| row.unwrap().content());
    let contents: std::collections::HashSet<_> = contents.collect();
    assert_eq!(contents.len(), content.len());
}
