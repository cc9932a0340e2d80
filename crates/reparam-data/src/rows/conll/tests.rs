use proptest::prelude::*;

use crate::rows::testing::{read, short, told};
use crate::rows::{RowFormat, TAGGED_TOKENS, TOKENS, TokenRow, token_rows};

/// The tokens and tags of each sentence, and the line on which it begins.
fn tell(row: TokenRow) -> String {
    let tags = row
        .tags
        .iter()
        .flatten()
        .map(|tag| format!("/{}", tag.text()));
    let mut tags = tags.collect::<Vec<_>>().into_iter();
    let tokens = row
        .tokens
        .iter()
        .map(|token| token.clone() + &tags.next().unwrap_or_default());
    format!(
        "{}: {}",
        row.place.line,
        tokens.collect::<Vec<_>>().join(" ")
    )
}

fn sentences(content: &str, fields: &str) -> Vec<std::result::Result<String, String>> {
    let rows = read("t.conll", content, &TAGGED_TOKENS, None, fields).unwrap();
    told(token_rows(rows), tell)
}

fn ok(lines: &[&str]) -> Vec<std::result::Result<String, String>> {
    lines.iter().map(|line| Ok((*line).to_owned())).collect()
}

#[test]
fn blank_lines_end_sentences() {
    for content in [
        "EU B-ORG\nrejects O\n\nPeter B-PER\n",
        "EU\tB-ORG\r\nrejects\tO\r\n\t\r\nPeter\tB-PER",
        "EU  NNP I-NP B-ORG\nrejects VBZ B-VP O\n \nPeter NNP B-NP B-PER\n\n\n",
    ] {
        let expected = ok(&["1: EU/B-ORG rejects/O", "4: Peter/B-PER"]);
        assert_eq!(sentences(content, ""), expected, "{content}");
    }
    let content =
        "-DOCSTART- -X- O O\n\nEU NNP I-NP B-ORG\n-DOCSTART- -X- O O\nPeter NNP B-NP B-PER\n";
    assert_eq!(
        sentences(content, ""),
        ok(&["3: EU/B-ORG", "5: Peter/B-PER"])
    );
}

#[test]
fn columns_are_chosen_by_number() {
    let content = "1\tEU\tB-ORG\t_\n2\tNew York\tO\t_\n";
    let expected = ok(&["1: EU/B-ORG New York/O"]);
    assert_eq!(sentences(content, "tokens=2,tags=3"), expected);
    assert_eq!(
        sentences(content, "tags=2,tokens=1"),
        ok(&["1: 1/EU 2/New York"])
    );
    assert_eq!(
        sentences(content, "tokens=0,tags=2"),
        ok(&["1: 1/B-ORG 2/O"])
    );
    let error = read("t.conll", content, &TAGGED_TOKENS, None, "tokens=word").unwrap_err();
    let expected = "t.conll:1: no `word` for the field `tokens`, found `4 columns without names`";
    assert_eq!(short(&error), expected);
}

#[test]
fn a_token_without_a_tag_is_an_error_of_its_sentence() {
    let found = sentences("a O\nb\n\nc O\n\nd\n", "");
    let expected = [
        Err("t.conll:1: 2 tokens and 1 tags".to_owned()),
        Ok("4: c/O".to_owned()),
        Err("t.conll:6: no `tags` for the field `tags`, found `1 columns`".to_owned()),
    ];
    assert_eq!(found, expected);
    let found = sentences("a b O\nc\n", "tokens=2,tags=3");
    assert_eq!(
        found,
        [Err("t.conll:2: expected 2 cells, found 1".to_owned())]
    );
}

#[test]
fn tags_are_not_needed_to_predict() {
    for content in ["a\nb\n\nc\n", "a O\nb\n\nc O\n"] {
        let rows = read("t.txt", content, &TOKENS, Some(RowFormat::Conll), "").unwrap();
        assert_eq!(
            told(token_rows(rows), tell),
            ok(&["1: a b", "4: c"]),
            "{content}"
        );
    }
    for content in ["\n\n", "-DOCSTART- O\n"] {
        let error = read("t.conll", content, &TOKENS, None, "").unwrap_err();
        assert!(short(&error).starts_with("t.conll "), "{error}");
    }
}

proptest! {
    #[test]
    fn any_sentences_survive(
        sentences in prop::collection::vec(prop::collection::vec("[^ \t\r\n]{1,4}", 1..5), 1..5),
        separator in "[ \t]",
    ) {
        let clean = |token: &String| token.replace("-DOCSTART-", "-");
        let sentences: Vec<Vec<String>> =
            sentences.iter().map(|tokens| tokens.iter().map(clean).collect()).collect();
        let line = |token: &String| format!("{token}{separator}B-x\n");
        let lines = sentences.iter().map(|tokens| tokens.iter().map(line).collect::<String>() + "\n");
        let content = format!("\n{}", lines.collect::<String>());
        let rows = token_rows(read("t.conll", &content, &TAGGED_TOKENS, None, "").unwrap());
        let found: Vec<_> = rows.rows.into_iter().map(|row| row.unwrap().tokens).collect();
        prop_assert_eq!(found, sentences);
    }
}
