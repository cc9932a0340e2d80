//! What to do about an error.

use super::{Notation, TabularError, some_of};
use crate::error::DataError;

impl TabularError {
    /// What the user can do about it, if there is something to say beyond the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Read(DataError::IsDirectory { .. }) => "name the .csv file in it".to_owned(),
            Self::Read(error) => return error.hint(),
            Self::EmptyFile { .. } | Self::NoRows { dropped: 0, .. } => {
                "the first line names the columns, every further line is a row".to_owned()
            }
            Self::NoRows { .. } => {
                "name features that leave out the columns whose values are missing".to_owned()
            }
            Self::EmptyName { .. } => {
                "give the column a name; if it holds row numbers that a program \
                wrote, write the file without them (pandas: index=False)"
                    .to_owned()
            }
            Self::DuplicateName { .. } => "rename one of the two columns".to_owned(),
            Self::UnknownColumn {
                columns, nearest, ..
            } => {
                return unknown_column_hint(columns, nearest.as_deref());
            }
            Self::TargetIsFeature { .. } => "take it out of the features".to_owned(),
            Self::RepeatedFeature { .. } => "name each feature once".to_owned(),
            Self::NoFeatures { .. } => "name at least one column other than the target".to_owned(),
            Self::Ragged {
                found, expected, ..
            } if found > expected => {
                "put a cell that has a comma in it into double quotes".to_owned()
            }
            Self::Ragged { .. } => {
                "write a missing value as an empty cell, with its comma".to_owned()
            }
            Self::NotANumber {
                text,
                named,
                column,
                notation,
                ..
            } => not_a_number_hint(text, *named, column, *notation),
            Self::EitherNumber { .. } => {
                "write decimals with a point, and no separator between thousands".to_owned()
            }
            Self::NotFiniteCell { .. } => {
                "correct the value, or leave the cell empty if it is not known".to_owned()
            }
            Self::MissingValues { .. } => {
                "fill them in, leave these columns out of the features, or \
                drop the rows with missing = \"drop_rows\" in [data], or --drop-rows with `predict`"
                    .to_owned()
            }
            Self::TooFewSamples { .. } => "set samples to 2 or more".to_owned(),
            Self::ZeroFeatures => "set features to 1 or more".to_owned(),
            Self::Noise { .. } => "use 0 for none, 1 for noise as large as a feature".to_owned(),
            Self::TooLarge { .. } => "generate fewer samples or fewer features".to_owned(),
            Self::TestFraction { .. } => "use 0.2 to hold out a fifth".to_owned(),
            Self::EmptyPart { .. } => "give more rows or hold out another fraction".to_owned(),
            Self::ConstantFeatures { .. } => {
                "leave them out of the features: they predict nothing".to_owned()
            }
            Self::ConstantTarget { .. } => {
                "check the choice of the target and of the rows: there is nothing to learn"
                    .to_owned()
            }
            Self::Range { .. } | Self::SquareRange { .. } => {
                "express the column in another unit".to_owned()
            }
            Self::TooFewRows { features, .. } => {
                format!(
                    "give at least {} rows or fewer features",
                    features.saturating_add(1)
                )
            }
            Self::RankDeficient { dependent, .. } if !dependent.is_empty() => format!(
                "leave out {}: a linear combination of the features before it",
                some_of(dependent)
            ),
            Self::RankDeficient { .. } => {
                "leave out features that are linear combinations of others".to_owned()
            }
            Self::RowOutside { .. }
            | Self::Length { .. }
            | Self::Nothing { .. }
            | Self::NotFinite { .. }
            | Self::NoConvergence { .. } => return None,
            Self::NoTarget { .. } => "fill it in, or ask for predictions alone".into(),
        };
        Some(hint)
    }
}

fn unknown_column_hint(columns: &[String], nearest: Option<&str>) -> Option<String> {
    if let Some(name) = nearest {
        return Some(format!("did you mean `{name}`?"));
    }
    if columns.iter().all(|name| name.parse::<f64>().is_ok()) {
        return Some(
            "the first line looks like data; put one before it that names the columns".to_owned(),
        );
    }
    None
}

fn not_a_number_hint(text: &str, named: bool, column: &str, notation: Notation) -> String {
    let digits = text.replace([',', '.', ' '], "");
    let is_number = !digits.is_empty() && digits.parse::<f64>().is_ok();
    if is_number && notation == Notation::Comma {
        return "write decimals with a comma, as in the table that was trained on".to_owned();
    }
    if is_number {
        return "write decimals with a point, and no separator between thousands".to_owned();
    }
    if named {
        return format!("correct the value, or choose another column than `{column}`");
    }
    format!(
        "without a choice every column but the target is a feature; \
         name the numeric ones, as in features = [\"a\", \"b\"], and leave `{column}` out"
    )
}
