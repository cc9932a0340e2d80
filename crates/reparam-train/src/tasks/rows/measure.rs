//! Measuring a model with a head, and predicting with it.

use std::fmt::Display;
use std::ops::ControlFlow;

use burn::tensor::Tensor;
use reparam::ForwardContext;
use reparam_data::rows::{LabelKind, OnError, RowBatch, RowError, Rows, Skipped};
use reparam_data::{EncodedRow, Phase};
use reparam_formats::hub::HubOptions;
use reparam_models::architecture::Pooling;
use reparam_models::{Predictor, RowTokens};
use serde_json::{Value, json};

use super::confusion::{CONFUSION, Confusion};
use super::open::Opened;
use super::preprocess::{preprocessor, to_predict};
use super::set::Set;
use super::threshold::{Thresholds, tuned};
use super::{Encoder, Item, Outputs, Purpose, RowTask, Rules};
use crate::bootstrap::with_intervals;
use crate::evaluate::at_once;
use crate::open::data_files;
use crate::task::{EvalRequest, ModelRequest, PredictRequest, Predictions, THRESHOLD};
use crate::{Metrics, Result, Stop, TrainError};

/// Measures a model on rows.
pub(super) fn measure<T: RowTask>(
    model: &Predictor,
    rows: &Set<T>,
    rules: &Rules,
    stop: Stop<'_>,
) -> Result<Metrics> {
    let scored = score(model, rows, rules, stop)?;
    Ok(T::metrics(scored.iter(), rules)?.with("truncated", rows.truncated()))
}

/// Measures each row by itself.
fn score<T: RowTask>(
    model: &Predictor,
    rows: &Set<T>,
    rules: &Rules,
    stop: Stop<'_>,
) -> Result<Vec<T::Scored>> {
    let total = rows.items.len();
    let mut scored = Vec::with_capacity(total);
    while scored.len() < total {
        stop.check()?;
        stop.at(Phase::Evaluating, scored.len() as u64, total as u64);
        let rest = &rows.items[scored.len()..];
        let items = &rest[..at_once(rest.iter().map(n_tokens))];
        let outputs = outputs(model, items);
        let pairs = items.iter().zip(&outputs);
        scored.extend(pairs.map(|(item, outputs)| T::score(item, outputs, rules)));
    }
    stop.at(Phase::Evaluating, total as u64, total as u64);
    Ok(scored)
}

/// Chooses the threshold of each label on rows.
pub(super) fn thresholds<T: RowTask>(
    model: &Predictor,
    rows: &Set<T>,
    rules: &Rules,
) -> Thresholds {
    let mut logits = Vec::with_capacity(rows.items.len());
    while logits.len() < rows.items.len() {
        let rest = &rows.items[logits.len()..];
        let outputs = outputs(model, &rest[..at_once(rest.iter().map(n_tokens))]);
        logits.extend(
            outputs
                .into_iter()
                .map(|mut windows| windows.swap_remove(0)),
        );
    }
    let rows = rows.items.iter().zip(&logits);
    tuned(
        rules,
        rows.filter_map(|(item, logits)| Some((T::classes(item)?, logits))),
    )
}

/// Opens a model with another threshold than its own, if one is asked for.
fn open<T: RowTask>(
    request: &ModelRequest,
    threshold: Option<f64>,
    hub: &HubOptions,
) -> Result<Opened> {
    let mut opened = Opened::open::<T>(request, hub)?;
    let Some(threshold) = threshold else {
        return Ok(opened);
    };
    if opened.rules.labels.kind() == LabelKind::One {
        return Err(TrainError::WrongLabels {
            option: THRESHOLD,
            several: true,
        });
    }
    opened.rules.thresholds.fill(threshold);
    Ok(opened)
}

pub(super) fn n_tokens<T: RowTask>(item: &Item<T>) -> usize {
    let windows = item.windows.iter();
    windows.map(|window| window.row.ids.len()).sum()
}

/// Computes what a model gives for each window of each row.
pub(super) fn outputs<'a, T: RowTask>(
    model: &Predictor,
    items: impl IntoIterator<Item = &'a Item<T>> + Clone,
) -> Vec<Vec<Outputs>> {
    let windows = items.clone().into_iter().flat_map(|item| &item.windows);
    let rows: Vec<&EncodedRow> = windows.map(|window| &window.row).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let batch = RowBatch::concat(rows);
    let computed: Tensor<2> = model.outputs(row_tokens(&batch), &ForwardContext::inference());
    let [_, n_outputs] = computed.dims();
    let of_tokens = model.spec.pooling == Pooling::Each;
    let mut values = computed.into_data().iter::<f32>().collect::<Vec<_>>();
    items
        .into_iter()
        .map(|item| {
            let windows = item.windows.iter().map(|window| {
                let n = if of_tokens { window.row.ids.len() } else { 1 };
                let rest = values.split_off(n * n_outputs);
                std::mem::replace(&mut values, rest)
            });
            windows.collect()
        })
        .collect()
}

/// Returns the part of a batch that the model sees.
pub(super) fn row_tokens(batch: &RowBatch) -> RowTokens<'_> {
    RowTokens {
        input_ids: &batch.input_ids,
        token_type_ids: &batch.token_type_ids,
        position_ids: &batch.position_ids,
        bounds: &batch.bounds,
    }
}

pub(super) fn eval<T: RowTask>(
    request: &EvalRequest,
    hub: &HubOptions,
    stop: Stop<'_>,
) -> Result<Metrics> {
    if request.examples.is_some() {
        return T::eval_by_examples(request, hub, stop);
    }
    request.data.refuse_template(T::NAME)?;
    let opened = open::<T>(&request.model, request.threshold, hub)?;
    let options = opened.card.options(&request.data)?;
    let remembered = opened.remembered(&request.data);
    let encoder = encoder::<T>(&opened, request.sequence_length, stop);
    let paths = data_files(std::slice::from_ref(&request.data.path), hub, stop)?;
    let on_error = request.data.on_error;
    let read = Set::<T>::read(&paths, &options, on_error, Purpose::Measure);
    let (rows, mut skipped) = read.map_err(|error| error.of_remembered(remembered))?;
    let steps = preprocessor(&opened.rules.settings)?;
    let rows = to_predict::<T>(rows, steps.as_ref());
    let rows = Set::<T>::encode(rows, &opened.base, &encoder, on_error)?;
    skipped.append(rows.skipped.clone());
    let rules = &opened.rules;
    let scored = score(&opened.model, &rows, rules, stop)?;
    let metrics = T::metrics(scored.iter(), rules)?.with("truncated", rows.truncated());
    let metrics = completed(metrics, T::confusion(&scored, rules), request, &skipped)?;
    let Some(asked) = request.bootstrap else {
        return Ok(metrics);
    };
    let units = T::drawable(scored);
    with_intervals(metrics, units.len(), asked, stop, |drawn| {
        T::metrics(drawn.iter().map(|unit| &units[*unit]), rules)
    })
}

/// Adds to the metrics of rows what stands beside them.
///
/// # Errors
///
/// [`TrainError::LossNotFinite`].
pub(in crate::tasks) fn completed(
    metrics: Metrics,
    confusion: Option<Confusion>,
    request: &EvalRequest,
    skipped: &Skipped,
) -> Result<Metrics> {
    if !metrics.primary().is_finite() {
        return Err(TrainError::LossNotFinite);
    }
    let metrics = match request.data.on_error {
        OnError::Skip => metrics.with("skipped", skipped.count),
        OnError::Stop => metrics,
    };
    Ok(match confusion {
        Some(confusion) => metrics.with(CONFUSION, confusion.to_json()),
        None => metrics,
    })
}

/// What rows are encoded with: the most tokens as asked, else as in the run.
pub(super) fn encoder<'a, T: RowTask>(
    opened: &'a Opened,
    asked: Option<usize>,
    watch: Stop<'a>,
) -> Encoder<'a> {
    let file = |name: &str| opened.base.files.bytes(name).map(<[u8]>::to_vec);
    let usual = || T::length(&file);
    let length = asked.or(opened.card.sequence_length).unwrap_or_else(usual);
    Encoder {
        tokenizer: &opened.base.tokenizer,
        rules: &opened.rules,
        length: opened.base.length(length),
        watch,
    }
}

pub(super) fn predict<T: RowTask>(
    request: &PredictRequest,
    hub: &HubOptions,
    stop: Stop<'_>,
    to: &mut dyn Predictions,
) -> Result<()> {
    if request.drop_rows {
        return Err(TrainError::NoFields {
            task: T::NAME,
            option: "--drop-rows",
        });
    }
    if request.examples.is_some() {
        return T::predict_by_examples(request, hub, stop, to);
    }
    request.data.refuse_template(T::NAME)?;
    let mut opened = open::<T>(&request.model, request.threshold, hub)?;
    let head = &mut opened.model.spec;
    head.pooling = request.pooling.unwrap_or(head.pooling);
    head.normalize |= request.normalize;
    let options = opened.card.options(&request.data)?;
    let remembered = opened.remembered(&request.data);
    let encoder = encoder::<T>(&opened, request.sequence_length, stop);
    let paths = std::slice::from_ref(&request.data.path);
    let read = T::read(paths, &options, Purpose::Predict);
    let rows = read.map_err(|error| error.of_remembered(remembered))?;
    let steps = preprocessor(&opened.rules.settings)?;
    let rows = to_predict::<T>(rows, steps.as_ref());
    let rows = T::encode(rows, &encoder, false)?;
    let rows = in_place(rows, request.data.on_error);
    let rows = rows.map_err(|error| error.of_remembered(remembered))?;
    opened.base.check_types(rows.iter().flatten())?;
    let header = T::header(&opened.rules);
    let predicted = |items: &[&Item<T>]| {
        let outputs = outputs(&opened.model, items.iter().copied());
        let rows = items.iter().zip(&outputs);
        Ok(rows
            .map(|(item, outputs)| T::prediction(item, outputs, &opened.rules))
            .collect())
    };
    if say(&rows, header, n_tokens, predicted, stop, to)?.is_break() {
        return Ok(());
    }
    let cut = rows.iter().flatten().filter(|row| row.truncated).count();
    say_cut(cut, encoder.length, to);
    Ok(())
}

/// Returns rows to predict, each read or, where such are skipped, in error.
pub(in crate::tasks) fn in_place<R>(
    rows: Rows<R>,
    on_error: OnError,
) -> Result<Vec<Result<R, RowError>>> {
    match on_error {
        OnError::Skip => Ok(rows.rows),
        OnError::Stop => Ok(rows.settle(on_error)?.0.into_iter().map(Ok).collect()),
    }
}

/// Says what is predicted of rows, of so many at once as their lengths allow; `Break` if the reader wants no more.
pub(in crate::tasks) fn say<R, E: Display>(
    rows: &[Result<R, E>],
    header: &'static str,
    length: impl Fn(&R) -> usize,
    mut predicted: impl FnMut(&[&R]) -> Result<Vec<(Value, String)>>,
    stop: Stop<'_>,
    to: &mut dyn Predictions,
) -> Result<ControlFlow<()>> {
    // With what follows the number of a row that could not be read.
    let blank: String = header.chars().filter(|c| *c == ',').collect();
    to.header(header);
    let mut first = 0;
    while first < rows.len() {
        stop.check()?;
        let lengths = rows[first..].iter();
        let count = at_once(lengths.map(|row| row.as_ref().map_or(0, &length)));
        let some = &rows[first..first + count];
        let read: Vec<&R> = some.iter().flatten().collect();
        let mut predicted = predicted(&read)?.into_iter();
        for (number, row) in (first..).zip(some) {
            let (object, text) = match row {
                Err(error) => (
                    json!({ "row": number, "error": error.to_string() }),
                    format!("{number}{blank}"),
                ),
                Ok(_) => {
                    let (object, text) = predicted.next().unwrap_or_default();
                    (object, format!("{number},{text}"))
                }
            };
            if to.row(object, text).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        first += count;
    }
    let failed = rows.iter().filter(|row| row.is_err()).count();
    if failed > 0 {
        to.note(format!("{failed} of {} rows could not be read", rows.len()));
    }
    Ok(ControlFlow::Continue(()))
}

/// Says how many rows were cut, if any were.
pub(in crate::tasks) fn say_cut(cut: usize, length: usize, to: &mut dyn Predictions) {
    if cut > 0 {
        to.note(format!("{cut} rows cut to {length} tokens"));
    }
}
