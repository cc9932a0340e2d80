use super::*;
use crate::rows::testing::{read, short};
use crate::rows::{
    ANSWERED_QUESTION, EMBEDDING, LABELLED_TEXT, QUESTION, SOURCE, SOURCE_AND_TARGET,
    TAGGED_TOKENS, TEXT, TOKENS,
};

#[test]
fn each_task_reads_the_formats_that_have_its_fields() {
    let tables = ["jsonl", "csv", "tsv", "parquet"];
    for (schema, own) in [
        (&LABELLED_TEXT, &["lines"][..]),
        (&TEXT, &["lines"]),
        (&TAGGED_TOKENS, &["conll"]),
        (&TOKENS, &["conll"]),
        (&ANSWERED_QUESTION, &["squad"]),
        (&QUESTION, &["squad"]),
        (&EMBEDDING, &["lines"]),
        (&SOURCE_AND_TARGET, &["parallel", "bars"]),
        (&SOURCE, &["lines", "parallel", "bars"]),
    ] {
        let expected: Vec<&str> = tables.into_iter().chain(own.iter().copied()).collect();
        assert_eq!(RowFormat::of_schema(schema), expected, "{schema:?}");
    }
    let scored = Schema {
        required: &["text", "score"],
        ..TEXT
    };
    assert_eq!(RowFormat::of_schema(&scored), tables);
}

#[test]
fn a_format_without_the_fields_of_a_task_is_refused_by_name() {
    let error = |name, format, schema| {
        let error = read(name, "a B-X\n", schema, format, "").unwrap_err();
        (short(&error), error.hint().unwrap())
    };
    let (message, hint) = error("t.json", Some(RowFormat::Squad), &LABELLED_TEXT);
    assert_eq!(message, "rows in the format `squad` have no field `text`");
    assert_eq!(
        hint,
        "this task reads the formats `jsonl`, `csv`, `tsv`, `parquet`, `lines`"
    );
    let (message, hint) = error("t.bio", None, &QUESTION);
    assert_eq!(
        message,
        "t.bio: rows in the format `conll` have no field `context`"
    );
    assert_eq!(
        hint,
        "this task reads the formats `jsonl`, `csv`, `tsv`, `parquet`, `squad`"
    );
    let (message, _) = error("t.jsonl", Some(RowFormat::Lines), &TOKENS);
    assert_eq!(message, "rows in the format `lines` have no field `tokens`");
    let (message, hint) = error("t.annotated", None, &TOKENS);
    assert_eq!(message, "t.annotated from its name");
    assert!(
        hint.ends_with("one of `jsonl`, `csv`, `tsv`, `parquet`, `conll`"),
        "{hint}"
    );
}

#[test]
fn a_directory_is_asked_for_the_files_of_the_task() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a.conll", "b.BIO", "c.bmes", "d.jsonl", "e.annotated"] {
        let content = if name == "d.jsonl" {
            "{\"tokens\":[],\"text\":\"\"}"
        } else {
            "a\n"
        };
        std::fs::write(directory.path().join(name), content).unwrap();
    }
    let names = |schema: &Schema, format| {
        let options = crate::rows::RowsOptions {
            format,
            ..Default::default()
        };
        let paths = [directory.path().to_owned()];
        let rows = crate::rows::read_rows(&paths, schema, &options).unwrap();
        let names = rows
            .files
            .iter()
            .map(|file| file.path.file_name().unwrap().to_owned());
        names
            .map(|name| name.into_string().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(&TOKENS, None),
        ["a.conll", "b.BIO", "c.bmes", "d.jsonl"]
    );
    assert_eq!(names(&TEXT, None), ["d.jsonl"]);
}
