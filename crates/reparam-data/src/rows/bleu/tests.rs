use proptest::prelude::*;

use super::*;
use crate::rows::testing::{close, measured};

#[test]
fn scores_are_those_of_sacrebleu() {
    for (name, texts, measures) in measured() {
        for tokenizer in BleuTokenizer::ALL {
            let stats = texts.iter();
            let stats = stats.map(|text| BleuStats::of(&text.text, &text.references(), tokenizer));
            let bleu = stats.sum::<BleuStats>().score();
            let [score, precisions @ .., brevity_penalty] = measures.bleu[tokenizer.name()];
            let what = format!("{tokenizer:?} of {name}");
            close(bleu.score, score, &what);
            close(bleu.brevity_penalty, brevity_penalty, &what);
            for (found, expected) in bleu.precisions.into_iter().zip(precisions) {
                close(found, expected, &what);
            }
        }
    }
}

#[test]
fn nothing_scores_nothing() {
    let of = |text, references: &[&str]| BleuStats::of(text, references, BleuTokenizer::V13a);
    for stats in [
        BleuStats::default(),
        of("", &[]),
        of("", &["a"]),
        of("a b c d", &[]),
        // Nothing has four words.
        of("a b c", &["a b c"]),
    ] {
        assert_eq!(stats.score().score, 0.0, "{stats:?}");
    }
}

#[test]
fn a_corpus_is_the_sum_of_its_texts() {
    let of = |text| BleuStats::of(text, &["a b c d e"], BleuTokenizer::None);
    let (first, second) = (of("a b c d x"), of("b c d e"));
    let mut sum = BleuStats::default();
    sum += second;
    sum += first;
    assert_eq!(sum, first + second);
    assert_eq!((sum.words, sum.reference_words), (9, 10));
    assert_eq!((sum.matches, sum.totals), ([8, 6, 4, 2], [9, 7, 5, 3]));
}

proptest! {
    #[test]
    fn any_texts_have_a_score(text in "\\PC{0,40}", reference in "[a-c .,1-]{0,20}") {
        for tokenizer in BleuTokenizer::ALL {
            let score = |text, reference| BleuStats::of(text, &[reference], tokenizer).score().score;
            for (text, reference) in [(&text, &reference), (&reference, &text), (&text, &text)] {
                let score = score(text, reference);
                prop_assert!((0.0..=100.0 + 1e-9).contains(&score), "{score}");
            }
        }
    }
}
