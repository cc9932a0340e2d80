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

/// Puts what the card of an adapter says, whatever its task, into the `config.json` of the model that it is merged into: labels and
/// the type of the problem under transformers' keys, the rest under a key of its own. Returns whether there is a card.
pub(crate) fn merge_into(
    config: &mut Map<String, Value>,
    adapter: &Path,
) -> Result<bool, TrainError> {
    let path = adapter.join(CARD_FILE);
    if !file::is_there(&path)? {
        return Ok(false);
    }
    let text = file::read_text(&path)?;
    let card: serde_json::Result<Map<String, Value>> = serde_json::from_str(&text);
    let mut card = card.map_err(|error| TrainError::Card {
        path,
        problem: error.to_string(),
    })?;
    if let Some(Value::Array(labels)) = card.remove("labels") {
        let names = || labels.iter().filter_map(Value::as_str).enumerate();
        let by_id = names().map(|(id, name)| (id.to_string(), name.into()));
        let by_name = names().map(|(id, name)| (name.to_owned(), id.into()));
        config.insert("id2label".to_owned(), Value::Object(by_id.collect()));
        config.insert("label2id".to_owned(), Value::Object(by_name.collect()));
    }
    if let Some(kind) = card.get("problem_type") {
        config.insert("problem_type".to_owned(), kind.clone());
    }
    config.insert(KEY.to_owned(), Value::Object(card));
    Ok(true)
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
