//! What merging says of its result.

use serde::Serialize;

use super::Agreement;

/// What a merge came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MergeReport {
    /// The weights that changed, in the order of their names.
    pub layers: Vec<MergedLayer>,
    /// The files of weights.
    pub files: Vec<String>,
    /// How close the merged model is to the adapter, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    pub agreement: Option<Agreement>,
}

/// How a weight changed, and what rounding it cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MergedLayer {
    /// The tensor.
    pub name: String,
    /// The type in which it is written.
    pub dtype: &'static str,
    /// The largest difference between what is written and the sum in f64.
    pub max_error: f64,
    /// The mean of these differences.
    pub mean_error: f64,
    /// The largest change that the adapters make.
    pub max_change: f64,
    /// The mean of these changes.
    pub mean_change: f64,
}

impl MergeReport {
    /// Returns the largest error of all weights.
    pub fn max_error(&self) -> f64 {
        let errors = self.layers.iter().map(|layer| layer.max_error);
        errors.fold(0.0, f64::max)
    }
}
