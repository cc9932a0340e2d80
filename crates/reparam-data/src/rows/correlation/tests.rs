use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::rows::testing::golden;

/// Both sides sum in f64 in different orders; subtracting a mean of a million costs six digits.
const TOLERANCE: f64 = 1e-9;

#[derive(Deserialize)]
struct Case {
    name: String,
    a: Vec<f64>,
    b: Vec<f64>,
    pearson: f64,
    spearman: f64,
}

#[test]
fn correlations_are_those_of_scipy() {
    let cases: Vec<Case> = golden("correlations.json", "cases");
    assert_eq!(cases.len(), 7);
    for case in cases {
        for (found, expected) in [
            (pearson(&case.a, &case.b), case.pearson),
            (spearman(&case.a, &case.b), case.spearman),
        ] {
            let found = found.unwrap();
            assert!(
                (found - expected).abs() < TOLERANCE,
                "{}: {found} {expected}",
                case.name
            );
        }
    }
}

#[test]
fn what_does_not_vary_has_no_correlation() {
    for numbers in [
        &[][..],
        &[1.0],
        &[2.0, 2.0, 2.0],
        &[0.1, 0.1, 0.1],
        &[1.0, f64::NAN],
        &[f64::INFINITY, 0.0],
    ] {
        let others: Vec<f64> = (0..numbers.len()).map(|at| at as f64).collect();
        for correlation in [pearson, spearman] {
            assert_eq!(correlation(numbers, &others), None, "{numbers:?}");
            assert_eq!(correlation(&others, numbers), None, "{numbers:?}");
        }
    }
    assert_eq!(
        ranks(&[3.0, 1.0, 3.0, -0.0, 0.0]).unwrap(),
        [4.5, 3.0, 4.5, 1.5, 1.5]
    );
}

proptest! {
    #[test]
    fn ranks_do_not_depend_on_the_scale(numbers in prop::collection::vec(-9i32..9, 2..20), factor in 1i32..5) {
        let numbers: Vec<f64> = numbers.into_iter().map(f64::from).collect();
        let scaled: Vec<f64> = numbers.iter().map(|x| f64::from(factor) * x * x * x - 7.0).collect();
        if let Some(found) = spearman(&numbers, &scaled) {
            prop_assert!((found - 1.0).abs() < 1e-12, "{}", found);
        }
        let ranks = ranks(&numbers).unwrap();
        let n = numbers.len() as f64;
        prop_assert_eq!(ranks.iter().sum::<f64>(), n * (n + 1.0) / 2.0);
    }
}
