//! What is done to the texts of rows before they become tokens.

use std::borrow::Cow;

use reparam::schema::Settings;
use reparam_data::preprocess::{Preprocessor, TextReport};
use reparam_data::rows::Rows;

use super::RowTask;
use crate::Result;
use crate::config::text_options;

/// The rows that a report shows.
const SHOWN: usize = 3;

/// Prepares the steps that settings ask for; `None` if there is nothing to do.
pub(super) fn preprocessor(settings: &Settings) -> Result<Option<Preprocessor>> {
    let options = text_options(settings)?;
    match options.is_nothing() {
        true => Ok(None),
        false => Ok(Some(Preprocessor::new(&options)?)),
    }
}

/// Does the steps to rows that are learned, leaves out those that become too short, and says what was done.
pub(super) fn to_learn<T: RowTask>(
    rows: Rows<T::Row>,
    steps: Option<&Preprocessor>,
) -> (Rows<T::Row>, Option<TextReport>) {
    let Some(steps) = steps else {
        return (rows, None);
    };
    let mut report = TextReport::new(SHOWN);
    let kept = rows.rows.into_iter().filter_map(|row| {
        let mut row = match row {
            Ok(row) => row,
            Err(error) => return Some(Err(error)),
        };
        let mut is_kept = true;
        for text in T::texts_mut(&mut row) {
            match steps.apply_row(text, &mut report) {
                Some(Cow::Owned(changed)) => *text = changed,
                Some(Cow::Borrowed(_)) => {}
                None => is_kept = false,
            }
        }
        is_kept.then_some(Ok(row))
    });
    let rows = Rows {
        rows: kept.collect(),
        files: rows.files,
        left_out: rows.left_out,
    };
    (rows, Some(report))
}

/// Does the steps to rows that are measured or predicted; all stay.
pub(super) fn to_predict<T: RowTask>(
    rows: Rows<T::Row>,
    steps: Option<&Preprocessor>,
) -> Rows<T::Row> {
    let Some(steps) = steps else {
        return rows;
    };
    rows.and_then(|mut row| {
        for text in T::texts_mut(&mut row) {
            if let Cow::Owned(changed) = steps.apply(text) {
                *text = changed;
            }
        }
        Ok(row)
    })
}
