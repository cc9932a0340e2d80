use serde::Deserialize;

use super::*;
use crate::tokenizer::{EncodedRow, EncodedWords};

#[derive(Deserialize)]
struct Row {
    tokenizer: String,
    words: Vec<String>,
    max_length: usize,
    side: String,
    ids: Vec<u32>,
    type_ids: Vec<u32>,
    first: Vec<Option<usize>>,
}

#[test]
fn words_are_encoded_and_cut_as_by_transformers() {
    let rows: Vec<Row> = rows_of("words.json");
    assert_eq!(rows.len(), 36);
    for row in rows {
        let tokenizer = golden_tokenizer(&row.tokenizer, &row.side);
        let whole = tokenizer.encode_words(&row.words, 512).unwrap();
        let found = tokenizer.encode_words(&row.words, row.max_length).unwrap();
        let expected = EncodedWords {
            row: EncodedRow {
                truncated: row.ids.len() < whole.row.ids.len(),
                ids: row.ids,
                type_ids: row.type_ids,
            },
            first: row.first,
        };
        assert_eq!(found, expected, "{} {:?}", row.tokenizer, row.words);
    }
}

#[test]
fn a_byte_level_tokenizer_is_given_words_with_a_space() {
    let mut json = golden_json("byte_level");
    let words = ["sure", "", "</s>", " cat", "it's"].map(str::to_owned);
    let encode = |json: &Value| {
        load(json, &json!({}))
            .unwrap()
            .encode_words(&words, 64)
            .unwrap()
    };
    let expected = encode(&json);
    json["pre_tokenizer"]["add_prefix_space"] = json!(false);
    assert_eq!(encode(&json), expected);
    let step = json["pre_tokenizer"].clone();
    json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [step]});
    assert_eq!(encode(&json), expected);
}

#[test]
fn a_label_is_that_of_the_first_piece() {
    let words = EncodedWords {
        row: EncodedRow {
            ids: vec![2, 7, 8, 9, 3],
            type_ids: vec![0; 5],
            truncated: true,
        },
        first: vec![Some(1), None, Some(3), None],
    };
    assert_eq!(words.labels(&[4, 5, 6, 0]), [-100, 4, -100, 6, -100]);
    let tokenizer = golden_tokenizer("bert", "right");
    assert!(matches!(
        tokenizer.encode_words(&[], 2),
        Err(DataError::NoRoom { .. })
    ));
}
