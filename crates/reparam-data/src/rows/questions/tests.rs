use super::*;
use crate::rows::testing::{read, short, told};

fn rows(context: &str, answers: &str, places: AnswerPlaces) -> Rows<QuestionRow> {
    let content = format!(r#"{{"context":"{context}","question":"?","answers":{answers}}}"#);
    question_rows(
        read("t.jsonl", &content, &ANSWERED_QUESTION, None, "").unwrap(),
        places,
    )
}

/// Each answer with its place.
fn found(
    context: &str,
    answers: &str,
    places: AnswerPlaces,
) -> std::result::Result<String, String> {
    let tell = |row: QuestionRow| {
        let answers = row
            .answers
            .iter()
            .flatten()
            .map(|answer| match &answer.characters {
                Some(at) => {
                    assert_eq!(row.text_at(at), answer.text);
                    format!("{}@{}", answer.text, at.start)
                }
                None => answer.text.clone(),
            });
        answers.collect::<Vec<_>>().join(" ")
    };
    told(rows(context, answers, places), tell).remove(0)
}

#[test]
fn answers_are_written_in_several_ways() {
    for (answers, expected) in [
        (r#"{"text":["b","c"],"answer_start":[3,4]}"#, "b@3 c@4"),
        (r#"[{"text":"b","answer_start":3},{"text":"a"}]"#, "b@3 a@1"),
        (r#"{"text":["c"]}"#, "c@4"),
        (r#"{"text":"c","answer_start":4}"#, "c@4"),
        (r#"["b","😀a"]"#, "b@3 😀a@0"),
        (r#""c""#, "c@4"),
        (r#""[\"b\"]""#, "b@3"),
        ("[]", ""),
        (r#"{"text":[],"answer_start":[]}"#, ""),
        (r#"{"text":[""],"answer_start":[-1]}"#, ""),
        (r#""""#, ""),
    ] {
        let found = found("😀a bc", answers, AnswerPlaces::Checked);
        assert_eq!(found.as_deref(), Ok(expected), "{answers}");
    }
    // What begins like JSON may be an answer.
    assert_eq!(
        found("see [12]", r#""[12]""#, AnswerPlaces::Checked).as_deref(),
        Ok("[12]@4")
    );
}

#[test]
fn an_answer_that_is_not_there_is_an_error() {
    let not_there = |start: i64, at: &str| {
        let there = match at {
            "" => "which has none there".to_owned(),
            at => format!("where `{at}` stands"),
        };
        Err(format!(
            "t.jsonl:1: the answer `bc` is not at character {start} of the context, {there}"
        ))
    };
    for (start, at) in [(4, "c"), (2, " b"), (-1, ""), (9, ""), (i64::MIN, "")] {
        let answers = format!(r#"{{"text":["bc"],"answer_start":[{start}]}}"#);
        assert_eq!(
            found("😀a bc", &answers, AnswerPlaces::Checked),
            not_there(start, at)
        );
        assert_eq!(
            found("😀a bc", &answers, AnswerPlaces::Optional).as_deref(),
            Ok("bc")
        );
    }
    assert_eq!(
        found("abc", r#"["d"]"#, AnswerPlaces::Checked),
        Err("t.jsonl:1: the answer `d` does not occur in the context".to_owned())
    );
    let error = |answers: &str| {
        let rows = rows("😀a bc", answers, AnswerPlaces::Checked);
        rows.rows.into_iter().next().unwrap().unwrap_err()
    };
    let hint = error(r#"{"text":["bc"],"answer_start":[6]}"#)
        .hint()
        .unwrap();
    assert_eq!(
        hint,
        "it first occurs at 3; offsets count characters, not bytes, from 0"
    );
    let counts = error(r#"{"text":["bc"],"answer_start":[]}"#);
    assert_eq!(short(&counts), "t.jsonl:1: 1 answers and 0 offsets");
    let expected = r#"not a text, a list of texts or {"text": [..], "answer_start": [..]}"#;
    for answers in ["1", "[[]]", "{}", r#"{"text":["a"],"answer_start":["b"]}"#] {
        let error = error(answers);
        assert!(short(&error).ends_with(expected), "{answers}: {error}");
    }
}

#[test]
fn questions_of_one_context_are_held_out_together() {
    let row = |context| {
        rows(context, "[]", AnswerPlaces::Checked)
            .rows
            .remove(0)
            .unwrap()
    };
    assert_eq!(
        row("a").content(),
        QuestionRow {
            question: "b".into(),
            ..row("a")
        }
        .content()
    );
    assert_ne!(row("a").content(), row("b").content());
}
