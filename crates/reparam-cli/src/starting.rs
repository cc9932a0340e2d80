//! What a run says of itself at its start, in lines.

use reparam_data::FileShare;
use reparam_train::event::Start;
use serde_json::{Map, Value};

use crate::format::{count, counted, given, percent};

/// The lines, each with its label.
pub(crate) fn lines(start: &Start) -> Vec<(&'static str, String)> {
    let targets = match start.targets.len() {
        0 => String::new(),
        n => format!(" on {}", counted(n as u64, "module")),
    };
    let scaling = start.scaling;
    let scaling = scaling.map_or_else(String::new, |scaling| format!(", scaling {scaling}"));
    let mut lines = vec![
        (
            "model",
            format!(
                "{}, {}",
                start.model,
                counted(start.model_parameters, "parameter")
            ),
        ),
        ("method", format!("{}{targets}{scaling}", start.method)),
        (
            "trainable",
            format!(
                "{} ({})",
                counted(start.trainable_parameters, "parameter"),
                percent(start.trainable_parameters, start.total_parameters)
            ),
        ),
        ("data", facts(&start.data)),
        ("run", plan(start)),
        ("output", start.output.display().to_string()),
    ];
    lines.extend(held_out(&start.data).map(|held_out| ("held out", held_out)));
    let left_out = left_out(&start.data).into_iter();
    lines.extend(left_out.map(|line| ("left out", line)));
    lines
}

/// What the run does, in a line.
fn plan(start: &Start) -> String {
    let accumulation = match start.gradient_accumulation {
        1 => String::new(),
        n => format!(" x {n}"),
    };
    let lambda = match start.lambda {
        Some(lambda) if lambda.to_bits() != 1.0_f64.to_bits() => {
            format!(", lambda {}", given(lambda))
        }
        _ => String::new(),
    };
    format!(
        "{}, batch {}{accumulation}, learning rate {}{lambda}, {}, {}, seed {}",
        counted(start.max_steps, "step"),
        count(start.batch_size),
        given(start.learning_rate),
        start.precision,
        counted(start.threads, "thread"),
        start.seed
    )
}

/// What a task says of its data: counts that are not zero, names, and how long lists are.
fn facts(data: &Map<String, Value>) -> String {
    // These have lines of their own.
    let others = ["held_out", "skipped_rows", "left_out"];
    let counted = data
        .iter()
        .filter(|(name, _)| !others.contains(&name.as_str()));
    let facts = counted.filter_map(|(name, value)| {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Array(items) => count(items.len() as u64),
            value => match value.as_u64() {
                Some(0) | None => return None,
                Some(n) => count(n),
            },
        };
        Some(format!("{} {value}", name.replace('_', " ")))
    });
    facts.collect::<Vec<_>>().join(", ")
}

/// What is held out of which file.
fn held_out(data: &Map<String, Value>) -> Option<String> {
    let shares = data.get("held_out")?.as_array()?.iter();
    let shares: Vec<String> = shares
        .filter_map(|share| {
            let share: FileShare = serde_json::from_value(share.clone()).ok()?;
            let (held_out, of) = (share.held_out as u64, share.of as u64);
            let (file, unit) = (share.file.display(), share.unit);
            Some(format!(
                "{} of {} {unit} of {file}",
                count(held_out),
                count(of)
            ))
        })
        .collect();
    (!shares.is_empty()).then(|| shares.join(", "))
}

/// The first rows that were left out, and the files.
fn left_out(data: &Map<String, Value>) -> Vec<String> {
    let texts = |key: &str| {
        let list = data
            .get(key)
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        list.filter_map(Value::as_str)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let mut lines = texts("skipped_rows");
    let files = texts("left_out");
    if let [first, ..] = &files[..] {
        let more = match files.len() {
            1 => String::new(),
            n => format!(" and {}", counted(n as u64 - 1, "more file")),
        };
        lines.push(format!("{first}{more}: no data by the name"));
    }
    lines
}
