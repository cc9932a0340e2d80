//! A table of numbers.

use super::error::{Result, TabularError};
use super::least_squares::{LeastSquares, solve};
use super::number::Notation;
use crate::source::FileDigest;

/// Features and a target, complete and finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Names of the features, in the order of the columns of `x`.
    pub features: Vec<String>,
    /// Name of the target.
    pub target: String,
    /// The features, `[n_rows, features.len()]` in row-major order.
    pub x: Vec<f64>,
    /// The target, `[n_rows]`.
    pub y: Vec<f64>,
    /// Which row of the source each row is, counted from 0 without the header.
    pub rows: Vec<usize>,
    /// Rows of this table.
    pub n_rows: usize,
    /// The lines of the file, counted from 1, whose rows were dropped because a value is missing.
    pub dropped: Vec<usize>,
    /// The file that the table was read from; none for a generated one.
    pub digest: Option<FileDigest>,
    /// How the numbers of the file are written.
    pub notation: Notation,
}

impl Table {
    /// Number of features.
    #[must_use]
    pub fn n_features(&self) -> usize {
        self.features.len()
    }

    /// Returns the table that has the given rows of this one, in the given order.
    ///
    /// # Arguments
    ///
    /// - `rows`: positions in this table, such as [`split_rows`](super::split_rows) gives, not row numbers of the
    ///   source.
    ///
    /// # Errors
    ///
    /// [`TabularError::RowOutside`] for a row that the table does not have.
    pub fn subset(&self, rows: &[usize]) -> Result<Self> {
        if let Some(&row) = rows.iter().find(|row| **row >= self.n_rows) {
            let rows = self.n_rows;
            return Err(TabularError::RowOutside { row, rows });
        }
        let n = self.n_features();
        Ok(Self {
            features: self.features.clone(),
            target: self.target.clone(),
            x: rows
                .iter()
                .flat_map(|row| &self.x[row * n..(row + 1) * n])
                .copied()
                .collect(),
            y: rows.iter().map(|row| self.y[*row]).collect(),
            rows: rows.iter().map(|row| self.rows[*row]).collect(),
            n_rows: rows.len(),
            dropped: self.dropped.clone(),
            digest: self.digest.clone(),
            notation: self.notation,
        })
    }

    /// Solves for the target by [`least_squares`](super::least_squares()); its errors name the columns.
    ///
    /// # Errors
    ///
    /// As [`least_squares`](super::least_squares()).
    pub fn least_squares(&self) -> Result<LeastSquares> {
        solve(&self.x, self.n_features(), &self.y, |column| {
            self.features[column].clone()
        })
    }
}
