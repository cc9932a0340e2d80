use proptest::prelude::*;

use super::*;
use crate::rows::testing::{close, measured};

#[test]
fn scores_are_those_of_sacrebleu() {
    for (name, texts, measures) in measured() {
        for (chrf, expected) in [
            (Chrf::Characters, measures.chrf),
            (Chrf::CharactersAndWords, measures.chrf_plus_plus),
        ] {
            let stats = texts.iter();
            let stats = stats.map(|text| ChrfStats::of(&text.text, &text.references(), chrf));
            let score = stats.sum::<ChrfStats>().score();
            close(score, expected, &format!("{chrf:?} of {name}"));
        }
    }
}

#[test]
fn a_mark_at_an_end_is_a_word() {
    for (word, parts) in [
        ("a", &["a"][..]),
        ("!", &["!"]),
        ("!!", &["!", "!"]),
        ("a!", &["a", "!"]),
        ("!a", &["!", "a"]),
        ("(a)", &["(a", ")"]),
        ("(é", &["(", "é"]),
        ("é。", &["é。"]),
        ("a-b", &["a-b"]),
    ] {
        assert_eq!(without_mark(word).collect::<Vec<_>>(), parts, "{word}");
    }
}

#[test]
fn nothing_scores_nothing() {
    let of = |text, references: &[&str]| ChrfStats::of(text, references, Chrf::CharactersAndWords);
    for stats in [
        ChrfStats::default(),
        of("a", &[]),
        of("", &["a"]),
        of("a", &[" "]),
        of("a", &["b"]),
    ] {
        assert_eq!(stats.score(), 0.0, "{stats:?}");
    }
}

proptest! {
    #[test]
    fn any_texts_have_a_score(text in "\\PC{0,40}", reference in "[a-c .,!]{0,20}") {
        let score = |text, reference| ChrfStats::of(text, &[reference], Chrf::CharactersAndWords).score();
        for (text, reference) in [(&text, &reference), (&reference, &text), (&text, &text)] {
            let score = score(text, reference);
            prop_assert!((0.0..=100.0 + 1e-9).contains(&score), "{score}");
        }
    }
}
