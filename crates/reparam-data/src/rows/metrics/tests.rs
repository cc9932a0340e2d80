use std::path::Path;

use serde_json::Value;

use super::*;

/// Both sides compute in f64 and sum in different orders.
const TOLERANCE: f64 = 1e-12;

#[test]
fn measures_are_those_of_scikit_learn_and_pytorch() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/classes.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 9);
    for case in cases {
        let kind = match case["kind"].as_str() {
            Some("one") => LabelKind::One,
            Some("several") => LabelKind::Several,
            other => panic!("{other:?}"),
        };
        let logits: Vec<Vec<f32>> = serde_json::from_value(case["logits"].clone()).unwrap();
        let classes: Vec<Vec<usize>> = serde_json::from_value(case["classes"].clone()).unwrap();
        let mut scorer = ClassScorer::new(logits[0].len(), kind);
        for (logits, classes) in logits.iter().zip(&classes) {
            scorer.add(logits, classes);
        }
        let found = scorer.finish().unwrap();
        let matthews = found.matthews.map(|value| ("matthews", value));
        let numbers = [
            ("loss", found.loss),
            ("accuracy", found.accuracy),
            ("f1_macro", found.f1_macro),
            ("f1_micro", found.f1_micro),
        ];
        assert_eq!(matthews.is_some(), !case["matthews"].is_null());
        for (key, value) in numbers.into_iter().chain(matthews) {
            let expected = case[key].as_f64().unwrap();
            let error = (value - expected).abs() / expected.abs().max(1.0);
            assert!(
                error < TOLERANCE,
                "{}: {key} is {value}, expected {expected}",
                case["name"]
            );
        }
        assert_eq!(found.examples, logits.len());
    }
}

#[test]
fn probabilities() {
    let softmax = softmax(&[1000.0, 1000.0 + 2f32.ln(), f32::NEG_INFINITY]);
    for (found, expected) in softmax.iter().zip([1.0 / 3.0, 2.0 / 3.0, 0.0]) {
        // The logarithm of 2 is rounded to f32 at a thousand, whose last digit is 6e-5.
        assert!((found - expected).abs() < 2e-5, "{softmax:?}");
    }
    assert!((sigmoid(3f32.ln()) - 0.75).abs() < 1e-7);
    assert_eq!((sigmoid(0.0), sigmoid(-1e4), sigmoid(1e4)), (0.5, 0.0, 1.0));
}

#[test]
fn the_first_of_equals_is_predicted_and_a_half_is_a_yes() {
    let one = ClassScorer::new(3, LabelKind::One);
    assert_eq!(one.prediction(&[1.0, 2.0, 2.0]), [1]);
    let several = ClassScorer::new(3, LabelKind::Several);
    assert_eq!(several.prediction(&[0.0, -1e-6, 5.0]), [0, 2]);
    assert_eq!(several.finish(), None);
}
