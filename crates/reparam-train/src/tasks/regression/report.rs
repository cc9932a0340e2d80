//! How well a regression predicts, beside what the exact solution does.

use reparam_data::tabular::{Table, TabularError, mse, predict, r2};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::RegressionModel;
use super::table::Tables;
use crate::json::object;
use crate::numbers::readable;
use crate::task::Report;
use crate::{Metrics, Result};

/// What a regression has learned.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RegressionReport {
    /// The mean squared error on the training rows, in the target's units squared.
    pub train_mse: f64,
    /// The mean squared error on the test rows.
    pub test_mse: f64,
    /// The share of the test rows' variance that is explained; `None` if their target is constant.
    pub test_r2: Option<f64>,
    /// The test error of the exact least squares solution; `None` for a network where there is no single one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub least_squares_test_mse: Option<f64>,
    /// Its explained share.
    pub least_squares_test_r2: Option<f64>,
    /// The largest difference between the trained coefficients and the exact ones, in units of the
    /// standardized problem, relative to the largest exact one; for the linear model.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub distance_to_least_squares: Option<f64>,
    /// Whether that difference is below 1e-6.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub is_least_squares: Option<bool>,
    /// The coefficients by feature, in the columns' units; for the linear model.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub coefficients: Option<Vec<f64>>,
    /// The intercept, in the target's units; for the linear model.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub intercept: Option<f64>,
}

/// How near the coefficients have to be to the exact ones to count as them.
const EXACT: f64 = 1e-6;

/// Measures a model on some rows, in the target's units: `mse`, `rmse`, `mae`, `r2`, `examples`.
pub(super) fn measure_model(model: &RegressionModel, table: &Table) -> Result<Metrics> {
    measure(&model.predict(&table.x)?, &table.y)
}

/// Measures predictions; `r2` is `null` where the target is constant, as that of a single row is.
pub(super) fn measure(predictions: &[f64], y: &[f64]) -> Result<Metrics> {
    let mse = mse(predictions, y)?;
    let absolute = predictions.iter().zip(y).map(|(p, y)| (p - y).abs());
    let mae = absolute.sum::<f64>() / y.len() as f64;
    // Few rows, or many of a rare event, may all have the same target; their squared errors say enough.
    let r2 = match r2(predictions, y) {
        Ok(share) => Some(share),
        Err(TabularError::ConstantTarget { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(Metrics::lower_is_better("mse", mse)
        .with("rmse", mse.sqrt())
        .with("mae", mae)
        .with("r2", r2)
        .with("examples", y.len()))
}

/// Compares a trained model with the exact solution of the linear problem.
pub(super) fn report(model: &RegressionModel, tables: &Tables) -> Result<Report> {
    let standardizer = &tables.standardizer;
    let (train, test) = (
        measure_model(model, &tables.train)?,
        measure_model(model, &tables.test)?,
    );
    let mut report = RegressionReport {
        train_mse: train.primary(),
        test_mse: test.primary(),
        test_r2: test.get("r2"),
        ..RegressionReport::default()
    };
    let mut text = vec![(
        "result",
        format!(
            "test {}; train {}",
            errors(&test),
            readable(train.primary())
        ),
    )];
    if let Some(exact) = &tables.least_squares {
        let x = standardizer.apply_features(&tables.test.x)?;
        let predictions = predict(&x, &exact.coefficients, exact.intercept)?;
        let exact = measure(&standardizer.invert_target(&predictions), &tables.test.y)?;
        report.least_squares_test_mse = Some(exact.primary());
        report.least_squares_test_r2 = exact.get("r2");
        text.push(("exact", format!("least squares: test {}", errors(&exact))));
    }
    if let (Some((weight, bias)), Some(exact)) = (model.linear(), &tables.least_squares) {
        let found = weight.iter().chain([&bias]);
        let expected = exact.coefficients.iter().chain([&exact.intercept]);
        let largest = expected.clone().fold(0.0_f64, |size, x| size.max(x.abs()));
        let distance = found
            .zip(expected)
            .map(|(a, b)| (a - b).abs() / largest)
            .fold(0.0_f64, f64::max);
        let (coefficients, intercept) = standardizer.invert_linear(&weight, bias)?;
        report.distance_to_least_squares = Some(distance);
        report.is_least_squares = Some(distance < EXACT);
        report.coefficients = Some(coefficients);
        report.intercept = Some(intercept);
        let verdict = if distance < EXACT {
            "converged to the least-squares solution"
        } else {
            "not at the least-squares solution yet"
        };
        let distance = format!("{distance:.1e} of the largest coefficient: {verdict}");
        text.push(("distance", distance));
    }
    let split = json!({ "train": tables.train.rows, "test": tables.test.rows });
    Ok(Report {
        values: object(json!(report)),
        text: text
            .into_iter()
            .map(|(label, text)| (label.to_owned(), text))
            .collect(),
        files: vec![("split.json", split)],
    })
}

fn errors(metrics: &Metrics) -> String {
    let r2 = metrics.get("r2");
    let r2 = r2.map_or_else(String::new, |r2| format!(", R2 {r2:.6}"));
    format!("mean squared error {}{r2}", readable(metrics.primary()))
}
