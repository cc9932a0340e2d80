//! What a model will see of rows.

use super::{OverRows, RowTask, Window};
use crate::Result;
use crate::seen::{LabelCount, Look, Seen, SeenRow, Survey, Surveyed};

/// Counts the rows that are learned, and shows the first ones, window by window.
pub(super) fn seen<T: RowTask>(task: &OverRows<T>, look: &Look<'_>) -> Result<Seen> {
    let (train, rules) = (&task.train, &task.rules);
    let is_of_tokens = T::UNIT == "tokens";
    let mut survey = Survey::new(&train.files);
    let names = if T::HAS_LABELS {
        rules.labels.names()
    } else {
        &[]
    };
    let mut labels: Vec<LabelCount> = (names.iter())
        .map(|label| LabelCount {
            label: label.clone(),
            count: 0,
        })
        .collect();
    for item in &train.items {
        let classes = T::labels_of(item);
        for class in &classes {
            if let Some(label) = labels.get_mut(*class) {
                label.count += 1;
            }
        }
        let windows = || item.windows.iter();
        let weighs = |window: &Window<T::Target>| T::weight(&window.target, rules) > 0.0;
        let row = Surveyed {
            tokens: windows().map(|window| window.row.ids.len()).sum(),
            labelled: match is_of_tokens {
                true => classes.len(),
                false => windows().filter(|window| weighs(window)).count(),
            },
            truncated: item.truncated,
            content: Some(item.content),
            path: Some(&item.place.path),
        };
        survey.add(row, || item.place.to_string());
    }
    for item in task.eval.iter().flat_map(|eval| &eval.items) {
        survey.held_out(item.content, || item.place.to_string());
    }
    let mut seen = survey.finish("rows", task.length, is_of_tokens);
    seen.labels = labels;
    if let Some(tokenizer) = look.tokenizer {
        let windows = train.items.iter().take(look.rows);
        let windows =
            windows.flat_map(|item| item.windows.iter().map(move |window| (item, window)));
        for (item, window) in windows {
            let (tokens, label) = T::shown(window, rules);
            let row = SeenRow::decode(tokenizer, &tokens)?.at(item.place.to_string());
            seen.examples.push(match label {
                Some(label) => row.labelled(label),
                None => row,
            });
        }
    }
    Ok(seen)
}
