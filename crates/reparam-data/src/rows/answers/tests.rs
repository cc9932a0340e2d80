use serde::Deserialize;

use super::*;
use crate::rows::testing::golden;

/// Both sides compute quotients of small whole numbers, F1 in two ways.
const TOLERANCE: f64 = 1e-15;

#[derive(Deserialize)]
struct Case {
    answer: String,
    right: Vec<String>,
    exact: f64,
    f1: f64,
}

#[test]
fn answers_are_compared_as_by_the_evaluation_of_squad() {
    let cases: Vec<Case> = golden("answers.json", "cases");
    assert_eq!(cases.len(), 160);
    let mut scorer = AnswerScorer::new();
    assert_eq!(scorer.finish(), None);
    let (mut exact_sum, mut f1_sum) = (0.0, 0.0);
    for case in &cases {
        let (exact, f1) = scorer.add(&case.answer, case.right.iter().map(String::as_str));
        let Case { answer, right, .. } = case;
        assert_eq!(exact, case.exact, "{answer:?} {right:?}");
        assert!(
            (f1 - case.f1).abs() < TOLERANCE,
            "{answer:?} {right:?}: {f1} {}",
            case.f1
        );
        exact_sum += case.exact;
        f1_sum += case.f1;
    }
    let found = scorer.finish().unwrap();
    assert!((found.exact_match - exact_sum / 1.6).abs() < 1e-12);
    assert!((found.f1 - f1_sum / 1.6).abs() < 1e-12);
    assert_eq!(found.examples, 160);
}

#[test]
fn words_of_answers() {
    for (answer, right, exact, f1) in [
        ("The Beatles!", &["beatles"][..], 1.0, 1.0),
        ("in the year 1066", &["1066", "AD 1066"], 0.0, 0.5),
        ("cat", &[], 0.0, 0.0),
        ("", &[], 1.0, 1.0),
        ("the", &[], 1.0, 1.0),
        ("", &["cat"], 0.0, 0.0),
        // An answer of nothing but articles is no answer, so that nothing is right.
        ("", &["the"], 1.0, 1.0),
        ("《红楼梦》。", &["红楼梦"], 1.0, 1.0),
        ("北京市", &["北京"], 0.0, 0.8),
        ("2008 年", &["2008年"], 1.0, 1.0),
        ("北 京", &["北京"], 1.0, 1.0),
        // Without a Chinese character, quotation marks stay as SQuAD leaves them.
        ("“cat”", &["cat"], 0.0, 0.0),
    ] {
        let found = AnswerScorer::new().add(answer, right.iter().copied());
        assert_eq!(found, (exact, f1), "{answer:?} {right:?}");
    }
}
