//! From which probability on a label is predicted, of rows with any number of labels.

use std::collections::BTreeMap;

use reparam::schema::{Range, SettingKind, SettingSpec, SettingValue, optional};
use reparam_data::rows::{LabelKind, THRESHOLD, best_threshold, sigmoid};

use super::{Outputs, Rules};
use crate::{Result, TrainError};

const TUNE: &str = "tune";

/// `threshold` in `[data]`.
pub(in crate::tasks) const SETTING: SettingSpec = optional(
    "threshold",
    SettingKind::WordOrNumber(&[TUNE], Range::InsideUnit),
    "0.5",
    "rows with any number of labels: the probability from which a label is predicted; tune chooses one for each label, \
     with the largest F1 on the held-out rows",
);

/// Thresholds by label.
pub(super) type Thresholds = BTreeMap<String, f64>;

/// Returns the threshold of each label: that of a table, else that of the settings, else 0.5; none of labels that exclude one
/// another.
pub(super) fn thresholds(rules: &Rules, chosen: &Thresholds) -> Vec<f64> {
    let usual = match rules.settings.value(SETTING.key) {
        Ok(SettingValue::Number(threshold)) => *threshold,
        _ => THRESHOLD,
    };
    let names = rules.labels.names().iter();
    match rules.labels.kind() {
        LabelKind::One => Vec::new(),
        LabelKind::Several => names
            .map(|name| chosen.get(name).copied().unwrap_or(usual))
            .collect(),
    }
}

/// Whether thresholds are to be chosen on held-out rows.
pub(super) fn is_tuned(rules: &Rules) -> bool {
    matches!(rules.settings.value(SETTING.key), Ok(SettingValue::Word(_)))
}

/// Refuses a threshold for labels that exclude one another, and a choice without rows to choose on.
pub(super) fn check(rules: &Rules, holds_out: bool) -> Result<()> {
    let is_given = rules.settings.has(SETTING.key);
    if is_given && rules.labels.kind() == LabelKind::One {
        return Err(TrainError::WrongLabels {
            option: "data.threshold",
            several: true,
        });
    }
    match is_tuned(rules) && !holds_out {
        false => Ok(()),
        true => Err(TrainError::NothingHeldOut {
            setting: "data.threshold = \"tune\"",
        }),
    }
}

/// Chooses the threshold of each label on rows, each with its classes.
pub(super) fn tuned<'a>(
    rules: &Rules,
    rows: impl Iterator<Item = (&'a [usize], &'a Outputs)> + Clone,
) -> Thresholds {
    let names = rules.labels.names().iter().enumerate();
    names
        .map(|(class, name)| {
            let of_row = |(classes, logits): (&[usize], &Outputs)| {
                (sigmoid(logits[class]), classes.contains(&class))
            };
            let (scores, is_of_label): (Vec<f64>, Vec<bool>) = rows.clone().map(of_row).unzip();
            (name.clone(), best_threshold(&scores, &is_of_label))
        })
        .collect()
}
