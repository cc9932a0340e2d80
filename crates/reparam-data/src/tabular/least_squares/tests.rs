use proptest::prelude::*;

use super::*;
use crate::tabular::{Generate, generate, mse};

/// The economic data of Longley (1967), a hard problem for least-squares programs, from the reference data sets of
/// the National Institute of Standards and Technology: total employment, then GNP deflator, GNP, unemployed, armed
/// forces, population and year.
const LONGLEY: [[f64; 7]; 16] = [
    [60323., 83.0, 234289., 2356., 1590., 107608., 1947.],
    [61122., 88.5, 259426., 2325., 1456., 108632., 1948.],
    [60171., 88.2, 258054., 3682., 1616., 109773., 1949.],
    [61187., 89.5, 284599., 3351., 1650., 110929., 1950.],
    [63221., 96.2, 328975., 2099., 3099., 112075., 1951.],
    [63639., 98.1, 346999., 1932., 3594., 113270., 1952.],
    [64989., 99.0, 365385., 1870., 3547., 115094., 1953.],
    [63761., 100.0, 363112., 3578., 3350., 116219., 1954.],
    [66019., 101.2, 397469., 2904., 3048., 117388., 1955.],
    [67857., 104.6, 419180., 2822., 2857., 118734., 1956.],
    [68169., 108.4, 442769., 2936., 2798., 120445., 1957.],
    [66513., 110.8, 444546., 4681., 2637., 121950., 1958.],
    [68655., 112.6, 482704., 3813., 2552., 123366., 1959.],
    [69564., 114.2, 502601., 3931., 2514., 125368., 1960.],
    [69331., 115.7, 518173., 4806., 2572., 127852., 1961.],
    [70551., 116.9, 554894., 4007., 2827., 130081., 1962.],
];

#[test]
fn longley_has_the_certified_coefficients() {
    let x: Vec<f64> = LONGLEY.iter().flat_map(|row| &row[1..]).copied().collect();
    let y: Vec<f64> = LONGLEY.iter().map(|row| row[0]).collect();
    let fit = least_squares(&x, 6, &y).unwrap();
    let certified = [
        15.061_872_271_373_3,
        -0.035_819_179_292_591_0,
        -2.020_229_803_816_83,
        -1.033_226_867_173_59,
        -0.051_104_105_653_580_7,
        1_829.151_464_613_55,
    ];
    for (found, expected) in fit.coefficients.iter().zip(certified) {
        assert!((found / expected - 1.0).abs() < 1e-11, "{found} {expected}");
    }
    assert!((fit.intercept / -3_482_258.634_595_82 - 1.0).abs() < 1e-11);
    assert_eq!(fit.rank, 6);
    // The square root of the condition number of the correlation matrix, 110.5 in the literature.
    assert!((fit.condition - 110.5).abs() < 0.1, "{}", fit.condition);
}

#[test]
fn a_solvable_system_is_solved() {
    // y = 2 a - 3 b + 5
    let x = [1.0, 1.0, 2.0, 1.0, 3.0, 4.0, 0.0, -2.0];
    let fit = least_squares(&x, 2, &[4.0, 6.0, -1.0, 11.0]).unwrap();
    for (found, expected) in fit.coefficients.iter().zip([2.0, -3.0]) {
        assert!((found - expected).abs() < 1e-13);
    }
    assert!((fit.intercept - 5.0).abs() < 1e-13);
    let prediction = predict(&x, &fit.coefficients, fit.intercept).unwrap();
    assert!(mse(&prediction, &[4.0, 6.0, -1.0, 11.0]).unwrap() < 1e-26);
}

#[test]
fn uncorrelated_columns_have_condition_1() {
    let x = [1.0, 100.0, 1.0, -100.0, -1.0, 100.0, -1.0, -100.0];
    let fit = least_squares(&x, 2, &[1.0, 2.0, 3.0, 5.0]).unwrap();
    assert!((fit.condition - 1.0).abs() < 1e-14);
}

#[test]
fn columns_may_have_very_different_units_and_means() {
    let mut problem = generate(&Generate {
        samples: 60,
        features: 3,
        noise: 0.0,
        seed: 5,
    })
    .unwrap();
    let (scales, means) = ([1e-9, 1.0, 1e12], [1e-6, 1e6, -1e13]);
    let table = &mut problem.table;
    for row in table.x.chunks_exact_mut(3) {
        for ((x, scale), mean) in row.iter_mut().zip(scales).zip(means) {
            *x = *x * scale + mean;
        }
    }
    let fit = table.least_squares().unwrap();
    for ((found, truth), scale) in fit
        .coefficients
        .iter()
        .zip(problem.coefficients)
        .zip(scales)
    {
        // The second column has lost six digits to its mean.
        assert!((found * scale - truth).abs() < 1e-7, "{found} {truth}");
    }
}

#[test]
fn noise_leaves_the_coefficients_near_the_truth() {
    let problem = generate(&Generate {
        samples: 4000,
        features: 5,
        noise: 2.0,
        seed: 1,
    })
    .unwrap();
    let fit = problem.table.least_squares().unwrap();
    // Standard error noise/sqrt(n) = 0.032; five of them.
    for (found, truth) in fit.coefficients.iter().zip(&problem.coefficients) {
        assert!((found - truth).abs() < 0.16);
    }
    assert!(fit.intercept.abs() < 0.16);
    let table = &problem.table;
    let prediction = predict(&table.x, &fit.coefficients, fit.intercept).unwrap();
    assert!(
        (mse(&prediction, &table.y).unwrap() - 4.0).abs() < 5.0 * 4.0 * (2.0f64 / 4000.0).sqrt()
    );
}

#[test]
fn too_few_rows_are_an_error_that_says_both_numbers() {
    let error = least_squares(&[1.0, 2.0, 3.0, 5.0], 2, &[1.0, 2.0]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "2 rows cannot determine 2 coefficients and an intercept"
    );
    assert_eq!(
        error.hint().unwrap(),
        "give at least 3 rows or fewer features"
    );
    // As many as there are unknowns are enough.
    let fit = least_squares(&[1.0, 2.0, 3.0, 5.0, 4.0, 4.0], 2, &[1.0, 2.0, 9.0]).unwrap();
    assert_eq!(fit.rank, 2);
}

#[test]
fn dependent_columns_are_named() {
    let mut problem = generate(&Generate {
        samples: 40,
        features: 4,
        noise: 0.0,
        seed: 2,
    })
    .unwrap();
    let table = &mut problem.table;
    for row in table.x.chunks_exact_mut(4) {
        row[2] = 2.0 * row[0] - 0.1 * row[1] + 7.0;
    }
    let error = table.least_squares().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the 4 features are linearly dependent: their rank is 3"
    );
    assert_eq!(
        error.hint().unwrap(),
        "leave out `x3`: a linear combination of the features before it"
    );
    let error = least_squares(&table.x, 4, &table.y).unwrap_err();
    assert!(error.hint().unwrap().contains("`column 3`"));
}

#[test]
fn a_copy_far_from_zero_is_seen_through_its_rounding() {
    // The second column is three times the first up to rounding, which after centring is 1e-7 of its spread.
    let x: Vec<f64> = (0..30)
        .map(|row| 1e9 + f64::from(row * row % 17) * 0.37)
        .flat_map(|x| [x, 3.0 * x])
        .collect();
    let y: Vec<f64> = (0..30).map(f64::from).collect();
    assert!(matches!(
        least_squares(&x, 2, &y),
        Err(TabularError::RankDeficient { rank: 1, columns: 2, dependent }) if dependent == ["column 2"]
    ));
    // While a column that far away is by itself no obstacle.
    let alone: Vec<f64> = x.iter().step_by(2).copied().collect();
    let y: Vec<f64> = alone.iter().map(|x| 2.0 * (x - 1e9)).collect();
    let fit = least_squares(&alone, 1, &y).unwrap();
    assert!((fit.coefficients[0] - 2.0).abs() < 1e-12);
}

#[test]
fn unusable_columns_are_refused() {
    let message = |x: &[f64], n, y: &[f64]| least_squares(x, n, y).unwrap_err().to_string();
    let y = [1.0, 2.0, 4.0];
    assert_eq!(
        message(&[1.0, 5.0, 2.0, 5.0, 4.0, 5.0], 2, &y),
        "constant over the 3 rows: `column 2`"
    );
    assert_eq!(
        message(&[1.0, f64::NAN, 2.0], 1, &y),
        "feature `column 1` has a number that is not finite in row 1 (counted from 0): NaN"
    );
    assert_eq!(
        message(&[1.0, 2.0, 4.0], 1, &[1.0, f64::INFINITY, 2.0]),
        "the target has a number that is not finite in row 1 (counted from 0): inf"
    );
    assert_eq!(
        message(&[1.0, 2.0], 1, &y),
        "the matrix of the features should have 3 numbers, found 2"
    );
    assert_eq!(
        message(&[], 0, &y),
        "there are no features to predict `the target` from"
    );
    assert!(predict(&[1.0, 2.0, 3.0], &[1.0, 1.0], 0.0).is_err());
    assert!(predict(&[1.0], &[], 0.0).is_err());
}

#[test]
fn a_constant_target_is_met_by_the_intercept() {
    let fit = least_squares(&[1.0, 2.0, 4.0], 1, &[3.0; 3]).unwrap();
    assert_eq!((fit.coefficients, fit.intercept), (vec![0.0], 3.0));
}

proptest! {
    #[test]
    fn the_residual_is_orthogonal_to_every_column_and_to_1(
        n in 1usize..6, spare in 0usize..20, seed: u64, noise in 0.0f64..100.0, power in -3i32..4,
    ) {
        let samples = n + 1 + spare;
        let mut table = generate(&Generate { samples, features: n, noise, seed }).unwrap().table;
        for x in table.x.iter_mut().step_by(n) {
            *x = *x * 10f64.powi(power) + 3.0;
        }
        let fit = table.least_squares().unwrap();
        let prediction = predict(&table.x, &fit.coefficients, fit.intercept).unwrap();
        let residual: Vec<f64> = table.y.iter().zip(&prediction).map(|(y, p)| y - p).collect();
        let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
        let y = norm(&mut table.y.iter().copied());
        // Rounding of the prediction grows with the coefficients, thus with the condition.
        let bound = 1e-12 * y * fit.condition * (1.0 + 10f64.powi(-power));
        prop_assert!(residual.iter().sum::<f64>().abs() <= bound * (samples as f64).sqrt());
        for column in 0..n {
            let x = || table.x.iter().skip(column).step_by(n).copied();
            let product: f64 = x().zip(&residual).map(|(x, r)| x * r).sum();
            prop_assert!(product.abs() <= bound * norm(&mut x()), "{} {}", product, bound);
        }
    }

    #[test]
    fn no_other_model_has_a_smaller_error(
        seed: u64,
        step in prop::collection::vec(-1.0f64..1.0, 4),
    ) {
        let table = generate(&Generate { samples: 12, features: 3, noise: 5.0, seed }).unwrap().table;
        let fit = table.least_squares().unwrap();
        let error = |w: &[f64], b| mse(&predict(&table.x, w, b).unwrap(), &table.y).unwrap();
        let best = error(&fit.coefficients, fit.intercept);
        let moved: Vec<f64> = fit.coefficients.iter().zip(&step).map(|(w, s)| w + s).collect();
        prop_assert!(error(&moved, fit.intercept + step[3]) >= best * (1.0 - 1e-12));
    }

    #[test]
    fn the_order_of_rows_and_columns_does_not_matter(seed: u64) {
        let table = generate(&Generate { samples: 9, features: 3, noise: 5.0, seed }).unwrap().table;
        let fit = table.least_squares().unwrap();
        let turned: Vec<f64> = table.x.iter().rev().copied().collect();
        let y: Vec<f64> = table.y.iter().rev().copied().collect();
        let mut back = least_squares(&turned, 3, &y).unwrap();
        back.coefficients.reverse();
        for (a, b) in fit.coefficients.iter().zip(&back.coefficients) {
            prop_assert!((a - b).abs() <= 1e-11 * fit.condition * 100.0);
        }
        prop_assert!((fit.condition / back.condition - 1.0).abs() < 1e-9 * fit.condition);
    }
}
