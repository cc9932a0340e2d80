//! What a run says of its result besides its tensors: labels, maximal length, how its rows were read.

use std::path::Path;

use reparam::schema::{SettingValue, Settings};
use reparam_data::rows::{Fields, LabelKind, RowFormat, RowsOptions};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::threshold::Thresholds;
use super::{RowTask, Rules};
use crate::cards;
use crate::config::RowsKeys as _;
use crate::task::DataRequest;
use crate::{Result, TrainError};

/// What a run says of its result.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Card {
    task: String,
    /// The names of the classes in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) labels: Vec<String>,
    /// As in `config.json`: whether classes exclude one another, of a task where they may not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    problem_type: Option<String>,
    /// The most tokens of a row.
    #[serde(default)]
    pub(super) sequence_length: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    format: Option<RowFormat>,
    #[serde(default, skip_serializing_if = "Fields::is_empty")]
    fields: Fields,
    /// The probability from which each label is predicted, where it was chosen on held-out rows.
    #[serde(default, skip_serializing_if = "Thresholds::is_empty")]
    pub(super) thresholds: Thresholds,
    /// What the run file said of the task's own settings.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    settings: Map<String, Value>,
}

/// `problem_type` of a model whose rows may have several labels.
const SEVERAL: &str = "multi_label_classification";
const ONE: &str = "single_label_classification";

impl Card {
    pub(super) fn new<T: RowTask>(
        rules: &Rules,
        sequence_length: usize,
        options: &RowsOptions,
    ) -> Self {
        let labels = &rules.labels;
        let problem_type = match labels.kind() {
            LabelKind::One => ONE,
            LabelKind::Several => SEVERAL,
        };
        Self {
            task: T::NAME.to_owned(),
            labels: match T::HAS_LABELS {
                true => labels.names().to_vec(),
                false => Vec::new(),
            },
            problem_type: T::MAY_HAVE_SEVERAL.then(|| problem_type.to_owned()),
            sequence_length: Some(sequence_length),
            format: options.format,
            fields: options.fields.clone(),
            thresholds: Thresholds::new(),
            settings: match json!(rules.settings) {
                Value::Object(settings) => settings,
                _ => Map::new(),
            },
        }
    }

    /// Takes the thresholds that were chosen.
    pub(super) fn with_thresholds(self, thresholds: Thresholds) -> Self {
        Self { thresholds, ..self }
    }

    /// Returns the settings of the task's own as in the run, else their defaults.
    pub(super) fn settings<T: RowTask>(&self, path: &Path) -> Result<Settings> {
        let specs = T::Keys::OWN;
        let known = self
            .settings
            .iter()
            .filter(|(key, _)| specs.iter().any(|spec| spec.key == *key));
        let given = known.filter_map(|(key, value)| Some((key.clone(), setting(value)?)));
        let given: Vec<(String, SettingValue)> = given.collect();
        Settings::new("data", specs, &given).map_err(|error| TrainError::Card {
            path: path.to_owned(),
            problem: error.to_string(),
        })
    }

    /// Reads the card of a model, whose labels are where transformers has them.
    pub(super) fn of_model<T: RowTask>(path: &Path, config: &Map<String, Value>) -> Result<Self> {
        let problem = |problem: String| TrainError::Card {
            path: path.to_owned(),
            problem,
        };
        let mut card = cards::of_model(path, config, T::NAME)?.unwrap_or_else(|| Self {
            task: T::NAME.to_owned(),
            ..Self::default()
        });
        card.labels = names(config).ok_or_else(|| {
            problem("`id2label` does not map the numbers from 0 on to names".to_owned())
        })?;
        if let Some(kind) = config.get("problem_type").and_then(Value::as_str)
            && T::MAY_HAVE_SEVERAL
        {
            card.problem_type = Some(kind.to_owned());
        }
        Ok(card)
    }

    /// Writes itself into the `config.json` of a model.
    pub(super) fn into_config<T: RowTask>(
        self,
        mut config: Map<String, Value>,
        class: &str,
    ) -> String {
        let numbered = self.labels.iter().enumerate();
        let id2label: Map<String, Value> = numbered
            .clone()
            .map(|(index, name)| (index.to_string(), name.as_str().into()))
            .collect();
        let label2id: Map<String, Value> = numbered
            .map(|(index, name)| (name.clone(), index.into()))
            .collect();
        if !class.is_empty() {
            config.insert("architectures".to_owned(), json!([class]));
        }
        if T::HAS_LABELS {
            config.insert("id2label".to_owned(), id2label.into());
            config.insert("label2id".to_owned(), label2id.into());
        }
        if T::MAY_HAVE_SEVERAL {
            config.insert("problem_type".to_owned(), json!(self.problem_type));
        }
        let rest = Self {
            labels: Vec::new(),
            ..self
        };
        cards::in_config(config, &rest)
    }

    pub(super) fn kind(&self) -> LabelKind {
        match self.problem_type.as_deref() {
            Some(SEVERAL) => LabelKind::Several,
            _ => LabelKind::One,
        }
    }

    /// Whether a file is read as in the run, in a way that is not the usual one.
    pub(super) fn is_asked(&self, data: &DataRequest) -> bool {
        data.is_as_in_run() && (self.format.is_some() || !self.fields.is_empty())
    }

    /// Returns how a file is read: as asked, else as in the run.
    pub(super) fn options(&self, data: &DataRequest) -> Result<RowsOptions> {
        data.row_options(self.format, &self.fields)
    }
}

/// Reads a setting as it is written in JSON.
fn setting(value: &Value) -> Option<SettingValue> {
    Some(match value {
        Value::Bool(flag) => SettingValue::Flag(*flag),
        Value::String(word) => SettingValue::Word(word.clone()),
        Value::Number(number) => match number.as_u64() {
            Some(count) => SettingValue::Count(count),
            None => SettingValue::Number(number.as_f64()?),
        },
        Value::Object(table) => {
            let pairs = table.iter();
            let pairs = pairs.map(|(key, value)| Some((key.clone(), setting(value)?)));
            SettingValue::Table(pairs.collect::<Option<_>>()?)
        }
        Value::Null | Value::Array(_) => return None,
    })
}

/// The names of `id2label` in order; none if there is no such key.
fn names(config: &Map<String, Value>) -> Option<Vec<String>> {
    let Some(map) = config.get("id2label").filter(|map| !map.is_null()) else {
        return Some(Vec::new());
    };
    let map = map.as_object()?;
    (0..map.len())
        .map(|index| Some(map.get(&index.to_string())?.as_str()?.to_owned()))
        .collect()
}
