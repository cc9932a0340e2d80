//! What a run says of its result that no format of the ecosystem has a place for: what it is for, how its data were read.

use std::path::Path;

use reparam_formats::file;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::TrainError;

/// The file beside an adapter; of a whole model it is a key of `config.json`.
pub(crate) const CARD_FILE: &str = "reparam.json";
const KEY: &str = "reparam";

/// Reads the card of an adapter, if there is one and it is for the task.
pub(crate) fn of_adapter<C: DeserializeOwned>(
    directory: &Path,
    task: &str,
) -> Result<Option<C>, TrainError> {
    let path = directory.join(CARD_FILE);
    if !file::is_there(&path)? {
        return Ok(None);
    }
    let text = file::read_text(&path)?;
    serde_json::from_str(&text)
        .and_then(|card| read(card, task))
        .map_err(|error| TrainError::Card {
            path,
            problem: error.to_string(),
        })
}

/// Reads the card of a model from its `config.json`, which is at `path`, if there is one and it is for the task.
pub(crate) fn of_model<C: DeserializeOwned>(
    path: &Path,
    config: &Map<String, Value>,
    task: &str,
) -> Result<Option<C>, TrainError> {
    let Some(card) = config.get(KEY) else {
        return Ok(None);
    };
    read(card.clone(), task).map_err(|error| TrainError::Card {
        path: path.to_owned(),
        problem: format!("`{KEY}`: {error}"),
    })
}

/// Returns the task that the `config.json` of a model says a run made it for.
pub(crate) fn task_of(config: &Value) -> Option<&str> {
    config[KEY]["task"].as_str()
}

fn read<C: DeserializeOwned>(card: Value, task: &str) -> serde_json::Result<Option<C>> {
    if card["task"] != task {
        return Ok(None);
    }
    serde_json::from_value(card).map(Some)
}

/// Returns the text of a `config.json` with a card.
pub(crate) fn in_config(mut config: Map<String, Value>, card: &impl Serialize) -> String {
    config.insert(KEY.to_owned(), json!(card));
    text(&config)
}

/// Returns the text of [`CARD_FILE`].
pub(crate) fn text(card: &impl Serialize) -> String {
    format!("{:#}\n", json!(card))
}
