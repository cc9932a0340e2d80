use crate::rows::testing::{read, told};
use crate::rows::{TAGGED_TOKENS, TOKENS, token_rows};

#[test]
fn tokens_and_tags_are_lists_of_one_length() {
    let content = [
        r#"{"tokens":["a","b"],"tags":["O",1]}"#,
        r#"{"tokens":["a"],"tags":["O","O"]}"#,
        r#"{"tokens":[],"tags":[]}"#,
        r#"{"tokens":"a b","tags":["O"]}"#,
        r#"{"tokens":["a",1],"tags":["O","O"]}"#,
        r#"{"tokens":["a"],"tags":[null]}"#,
        r#"{"tokens":null,"tags":["O"]}"#,
        r#"{"tokens":["a"]}"#,
    ];
    let rows = token_rows(read("t.jsonl", &content.join("\n"), &TAGGED_TOKENS, None, "").unwrap());
    let expected = [
        Ok("[\"a\", \"b\"] O,1".to_owned()),
        Err("t.jsonl:2: 1 tokens and 2 tags".to_owned()),
        Ok("[] ".to_owned()),
        Err("t.jsonl:4: the field `tokens` is a string, not a list of strings".to_owned()),
        Err(
            "t.jsonl:5: the field `tokens` is a list with a number, not a list of strings"
                .to_owned(),
        ),
        Err(
            "t.jsonl:6: the field `tags` is a list with null, not a list of names or indices"
                .to_owned(),
        ),
        Err("t.jsonl:7: the field `tokens` is null, not a list of strings".to_owned()),
        Err("t.jsonl:8: no `tags` for the field `tags`, found `tokens`".to_owned()),
    ];
    let found = told(rows, |row| {
        let tags: Vec<&str> = row.tags.iter().flatten().map(|tag| tag.text()).collect();
        format!("{:?} {}", row.tokens, tags.join(","))
    });
    assert_eq!(found, expected);
}

#[test]
fn a_cell_of_a_table_is_a_list_in_json() {
    let content = "words\ttags\n[\"a\", \"b\"]\t[0, 1]\n";
    let rows = read("t.tsv", content, &TAGGED_TOKENS, None, "tokens=words").unwrap();
    let row = token_rows(rows).rows.remove(0).unwrap();
    assert_eq!(row.tokens, ["a", "b"]);
    assert_eq!(row.tags.unwrap().len(), 2);
    let rows = read("t.tsv", content, &TOKENS, None, "tokens=words,tags=none").unwrap();
    assert_eq!(token_rows(rows).rows.remove(0).unwrap().tags, None);
}
