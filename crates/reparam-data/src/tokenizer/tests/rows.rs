use super::*;
use crate::tokenizer::EncodedRow;

fn golden_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/bert")
}

/// The tokenizer of the golden files, cutting on this side.
fn tokenizer(side: &str) -> TextTokenizer {
    let directory = golden_directory().join("classifier");
    let read = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(directory.join(name)).unwrap()).unwrap()
    };
    let mut config = read("tokenizer_config.json");
    config["truncation_side"] = json!(side);
    load(&read("tokenizer.json"), &config).unwrap()
}

#[test]
fn rows_are_encoded_and_cut_as_by_transformers() {
    let golden = fs::read(golden_directory().join("rows.json")).unwrap();
    let golden: Value = serde_json::from_slice(&golden).unwrap();
    let rows = golden["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 80);
    for side in ["right", "left"] {
        let tokenizer = tokenizer(side);
        for row in rows.iter().filter(|row| row["side"] == side) {
            let ids = |key: &str| serde_json::from_value::<Vec<u32>>(row[key].clone()).unwrap();
            let max_length = row["max_length"].as_u64().unwrap() as usize;
            let text = row["text"].as_str().unwrap();
            let found = tokenizer
                .encode_row(text, row["text_pair"].as_str(), max_length)
                .unwrap();
            let expected = EncodedRow {
                ids: ids("ids"),
                type_ids: ids("type_ids"),
                truncated: row["truncated"].as_bool().unwrap(),
            };
            assert_eq!(found, expected, "{row}");
        }
    }
}

#[test]
fn types_do_not_need_a_template_that_names_them() {
    let ids = |processor: Value| {
        let mut json: Value = serde_json::from_slice(
            &fs::read(golden_directory().join("classifier/tokenizer.json")).unwrap(),
        )
        .unwrap();
        json["post_processor"] = processor;
        let row = load(&json, &json!({}))
            .unwrap()
            .encode_row("is it", Some("ok"), 24)
            .unwrap();
        (row.ids, row.type_ids)
    };
    let bert = json!({"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]});
    assert_eq!(
        ids(bert),
        (vec![2, 22, 23, 3, 24, 3], vec![0, 0, 0, 0, 1, 1])
    );
    assert_eq!(ids(Value::Null), (vec![22, 23, 24], vec![0, 0, 1]));
}

#[test]
fn a_template_that_fills_the_row_is_refused() {
    let tokenizer = tokenizer("right");
    let error = tokenizer.encode_row("ok", None, 2).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a row of 2 tokens has no room for a text: the template has 2"
    );
    assert_eq!(error.hint().unwrap(), "set sequence_length to 3 or more");
    assert_eq!(
        tokenizer.encode_row("ok ok", None, 3).unwrap().ids,
        [2, 24, 3]
    );
    assert!(matches!(
        tokenizer.encode_row("ok", Some("ok"), 3),
        Err(DataError::NoRoom {
            max_length: 3,
            of_template: 3
        })
    ));
    // One place for two texts goes to the longer one.
    assert_eq!(
        tokenizer.encode_row("ok", Some("ok ok"), 4).unwrap().ids,
        [2, 3, 24, 3]
    );
}

#[test]
fn another_side_is_refused() {
    let config = json!({"truncation_side": "middle"});
    let error = load(&stories_json(), &config).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("`truncation_side` is `middle`, not `left` or `right`"),
        "{error}"
    );
}
