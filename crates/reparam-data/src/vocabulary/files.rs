//! `tokenizer.json` and `tokenizer_config.json`.

use serde_json::{Map, Value, json};

use super::merges::CONTINUES;
use super::options::{TokenizerKind, TokenizerOptions};

/// What a training has found, without special tokens.
pub(super) enum Model {
    /// Words.
    Words(Vec<String>),
    /// Tokens, and the pairs of their indices that were merged, in order.
    Merges {
        tokens: Vec<String>,
        merges: Vec<(u32, u32)>,
    },
    /// Parts of words.
    Parts(Vec<String>),
    /// Parts of words with the logarithms of their probabilities.
    Scored(Vec<(String, f64)>),
}

/// The special tokens, whose ids are the first.
pub(super) struct Special {
    /// All of them.
    pub(super) tokens: &'static [&'static str],
    /// Role and token.
    roles: &'static [(&'static str, &'static str)],
}

impl Special {
    pub(super) fn of(options: &TokenizerOptions) -> Self {
        const PLAIN: [(&str, &str); 2] = [("pad_token", "<pad>"), ("unk_token", "<unk>")];
        match (options.kind, options.sentence_marks) {
            (TokenizerKind::WordPiece, _) => Self {
                tokens: &["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
                roles: &[
                    ("pad_token", "[PAD]"),
                    ("unk_token", "[UNK]"),
                    ("cls_token", "[CLS]"),
                    ("sep_token", "[SEP]"),
                    ("mask_token", "[MASK]"),
                ],
            },
            (_, false) => Self {
                tokens: &["<pad>", "<unk>"],
                roles: &PLAIN,
            },
            (_, true) => Self {
                tokens: &["<pad>", "<unk>", "<s>", "</s>"],
                roles: &[
                    PLAIN[0],
                    PLAIN[1],
                    ("bos_token", "<s>"),
                    ("eos_token", "</s>"),
                ],
            },
        }
    }

    fn id(&self, token: &str) -> usize {
        let position = self.tokens.iter().position(|known| *known == token);
        position.unwrap_or_default()
    }
}

/// A tokenizer that has its normalizer and pre-tokenizer, and no words: what texts are split with while words are counted.
pub(super) fn steps(options: &TokenizerOptions) -> Vec<u8> {
    let model = json!({"type": "WordLevel", "vocab": {}, "unk_token": "<unk>"});
    let value = json!({
        "version": "1.0",
        "normalizer": normalizer(options),
        "pre_tokenizer": pre_tokenizer(options.kind),
        "model": model,
    });
    value.to_string().into_bytes()
}

/// Writes both files; gives also the number of tokens.
pub(super) fn write(
    model: &Model,
    options: &TokenizerOptions,
    special: &Special,
) -> (Vec<u8>, Vec<u8>, usize) {
    let added: Vec<Value> = special.tokens.iter().enumerate().map(added).collect();
    let (model, vocab_size) = model_json(model, special);
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": normalizer(options),
        "pre_tokenizer": pre_tokenizer(options.kind),
        "post_processor": post_processor(options, special),
        "decoder": decoder(options.kind),
        "model": model,
    });
    let mut config = Map::new();
    config.insert(
        "tokenizer_class".to_owned(),
        json!("PreTrainedTokenizerFast"),
    );
    // Decoding gives the text, not a guess at how it would be printed.
    config.insert("clean_up_tokenization_spaces".to_owned(), json!(false));
    for (role, token) in special.roles {
        config.insert((*role).to_owned(), json!(token));
    }
    (lines(&tokenizer), lines(&Value::Object(config)), vocab_size)
}

fn lines(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

fn added((id, token): (usize, &&str)) -> Value {
    json!({
        "id": id,
        "content": token,
        "single_word": false,
        "lstrip": false,
        "rstrip": false,
        "normalized": false,
        "special": true,
    })
}

fn model_json(model: &Model, special: &Special) -> (Value, usize) {
    let ids = |tokens: &[String]| {
        let names = special.tokens.iter().map(|token| (*token).to_owned());
        let names = names.chain(tokens.iter().cloned());
        let ids: Map<String, Value> = names.zip((0..).map(|id: u32| json!(id))).collect();
        ids
    };
    let size = |tokens: usize| special.tokens.len() + tokens;
    match model {
        Model::Words(words) => {
            let model = json!({"type": "WordLevel", "vocab": ids(words), "unk_token": "<unk>"});
            (model, size(words.len()))
        }
        Model::Merges { tokens, merges } => {
            let text = |id: u32| tokens[id as usize].as_str();
            let merges: Vec<[&str; 2]> = merges.iter().map(|&(a, b)| [text(a), text(b)]).collect();
            let model = json!({
                "type": "BPE",
                "dropout": null,
                "unk_token": null,
                "continuing_subword_prefix": null,
                "end_of_word_suffix": null,
                "fuse_unk": false,
                "byte_fallback": false,
                "ignore_merges": false,
                "vocab": ids(tokens),
                "merges": merges,
            });
            (model, size(tokens.len()))
        }
        Model::Parts(parts) => {
            let model = json!({
                "type": "WordPiece",
                "unk_token": "[UNK]",
                "continuing_subword_prefix": CONTINUES,
                // BERT's: a longer word is unknown.
                "max_input_chars_per_word": 100,
                "vocab": ids(parts),
            });
            (model, size(parts.len()))
        }
        Model::Scored(parts) => {
            let names = special.tokens.iter().map(|token| json!([token, 0.0]));
            let parts: Vec<Value> = names.chain(parts.iter().map(|part| json!(part))).collect();
            let size = parts.len();
            let model = json!({
                "type": "Unigram",
                "unk_id": special.id("<unk>"),
                "vocab": parts,
                "byte_fallback": false,
            });
            (model, size)
        }
    }
}

fn normalizer(options: &TokenizerOptions) -> Value {
    let lowercase = json!({"type": "Lowercase"});
    match (options.kind, options.lowercase) {
        (TokenizerKind::WordPiece, lowercase) => json!({
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": true,
            // As `lowercase` says.
            "strip_accents": null,
            "lowercase": lowercase,
        }),
        // As SentencePiece: compatible forms become one, and several spaces are one.
        (TokenizerKind::Unigram, is_lower) => {
            let mut steps = vec![
                json!({"type": "NFKC"}),
                json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}),
            ];
            if is_lower {
                steps.push(lowercase);
            }
            json!({"type": "Sequence", "normalizers": steps})
        }
        (TokenizerKind::WordLevel | TokenizerKind::Bpe, true) => lowercase,
        (TokenizerKind::WordLevel | TokenizerKind::Bpe, false) => Value::Null,
    }
}

fn pre_tokenizer(kind: TokenizerKind) -> Value {
    match kind {
        TokenizerKind::WordLevel => json!({"type": "WhitespaceSplit"}),
        TokenizerKind::Bpe => byte_level(),
        TokenizerKind::WordPiece => json!({"type": "BertPreTokenizer"}),
        TokenizerKind::Unigram => metaspace(),
    }
}

fn decoder(kind: TokenizerKind) -> Value {
    match kind {
        // Words are joined by a space.
        TokenizerKind::WordLevel => Value::Null,
        TokenizerKind::Bpe => byte_level(),
        TokenizerKind::WordPiece => {
            json!({"type": "WordPiece", "prefix": CONTINUES, "cleanup": true})
        }
        TokenizerKind::Unigram => metaspace(),
    }
}

fn byte_level() -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true})
}

fn metaspace() -> Value {
    json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true})
}

/// What is put around a text: BERT's template, or `<s>` alone, for `</s>` ends a document and not a prompt.
fn post_processor(options: &TokenizerOptions, special: &Special) -> Value {
    let token =
        |token: &str, type_id: u8| json!({"SpecialToken": {"id": token, "type_id": type_id}});
    let text = |id: &str, type_id: u8| json!({"Sequence": {"id": id, "type_id": type_id}});
    let (single, pair, tokens): (_, _, &[&str]) = match (options.kind, options.sentence_marks) {
        (TokenizerKind::WordPiece, _) => (
            vec![token("[CLS]", 0), text("A", 0), token("[SEP]", 0)],
            vec![
                token("[CLS]", 0),
                text("A", 0),
                token("[SEP]", 0),
                text("B", 1),
                token("[SEP]", 1),
            ],
            &["[CLS]", "[SEP]"],
        ),
        (_, true) => (
            vec![token("<s>", 0), text("A", 0)],
            vec![token("<s>", 0), text("A", 0), text("B", 1)],
            &["<s>"],
        ),
        (_, false) => return Value::Null,
    };
    let special_tokens: Map<String, Value> = tokens
        .iter()
        .map(|token| {
            let ids = [special.id(token)];
            let entry = json!({"id": token, "ids": ids, "tokens": [token]});
            ((*token).to_owned(), entry)
        })
        .collect();
    json!({
        "type": "TemplateProcessing",
        "single": single,
        "pair": pair,
        "special_tokens": special_tokens,
    })
}
