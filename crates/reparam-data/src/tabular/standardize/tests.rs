use proptest::prelude::*;

use super::*;

/// A table of the given columns.
pub(super) fn table(columns: &[&[f64]], y: &[f64]) -> Table {
    let rows = y.len();
    Table {
        features: (1..=columns.len()).map(|n| format!("f{n}")).collect(),
        target: "price".to_owned(),
        x: (0..rows)
            .flat_map(|row| columns.iter().map(move |column| column[row]))
            .collect(),
        y: y.to_vec(),
        rows: (0..rows).collect(),
        n_rows: rows,
        dropped: Vec::new(),
        digest: None,
        notation: crate::tabular::Notation::Plain,
    }
}

#[test]
fn the_population_standard_deviation_is_used() {
    // Wikipedia's example of a population: mean 5, standard deviation 2.
    let eight = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
    let table = table(&[&eight], &eight.map(|v| 10.0 * v));
    let standardizer = Standardizer::fit(&table).unwrap();
    let expected = Standardizer {
        feature_mean: vec![5.0],
        feature_scale: vec![2.0],
        target_mean: 50.0,
        target_scale: 20.0,
    };
    assert_eq!(standardizer, expected);
    assert_eq!(
        standardizer.apply_features(&[9.0, 5.0]).unwrap(),
        [2.0, 0.0]
    );
    assert_eq!(
        standardizer.invert_features(&[2.0, 0.0]).unwrap(),
        [9.0, 5.0]
    );
    assert_eq!(standardizer.apply_target(&[90.0, 30.0]), [2.0, -1.0]);
    assert_eq!(standardizer.invert_target(&[2.0, -1.0]), [90.0, 30.0]);
}

#[test]
fn a_column_far_from_zero_keeps_its_digits() {
    let small = [-1.5, 0.25, 0.5, 2.0, -0.75, 1.0];
    let far = small.map(|v| 1e9 + v);
    let table = table(&[&small, &far], &small);
    let standardizer = Standardizer::fit(&table).unwrap();
    let z = standardizer.apply_features(&table.x).unwrap();
    for row in z.chunks_exact(2) {
        // The mean of `far` is rounded to a multiple of 1.2e-7.
        assert!((row[0] - row[1]).abs() < 2e-7, "{row:?}");
    }
    assert!((standardizer.feature_scale[0] / standardizer.feature_scale[1] - 1.0).abs() < 1e-13);
}

#[test]
fn constant_columns_are_named() {
    let table_of = |y: &[f64]| table(&[&[1.0; 3], &[1.0, 2.0, 3.0], &[0.3, 0.1 + 0.2, 0.3]], y);
    let error = Standardizer::fit(&table_of(&[1.0, 2.0, 3.0])).unwrap_err();
    assert_eq!(error.to_string(), "constant over the 3 rows: `f1`, `f3`");
    assert_eq!(
        error.hint().unwrap(),
        "leave them out of the features: they predict nothing"
    );
    let error = Standardizer::fit(&table(&[&[1.0, 2.0]], &[5.5, 5.5])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the target `price` is constant over the 2 rows: 5.5"
    );
}

#[test]
fn numbers_without_a_standard_deviation_are_refused() {
    let error = Standardizer::fit(&table(&[&[-1.7e308, 1.7e308]], &[1.0, 2.0])).unwrap_err();
    assert!(
        matches!(&error, TabularError::Range { column, .. } if column == "feature `f1`"),
        "{error}"
    );
    let error = Standardizer::fit(&table(&[&[1.0, 2.0]], &[0.0, 1e-320])).unwrap_err();
    let message = error.to_string();
    assert!(
        message.starts_with("target `price` cannot be standardized: mean "),
        "{message}"
    );
    assert_eq!(error.hint().unwrap(), "express the column in another unit");
    let error = Standardizer::fit(&table(&[&[1.0, f64::NAN]], &[0.0, 1.0])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "feature `f1` has a number that is not finite in row 1 (counted from 0): NaN"
    );
}

#[test]
fn shapes_are_checked() {
    let good = table(&[&[1.0, 2.0], &[3.0, 5.0]], &[1.0, 2.0]);
    let standardizer = Standardizer::fit(&good).unwrap();
    assert_eq!(
        standardizer
            .apply_features(&[1.0, 2.0, 3.0])
            .unwrap_err()
            .to_string(),
        "the matrix of the features should have 2 numbers, found 3"
    );
    assert_eq!(
        standardizer
            .invert_linear(&[1.0], 0.0)
            .unwrap_err()
            .to_string(),
        "the coefficients should have 2 numbers, found 1"
    );
    let mut short = good.clone();
    short.x.pop();
    assert!(matches!(
        Standardizer::fit(&short),
        Err(TabularError::Length { .. })
    ));
    let none = good.subset(&[]).unwrap();
    assert_eq!(
        Standardizer::fit(&none).unwrap_err().to_string(),
        "there are no rows to compute mean and standard deviation of"
    );
}

#[test]
fn a_subset_keeps_the_rows_of_the_source() {
    let mut whole = table(&[&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]], &[7.0, 8.0, 9.0]);
    whole.rows = vec![0, 4, 5];
    let part = whole.subset(&[2, 0]).unwrap();
    assert_eq!(
        (&part.x[..], &part.y[..]),
        (&[3.0, 6.0, 1.0, 4.0][..], &[9.0, 7.0][..])
    );
    assert_eq!((&part.rows[..], part.n_rows), (&[5, 0][..], 2));
    let error = whole.subset(&[0, 3]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "row 3 was asked for, the table has 3 rows"
    );
    assert_eq!(error.hint(), None);
}

fn columns() -> impl Strategy<Value = Table> {
    (1usize..4, 3usize..12).prop_flat_map(|(features, rows)| {
        let column = (
            prop::collection::vec(-1.0f64..1.0, rows),
            -1e6f64..1e6,
            -3i32..6,
        );
        let column = column.prop_map(|(values, mean, power)| {
            let scale = 10f64.powi(power);
            values
                .into_iter()
                .map(|value| mean + scale * value)
                .collect::<Vec<_>>()
        });
        prop::collection::vec(column, features + 1).prop_filter_map("constant", |columns| {
            let (y, x) = columns.split_last()?;
            let x: Vec<&[f64]> = x.iter().map(Vec::as_slice).collect();
            let table = table(&x, y);
            Standardizer::fit(&table).is_ok().then_some(table)
        })
    })
}

proptest! {
    #[test]
    fn standardized_columns_have_mean_0_and_deviation_1(table in columns()) {
        let standardizer = Standardizer::fit(&table).unwrap();
        let z = standardizer.apply_features(&table.x).unwrap();
        let n = table.n_features();
        for column in 0..n {
            // What rounding x to its last digit is, in standard deviations.
            let noise = f64::EPSILON
                * (1.0 + standardizer.feature_mean[column].abs() / standardizer.feature_scale[column]);
            let values = || z.iter().skip(column).step_by(n);
            let mean = values().sum::<f64>() / table.n_rows as f64;
            let squares = values().map(|z| z * z).sum::<f64>() / table.n_rows as f64;
            prop_assert!(mean.abs() <= 10.0 * noise, "{}", mean);
            prop_assert!((squares - 1.0).abs() <= 40.0 * noise, "{}", squares);
        }
    }

    #[test]
    fn inverting_gives_back_what_was_applied(table in columns()) {
        let standardizer = Standardizer::fit(&table).unwrap();
        let back = standardizer.invert_features(&standardizer.apply_features(&table.x).unwrap());
        let n = table.n_features();
        for (place, (back, x)) in back.unwrap().iter().zip(&table.x).enumerate() {
            let mean = standardizer.feature_mean[place % n].abs();
            prop_assert!((back - x).abs() <= 4.0 * f64::EPSILON * (x.abs() + mean));
        }
        let back = standardizer.invert_target(&standardizer.apply_target(&table.y));
        for (back, y) in back.iter().zip(&table.y) {
            let mean = standardizer.target_mean.abs();
            prop_assert!((back - y).abs() <= 4.0 * f64::EPSILON * (y.abs() + mean));
        }
    }

    #[test]
    fn a_linear_model_predicts_the_same_in_both_units(
        table in columns(),
        weights in prop::collection::vec(-2.0f64..2.0, 3),
        intercept in -2.0f64..2.0,
    ) {
        let standardizer = Standardizer::fit(&table).unwrap();
        let n = table.n_features();
        let z = standardizer.apply_features(&table.x).unwrap();
        let standardized = crate::tabular::predict(&z, &weights[..n], intercept).unwrap();
        let expected = standardizer.invert_target(&standardized);
        let (weights, intercept) = standardizer.invert_linear(&weights[..n], intercept).unwrap();
        let found = crate::tabular::predict(&table.x, &weights, intercept).unwrap();
        let terms = |row: &[f64]| row.iter().zip(&weights).map(|(x, w)| (x * w).abs()).sum::<f64>();
        for ((row, found), expected) in table.x.chunks_exact(n).zip(found).zip(expected) {
            let size = terms(row) + intercept.abs() + terms(&standardizer.feature_mean);
            prop_assert!((found - expected).abs() <= 1e-14 * (1.0 + size), "{} {}", found, expected);
        }
    }
}
