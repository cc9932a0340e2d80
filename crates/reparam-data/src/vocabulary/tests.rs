use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::order::permutation;

mod library;

const KINDS: [TokenizerKind; 4] = [
    TokenizerKind::WordLevel,
    TokenizerKind::Bpe,
    TokenizerKind::WordPiece,
    TokenizerKind::Unigram,
];

const TEXTS: [&str; 12] = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps.",
    "the lower the lowest, the newer the newest",
    "Η γρήγορη αλεπού",
    "Быстрая лиса и ленивая собака",
    "השועל המהיר",
    "الثعلب السريع",
    "तेज़ लोमड़ी",
    "สวัสดีชาวโลก",
    "敏捷的狐狸跳过懒狗，狐狸",
    "キツネが犬を飛び越える",
    "빠른 갈색 여우 👩\u{200d}🔬",
    "a\r\nb\0c  d <pad> <unk> [MASK] ##x ▁y",
];

fn train(kind: TokenizerKind, vocab_size: usize, texts: &[&str]) -> TrainedTokenizer {
    let options = TokenizerOptions {
        vocab_size,
        ..TokenizerOptions::new(kind)
    };
    train_tokenizer(texts, &options).unwrap()
}

fn vocabulary(trained: &TrainedTokenizer) -> Vec<String> {
    let value: Value = serde_json::from_slice(&trained.tokenizer).unwrap();
    match &value["model"]["vocab"] {
        Value::Object(ids) => {
            let mut tokens: Vec<(u64, &String)> = ids
                .iter()
                .map(|(token, id)| (id.as_u64().unwrap(), token))
                .collect();
            tokens.sort();
            assert!(tokens.iter().map(|(id, _)| *id).eq(0..tokens.len() as u64));
            tokens.into_iter().map(|(_, token)| token.clone()).collect()
        }
        Value::Array(parts) => parts
            .iter()
            .map(|part| part[0].as_str().unwrap().to_owned())
            .collect(),
        other => panic!("{other}"),
    }
}

#[test]
fn files_are_opened_and_encode_the_texts() {
    for kind in KINDS {
        for marks in [false, true] {
            let options = TokenizerOptions {
                vocab_size: 500,
                sentence_marks: marks && kind != TokenizerKind::WordPiece,
                ..TokenizerOptions::new(kind)
            };
            let trained = train_tokenizer(&TEXTS, &options).unwrap();
            let tokenizer = trained.open().unwrap();
            assert_eq!(tokenizer.vocab_size(), trained.vocab_size, "{kind:?}");
            assert!(trained.vocab_size <= 500);
            let tokens = vocabulary(&trained);
            assert_eq!(tokens.len(), trained.vocab_size, "{kind:?}");
            assert_eq!(tokens.iter().collect::<HashSet<_>>().len(), tokens.len());
            assert_eq!(tokenizer.special_tokens().pad, Some(0));
            assert_eq!(tokenizer.special_tokens().unk, Some(1));
            assert_eq!(tokenizer.eos_id(), options.sentence_marks.then_some(3));
            for text in TEXTS {
                let ids = tokenizer.encode(text, true).unwrap();
                if marks || kind == TokenizerKind::WordPiece {
                    assert_eq!(ids.first(), Some(&2), "{kind:?} {text}");
                }
                // What was trained on is known, but for what the tokenizer takes for a special token.
                if !text.contains("<unk>") && kind != TokenizerKind::WordPiece {
                    assert!(!ids.contains(&1), "{kind:?} {text}");
                }
                if kind == TokenizerKind::Bpe {
                    let ids = tokenizer.encode(text, false).unwrap();
                    assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
                }
            }
        }
    }
}

#[test]
fn neither_order_nor_threads_change_a_byte() {
    // Many ties, and tokens that several merges make.
    let words: Vec<String> = (0..3000_u32)
        .map(|n| {
            let letters = (0..3 + n % 7).map(|i| {
                char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> (4 * i % 28) & 3) as u8)
            });
            letters.collect()
        })
        .collect();
    let texts: Vec<String> = words.chunks(5).map(|words| words.join(" ")).collect();
    let shuffled: Vec<&String> = permutation(texts.len(), 7, 0)
        .into_iter()
        .map(|i| &texts[i])
        .collect();
    for kind in KINDS {
        let options = TokenizerOptions {
            vocab_size: 400,
            ..TokenizerOptions::new(kind)
        };
        let expected = train_tokenizer(&texts, &options).unwrap();
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            for _ in 0..2 {
                let found = pool
                    .install(|| train_tokenizer(&shuffled, &options))
                    .unwrap();
                assert!(found == expected, "{kind:?} with {threads} threads");
            }
        }
    }
}

#[test]
fn words_are_ordered_by_count_and_then_by_code_point() {
    let trained = train(
        TokenizerKind::WordLevel,
        6,
        &["b a é b", "c a b 价", "a<pad> <pad>"],
    );
    assert_eq!(
        vocabulary(&trained),
        ["<pad>", "<unk>", "b", "a", "a<pad>", "c"]
    );
    assert_eq!(
        (trained.words, trained.distinct_words, trained.left_out),
        (9, 6, 2)
    );
    let frequent = TokenizerOptions {
        min_count: 2,
        sentence_marks: true,
        ..TokenizerOptions::new(TokenizerKind::WordLevel)
    };
    let trained = train_tokenizer(&["b a b", "c a b"], &frequent).unwrap();
    assert_eq!(
        vocabulary(&trained),
        ["<pad>", "<unk>", "<s>", "</s>", "b", "a"]
    );
    let tokenizer = trained.open().unwrap();
    assert_eq!(tokenizer.encode("a c\nb", true).unwrap(), [2, 5, 1, 4]);
    assert_eq!(tokenizer.decode(&[2, 5, 4], true).unwrap(), "a b");
}

/// The example of Sennrich, Haddow and Birch, whose first merges are e s, es t and l o.
#[test]
fn merges_are_the_most_frequent_pairs() {
    let texts = ["low", "lowest", "newer", "wider"].map(|word| word.to_owned());
    let texts: Vec<String> = texts
        .iter()
        .zip([5, 2, 6, 3])
        .flat_map(|(word, n)| vec![word.clone(); n])
        .collect();
    let options = TokenizerOptions {
        vocab_size: 2 + 256 + 4,
        ..TokenizerOptions::new(TokenizerKind::Bpe)
    };
    let trained = train_tokenizer(&texts, &options).unwrap();
    let value: Value = serde_json::from_slice(&trained.tokenizer).unwrap();
    // e r 9; l o and o w 7, of which the lower ids come first; lo w 7; then e w, n e and w er 6.
    assert_eq!(
        value["model"]["merges"],
        serde_json::json!([["e", "r"], ["l", "o"], ["lo", "w"], ["e", "w"]])
    );
}

#[test]
fn word_pieces_are_those_of_bert() {
    let options = TokenizerOptions {
        vocab_size: 60,
        lowercase: true,
        ..TokenizerOptions::new(TokenizerKind::WordPiece)
    };
    let trained =
        train_tokenizer(&["Playing plays played PLAY", "价格 价 café"], &options).unwrap();
    let tokens = vocabulary(&trained);
    assert_eq!(tokens[..5], ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]);
    assert!(
        tokens.contains(&"play".to_owned()) && tokens.contains(&"##e".to_owned()),
        "{tokens:?}"
    );
    let tokenizer = trained.open().unwrap();
    let ids = tokenizer.encode("play, 价格!", true).unwrap();
    let names: Vec<String> = ids.iter().map(|id| tokenizer.token(*id).unwrap()).collect();
    assert_eq!(
        names,
        ["[CLS]", "play", "[UNK]", "价", "格", "[UNK]", "[SEP]"]
    );
}

#[test]
fn unigram_finds_the_parts_of_words() {
    let stems = [
        "walk", "talk", "jump", "start", "open", "clean", "cook", "paint", "print", "learn",
    ];
    let texts: Vec<String> = stems
        .iter()
        .flat_map(|stem| ["", "s", "ed", "ing", "er"].map(|end| format!("{stem}{end} ").repeat(20)))
        .collect();
    let options = TokenizerOptions {
        vocab_size: 40,
        ..TokenizerOptions::new(TokenizerKind::Unigram)
    };
    let trained = train_tokenizer(&texts, &options).unwrap();
    let tokens = vocabulary(&trained);
    for part in ["▁walk", "▁jump", "▁print"] {
        assert!(tokens.iter().any(|token| token == part), "{tokens:?}");
    }
    let tokenizer = trained.open().unwrap();
    let ids = tokenizer.encode("walking jumped", false).unwrap();
    assert!(ids.len() <= 8, "{ids:?}");
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "walking jumped");
}

#[test]
fn characters_without_room_are_left_out_and_counted() {
    for kind in [TokenizerKind::Unigram, TokenizerKind::WordPiece] {
        let trained = train(kind, 8, &["aaaa bbb cc d e f g h i"]);
        assert_eq!(trained.vocab_size, 8);
        assert!(trained.left_out > 0, "{kind:?}");
        let tokenizer = trained.open().unwrap();
        assert!(tokenizer.encode("aaaa i", false).unwrap().contains(&1));
    }
}

#[test]
fn requests_that_cannot_be_met_are_refused_with_a_hint() {
    let of = TokenizerOptions::new;
    let cases: [(&[&str], TokenizerOptions, &str); 6] = [
        (&[], of(TokenizerKind::Bpe), "no word in 0 texts"),
        (
            &[" \n", ""],
            of(TokenizerKind::WordLevel),
            "no word in 2 texts",
        ),
        (
            &["a b"],
            TokenizerOptions {
                min_count: 2,
                ..of(TokenizerKind::WordLevel)
            },
            "none of 2 words occurs 2 times",
        ),
        (
            &["a b"],
            TokenizerOptions {
                vocab_size: 200,
                ..of(TokenizerKind::Bpe)
            },
            "vocab_size is 200, outside 258..=2147483647",
        ),
        (
            &["a b"],
            TokenizerOptions {
                vocab_size: usize::MAX,
                ..of(TokenizerKind::Unigram)
            },
            "vocab_size is 18446744073709551615, outside 3..=2147483647",
        ),
        (
            &["a b"],
            TokenizerOptions {
                sentence_marks: true,
                ..of(TokenizerKind::WordPiece)
            },
            "sentence_marks has no effect on a tokenizer of kind WordPiece",
        ),
    ];
    for (texts, options, message) in cases {
        let error = train_tokenizer(texts, &options).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert!(error.hint().is_some(), "{message}");
    }
    let texts = ["a".to_owned(), " ".repeat(1 << 20)];
    let error = train_tokenizer(&texts, &of(TokenizerKind::Bpe)).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("text 1: the text has 1048576 white-space"),
        "{error}"
    );
    assert!(
        serde_json::from_str::<TokenizerOptions>(r#"{"kind": "bpe", "vocabsize": 3}"#).is_err()
    );
    let options: TokenizerOptions = serde_json::from_str(r#"{"kind": "word_piece"}"#).unwrap();
    assert_eq!(options, of(TokenizerKind::WordPiece));
}

#[test]
fn files_are_written_where_models_have_them() {
    let directory = tempfile::tempdir().unwrap();
    let trained = train(TokenizerKind::WordLevel, 10, &["a b"]);
    trained.write(directory.path()).unwrap();
    let opened = TextTokenizer::from_model_dir(directory.path(), &SpecialIds::default()).unwrap();
    assert_eq!(opened.encode("b", false).unwrap(), [3]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_texts_make_a_tokenizer_that_opens(texts in prop::collection::vec("([ab<>#▁ ]|\\PC|[\u{0}-\u{20}]){0,30}", 1..6), size in 260_usize..300) {
        for kind in KINDS {
            let options = TokenizerOptions { vocab_size: size, ..TokenizerOptions::new(kind) };
            match train_tokenizer(&texts, &options) {
                Err(VocabularyError::NoWords { .. }) => {}
                Err(error) => prop_assert!(false, "{error}"),
                Ok(trained) => {
                    let tokenizer = trained.open().unwrap();
                    prop_assert_eq!(tokenizer.vocab_size(), trained.vocab_size);
                    for text in &texts {
                        tokenizer.encode(text, true).unwrap();
                    }
                }
            }
        }
    }
}
