use serde_json::json;

use super::*;

fn parse(text: &str) -> Fields {
    text.parse().unwrap()
}

fn message(text: &str) -> String {
    text.parse::<Fields>().unwrap_err().to_string()
}

#[test]
fn a_field_that_is_not_named_has_the_column_of_its_name() {
    let fields = parse("text = Review, label=Kind");
    assert_eq!(
        fields.table_column("text"),
        Some(Column::Name("Review".to_owned()))
    );
    assert_eq!(
        fields.table_column("text_pair"),
        Some(Column::Name("text_pair".to_owned()))
    );
    assert_eq!(
        (fields.key("label"), fields.key("labels")),
        ("Kind", "labels")
    );
    assert!(!fields.numbered());
}

#[test]
fn numbers_count_from_one_or_from_zero_and_name_every_column() {
    for (text, column) in [
        ("text=1,label=3", 0),
        ("text=0,label=2", 0),
        ("label=1,text=2", 1),
    ] {
        let fields = parse(text);
        assert!(fields.numbered());
        assert_eq!(
            fields.table_column("text"),
            Some(Column::Number(column)),
            "{text}"
        );
        assert_eq!(fields.table_column("score"), None, "{text}");
    }
    assert_eq!(
        parse("text=0,label=2").table_column("label"),
        Some(Column::Number(2))
    );
    assert_eq!(
        parse("text=1,label=3").table_column("label"),
        Some(Column::Number(2))
    );
}

#[test]
fn what_is_written_is_read_again() {
    for text in ["label=Kind,text=Review", "label=2,text=1", "text=a column"] {
        let fields = parse(text);
        assert_eq!(fields.to_string(), text);
        let json = serde_json::to_string(&fields).unwrap();
        assert_eq!(serde_json::from_str::<Fields>(&json).unwrap(), fields);
    }
    for (json, text) in [
        ("\"\"", ""),
        ("{}", ""),
        ("\"text=a, label=b\"", "label=b,text=a"),
        ("{\"text\": \"a=b, c\"}", "text=a=b, c"),
    ] {
        let fields: Fields = serde_json::from_str(json).unwrap();
        assert_eq!(fields.to_string(), text);
        assert_eq!(
            serde_json::from_value::<Fields>(json!(fields)).unwrap(),
            fields
        );
    }
}

#[test]
fn other_forms_are_refused() {
    assert_eq!(message("review"), "expected field=column, found `review`");
    assert_eq!(
        message("text=a,,label=b"),
        "expected field=column, found ``"
    );
    assert_eq!(message("text="), "expected field=column, found `text=`");
    assert_eq!(message("text=a,text=b"), "the field `text` is named twice");
    assert_eq!(
        message("text=1,label=kind"),
        "the columns of `label=kind,text=1` are numbers as well as names"
    );
}
