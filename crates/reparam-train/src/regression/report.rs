//! How well a regression predicts, beside what the exact solution does.

use reparam_data::tabular::{Table, TabularError, mse, predict, r2};

use super::RegressionModel;
use super::table::Tables;
use crate::TrainError;
use crate::event::RegressionReport;

/// How near the coefficients have to be to the exact ones to count as them.
const EXACT: f64 = 1e-6;

/// The errors of a model on some rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Errors {
    pub(super) mse: f64,
    /// `None` if the rows' target is constant.
    pub(super) r2: Option<f64>,
}

pub(super) fn errors(model: &RegressionModel, table: &Table) -> Result<Errors, TrainError> {
    measure(&model.predict(&table.x)?, table)
}

fn measure(predictions: &[f64], table: &Table) -> Result<Errors, TrainError> {
    Ok(Errors {
        mse: mse(predictions, &table.y)?,
        // Few rows, or many of a rare event, may all have the same target; their squared errors say enough.
        r2: match r2(predictions, &table.y) {
            Ok(share) => Some(share),
            Err(TabularError::ConstantTarget { .. }) => None,
            Err(error) => return Err(error.into()),
        },
    })
}

/// Compares a trained model with the exact solution of the linear problem.
pub(super) fn report(
    model: &RegressionModel,
    tables: &Tables,
) -> Result<RegressionReport, TrainError> {
    let standardizer = &tables.standardizer;
    let x = standardizer.apply_features(&tables.test.x)?;
    let least_squares = match &tables.least_squares {
        None => None,
        Some(exact) => {
            let predictions = predict(&x, &exact.coefficients, exact.intercept)?;
            let predictions = standardizer.invert_target(&predictions);
            Some(measure(&predictions, &tables.test)?)
        }
    };
    let (train, test) = (errors(model, &tables.train)?, errors(model, &tables.test)?);
    let mut report = RegressionReport {
        train_mse: train.mse,
        test_mse: test.mse,
        test_r2: test.r2,
        least_squares_test_mse: least_squares.map(|errors| errors.mse),
        least_squares_test_r2: least_squares.and_then(|errors| errors.r2),
        distance_to_least_squares: None,
        is_least_squares: None,
        coefficients: None,
        intercept: None,
    };
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
    }
    Ok(report)
}
