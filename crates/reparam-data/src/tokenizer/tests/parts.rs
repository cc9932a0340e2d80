use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokenizers::Model;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::unigram::{Unigram, UnigramTrainer};
use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainer};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};

use super::*;
use crate::watch::{Phase, Progress};

fn shakespeare() -> String {
    fs::read_to_string(stories_directory().join("../tinyshakespeare.txt")).unwrap()
}

/// Trains a tokenizer of a kind on a part of the plays.
fn trained(
    model: impl Into<ModelWrapper>,
    pre_tokenizer: impl Into<tokenizers::PreTokenizerWrapper>,
    trainer: impl Into<TrainerWrapper>,
) -> Value {
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(pre_tokenizer));
    let text = shakespeare();
    let mut trainer = trainer.into();
    tokenizer
        .train(
            &mut trainer,
            text[..100_000].split_inclusive('\n').map(str::to_owned),
        )
        .unwrap();
    assert!(tokenizer.get_model().get_vocab_size() > 400);
    serde_json::from_str(&tokenizer.to_string(false).unwrap()).unwrap()
}

fn end() -> Vec<AddedToken> {
    vec![
        AddedToken::from("</s>", true),
        AddedToken::from("<s>", true),
    ]
}

/// The kinds of tokenizers that there are.
fn kinds() -> Vec<(&'static str, TextTokenizer)> {
    let bpe = || {
        BpeTrainer::builder()
            .vocab_size(600)
            .special_tokens(end())
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .show_progress(false)
            .build()
    };
    let byte_level = trained(BPE::default(), ByteLevel::new(false, true, true), bpe());
    let mut llama3 = byte_level.clone();
    let pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    llama3["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]});
    let mut prefixed = byte_level.clone();
    prefixed["pre_tokenizer"]["add_prefix_space"] = json!(true);
    let mut whole = stories_json();
    whole["normalizer"] = Value::Null;
    whole["pre_tokenizer"] = json!({"type": "Metaspace", "replacement": "▁",
        "prepend_scheme": "first", "split": false});
    let unigram = UnigramTrainer::builder()
        .vocab_size(600)
        .special_tokens(end())
        .unk_token(Some("<s>".to_owned()))
        .show_progress(false)
        .build()
        .unwrap();
    let metaspace = Metaspace::new('▁', PrependScheme::Always, true);
    let unigram = trained(Unigram::default(), metaspace, unigram);
    let pieces = WordPieceTrainer::builder()
        .vocab_size(600)
        .special_tokens([end(), vec![AddedToken::from("[UNK]", true)]].concat())
        .show_progress(false)
        .build();
    let word_piece = WordPiece::builder()
        .unk_token("[UNK]".into())
        .build()
        .unwrap();
    let mut word_piece = trained(word_piece, BertPreTokenizer, pieces);
    word_piece["normalizer"] = json!({"type": "BertNormalizer", "clean_text": true,
        "handle_chinese_chars": true, "strip_accents": null, "lowercase": true});
    let ends = json!({"bos_token": "<s>", "eos_token": "</s>"});
    let kinds = [
        ("byte-level", byte_level),
        ("byte-level with a prefix", prefixed),
        ("split by a pattern", llama3),
        ("metaspace that does not split", whole),
        ("unigram", unigram),
        ("word-piece", word_piece),
    ];
    let kinds = kinds
        .into_iter()
        .map(|(name, json)| (name, load(&json, &ends).unwrap()));
    [("merges over the whole text", stories())]
        .into_iter()
        .chain(kinds)
        .collect()
}

/// The tokens of a text without a template.
fn whole(tokenizer: &TextTokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, false).unwrap()
}

#[test]
fn a_text_in_parts_is_the_whole_text() {
    let text = &shakespeare()[..200_000];
    for (kind, tokenizer) in kinds() {
        for part in [300, 5000] {
            let parts = tokenizer
                .encode_parts(text, 0..text.len(), part)
                .unwrap()
                .unwrap();
            assert!(
                parts.len() > text.len() / part * 3 / 4,
                "{kind}: {}",
                parts.len()
            );
            assert!(parts.concat() == whole(&tokenizer, text), "{kind}");
        }
    }
}

#[test]
fn a_tokenizer_without_borders_encodes_the_whole() {
    // "e t" is a token: the merges of each side depend on the other.
    let mut json = stories_json();
    let mut merges = json["model"]["merges"].as_array().unwrap().clone();
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    for letter in 'a'..='z' {
        for token in [format!("{letter}▁"), format!("\n{letter}")] {
            vocab.insert(token, json!(vocab.len()));
        }
        merges.push(json!([letter, "▁"]));
    }
    json["model"]["merges"] = merges.into();
    let fixed = json!({"version": "1.0", "pre_tokenizer": {"type": "FixedLength", "length": 5},
        "model": {"type": "BPE", "vocab": byte_level(Value::Null)["model"]["vocab"], "merges": [],
            "unk_token": "a"}});
    let text = "once upon a time there was ".repeat(100);
    for json in [json, fixed] {
        let tokenizer = load(&json, &json!({})).unwrap();
        assert_eq!(
            tokenizer.encode_parts(&text, 0..text.len(), 500).unwrap(),
            None
        );
    }
}

/// Is told how far the work is, and asks for its end after some reports.
struct Reports {
    seen: Mutex<Vec<(u64, u64)>>,
    most: usize,
    stop: AtomicBool,
}

impl Progress for Reports {
    fn at(&self, phase: Phase, done: u64, total: u64) {
        assert_eq!(phase, Phase::Tokenizing);
        let mut seen = self.seen.lock().unwrap();
        seen.push((done, total));
        if seen.len() == self.most {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn note(&self, text: &str) {
        panic!("{text}");
    }
}

#[test]
fn a_long_document_is_encoded_in_rounds_that_can_be_stopped() {
    let text = shakespeare().repeat(3);
    let tokenizer = stories();
    let expected = document_ids(&tokenizer, &text);
    let documents = || vec![document("Once"), document(&text), document("upon")];
    let total: u64 = text.len() as u64 + 8;
    for most in [2, usize::MAX] {
        let reports = Reports {
            seen: Mutex::default(),
            most,
            stop: AtomicBool::new(false),
        };
        let watch = Watch::new(&reports.stop).with_progress(&reports);
        let encoded = tokenizer.encode_documents(documents(), watch);
        let seen = reports.seen.lock().unwrap();
        if most == 2 {
            assert!(matches!(encoded, Err(DataError::Interrupted(_))));
            assert_eq!(seen.len(), 2);
            continue;
        }
        let encoded = encoded.unwrap();
        assert_eq!(encoded.corpus.n_documents(), 3);
        assert!(encoded.corpus.ids(1).unwrap() == expected);
        assert_eq!(
            encoded.corpus.ids(2).unwrap(),
            document_ids(&tokenizer, "upon")
        );
        assert!(seen.len() > 3 && seen.is_sorted());
        assert_eq!(
            (seen[0], seen[seen.len() - 1]),
            ((0, total), (total, total))
        );
    }
}

#[test]
fn each_token_of_a_long_document_needs_a_row_of_the_embedding() {
    let refused = |tokenizer: &TextTokenizer, text: &str, outside: u32| {
        let error = tokenizer.encode_documents(vec![document(text)], Watch::never());
        let error = error.unwrap_err();
        assert!(
            matches!(&error, DataError::Document { error, .. }
                if matches!(**error, DataError::TokenOutsideEmbedding { id, .. } if id == outside)),
            "{error}"
        );
    };
    let text = "Once upon a time.\n".repeat(150_000);
    // In the text.
    let pad = json!({
        "added_tokens_decoder": {"512": {"content": "<pad>", "special": true}},
        "eos_token": "</s>",
    });
    let tokenizer = load(&stories_json(), &pad)
        .unwrap()
        .with_embedding_rows(512);
    assert!(
        tokenizer
            .encode_documents(vec![document(&text)], Watch::never())
            .is_ok()
    );
    refused(&tokenizer, &format!("{text}<pad>\n"), 512);
    // In the template before it, and at its end.
    let mut json = stories_json();
    json["post_processor"]["special_tokens"]["<s>"]["ids"] = json!([4000]);
    let ends = json!({"eos_token": "</s>"});
    let tokenizer = load(&json, &ends).unwrap().with_embedding_rows(512);
    refused(&tokenizer, &text, 4000);
    for template in [Value::Null, end_template(false, true)] {
        refused(
            &byte_level_tokenizer(template).with_embedding_rows(256),
            &text,
            256,
        );
    }
}

#[test]
fn the_ends_of_texts_in_texts_are_counted() {
    let tokenizer = stories();
    let long = format!("{}</s>\n", "Once upon a time.\n".repeat(150_000));
    let texts = ["Once", "an <s> of HTML</s>", &long, "<s><unk>"];
    let documents = texts.iter().zip(3..).map(|(text, line)| Document {
        source: DocumentSource {
            line,
            ..document(text).source
        },
        ..document(text)
    });
    let encoded = tokenizer
        .encode_documents(documents.collect(), Watch::never())
        .unwrap();
    let (count, first) = encoded.special.unwrap();
    assert_eq!((count, first.line), (4, 4));
    // As transformers does, they are what they say; one is not taken for the template's.
    assert_eq!(encoded.corpus.ids(3).unwrap()[..3], [1, 1, 0]);
    let said = tokenizer.describe_special(count, &first);
    assert!(
        said.contains("`<s>` and `</s>` 4 times, first at a.txt:4"),
        "{said}"
    );
    let none = tokenizer.encode_documents(vec![document("Once")], Watch::never());
    assert_eq!(none.unwrap().special, None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the text, parts are the whole, or there are none.
    #[test]
    fn parts_of_any_text(words in prop::collection::vec(
        prop::sample::select(vec![
            "Once", " upon", " a", "\n", "\n\n", " ", "  ", "\t", "\r\n", ".", "!\n", "the", "ing", "é", "e\u{301}",
            "你好", "。", "don't", "12", "7", "<s>", "</s>", "<", "🦀", "\u{a0}", "\u{3000}", "▁", "THE", "l", "ll",
        ]), 50..600,
    )) {
        static KINDS: std::sync::OnceLock<Vec<(&'static str, TextTokenizer)>> = std::sync::OnceLock::new();
        let text = words.concat();
        for (kind, tokenizer) in KINDS.get_or_init(kinds) {
            if let Some(parts) = tokenizer.encode_parts(&text, 0..text.len(), 100).unwrap() {
                prop_assert_eq!(parts.concat(), whole(tokenizer, &text), "{}", kind);
            }
        }
    }
}
