//! Columns of mean 0 and standard deviation 1.

use serde::{Deserialize, Serialize};

use super::error::{Result, TabularError};
use super::moments::{Moments, moments};
use super::table::Table;

#[cfg(test)]
mod tests;

/// The map `z = (x - mean) / scale` of every column, and its inverse.
///
/// Fit it on the training rows alone: what it knows of the test rows would leak into the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standardizer {
    /// Mean of each feature.
    pub feature_mean: Vec<f64>,
    /// Population standard deviation of each feature, in its unit.
    pub feature_scale: Vec<f64>,
    /// Mean of the target.
    pub target_mean: f64,
    /// Population standard deviation of the target, in its unit.
    pub target_scale: f64,
}

impl Standardizer {
    /// Computes mean and standard deviation of every column of `table`.
    ///
    /// The standard deviation is that of the population, `sqrt(1/n * sum (x - mean)^2)`, as in scikit-learn's
    /// `StandardScaler`. Both passes are compensated, so that a column with mean `1e9` and standard deviation 1
    /// keeps its digits.
    ///
    /// # Errors
    ///
    /// [`TabularError::Nothing`] without rows; [`TabularError::ConstantFeatures`] and
    /// [`TabularError::ConstantTarget`] for columns whose values span at most 8 units of rounding of the largest
    /// of them; [`TabularError::Range`] where a mean or standard deviation overflows or vanishes;
    /// [`TabularError::NotFinite`] and [`TabularError::Length`] for a table that was put together wrongly.
    pub fn fit(table: &Table) -> Result<Self> {
        let n = table.n_features();
        let rows = table.y.len();
        if rows == 0 {
            return Err(TabularError::Nothing {
                what: "mean and standard deviation",
            });
        }
        check_matrix(&table.x, n, rows)?;
        let mut constant = Vec::new();
        let mut features = Vec::with_capacity(n);
        for (column, name) in table.features.iter().enumerate() {
            let values = table.x.iter().skip(column).step_by(n).copied();
            let moments = usable(values, || format!("feature `{name}`"))?;
            if moments.constant {
                constant.push(name.clone());
            }
            features.push(moments);
        }
        if !constant.is_empty() {
            return Err(TabularError::ConstantFeatures {
                columns: constant,
                rows,
            });
        }
        let target = usable(table.y.iter().copied(), || {
            format!("target `{}`", table.target)
        })?;
        if target.constant {
            let name = Some(table.target.clone());
            return Err(TabularError::ConstantTarget {
                target: name,
                rows,
                value: table.y[0],
            });
        }
        Ok(Self {
            feature_mean: features.iter().map(|moments| moments.mean).collect(),
            feature_scale: features.iter().map(|moments| moments.scale).collect(),
            target_mean: target.mean,
            target_scale: target.scale,
        })
    }

    /// Standardizes features, `[rows, features]` in row-major order.
    ///
    /// # Errors
    ///
    /// [`TabularError::Length`] unless the rows are whole.
    pub fn apply_features(&self, x: &[f64]) -> Result<Vec<f64>> {
        self.each_feature(x, |x, mean, scale| (x - mean) / scale)
    }

    /// The inverse of [`Standardizer::apply_features`], up to rounding.
    ///
    /// # Errors
    ///
    /// [`TabularError::Length`] unless the rows are whole.
    pub fn invert_features(&self, z: &[f64]) -> Result<Vec<f64>> {
        self.each_feature(z, |z, mean, scale| z * scale + mean)
    }

    /// Standardizes targets.
    #[must_use]
    pub fn apply_target(&self, y: &[f64]) -> Vec<f64> {
        y.iter()
            .map(|y| (y - self.target_mean) / self.target_scale)
            .collect()
    }

    /// The inverse of [`Standardizer::apply_target`], up to rounding: brings predictions into the target's unit.
    #[must_use]
    pub fn invert_target(&self, z: &[f64]) -> Vec<f64> {
        z.iter()
            .map(|z| z * self.target_scale + self.target_mean)
            .collect()
    }

    /// Writes a linear model of standardized columns as the same model of the columns as they were.
    ///
    /// From `(y - m_y) / s_y = sum_j v_j (x_j - m_j) / s_j + c` follow `w_j = s_y v_j / s_j` and
    /// `b = m_y + s_y c - sum_j w_j m_j`, which are returned.
    ///
    /// # Errors
    ///
    /// [`TabularError::Length`] unless there is one coefficient a feature.
    pub fn invert_linear(&self, coefficients: &[f64], intercept: f64) -> Result<(Vec<f64>, f64)> {
        let (expected, found) = (self.feature_scale.len(), coefficients.len());
        if expected != found {
            return Err(TabularError::Length {
                what: "the coefficients",
                expected,
                found,
            });
        }
        let original: Vec<f64> = coefficients
            .iter()
            .zip(&self.feature_scale)
            .map(|(v, scale)| self.target_scale * v / scale)
            .collect();
        let shift: f64 = original
            .iter()
            .zip(&self.feature_mean)
            .map(|(w, mean)| w * mean)
            .sum();
        let intercept = self.target_mean + self.target_scale * intercept - shift;
        Ok((original, intercept))
    }

    fn each_feature(&self, x: &[f64], map: impl Fn(f64, f64, f64) -> f64) -> Result<Vec<f64>> {
        let n = self.feature_mean.len();
        check_matrix(x, n, x.len() / n.max(1))?;
        let columns = self.feature_mean.iter().zip(&self.feature_scale).cycle();
        Ok(x.iter()
            .zip(columns)
            .map(|(x, (mean, scale))| map(*x, *mean, *scale))
            .collect())
    }
}

/// Checks that `x` is a matrix of `rows` rows.
pub(super) fn check_matrix(x: &[f64], n_features: usize, rows: usize) -> Result<()> {
    let expected = rows.saturating_mul(n_features);
    if x.len() == expected {
        return Ok(());
    }
    let found = x.len();
    Err(TabularError::Length {
        what: "the matrix of the features",
        expected,
        found,
    })
}

/// Returns the moments of a column that is finite and whose moments are.
pub(super) fn usable(
    values: impl Iterator<Item = f64> + Clone,
    what: impl Fn() -> String,
) -> Result<Moments> {
    if let Some((row, value)) = values
        .clone()
        .enumerate()
        .find(|(_, value)| !value.is_finite())
    {
        return Err(TabularError::NotFinite {
            what: what(),
            row,
            value,
        });
    }
    let moments = moments(values);
    // A subnormal scale has lost digits, and dividing by it may overflow.
    if !moments.mean.is_finite() || !(moments.constant || moments.scale.is_normal()) {
        let (mean, scale) = (moments.mean, moments.scale);
        return Err(TabularError::Range {
            column: what(),
            mean,
            scale,
        });
    }
    Ok(moments)
}
