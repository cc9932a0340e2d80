//! The task `regression`: predicting a number from a row of a table.
//!
//! It is the smallest task there is, and the one that the two-step update is explained on: the loss is
//! known, the exact solution is known, and a run takes a moment. Methods and updates are those of a language
//! model; only the model and its data are others.

mod model_file;
mod network;
mod predict;
mod report;
mod run;
mod table;

pub use model_file::RegressionModel;
pub use predict::{Prediction, predict_file};
pub use reparam_data::tabular::{MissingPolicy, TabularError};
pub(crate) use run::check_regression;
pub use run::train_regression;
