use super::*;
use crate::rows::testing::{close, measured};

#[test]
fn scores_are_those_of_rouge_score() {
    for (name, texts, measures) in measured() {
        let stats = texts.iter();
        let stats = stats.map(|text| RougeStats::of(&text.text, &[&text.references[0]]));
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
fn of_several_references_the_nearest_counts() {
    let text = "a b c d";
    let one = |reference| RougeStats::of(text, &[reference]).mean().unwrap();
    let (words, order) = (one("d c b a"), one("a b x y z"));
    let both = RougeStats::of(text, &["d c b a", "a b x y z"])
        .mean()
        .unwrap();
    assert_eq!(both.rouge_1, words.rouge_1);
    assert_eq!(both.rouge_2, order.rouge_2);
    assert_eq!(both.rouge_l, order.rouge_l);
    assert_eq!((words.rouge_1, words.rouge_2), (1.0, 0.0));
    assert_eq!(order.rouge_2, 2.0 * 1.0 / 7.0);
}

#[test]
fn without_texts_there_is_no_mean() {
    assert_eq!(RougeStats::default().mean(), None);
}
