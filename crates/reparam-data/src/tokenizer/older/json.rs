//! The parts of `tokenizer.json`.

use serde_json::{Value, json};

/// What SentencePiece writes for a space.
pub(super) const SPACE: &str = "\u{2581}";

/// A sequence of normalizers, or the only one.
pub(super) fn normalizers(parts: Vec<Value>) -> Value {
    sequence("normalizers", parts)
}

/// A sequence of pre-tokenizers, or the only one.
pub(super) fn pre_tokenizers(parts: Vec<Value>) -> Value {
    sequence("pretokenizers", parts)
}

/// A sequence of decoders.
pub(super) fn decoders(parts: Vec<Value>) -> Value {
    sequence("decoders", parts)
}

fn sequence(key: &str, mut parts: Vec<Value>) -> Value {
    match parts.len() {
        0 => Value::Null,
        1 => parts.remove(0),
        _ => json!({"type": "Sequence", key: parts}),
    }
}

/// Spaces become a part of the word behind them.
pub(super) fn metaspace(prepend_scheme: &str, split: bool) -> Value {
    json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": prepend_scheme, "split": split})
}

/// Replaces a text.
pub(super) fn replace(text: &str, content: &str) -> Value {
    json!({"type": "Replace", "pattern": {"String": text}, "content": content})
}

/// Replaces what a regular expression finds.
pub(super) fn replace_regex(pattern: &str, content: &str) -> Value {
    json!({"type": "Replace", "pattern": {"Regex": pattern}, "content": content})
}

/// Bytes as characters, of words as GPT-2 divides them if `use_regex`.
pub(super) fn byte_level(add_prefix_space: bool, use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true, "use_regex": use_regex})
}

/// Pieces back to text, bytes that stand for themselves included.
pub(super) fn from_pieces(strips_first: bool) -> Value {
    let mut parts = vec![
        replace(SPACE, " "),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if strips_first {
        parts.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    decoders(parts)
}

/// A part of a template.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part<'a> {
    /// A special token and its id.
    Token(&'a str, u32),
    /// The text, or the first of two.
    A,
    /// The second of two.
    B,
}

/// What is put around a text and around two; types are 0 but those of the second text and what follows it, if `types`.
pub(super) fn template(single: &[Part<'_>], pair: &[Part<'_>], types: bool) -> Value {
    let written = |parts: &[Part<'_>]| -> Vec<Value> {
        let mut of_type = 0;
        let parts = parts.iter().map(|part| {
            if matches!(part, Part::B) && types {
                of_type = 1;
            }
            match part {
                Part::Token(token, _) => json!({"SpecialToken": {"id": token, "type_id": of_type}}),
                Part::A => json!({"Sequence": {"id": "A", "type_id": of_type}}),
                Part::B => json!({"Sequence": {"id": "B", "type_id": of_type}}),
            }
        });
        parts.collect()
    };
    let tokens = single.iter().chain(pair).filter_map(|part| match part {
        Part::Token(token, id) => {
            let entry = json!({"id": token, "ids": [id], "tokens": [token]});
            Some(((*token).to_owned(), entry))
        }
        Part::A | Part::B => None,
    });
    let tokens: serde_json::Map<String, Value> = tokens.collect();
    json!({
        "type": "TemplateProcessing", "single": written(single), "pair": written(pair), "special_tokens": tokens,
    })
}
