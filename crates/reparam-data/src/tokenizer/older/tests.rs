//! Tokenizers of older files against transformers.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;
use crate::tokenizer::{SpecialIds, TextTokenizer};

const NAMES: [&str; 12] = [
    "bert",
    "bert_cased",
    "deberta_v2",
    "gemma",
    "gpt2",
    "llama",
    "llama_legacy",
    "opt",
    "qwen2",
    "roberta",
    "t5",
    "xlm_roberta",
];

fn golden(name: &str) -> PathBuf {
    let golden =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/older_tokenizers");
    golden.join(name)
}

fn json(name: &str) -> Value {
    let bytes = std::fs::read(golden(name)).expect("the golden file is in the repository");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn ids(value: &Value) -> Vec<u32> {
    let ids = value.as_array().expect("a list").iter();
    ids.map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// The older files of a directory and what stands beside them.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let read = entries.map(|entry| {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        (name, std::fs::read(path).expect("a file"))
    });
    read.collect()
}

fn made(name: &str) -> tokenizers::Tokenizer {
    let files = files(&golden(name));
    let bytes = |name: &str| files.get(name).map(Vec::as_slice);
    let made = tokenizer_json(Path::new("dir"), None, bytes).expect("reads");
    let made = made.expect("there are older files");
    tokenizers::Tokenizer::from_bytes(made).expect("a tokenizer")
}

#[test]
fn ids_are_those_of_transformers() {
    let texts = json("texts.json");
    for name in NAMES {
        let expected = json(&format!("{name}.ids.json"));
        let tokenizer = made(name);
        for (at, text) in texts.as_array().expect("texts").iter().enumerate() {
            let text = text.as_str().expect("a text");
            let found = tokenizer.encode(text, true).expect("encodes");
            assert_eq!(
                found.get_ids(),
                ids(&expected["ids"][at]),
                "{name}: {text:?}"
            );
            let decoded = tokenizer.decode(found.get_ids(), true).expect("decodes");
            assert_eq!(decoded, expected["decoded"][at], "{name}: {text:?}");
        }
        let pair = [0, 8].map(|at| texts[at].as_str().expect("a text"));
        let found = tokenizer.encode((pair[0], pair[1]), true).expect("encodes");
        assert_eq!(found.get_ids(), ids(&expected["pair"]), "{name}");
    }
}

/// The same bytes each time, and a tokenizer that the rest of the crate takes.
#[test]
fn a_directory_without_tokenizer_json_is_read() {
    for name in NAMES {
        let directory = golden(name);
        let read = || TextTokenizer::from_model_dir(&directory, &SpecialIds::default());
        let (first, second) = (read().expect(name), read().expect(name));
        assert_eq!(first.digest(), second.digest(), "{name}");
    }
}

#[test]
fn the_model_type_says_the_class_where_nothing_else_does() {
    let bytes = std::fs::read(golden("t5/spiece.model")).expect("a file");
    let only = |name: &str| (name == "spiece.model").then_some(&bytes[..]);
    let make = |model_type| tokenizer_json(Path::new("dir"), model_type, only);
    assert!(make(Some("t5")).expect("reads").is_some());
    for (model_type, expected) in [
        (None, "does not say its tokenizer_class"),
        (Some("vit"), "does not say"),
    ] {
        let error = make(model_type).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("dir/"), "{error}");
    }
    // Files of another class are none of a tokenizer.
    assert!(make(Some("llama")).expect("no files, no error").is_none());
    let nothing = tokenizer_json(Path::new("dir"), Some("t5"), |_| None);
    assert!(nothing.expect("no files, no error").is_none());
}

#[test]
fn what_does_not_fit_is_said_with_its_file() {
    let spm = std::fs::read(golden("t5/spiece.model")).expect("a file");
    let cases: [(&str, &[u8], &str, &str); 7] = [
        (
            "tokenizer.model",
            &spm,
            r#"{"tokenizer_class": "LlamaTokenizer"}"#,
            "it is Unigram, where its class has BPE",
        ),
        (
            "tokenizer.model",
            b"junk",
            r#"{"tokenizer_class": "LlamaTokenizer"}"#,
            "no model of SentencePiece",
        ),
        (
            "spiece.model",
            &spm,
            r#"{"tokenizer_class": "PhonyTokenizer"}"#,
            "PhonyTokenizer",
        ),
        (
            "spiece.model",
            &spm,
            r#"{"tokenizer_class": "T5Tokenizer", "extra_ids": -1}"#,
            "`extra_ids`",
        ),
        (
            "spiece.model",
            &spm,
            r#"{"tokenizer_class": "T5Tokenizer", "eos_token": 3}"#,
            "`eos_token` is not a token",
        ),
        (
            "vocab.txt",
            b"[PAD]\n[UNK]\n",
            r#"{"tokenizer_class": "BertTokenizer", "do_lower_case": "no"}"#,
            "`do_lower_case`",
        ),
        (
            "vocab.json",
            b"{\"a\": 0}",
            r#"{"tokenizer_class": "GPT2Tokenizer"}"#,
            "needs merges.txt",
        ),
    ];
    for (name, bytes, config, expected) in cases {
        let of = |asked: &str| match asked {
            "tokenizer_config.json" => Some(config.as_bytes()),
            asked => (asked == name).then_some(bytes),
        };
        let error = tokenizer_json(Path::new("dir"), None, of).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        let has_hint = !matches!(error, DataError::InvalidTokenizerConfig { .. });
        assert_eq!(error.hint().is_some(), has_hint);
    }
    let huge = |asked: &str| match asked {
        "vocab.json" => Some(&b"{\"a\": 4294967295}"[..]),
        "merges.txt" => Some(&b""[..]),
        _ => None,
    };
    let made = tokenizer_json(Path::new("dir"), Some("gpt2"), huge);
    assert!(made.expect("it is for the library to refuse").is_some());
    let merges = |text: &'static str| {
        let of = move |asked: &str| match asked {
            "vocab.json" => Some(&b"{\"a\": 0, \"b\": 1, \"ab\": 2}"[..]),
            "merges.txt" => Some(text.as_bytes()),
            _ => None,
        };
        tokenizer_json(Path::new("dir"), Some("gpt2"), of)
    };
    assert!(merges("#version: 0.2\na b\n").expect("reads").is_some());
    let error = merges("#version: 0.2\na b c\n").unwrap_err().to_string();
    assert!(error.contains("line 2"), "{error}");
}

/// Texts that are hard to divide, with vocabularies of published models.
///
///     REPARAM_DATA=... cargo test -p reparam-data older -- --ignored
#[test]
#[ignore = "needs REPARAM_DATA"]
fn ids_of_published_vocabularies_are_those_of_transformers() {
    let root = std::env::var_os("REPARAM_DATA").expect("REPARAM_DATA names a directory");
    let root = PathBuf::from(root).join("tokenizers");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect(path);
    let texts = read("expected-ids/texts.inp");
    let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
    type Files<'a> = &'a [(&'a str, &'a str)];
    let cases: [(&str, Files<'_>, &str); 3] = [
        (
            "llama-spm",
            &[("tokenizer.model", "llama2-spm/tokenizer.model")],
            r#"{"tokenizer_class": "LlamaTokenizer", "legacy": true}"#,
        ),
        (
            "gpt-2",
            &[
                ("vocab.json", "gpt2/vocab.json"),
                ("merges.txt", "gpt2/vocab.bpe"),
            ],
            r#"{"tokenizer_class": "GPT2Tokenizer"}"#,
        ),
        (
            "bert-bge",
            &[("vocab.txt", "bert/bert-base-uncased/vocab.txt")],
            r#"{"tokenizer_class": "BertTokenizer"}"#,
        ),
    ];
    for (name, files, config) in cases {
        let files: BTreeMap<&str, Vec<u8>> = files
            .iter()
            .map(|(name, path)| (*name, std::fs::read(root.join(path)).expect("a file")))
            .collect();
        let bytes = |asked: &str| match asked {
            "tokenizer_config.json" => Some(config.as_bytes()),
            asked => files.get(asked).map(Vec::as_slice),
        };
        let made = tokenizer_json(&root, None, bytes)
            .expect("reads")
            .expect("files");
        let tokenizer = tokenizers::Tokenizer::from_bytes(made).expect("a tokenizer");
        let expected = read(&format!("expected-ids/{name}.out"));
        let mut n_texts = 0;
        for (text, ids) in texts.iter().zip(expected.lines()) {
            let ids: Vec<u32> = ids
                .split_whitespace()
                .map(|id| id.parse().expect("an id"))
                .collect();
            let found = tokenizer.encode(*text, false).expect("encodes");
            assert_eq!(found.get_ids(), ids, "{name}: {text:?}");
            n_texts += 1;
        }
        assert!(n_texts >= 46, "{name}: {n_texts} texts");
    }
}

/// What older files add to the vocabulary is one token, as in transformers.
#[test]
fn added_and_special_tokens_are_tokens() {
    let files = files(&golden("qwen2"));
    let config = r#"{"tokenizer_class": "Qwen2Tokenizer", "additional_special_tokens": ["<|im_end|>", "<|new|>"]}"#;
    let added = r#"{"<|im_end|>": 601, "<|im_start|>": 600}"#;
    let bytes = |name: &str| match name {
        "tokenizer_config.json" => Some(config.as_bytes()),
        "added_tokens.json" => Some(added.as_bytes()),
        name => files.get(name).map(Vec::as_slice),
    };
    let made = tokenizer_json(Path::new("dir"), None, bytes).expect("reads");
    let made = tokenizers::Tokenizer::from_bytes(made.expect("files")).expect("a tokenizer");
    let encoded = made
        .encode("<|im_start|><|im_end|><|new|>", true)
        .expect("encodes");
    assert_eq!(encoded.get_ids(), [600, 601, 602]);
    assert_eq!(
        made.decode(&[600, 601, 602], true).expect("decodes"),
        "<|im_start|>"
    );
}

/// What the library does not take of a model of SentencePiece is said of that file: there is no `tokenizer.json`.
#[test]
fn a_damaged_model_is_named() {
    use prost::Message as _;

    let files = files(&golden("t5"));
    let mut model = SpmModel::decode(&*files["spiece.model"]).expect("a model");
    model.damage_charsmap();
    let damaged = model.encode_to_vec();
    let bytes = |name: &str| match name {
        "spiece.model" => Some(&*damaged),
        name => files.get(name).map(Vec::as_slice),
    };
    let error = tokenizer_json(Path::new("dir"), None, bytes).expect_err("a damaged table");
    let text = error.to_string();
    assert!(text.contains("spiece.model"), "{text}");
    assert!(text.contains("precompiled_charsmap"), "{text}");
    assert!(!text.contains("tokenizer.json"), "{text}");
}
