//! Which labels are taken for which.

use serde_json::{Value, json};

/// How often each label is predicted as each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    labels: Vec<String>,
    /// A row a label as it is, a column a label as it is predicted.
    rows: Vec<Vec<u64>>,
}

/// The key of the matrix beside the metrics.
pub const CONFUSION: &str = "confusion";

impl Confusion {
    /// Counts pairs of what is and what is predicted, as indices of the labels.
    pub(in crate::tasks) fn of(
        labels: &[String],
        pairs: impl Iterator<Item = (usize, usize)>,
    ) -> Self {
        let mut rows = vec![vec![0; labels.len()]; labels.len()];
        for (actual, predicted) in pairs {
            rows[actual][predicted] += 1;
        }
        Self {
            labels: labels.to_vec(),
            rows,
        }
    }

    /// Returns it as an object of `labels` and `rows`.
    pub(super) fn to_json(&self) -> Value {
        json!({ "labels": self.labels, "rows": self.rows })
    }
}
