use super::*;
use crate::rows::testing::{close, measured};

#[test]
fn scores_are_those_of_rouge_score() {
    for (name, texts, measures) in measured() {
        let stats = texts.iter();
        let stats = stats.map(|text| RougeStats::of(&text.text, &text.references[0]));
        let rouge = stats.sum::<RougeStats>().mean().unwrap();
        let found = [rouge.rouge_1, rouge.rouge_2, rouge.rouge_l];
        for (found, expected) in found.into_iter().zip(measures.rouge) {
            close(found, expected, &name);
        }
    }
}

#[test]
fn the_longest_common_subsequence() {
    for (a, b, length) in [
        ("", "", 0),
        ("a", "", 0),
        ("a b c", "a b c", 3),
        ("a b c d", "b d a c", 2),
        ("a x b y c", "c a b c", 3),
        ("a a a", "a a", 2),
    ] {
        let [a, b] = [a, b].map(ascii_words);
        assert_eq!(longest_common_subsequence(&a, &b), length, "{a:?} {b:?}");
        assert_eq!(longest_common_subsequence(&b, &a), length, "{a:?} {b:?}");
    }
}

#[test]
fn without_texts_there_is_no_mean() {
    assert_eq!(RougeStats::default().mean(), None);
}
