//! Being asked to stop.

use reparam_data::rows::RowError;
use reparam_data::{DataError, Interrupted};

use crate::TrainError;

impl From<Interrupted> for TrainError {
    fn from(_: Interrupted) -> Self {
        Self::Interrupted
    }
}

impl From<DataError> for TrainError {
    fn from(error: DataError) -> Self {
        match error {
            DataError::Interrupted(_) => Self::Interrupted,
            error => Self::Data(error),
        }
    }
}

impl From<RowError> for TrainError {
    fn from(error: RowError) -> Self {
        match error {
            RowError::Read(DataError::Interrupted(_)) => Self::Interrupted,
            error => Self::Rows(error),
        }
    }
}
