//! Predictions for the rows of a file.

use std::path::Path;

use reparam_data::tabular::{MissingPolicy, TabularError, read_features};
use serde_json::json;

use super::report::measure;
use super::{Regression, RegressionModel};
use crate::bootstrap::with_intervals;
use crate::numbers::{csv_cell, readable};
use crate::task::{
    DataRequest, EvalRequest, ModelRequest, PredictRequest, Predictions, Task,
    refuse_options_of_texts,
};
use crate::{Metrics, Result, Stop, TrainError};

/// What a model predicts for a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The column that is predicted.
    pub target: String,
    /// Which rows of the file have a prediction, counted from 0 without the header.
    pub rows: Vec<usize>,
    /// The predictions, in the target's units.
    pub predictions: Vec<f64>,
    /// The lines of the file that were left out for missing values.
    pub dropped: Vec<usize>,
    /// What they should be, if the file has the target for all these rows.
    pub y: Option<Vec<f64>>,
    /// How good they are, if the file has the target for all these rows.
    pub metrics: Option<Metrics>,
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
) -> Result<Prediction> {
    let (features, target) = (model.features(), model.target());
    let table = read_features(data, features, target, missing, model.notation())?;
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
    let is_known = !table.y.is_empty();
    Ok(Prediction {
        target: model.target().to_owned(),
        metrics: is_known
            .then(|| measure(&predictions, &table.y))
            .transpose()?,
        y: is_known.then_some(table.y),
        rows: table.rows,
        predictions,
        dropped: table.dropped,
    })
}

pub(super) fn predict(
    request: &PredictRequest,
    stop: Stop<'_>,
    rows: &mut dyn Predictions,
) -> Result<()> {
    let model = open(&request.model, &request.data, request.sequence_length)?;
    let missing = match request.drop_rows {
        true => MissingPolicy::DropRows,
        false => MissingPolicy::Error,
    };
    let prediction = predict_file(&model, &request.data.path, missing)?;
    rows.header(&format!("row,{}", csv_cell(&prediction.target)));
    for (row, y) in prediction.rows.iter().zip(&prediction.predictions) {
        stop.check()?;
        let object = json!({ "row": row, "y": y });
        if rows.row(object, format!("{row},{y}")).is_break() {
            return Ok(());
        }
    }
    match prediction.dropped.len() {
        0 => {}
        1 => rows.note("1 row left out for missing values".to_owned()),
        n => rows.note(format!("{n} rows left out for missing values")),
    }
    if let Some(metrics) = &prediction.metrics {
        let r2 = metrics.get("r2");
        let r2 = r2.map_or_else(String::new, |r2| format!(", R2 {r2:.4}"));
        rows.note(format!(
            "mean squared error {}{r2}",
            readable(metrics.primary())
        ));
    }
    Ok(())
}

/// Measures a model on a file that has the target.
pub(super) fn eval(request: &EvalRequest, stop: Stop<'_>) -> Result<Metrics> {
    let model = open(&request.model, &request.data, request.sequence_length)?;
    let prediction = predict_file(&model, &request.data.path, MissingPolicy::Error)?;
    let Some((metrics, y)) = prediction.metrics.zip(prediction.y) else {
        return Err(TabularError::NoTarget {
            path: request.data.path.clone(),
            target: model.target().to_owned(),
        }
        .into());
    };
    let Some(asked) = request.bootstrap else {
        return Ok(metrics);
    };
    let predictions = prediction.predictions;
    with_intervals(metrics, y.len(), asked, stop, |drawn| {
        let of = |all: &[f64]| drawn.iter().map(|row| all[*row]).collect::<Vec<_>>();
        measure(&of(&predictions), &of(&y))
    })
}

/// Loads a model, and refuses what a table of numbers has no use for.
fn open(
    request: &ModelRequest,
    data: &DataRequest,
    sequence_length: Option<usize>,
) -> Result<RegressionModel> {
    refuse_options_of_texts(Regression::NAME, request, data, sequence_length)?;
    RegressionModel::load(Path::new(&request.model))
}
