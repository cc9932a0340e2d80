use super::*;
use crate::rows::testing::measured;

#[test]
fn words_are_those_of_sacrebleu() {
    for (name, texts, _) in measured() {
        for text in &texts {
            for tokenizer in BleuTokenizer::ALL {
                let expected = &text.words[tokenizer.name()];
                let found = tokenizer.words(&text.text).join(" ");
                assert_eq!(&found, expected, "{tokenizer:?} of {name}");
            }
        }
    }
}

#[test]
fn punctuation_is_parted_by_what_stands_beside_it() {
    for (text, words) in [
        ("", ""),
        (" \u{a0}\t", ""),
        ("Hello, world!", "Hello , world !"),
        ("1,000.5", "1,000.5"),
        (".5 5.", ". 5 5 ."),
        ("a.5 5.a", "a . 5 5 . a"),
        ("1-2 a-b", "1 - 2 a-b"),
        ("it's 'so'", "it's 'so'"),
        // The second comma is no part of a pair in the first pass, nor the third in the second one.
        ("a,,,b", "a , , , b"),
        ("&amp;quot;", "& quot ;"),
    ] {
        assert_eq!(BleuTokenizer::V13a.words(text).join(" "), words, "{text:?}");
    }
}
