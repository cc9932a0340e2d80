use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::source::DocumentSource;
use crate::watch::Watch;

mod examples;
mod parts;
mod rows;
mod spans;
mod turns;
mod windows;
mod words;

fn stories_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/stories260K")
}

fn stories() -> TextTokenizer {
    TextTokenizer::from_model_dir(&stories_directory(), &SpecialIds::default()).unwrap()
}

/// The `tokenizer.json` that golden files of rows name.
fn golden_json(name: &str) -> Value {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden");
    let directory = match name {
        "bert" => golden.join("bert/classifier"),
        _ => golden.join("rows/tokenizer"),
    };
    serde_json::from_slice(&fs::read(directory.join("tokenizer.json")).unwrap()).unwrap()
}

/// The tokenizer that golden files of rows name, cutting on this side.
fn golden_tokenizer(name: &str, side: &str) -> TextTokenizer {
    load(&golden_json(name), &json!({"truncation_side": side})).unwrap()
}

/// The rows of a golden file of rows.
fn rows_of<T: serde::de::DeserializeOwned>(name: &str) -> Vec<T> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/rows");
    let mut golden: Value = serde_json::from_slice(&fs::read(path.join(name)).unwrap()).unwrap();
    serde_json::from_value(golden["rows"].take()).unwrap()
}

fn document(text: &str) -> Document {
    Document {
        text: text.to_owned(),
        prompt_len: None,
        turns: None,
        source: DocumentSource {
            path: Arc::from(Path::new("a.txt")),
            line: 1,
            item: None,
        },
    }
}

/// The ids of a text as a document.
fn document_ids(tokenizer: &TextTokenizer, text: &str) -> Vec<u32> {
    let encoded = tokenizer.encode_document(&document(text)).unwrap();
    assert_eq!(encoded.loss_mask, None);
    encoded.ids
}

/// A directory with the given files.
fn directory(files: &[(&str, &Value)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, value) in files {
        fs::write(directory.path().join(name), value.to_string()).unwrap();
    }
    directory
}

fn stories_json() -> Value {
    serde_json::from_slice(&fs::read(stories_directory().join("tokenizer.json")).unwrap()).unwrap()
}

fn load(tokenizer: &Value, config: &Value) -> Result<TextTokenizer> {
    let directory = directory(&[
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", config),
    ]);
    TextTokenizer::from_model_dir(directory.path(), &SpecialIds::default())
}

/// A byte-level tokenizer with one token a byte, ids in the order of the bytes' stand-in characters, and
/// `<|end|>` as both ends of a text.
fn byte_level(template: Value) -> Value {
    // The printable bytes stand for themselves, the others for the characters from U+0100.
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 0x100;
    let mut vocab = serde_json::Map::new();
    for byte in 0..=255u8 {
        let character = if printable(&byte) {
            char::from(byte)
        } else {
            next += 1;
            char::from_u32(next - 1).unwrap()
        };
        vocab.insert(character.to_string(), json!(byte));
    }
    json!({
        "version": "1.0",
        "added_tokens": [{"id": 256, "content": "<|end|>", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": true},
        "post_processor": template,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": []}
    })
}

fn end_template(before: bool, after: bool) -> Value {
    let end = json!({"SpecialToken": {"id": "<|end|>", "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let mut single = vec![text];
    if before {
        single.insert(0, end.clone());
    }
    if after {
        single.push(end);
    }
    json!({"type": "TemplateProcessing", "single": single, "pair": [
        {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [256], "tokens": ["<|end|>"]}}})
}

fn byte_level_tokenizer(template: Value) -> TextTokenizer {
    load(&byte_level(template), &json!({"eos_token": "<|end|>"})).unwrap()
}

/// A word-piece tokenizer, whose decoder puts spaces between words.
fn word_piece() -> TextTokenizer {
    let vocab = json!({"[UNK]": 0, "to": 1, "##ken": 2, "##s": 3, ".": 4, "[SEP]": 5});
    let tokenizer = json!({"version": "1.0", "added_tokens": [{"id": 5, "content": "[SEP]",
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
        "pre_tokenizer": {"type": "Whitespace"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "vocab": vocab, "unk_token": "[UNK]",
            "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}});
    load(&tokenizer, &json!({"eos_token": "[SEP]"})).unwrap()
}

/// A tokenizer whose decoder drops the space of the first token, with other tokens as given.
fn metaspace(decoder: Value) -> TextTokenizer {
    let vocab = json!({"<unk>": 0, "▁": 1, "▁a": 2, "b": 3, "▁▁": 4, "<e>": 5});
    let tokenizer = json!({"version": "1.0", "added_tokens": [{"id": 5, "content": "<e>",
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
        "decoder": decoder,
        "model": {"type": "BPE", "vocab": vocab, "merges": [], "unk_token": "<unk>"}});
    load(&tokenizer, &json!({"eos_token": "<e>"})).unwrap()
}

/// Texts and ids as transformers 5.23.0 gives them for this tokenizer, BOS included.
const GOLDEN: [(&str, &[u32]); 14] = [
    ("", &[1]),
    ("Hello", &[1, 346, 306, 414]),
    (
        "Once upon a time, there was a little girl named Lily.",
        &[
            1, 403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421, 395, 317, 426,
        ],
    ),
    (
        " leading space",
        &[1, 410, 278, 411, 380, 299, 262, 427, 412, 331],
    ),
    (
        "  two  spaces  ",
        &[
            1, 410, 410, 259, 424, 414, 410, 262, 427, 412, 331, 419, 410, 410,
        ],
    ),
    (
        "line one\nline two\r\n\ttab",
        &[
            1, 278, 271, 411, 353, 411, 13, 421, 271, 411, 259, 424, 414, 16, 13, 12, 413, 412, 430,
        ],
    ),
    (
        "café naïve",
        &[1, 280, 412, 431, 485, 297, 412, 198, 178, 360],
    ),
    (
        "😀 smile 👨\u{200d}👩\u{200d}👧",
        &[
            1, 410, 243, 162, 155, 131, 262, 423, 290, 411, 410, 243, 162, 148, 171, 229, 131, 144,
            243, 162, 148, 172, 229, 131, 144, 243, 162, 148, 170,
        ],
    ),
    ("你好", &[1, 410, 231, 192, 163, 232, 168, 192]),
    ("<s>Hi</s> there", &[1, 1, 320, 417, 2, 410, 383]),
    ("<unk>", &[1, 0]),
    ("▁under", &[1, 410, 318, 264, 285]),
    (
        "123 + 456 = 579",
        &[
            1, 410, 475, 479, 472, 410, 496, 410, 484, 480, 490, 410, 64, 410, 480, 491, 483,
        ],
    ),
    ("e\u{301}", &[1, 344, 207, 132]),
];

#[test]
fn encodes_as_transformers_does() {
    let tokenizer = stories();
    for (text, ids) in GOLDEN {
        assert_eq!(tokenizer.encode(text, true).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.encode(text, false).unwrap(), ids[1..], "{text:?}");
    }
}

#[test]
fn decodes_as_transformers_does() {
    let tokenizer = stories();
    let decode = |ids: &[u32], skip| tokenizer.decode(ids, skip).unwrap();
    assert_eq!(decode(&[1, 410, 278, 411, 380, 299], false), "<s>  leading");
    assert_eq!(decode(&[1, 410, 278, 411, 380, 299], true), " leading");
    assert_eq!(
        decode(&[1, 1, 320, 417, 2, 410, 383], false),
        "<s><s> Hi</s>  there"
    );
    assert_eq!(decode(&[1, 1, 320, 417, 2, 410, 383], true), "Hi  there");
    assert_eq!(decode(&[1], true), "");
    assert_eq!(decode(&[], false), "");
    assert_eq!(decode(&[9999], false), "");
}

#[test]
fn knows_its_special_tokens() {
    let tokenizer = stories();
    let special = SpecialTokens {
        bos: Some(1),
        eos: Some(2),
        pad: None,
        unk: Some(0),
        mask: None,
        stop: vec![2],
    };
    assert_eq!(tokenizer.special_tokens(), &special);
    assert_eq!((tokenizer.vocab_size(), tokenizer.max_id()), (512, 511));
    assert_eq!(tokenizer.token(2).as_deref(), Some("</s>"));
    assert_eq!(tokenizer.id("</s>"), Some(2));
    assert_eq!(tokenizer.digest().bytes, 19572);
}

#[test]
fn a_document_ends_with_one_eos() {
    let tokenizer = stories();
    assert_eq!(document_ids(&tokenizer, "Hello"), [1, 346, 306, 414, 2]);
    assert_eq!(document_ids(&tokenizer, ""), [1, 2]);
    // The text's own EOS is text: the document still ends.
    assert_eq!(document_ids(&tokenizer, "Hi</s>"), [1, 320, 417, 2, 2]);

    let encode = |before, after, text| {
        document_ids(&byte_level_tokenizer(end_template(before, after)), text)
    };
    let a = u32::from(b'a');
    for (before, after, text, expected) in [
        (false, false, "a", vec![a, 256]),
        (true, false, "a", vec![256, a, 256]),
        (false, true, "a", vec![a, 256]),
        (true, true, "a", vec![256, a, 256]),
        (false, true, "a<|end|>", vec![a, 256, 256]),
        (false, false, "", vec![256]),
        (true, false, "", vec![256, 256]),
        (false, true, "", vec![256]),
        (true, true, "", vec![256, 256]),
    ] {
        assert_eq!(
            encode(before, after, text),
            expected,
            "{before} {after} {text:?}"
        );
    }
}

#[test]
fn documents_are_encoded_in_order() {
    let tokenizer = stories();
    let documents: Vec<Document> = GOLDEN.iter().map(|(text, _)| document(text)).collect();
    let n_documents = documents.len();
    let encoded = tokenizer
        .encode_documents(documents, Watch::never())
        .unwrap();
    assert_eq!(encoded.corpus.n_documents(), n_documents);
    for (place, (_, ids)) in GOLDEN.iter().enumerate() {
        assert_eq!(encoded.corpus.ids(place).unwrap(), [ids, &[2][..]].concat());
        assert_eq!(encoded.corpus.loss_mask(place), None);
    }
}

#[test]
fn truncation_and_padding_of_the_file_are_off() {
    let mut tokenizer = stories_json();
    tokenizer["truncation"] = json!({"direction": "Right", "max_length": 4,
        "strategy": "LongestFirst", "stride": 0});
    tokenizer["padding"] = json!({"strategy": {"Fixed": 32}, "direction": "Right",
        "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"});
    let tokenizer = load(&tokenizer, &json!({})).unwrap();
    let (text, ids) = GOLDEN[2];
    assert_eq!(tokenizer.encode(text, true).unwrap(), ids);
}

#[test]
fn special_tokens_come_from_the_first_file_that_names_them() {
    let config = json!({"eos_token": {"content": "</s>", "lstrip": false}, "bos_token": null});
    let map = json!({"eos_token": "<unk>", "bos_token": {"content": "<s>"}, "pad_token": "<unk>"});
    let files = [
        ("tokenizer.json", &stories_json()),
        ("tokenizer_config.json", &config),
        ("special_tokens_map.json", &map),
    ];
    let directory = directory(&files);
    let ids = SpecialIds {
        bos: Some(7),
        eos: vec![9, 8],
        pad: Some(6),
    };
    let tokenizer = TextTokenizer::from_model_dir(directory.path(), &ids).unwrap();
    let expected = SpecialTokens {
        bos: Some(1),
        eos: Some(2),
        pad: Some(0),
        unk: None,
        mask: None,
        stop: vec![2, 8, 9],
    };
    assert_eq!(tokenizer.special_tokens(), &expected);

    // Alone, the tokenizer takes the ids of the model's configuration.
    let directory = self::directory(&[("tokenizer.json", &stories_json())]);
    let tokenizer = TextTokenizer::from_model_dir(directory.path(), &ids).unwrap();
    let expected = SpecialTokens {
        bos: Some(7),
        eos: Some(9),
        pad: Some(6),
        unk: None,
        mask: None,
        stop: vec![8, 9],
    };
    assert_eq!(tokenizer.special_tokens(), &expected);
}

#[test]
fn special_ids_are_read_from_a_config() {
    let ids = |config: Value| SpecialIds::from_config(&config);
    let expected = SpecialIds {
        bos: Some(1),
        eos: vec![2],
        pad: None,
    };
    assert_eq!(
        ids(json!({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": null})),
        expected
    );
    let expected = SpecialIds {
        bos: None,
        eos: vec![5, 6],
        pad: Some(0),
    };
    assert_eq!(
        ids(json!({"eos_token_id": [5, 6], "pad_token_id": 0, "bos_token_id": -1})),
        expected
    );
    assert_eq!(ids(json!({})), SpecialIds::default());
    assert_eq!(ids(json!(3)), SpecialIds::default());
}

#[test]
fn tokens_of_the_config_are_added() {
    let config = json!({"eos_token": "<|end|>", "added_tokens_decoder": {
        "2": {"content": "</s>", "special": true}, "512": {"content": "<|end|>", "special": true}}});
    let tokenizer = load(&stories_json(), &config).unwrap();
    assert_eq!(tokenizer.eos_id(), Some(512));
    assert_eq!(
        tokenizer.encode("Hi<|end|>", false).unwrap(),
        [320, 417, 512]
    );
    assert_eq!(tokenizer.decode(&[320, 417, 512], true).unwrap(), "Hi");
    assert_eq!((tokenizer.vocab_size(), tokenizer.max_id()), (513, 512));

    let config = json!({"added_tokens_decoder": {"600": {"content": "<x>", "special": true}}});
    let error = load(&stories_json(), &config).unwrap_err();
    assert!(
        matches!(&error, DataError::AddedTokenId { token, expected: 600, found: Some(512), .. }
            if token == "<x>"),
        "{error}"
    );
}

#[test]
fn only_a_token_that_is_used_needs_a_row_of_the_embedding() {
    let pad = json!({
        "added_tokens_decoder": {"512": {"content": "<pad>", "special": true}},
        "eos_token": "</s>",
    });
    let tokenizer = load(&stories_json(), &pad)
        .unwrap()
        .with_embedding_rows(512);
    assert_eq!(tokenizer.encode("Once", true).unwrap().len(), 2);
    let outside = |error: &DataError| {
        matches!(error, DataError::TokenOutsideEmbedding { token, id: 512, rows: 512 }
            if token == "<pad>")
    };
    let error = tokenizer.encode("Once<pad>", true).unwrap_err();
    assert!(outside(&error), "{error}");
    let expected =
        "the text has the token `<pad>` with id 512, but the model's embedding has 512 rows";
    assert_eq!(error.to_string(), expected);
    assert!(error.hint().is_some());
    assert!(outside(
        &tokenizer.encode_row("a", Some("<pad>"), 9).unwrap_err()
    ));
    assert!(tokenizer.encode_document(&document("Once")).is_ok());
    let error = tokenizer.encode_document(&document("<pad>")).unwrap_err();
    assert!(matches!(&error, DataError::Document { error, .. } if outside(error)));

    // A template may name an id that no token has.
    let mut json = stories_json();
    json["post_processor"]["special_tokens"]["<s>"]["ids"] = json!([4000]);
    let tokenizer = load(&json, &json!({})).unwrap().with_embedding_rows(512);
    assert_eq!(tokenizer.max_id(), 4000);
    let error = tokenizer.encode("Once", true).unwrap_err();
    assert!(matches!(
        error,
        DataError::TokenOutsideEmbedding { id: 4000, .. }
    ));
    assert!(tokenizer.encode("Once", false).is_ok());
}

#[test]
fn a_missing_tokenizer_is_reported_with_what_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let load =
        || TextTokenizer::from_model_dir(directory.path(), &SpecialIds::default()).unwrap_err();
    let error = load();
    assert!(matches!(&error, DataError::NoTokenizer { others, .. } if others.is_empty()));
    assert!(error.hint().unwrap().starts_with("copy the tokenizer.json"));
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n";
    fs::write(directory.path().join("tokenizer.json"), pointer).unwrap();
    let error = load();
    assert!(
        error.to_string().contains("is a Git LFS pointer, not"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("git lfs pull"));
    fs::remove_file(directory.path().join("tokenizer.json")).unwrap();
    fs::write(directory.path().join("tekken.json"), "x").unwrap();
    let hint = load().hint().unwrap();
    assert!(hint.starts_with("`tekken.json` is there"), "{hint}");
}

#[test]
fn broken_tokenizer_files_are_errors() {
    let directory = tempfile::tempdir().unwrap();
    let load_bytes = |bytes: &str| {
        fs::write(directory.path().join("tokenizer.json"), bytes).unwrap();
        TextTokenizer::from_model_dir(directory.path(), &SpecialIds::default()).unwrap_err()
    };
    for bytes in ["", "{", "[]", "{}"] {
        let error = load_bytes(bytes);
        assert!(
            matches!(error, DataError::InvalidTokenizer { .. }),
            "{bytes}: {error}"
        );
        assert!(error.hint().unwrap().contains("download it again"));
    }
    let pointer = load_bytes("version https://git-lfs.github.com/spec/v1");
    assert!(
        pointer.to_string().contains("a Git LFS pointer"),
        "{pointer}"
    );
    assert!(pointer.hint().unwrap().contains("git lfs pull"));
    let empty = r#"{"version":"1.0","model":{"type":"BPE","vocab":{},"merges":[]}}"#;
    assert!(load_bytes(empty).to_string().ends_with("it has no tokens"));
}

#[test]
fn broken_tokenizer_configs_are_errors() {
    for (config, message) in [
        (json!([]), "expected an object, found an array"),
        (
            json!({"eos_token": 2}),
            "`eos_token` is a number, not a token",
        ),
        (
            json!({"bos_token": {"text": "<s>"}}),
            "`bos_token` has no string `content`",
        ),
        (
            json!({"added_tokens_decoder": {"x": {"content": "a"}}}),
            "`added_tokens_decoder`: ",
        ),
        (
            json!({"added_tokens_decoder": {"3": {}}}),
            "`added_tokens_decoder`: ",
        ),
    ] {
        let error = load(&stories_json(), &config).unwrap_err();
        assert!(
            matches!(error, DataError::InvalidTokenizerConfig { .. }),
            "{error}"
        );
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[test]
fn unknown_special_tokens_are_errors() {
    let error = load(&stories_json(), &json!({"eos_token": "<|end|>"})).unwrap_err();
    assert!(
        matches!(&error, DataError::UnknownSpecialToken { role: "eos", token, .. }
        if token == "<|end|>")
    );
    assert!(error.hint().unwrap().contains("eos_token"));
    // A padding token is never used, so that it is unknown is no obstacle.
    let tokenizer = load(&stories_json(), &json!({"pad_token": "[PAD]"})).unwrap();
    assert_eq!(tokenizer.special_tokens().pad, None);

    let directory = directory(&[("tokenizer.json", &stories_json())]);
    let ids = SpecialIds {
        eos: vec![512],
        ..SpecialIds::default()
    };
    let error = TextTokenizer::from_model_dir(directory.path(), &ids).unwrap_err();
    assert!(matches!(
        error,
        DataError::UnknownSpecialId {
            role: "eos",
            id: 512
        }
    ));
    assert!(error.hint().unwrap().contains("eos_token_id"));
}

#[test]
fn a_document_needs_an_eos() {
    let error = load(&stories_json(), &json!({}))
        .unwrap()
        .encode_document(&document("a"))
        .unwrap_err();
    assert!(matches!(error, DataError::NoEos { .. }));
    assert!(error.hint().unwrap().contains("eos_token"));
}

#[test]
fn what_cannot_be_honoured_is_refused() {
    let mut json = stories_json();
    json["model"]["dropout"] = json!(0.1);
    let error = load(&json, &json!({})).unwrap_err();
    assert!(matches!(error, DataError::Dropout { .. }), "{error}");
    assert!(error.hint().is_some());
    json["model"]["dropout"] = json!(0.0);
    load(&json, &json!({})).unwrap();

    let mut json = stories_json();
    json["decoder"]["decoders"][3]["stop"] = json!(1);
    let error = load(&json, &json!({})).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("not supported: Strip with stop = 1"),
        "{error}"
    );
}

#[test]
fn a_text_without_tokens_for_it_is_an_error() {
    let tokenizer = json!({"version": "1.0", "model": {"type": "WordLevel",
        "vocab": {"a": 0}, "unk_token": "<unk>"}});
    let error = load(&tokenizer, &json!({}))
        .unwrap()
        .encode("b", false)
        .unwrap_err();
    assert!(matches!(error, DataError::Encode { .. }), "{error}");
}

#[test]
fn what_cannot_be_encoded_is_located() {
    let tokenizer = json!({"version": "1.0", "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": {"a": 0, "e": 1}, "unk_token": "<unk>"}});
    let tokenizer = load(&tokenizer, &json!({"eos_token": "e"})).unwrap();
    let white_space = " ".repeat(MAX_WHITE_SPACE_RUN + 1);
    for (text, has_hint) in [("a b", false), (&*white_space, true)] {
        for prompt_len in [None, Some(1)] {
            let bad = Document {
                prompt_len,
                turns: None,
                source: DocumentSource {
                    path: Arc::from(Path::new("b.json")),
                    line: 3,
                    item: Some(2),
                },
                ..document(text)
            };
            let error = tokenizer
                .encode_documents(vec![document("a"), bad], Watch::never())
                .unwrap_err();
            let why = tokenizer.encode(text, true).unwrap_err();
            assert_eq!(error.to_string(), format!("b.json:3 (item 2): {why}"));
            assert_eq!(error.hint(), why.hint());
            assert_eq!(error.hint().is_some(), has_hint);
        }
    }
}

#[test]
fn white_space_is_split_or_refused() {
    // "a " is one token, but only where the text has not been split before the space.
    let mut json = byte_level(Value::Null);
    json["model"]["vocab"]["aĠ"] = json!(257);
    json["model"]["merges"] = json!(["a Ġ"]);
    let tokenizer = load(&json, &json!({})).unwrap();
    for space in [" ", "\n"] {
        let text = |run| format!("{}a b", space.repeat(run));
        let ids = tokenizer.encode(&text(MAX_WHITE_SPACE_RUN), false).unwrap();
        assert_eq!(ids.len(), MAX_WHITE_SPACE_RUN + 3);
        let error = tokenizer
            .encode(&text(MAX_WHITE_SPACE_RUN + 1), false)
            .map(|ids| ids.len())
            .unwrap_err();
        assert!(matches!(
            error,
            DataError::WhiteSpaceRun {
                characters: 262_145,
                limit: 262_144
            }
        ));
        assert!(error.hint().is_some());
    }
    // Three bytes a character: the limit counts characters.
    tokenizer
        .encode(&"\u{3000}".repeat(MAX_WHITE_SPACE_RUN), false)
        .unwrap();
    // Without a pre-tokenizer there is nothing to split.
    stories()
        .encode(&" ".repeat(MAX_WHITE_SPACE_RUN + 1), false)
        .unwrap();
}

/// Decodes ids one by one; returns the pieces.
fn streamed(tokenizer: &TextTokenizer, ids: &[u32], skip_special: bool) -> Vec<String> {
    let mut stream = tokenizer.stream_decoder(skip_special);
    let mut pieces: Vec<String> = ids
        .iter()
        .filter_map(|&id| stream.push(id).unwrap())
        .collect();
    pieces.extend(stream.finish().unwrap());
    pieces
}

#[test]
fn streams_words_with_their_spaces() {
    let tokenizer = stories();
    let ids = tokenizer.encode("Once upon a time", true).unwrap();
    assert_eq!(
        streamed(&tokenizer, &ids, true),
        ["Once", " upon", " a", " time"]
    );
    assert_eq!(
        streamed(&tokenizer, &ids, false),
        ["<s>", " Once", " upon", " a", " time"]
    );
}

#[test]
fn streams_an_emoji_whole() {
    let tokenizer = stories();
    let ids = tokenizer.encode("a😀 b", false).unwrap();
    let pieces = streamed(&tokenizer, &ids, true);
    assert_eq!(pieces.concat(), "a😀 b");
    assert!(
        pieces.iter().any(|piece| piece.contains('😀')),
        "{pieces:?}"
    );
    // A byte that spoils the run turns all of it into replacement characters, so nothing of it may come early.
    let mut ids = tokenizer.encode("a😀", false).unwrap();
    ids.push(3 + 0xff);
    assert_eq!(
        tokenizer.decode(&ids, true).unwrap(),
        "a\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}"
    );
    assert_eq!(
        streamed(&tokenizer, &ids, true).concat(),
        tokenizer.decode(&ids, true).unwrap()
    );
}

#[test]
fn streams_byte_level_characters_whole() {
    let tokenizer = byte_level_tokenizer(Value::Null);
    let ids = tokenizer.encode("né😀!", false).unwrap();
    assert_eq!(ids.len(), 8);
    assert_eq!(streamed(&tokenizer, &ids, true), ["n", "é", "😀", "!"]);
}

#[test]
fn a_prompt_is_skipped() {
    let tokenizer = stories();
    let ids = tokenizer.encode("Once upon a time", true).unwrap();
    let mut stream = tokenizer.stream_decoder(true);
    stream.skip(&ids[..2]).unwrap();
    assert_eq!(stream.push(ids[2]).unwrap().as_deref(), Some(" upon"));
    assert_eq!(stream.finish().unwrap(), None);
}

#[test]
fn a_prompt_that_ends_in_bytes_is_skipped_whole() {
    let byte_fallback = stories();
    let byte_level = byte_level_tokenizer(Value::Null);
    let prompts = [
        "Once",
        "Once ",
        "\u{4f60}",
        "a \u{1f525}",
        "\n",
        " ",
        "",
        "caf\u{e9}",
    ];
    let continuations = ["", " s", "\u{597d}", "\n", ". One"];
    for tokenizer in [&byte_fallback, &byte_level] {
        for (prompt, next) in prompts
            .iter()
            .flat_map(|prompt| continuations.map(|next| (prompt, next)))
        {
            let prompt_ids = tokenizer.encode(prompt, false).unwrap();
            let next_ids = tokenizer.encode(next, false).unwrap();
            let mut stream = tokenizer.stream_decoder(true);
            stream.skip(&prompt_ids).unwrap();
            let mut text = String::new();
            for id in &next_ids {
                text.extend(stream.push(*id).unwrap());
            }
            text.extend(stream.finish().unwrap());
            let before = tokenizer.decode(&prompt_ids, true).unwrap();
            let whole = [prompt_ids, next_ids].concat();
            let whole = tokenizer.decode(&whole, true).unwrap();
            assert_eq!(format!("{before}{text}"), whole, "{prompt:?} then {next:?}");
        }
    }
}

#[test]
fn buffers_what_may_change() {
    let decoder = json!({"type": "Sequence", "decoders": [{"type": "Fuse"},
        {"type": "Replace", "pattern": {"String": "b▁"}, "content": "!"}]});
    let tokenizer = metaspace(decoder);
    // Only together do the tokens become what replaces them.
    assert_eq!(tokenizer.decode(&[3, 1], false).unwrap(), "!");
    assert_eq!(streamed(&tokenizer, &[3, 1], false), ["!"]);
}

/// Tokenizers with every kind of decoder, and how many ids to draw from.
fn decoders() -> Vec<(TextTokenizer, u32)> {
    let metaspaces = [
        Value::Null,
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}),
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": true}),
        json!({"type": "BPEDecoder", "suffix": "▁"}),
        json!({"type": "CTC", "pad_token": "b", "word_delimiter_token": "▁", "cleanup": true}),
        json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 2, "stop": 0}]}),
    ];
    let mut decoders: Vec<_> = metaspaces
        .into_iter()
        .map(|decoder| (metaspace(decoder), 7))
        .collect();
    decoders.push((stories(), 513));
    // Half of the ids are bytes, so that runs of them are common.
    decoders.push((stories(), 300));
    decoders.push((byte_level_tokenizer(Value::Null), 258));
    decoders.push((word_piece(), 7));
    decoders
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Joined, the pieces of a stream are what decoding everything at once gives, whatever the ids.
    #[test]
    fn a_stream_is_the_text(draws in prop::collection::vec(any::<u32>(), 0..40), skip in any::<bool>()) {
        for (tokenizer, ids) in decoders() {
            let ids: Vec<u32> = draws.iter().map(|draw| draw % ids).collect();
            let whole = tokenizer.decode(&ids, skip).unwrap();
            prop_assert_eq!(streamed(&tokenizer, &ids, skip).concat(), whole, "{:?}", ids);
        }
    }

    /// Both tokenizers can write every text, and a stream gives it back.
    #[test]
    fn a_text_survives(text in "\\PC{0,40}|[a-zé😀 \n]{0,40}") {
        // Reads U+2581 as a space, which is the one thing that cannot survive.
        let text = text.replace('▁', "");
        for tokenizer in [stories(), byte_level_tokenizer(Value::Null)] {
            let ids = tokenizer.encode(&text, false).unwrap();
            prop_assert_eq!(tokenizer.decode(&ids, false).unwrap(), text.as_str());
            prop_assert_eq!(streamed(&tokenizer, &ids, false).concat(), text.as_str());
        }
    }
}

#[test]
fn sources_and_targets_end_with_one_eos() {
    // (template before the text, behind it), source, target.
    let [end, a, b, c] = [256, u32::from(b'a'), u32::from(b'b'), u32::from(b'c')];
    for (before, after, source) in [
        (false, true, &[a, b, c, end][..]),
        (false, false, &[a, b, c, end]),
        (true, false, &[end, a, b, c, end]),
        (true, true, &[end, a, b, c, end]),
    ] {
        let tokenizer = byte_level_tokenizer(end_template(before, after));
        let encoded = tokenizer.encode_source("abc", 8).unwrap();
        assert_eq!(
            (&encoded.ids[..], encoded.truncated),
            (source, false),
            "{before} {after}"
        );
        assert_eq!(encoded.type_ids.len(), source.len());
        // What the template puts in front of a source is no part of a target.
        let target = tokenizer.encode_target("abc", 8, None).unwrap();
        assert_eq!(
            (&target.labels[..], target.truncated),
            (&[a, b, c, end][..], false)
        );
    }
    let tokenizer = byte_level_tokenizer(end_template(false, false));
    for (max_length, first, labels, truncated) in [
        (8, Some(end), &[end, a, b, c, end][..], false),
        (5, Some(end), &[end, a, b, c, end], false),
        (4, Some(end), &[end, a, b, end], true),
        (3, None, &[a, b, end], true),
    ] {
        let target = tokenizer.encode_target("abc", max_length, first).unwrap();
        assert_eq!(
            (&target.labels[..], target.truncated),
            (labels, truncated),
            "{max_length}"
        );
    }
    let source = tokenizer.encode_source("abc", 3).unwrap();
    assert_eq!(
        (&source.ids[..], source.truncated),
        (&[a, b, end][..], true)
    );
}

#[test]
fn a_target_is_cut_on_the_side_that_the_tokenizer_says() {
    let config = json!({"eos_token": "<|end|>", "truncation_side": "left"});
    let tokenizer = load(&byte_level(end_template(false, true)), &config).unwrap();
    let target = tokenizer.encode_target("abc", 3, None).unwrap();
    assert_eq!(target.labels, [u32::from(b'b'), u32::from(b'c'), 256]);
}

#[test]
fn without_room_or_eos_there_is_no_target() {
    let tokenizer = byte_level_tokenizer(end_template(false, false));
    let message = |error: DataError| error.to_string();
    for (max_length, first) in [(0, None), (1, None), (2, Some(256))] {
        let error = tokenizer.encode_target("a", max_length, first).unwrap_err();
        assert!(
            matches!(error, DataError::NoRoom { .. }),
            "{}",
            message(error)
        );
    }
    let error = tokenizer.encode_source("a", 1).unwrap_err();
    assert!(
        matches!(
            error,
            DataError::NoRoom {
                max_length: 1,
                of_template: 1
            }
        ),
        "{}",
        message(error)
    );
    let tokenizer = load(&byte_level(end_template(false, false)), &json!({})).unwrap();
    let error = tokenizer.encode_target("a", 8, None).unwrap_err();
    assert!(
        matches!(error, DataError::NoEos { .. }),
        "{}",
        message(error)
    );
    // A source ends without one.
    assert_eq!(
        tokenizer.encode_source("a", 8).unwrap().ids,
        [u32::from(b'a')]
    );
}
