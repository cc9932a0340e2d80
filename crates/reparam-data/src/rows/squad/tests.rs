use crate::rows::testing::{read, short, told};
use crate::rows::{
    ANSWERED_QUESTION, AnswerPlaces, LABELLED_TEXT, QUESTION, QuestionRow, RowFormat, question_rows,
};

const FILE: &str = r#"{"version": "v2.0", "data": [
 {"title": "T", "paragraphs": [
  {"qas": [
    {"id": 1, "question": "Who?", "answers": [{"text": "你好", "answer_start": 0}, {"text": "Lee", "answer_start": 4}]},
    {"id": "b", "question": "When?", "is_impossible": true, "answers": [], "plausible_answers": [{"text": "Lee", "answer_start": 4}]}],
   "context": "你好, Lee"}]},
 {"paragraphs": [{"context": "x", "qas": [
    7,
    {"id": "c", "answers": []},
    {"id": "d", "question": "What?", "answers": {"text": ["y"], "answer_start": [0]}}]}]}]}"#;

fn tell(row: QuestionRow) -> String {
    let QuestionRow {
        context,
        question,
        answers,
        id,
        place,
    } = row;
    let answers: Vec<_> = answers
        .iter()
        .flatten()
        .map(|answer| answer.text.clone())
        .collect();
    let id = id.unwrap_or_default();
    format!(
        "{}#{} {id}: {question} {context} {}",
        place.line,
        place.item.unwrap(),
        answers.join("|")
    )
}

#[test]
fn questions_are_read_with_the_context_of_their_paragraph() {
    for format in [None, Some(RowFormat::Squad)] {
        let rows = read("t.json", FILE, &ANSWERED_QUESTION, format, "").unwrap();
        let expected = [
            Ok("4#1 1: Who? 你好, Lee 你好|Lee".to_owned()),
            Ok("5#2 b: When? 你好, Lee ".to_owned()),
            Err("t.json:8 (item 3): expected a JSON object, found a number".to_owned()),
            Err("t.json:9 (item 4): no `question` for the field `question`, found `id`, `answers`".to_owned()),
            Err(
                "t.json:10 (item 5): the answer `y` is not at character 0 of the context, where `x` stands"
                    .to_owned(),
            ),
        ];
        let mut found = told(question_rows(rows, AnswerPlaces::Checked), tell);
        // The context was put in by the reader.
        found[3] = found[3]
            .clone()
            .map_err(|error| error.replace(", `context`", ""));
        assert_eq!(found, expected);
    }
}

#[test]
fn answers_are_not_needed_to_predict() {
    let rows = read("t.json", FILE, &QUESTION, None, "").unwrap();
    let rows: Vec<_> = question_rows(rows, AnswerPlaces::Checked)
        .rows
        .into_iter()
        .flatten()
        .collect();
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row.answers.is_none()));
}

#[test]
fn fields_of_other_files_are_not_those_of_this_one() {
    let rows = read("t.json", FILE, &QUESTION, None, "question=q,context=c").unwrap();
    assert_eq!(rows.rows.iter().flatten().count(), 3);
}

#[test]
fn another_json_is_told_from_it() {
    let rows = |name: &str, content: &str| {
        let rows = read(name, content, &QUESTION, None, "");
        rows.map(|rows| rows.rows.len())
    };
    // One question an object, whatever else it has.
    let flat = r#"{"question":"a","context":"b","data":[],"paragraphs":1}"#;
    assert_eq!(rows("t.json", &format!("{flat}\n{flat}\n")).unwrap(), 2);
    let wrapped = format!("{{\"data\":[{flat},{flat}]}}");
    assert_eq!(rows("t.json", &wrapped).unwrap(), 2);
    let empty = r#"{"data":[{"paragraphs":[]}]}"#;
    assert!(short(&rows("t.json", empty).unwrap_err()).starts_with("t.json "));

    let error = read("t.json", &wrapped, &QUESTION, Some(RowFormat::Squad), "").unwrap_err();
    assert_eq!(
        short(&error),
        "t.json:1: no file of SQuAD: invalid type: integer `1`, expected a sequence"
    );
    assert!(error.hint().unwrap().contains("`jsonl`"));
    // A classifier is told what it lacks, not what the file is.
    let rows = read("t.json", FILE, &LABELLED_TEXT, None, "").unwrap();
    let error = rows.rows.into_iter().next().unwrap().unwrap_err();
    assert!(short(&error).contains("no `text`"), "{error}");
}
