//! Tokenizers.

use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::gguf::{GgufError, GgufTokenizer, TokenizerFiles};

/// A tokenizer over bytes, as GPT-2's.
pub(super) fn bytes_json() -> Value {
    json!({
        "added_tokens": [
            {"id": 3, "content": "<end>", "special": true},
            {"id": 4, "content": "\u{2581}own", "special": false},
        ],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
        "post_processor": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
    })
}

pub(super) fn bytes_tokenizer(json: &Value) -> TokenizerFiles<'static> {
    // Tests may keep a few texts for good.
    let text: &'static str = Box::leak(json.to_string().into_boxed_str());
    TokenizerFiles {
        path: Path::new("tokenizer.json"),
        tokenizer: text,
        chat_template: Some("{{ messages }}"),
        bos: None,
        eos: Some(3),
        pad: None,
        rows: 6,
    }
}

fn metadata(tokenizer: &GgufTokenizer) -> BTreeMap<String, GgufValue> {
    tokenizer.metadata().into_iter().collect()
}

fn texts(value: &GgufValue) -> Vec<&str> {
    match value {
        GgufValue::Texts(texts) => texts.iter().map(String::as_str).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_tokenizer_over_bytes_keeps_its_tokens_and_merges() {
    let json = bytes_json();
    let tokenizer = GgufTokenizer::read(&bytes_tokenizer(&json)).expect("a tokenizer");
    let all = metadata(&tokenizer);
    let of = |key: &str| &all[&format!("tokenizer.ggml.{key}")];
    assert_eq!(*of("pre"), GgufValue::Text("gpt-2".into()));
    assert_eq!(
        texts(of("tokens")),
        ["a", "b", "ab", "<end>", " own", "[PAD5]"]
    );
    assert_eq!(*of("token_type"), GgufValue::I32s(vec![1, 1, 1, 3, 4, 5]));
    assert_eq!(texts(of("merges")), ["a b"]);
    assert_eq!(*of("eos_token_id"), GgufValue::U32(3));
    assert_eq!(*of("add_bos_token"), GgufValue::Bool(false));
    assert_eq!(
        all["tokenizer.chat_template"],
        GgufValue::Text("{{ messages }}".into())
    );
    assert!(!all.contains_key("tokenizer.ggml.bos_token_id"));
}

/// A regular expression of Llama 3's kind, with a number of digits.
fn split(digits: &str) -> Value {
    let regex = format!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    );
    json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
    ]})
}

#[test]
fn the_way_in_which_texts_are_cut_has_a_name() {
    let digits = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": true},
        {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
    ]});
    let cases = [
        (digits.clone(), false, Some("smollm")),
        (split("{1,3}"), true, Some("llama-bpe")),
        (split("{1,3}"), false, Some("dbrx")),
        (split(""), false, Some("qwen2")),
        (split("{1,2}"), false, None),
        (digits, true, None),
        (
            json!({"type": "ByteLevel", "add_prefix_space": true}),
            false,
            None,
        ),
        (json!({"type": "BertPreTokenizer"}), false, None),
    ];
    for (pre, ignores, expected) in cases {
        let mut json = bytes_json();
        json["pre_tokenizer"] = pre.clone();
        json["model"]["ignore_merges"] = ignores.into();
        let read = GgufTokenizer::read(&bytes_tokenizer(&json));
        match (read, expected) {
            (Ok(tokenizer), Some(name)) => {
                let found = &metadata(&tokenizer)["tokenizer.ggml.pre"];
                assert_eq!(*found, GgufValue::Text(name.into()));
            }
            (Err(GgufError::Tokenizer { .. }), None) => {}
            (read, expected) => panic!("{pre} {ignores}: {read:?} {expected:?}"),
        }
    }
}

#[test]
fn a_tokenizer_that_does_something_else_is_refused_by_what_it_does() {
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 7] = [
        (
            |json| json["normalizer"] = json!({"type": "Lowercase"}),
            "Lowercase",
        ),
        (|json| json["model"]["type"] = "Unigram".into(), "Unigram"),
        (
            |json| json["model"]["end_of_word_suffix"] = "</w>".into(),
            "end_of_word_suffix",
        ),
        (|json| json["model"]["byte_fallback"] = true.into(), "bytes"),
        (|json| json["model"]["vocab"]["z"] = 17.into(), "17"),
        (|json| json["model"]["merges"] = json!([["a"]]), "merges"),
        (
            |json| {
                json["post_processor"] = json!({
                    "type": "TemplateProcessing",
                    "single": [{"SpecialToken": {"id": "<a>"}}, {"Sequence": {"id": "A"}}],
                    "special_tokens": {"<a>": {"ids": [0]}},
                });
            },
            "template",
        ),
    ];
    for (change, said) in cases {
        let mut json = bytes_json();
        change(&mut json);
        let error = GgufTokenizer::read(&bytes_tokenizer(&json)).expect_err(said);
        assert!(error.to_string().contains(said), "{error}");
    }
}

/// The built-in model's tokenizer is one of SentencePiece's.
fn pieces_json() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = path.join("../../assets/stories260K/tokenizer.json");
    let text = std::fs::read_to_string(path).expect("the built-in tokenizer");
    serde_json::from_str(&text).expect("JSON")
}

fn pieces_files(json: &Value) -> TokenizerFiles<'static> {
    TokenizerFiles {
        bos: Some(1),
        eos: Some(2),
        rows: 512,
        ..bytes_tokenizer(json)
    }
}

#[test]
fn pieces_have_scores_in_the_order_in_which_they_are_joined() {
    let json = pieces_json();
    let tokenizer = GgufTokenizer::read(&pieces_files(&json)).expect("a tokenizer");
    let all = metadata(&tokenizer);
    let of = |key: &str| &all[&format!("tokenizer.ggml.{key}")];
    assert_eq!(*of("add_bos_token"), GgufValue::Bool(true));
    assert_eq!(*of("add_eos_token"), GgufValue::Bool(false));
    assert_eq!(*of("add_space_prefix"), GgufValue::Bool(true));
    assert_eq!(*of("unknown_token_id"), GgufValue::U32(0));
    let (GgufValue::F32s(scores), GgufValue::I32s(kinds)) = (of("scores"), of("token_type")) else {
        panic!("scores and kinds");
    };
    assert_eq!(kinds[..4], [2, 3, 3, 6]);
    assert_eq!(kinds.iter().filter(|kind| **kind == 6).count(), 256);
    let tokens = texts(of("tokens"));
    let score = |token: &str| {
        let at = tokens
            .iter()
            .position(|known| *known == token)
            .expect(token);
        scores[at]
    };
    assert_eq!(score("\u{2581}t"), 0.0);
    assert!(score("he") > score("\u{2581}a") && score("\u{2581}a") > score("e"));
}

#[test]
fn merges_that_scores_cannot_say_are_refused() {
    let mut json = pieces_json();
    let merges = json["model"]["merges"].as_array_mut().expect("merges");
    let first = merges.remove(0);
    let error = GgufTokenizer::read(&pieces_files(&json)).expect_err("a pair is missing");
    assert!(error.to_string().contains("not joined"), "{error}");
    let merges = json["model"]["merges"].as_array_mut().expect("merges");
    merges.insert(0, first.clone());
    merges.push(first);
    let error = GgufTokenizer::read(&pieces_files(&json)).expect_err("a pair is apart");
    assert!(error.to_string().contains("together"), "{error}");
}
