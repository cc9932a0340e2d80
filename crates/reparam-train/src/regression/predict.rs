//! Predictions for the rows of a file.

use std::path::Path;

use reparam_data::tabular::{
    MissingPolicy, Selection, TabularError, mse, r2, read_csv, read_features, read_header,
};
use serde::Serialize;

use super::RegressionModel;
use crate::TrainError;

/// What a model predicts for a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The column that is predicted.
    pub target: String,
    /// Which rows of the file have a prediction, counted from 0 without the header.
    pub rows: Vec<usize>,
    /// The predictions, in the target's units.
    pub predictions: Vec<f64>,
    /// The lines of the file that were left out for missing values.
    pub dropped: Vec<usize>,
    /// The mean squared error, if the file has the target for all these rows.
    pub mse: Option<f64>,
    /// The share of the target's variance that is explained, likewise.
    pub r2: Option<f64>,
}

/// Predicts every row of a CSV file that has the model's features.
///
/// Where the file has the target too, the errors are measured.
///
/// # Errors
///
/// Fails when the file cannot be read, lacks a feature, or holds something else than numbers in one, and when
/// what is predicted for a row is no finite number.
pub fn predict_file(
    model: &RegressionModel,
    data: &Path,
    missing: MissingPolicy,
) -> Result<Prediction, TrainError> {
    let table = read_features(data, model.features(), missing)?;
    let predictions = model.predict(&table.x)?;
    let overflown = predictions
        .iter()
        .zip(&table.rows)
        .find(|(value, _)| !value.is_finite());
    if let Some((value, row)) = overflown {
        return Err(TrainError::PredictionNotFinite {
            row: *row,
            value: *value,
        });
    }
    let mut errors = (None, None);
    if read_header(data)?.iter().any(|name| name == model.target()) {
        let selection = Selection {
            target: model.target().to_owned(),
            features: Some(model.features().to_vec()),
            missing,
        };
        match read_csv(data, &selection) {
            Ok(known) if known.rows == table.rows => {
                errors = (
                    Some(mse(&predictions, &known.y)?),
                    r2(&predictions, &known.y).ok(),
                );
            }
            // Rows without a target are what predictions are for.
            Ok(_) | Err(TabularError::MissingValues { .. } | TabularError::NoRows { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Prediction {
        target: model.target().to_owned(),
        rows: table.rows,
        predictions,
        dropped: table.dropped,
        mse: errors.0,
        r2: errors.1,
    })
}
