//! How well predictions meet the target.

use super::error::{Result, TabularError};
use super::moments::moments;

#[cfg(test)]
mod tests;

/// The mean squared error `1/n * sum_i (prediction_i - target_i)^2`, in the squared unit of the target.
///
/// A prediction that is NaN or infinite, as of a model that diverged, gives NaN or infinity.
///
/// # Errors
///
/// [`TabularError::Nothing`] without rows, [`TabularError::Length`] for slices of different lengths.
pub fn mse(prediction: &[f64], target: &[f64]) -> Result<f64> {
    check(prediction, target, "the mean squared error")?;
    Ok(squared_error(prediction, target) / target.len() as f64)
}

/// The coefficient of determination
///
/// ```text
/// R^2 = 1 - sum_i (target_i - prediction_i)^2 / sum_i (target_i - mean(target))^2
/// ```
///
/// 1 for perfect predictions, 0 for the mean of `target` as the only prediction, negative for worse ones. The mean
/// is that of the rows given, as in scikit-learn's `r2_score`, not of the rows that the model was trained on.
///
/// # Errors
///
/// [`TabularError::Nothing`] without rows, [`TabularError::Length`] for slices of different lengths, and
/// [`TabularError::ConstantTarget`] where the target is constant (also by having one row): the quotient does not
/// exist.
pub fn r2(prediction: &[f64], target: &[f64]) -> Result<f64> {
    check(prediction, target, "R^2")?;
    let moments = moments(target.iter().copied());
    if moments.constant {
        let (rows, value) = (target.len(), target[0]);
        return Err(TabularError::ConstantTarget {
            target: None,
            rows,
            value,
        });
    }
    let total: f64 = target.iter().map(|y| (y - moments.mean).powi(2)).sum();
    Ok(1.0 - squared_error(prediction, target) / total)
}

fn squared_error(prediction: &[f64], target: &[f64]) -> f64 {
    prediction
        .iter()
        .zip(target)
        .map(|(prediction, target)| (prediction - target).powi(2))
        .sum()
}

fn check(prediction: &[f64], target: &[f64], what: &'static str) -> Result<()> {
    if target.is_empty() {
        return Err(TabularError::Nothing { what });
    }
    if prediction.len() != target.len() {
        let (expected, found) = (target.len(), prediction.len());
        return Err(TabularError::Length {
            what: "the predictions",
            expected,
            found,
        });
    }
    Ok(())
}
