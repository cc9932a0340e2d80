//! The tokens of a text that means to be JSON, as far as they can be told in a text that is none.

use std::borrow::Cow;
use std::ops::Range;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// Between quotes.
    Text,
    /// A bracket, a colon or a comma.
    Mark(u8),
    /// A number or a word.
    Word,
}

/// Lists the tokens of a text, each with its bytes; white space is none.
fn tokens(text: &str) -> impl Iterator<Item = (Token, Range<usize>)> {
    let bytes = text.as_bytes();
    let is_word =
        |byte: u8| !matches!(byte, b'"' | b'{' | b'}' | b'[' | b']' | b':' | b',') && byte > b' ';
    let mut at = 0;
    std::iter::from_fn(move || {
        at += bytes[at..].iter().take_while(|byte| **byte <= b' ').count();
        let begin = at;
        let token = match *bytes.get(at)? {
            b'"' => {
                at += 1;
                while let Some(byte) = bytes.get(at).filter(|byte| **byte != b'"') {
                    at += if *byte == b'\\' { 2 } else { 1 };
                }
                at = (at + 1).min(bytes.len());
                Token::Text
            }
            byte if is_word(byte) => {
                at += bytes[at..]
                    .iter()
                    .take_while(|byte| is_word(**byte))
                    .count();
                Token::Word
            }
            mark => {
                at += 1;
                Token::Mark(mark)
            }
        };
        Some((token, begin..at))
    })
}

/// Puts `null` in the place of numbers that are none, which Python's `json` and pandas write for what is missing.
pub(super) fn without_nan(text: &str) -> Cow<'_, str> {
    if !text.contains("NaN") && !text.contains("Infinity") {
        return text.into();
    }
    let mut read = 0;
    let mut written = String::new();
    for (token, range) in tokens(text) {
        let is_nan = || matches!(&text[range.clone()], "NaN" | "Infinity" | "-Infinity");
        if token == Token::Word && is_nan() {
            written.push_str(&text[read..range.start]);
            written.push_str("null");
            read = range.end;
        }
    }
    if read == 0 {
        return text.into();
    }
    written.push_str(&text[read..]);
    written.into()
}

/// Returns the key of the object that `text` begins with whose value ends with, or has, the byte before `at`.
pub(super) fn field_before(text: &str, at: usize) -> Option<&str> {
    let (mut depth, mut last, mut field) = (0usize, None, None);
    for (token, range) in tokens(text).take_while(|(_, range)| range.start + 1 < at) {
        match token {
            Token::Mark(b'{' | b'[') => depth += 1,
            Token::Mark(b'}' | b']') => {
                depth = depth.saturating_sub(1);
                // Behind the object is no field of it.
                field = field.filter(|_| depth > 0);
            }
            Token::Mark(b':') if depth == 1 => field = last.take(),
            Token::Mark(b',') if depth == 1 => field = None,
            Token::Text => last = Some(range),
            _ => {}
        }
    }
    let field = text.get(field?)?;
    field.strip_prefix('"')?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_none_become_null_outside_of_texts() {
        let cases = [
            (
                r#"{"a": NaN, "b":[-Infinity,Infinity], "c": "NaN"}"#,
                r#"{"a": null, "b":[null,null], "c": "NaN"}"#,
            ),
            (
                r#"{"a \" NaN": 1, "b\\": NaN}"#,
                r#"{"a \" NaN": 1, "b\\": null}"#,
            ),
            (
                r#"{"a": NaNa, "b": "Infinity"#,
                r#"{"a": NaNa, "b": "Infinity"#,
            ),
            ("NaN", "null"),
        ];
        for (text, expected) in cases {
            assert_eq!(without_nan(text), expected);
        }
    }

    #[test]
    fn a_place_is_in_the_value_of_a_field() {
        let text = r#"{"a": {"x": 1}, "b:": [2, {"y": 3}], "c": 4}"#;
        for (place, field) in [("1", Some("a")), ("3", Some("b:")), ("4", Some("c"))] {
            let at = text.find(place).unwrap() + 1;
            assert_eq!(field_before(text, at), field);
        }
        assert_eq!(field_before(text, 1), None);
        assert_eq!(field_before("[1, 2]", 5), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_has_tokens(text: String, at in 0usize..40) {
            let _ = (without_nan(&text), field_before(&text, at));
            let end = tokens(&text).last().map_or(0, |(_, range)| range.end);
            proptest::prop_assert!(end <= text.len());
        }
    }
}
