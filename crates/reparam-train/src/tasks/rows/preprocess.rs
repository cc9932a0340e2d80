//! What is done to the texts of rows before they become tokens.

use std::borrow::Cow;
use std::path::Path;

use reparam::schema::{SettingValue, Settings};
use reparam_data::preprocess::{Preprocessor, TextReport};
use reparam_data::rows::Rows;

use super::RowTask;
use super::card::Card;
use crate::config::{RowsKeys as _, TEXT_SETTING, text_options};
use crate::session::adapter_directory;
use crate::tasks::pretrained::Beginning;
use crate::tasks::texts;
use crate::{Result, cards};

/// The rows that a report shows.
const SHOWN: usize = 3;

/// Prepares the steps that settings ask for; `None` if there is nothing to do.
pub(super) fn preprocessor(settings: &Settings) -> Result<Option<Preprocessor>> {
    texts::preprocessor(&text_options(settings)?)
}

/// Returns the settings of a run that trains on: where it does not say what is done to texts, that is what was done to those that its
/// adapter, else its model has learned from.
pub(super) fn inherited<T: RowTask>(
    own: &Settings,
    beginning: &Beginning<'_>,
    adapter: Option<&str>,
) -> Result<Settings> {
    let specs = T::Keys::OWN;
    let takes_text = specs.iter().any(|spec| spec.key == TEXT_SETTING.key);
    let Beginning::Found(opened) = beginning else {
        return Ok(own.clone());
    };
    if own.has(TEXT_SETTING.key) || !takes_text {
        return Ok(own.clone());
    }
    let json = &opened.files.json().json;
    let of_adapter = match adapter {
        Some(directory) => {
            let directory = adapter_directory(Path::new(directory));
            cards::of_adapter::<Card>(&directory, T::NAME)?
        }
        None => None,
    };
    let card = match of_adapter {
        Some(card) => card,
        None => Card::of_model::<T>(json.path(), json.map())?,
    };
    let before = card.settings::<T>(json.path())?;
    let own = own
        .iter()
        .map(|(key, value)| (key.to_owned(), value.clone()));
    let text = before.iter().filter(|(key, _)| *key == TEXT_SETTING.key);
    let text = text.map(|(key, value)| (key.to_owned(), value.clone()));
    let all: Vec<(String, SettingValue)> = own.chain(text).collect();
    Ok(Settings::new("data", specs, &all)?)
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
