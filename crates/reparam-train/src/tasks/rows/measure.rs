//! Measuring a model with a head, and predicting with it.

use burn::tensor::Tensor;
use reparam::ForwardContext;
use reparam_data::rows::{LabelKind, OnError, RowBatch, Rows};
use reparam_data::{EncodedRow, Phase};
use reparam_formats::hub::HubOptions;
use reparam_models::architecture::Pooling;
use reparam_models::{Predictor, RowTokens};
use serde_json::json;

use super::confusion::CONFUSION;
use super::open::Opened;
use super::preprocess::{preprocessor, to_predict};
use super::set::Set;
use super::threshold::{Thresholds, tuned};
use super::{Encoder, Item, Outputs, Purpose, RowTask, Rules};
use crate::bootstrap::with_intervals;
use crate::evaluate::at_once;
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

fn n_tokens<T: RowTask>(item: &Item<T>) -> usize {
    let windows = item.windows.iter();
    windows.map(|window| window.row.ids.len()).sum()
}

/// Computes what a model gives for each window of each row.
fn outputs<'a, T: RowTask>(
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
    request.data.refuse_template(T::NAME)?;
    let opened = open::<T>(&request.model, request.threshold, hub)?;
    let options = opened.card.options(&request.data)?;
    let remembered = opened.remembered(&request.data);
    let encoder = encoder::<T>(&opened, request.sequence_length, stop);
    let paths = [request.data.path.clone()];
    let on_error = request.data.on_error;
    let read = Set::<T>::read(&paths, &options, on_error, Purpose::Measure);
    let (rows, mut skipped) = read.map_err(|error| error.of_remembered(remembered))?;
    let steps = preprocessor(&opened.rules.settings)?;
    let rows = to_predict::<T>(rows, steps.as_ref());
    let rows = Set::<T>::encode(rows, &opened.base, &encoder, on_error)?;
    skipped.append(rows.skipped.clone());
    let rules = &opened.rules;
    let scored = score(&opened.model, &rows, rules, stop)?;
    let mut metrics = T::metrics(scored.iter(), rules)?.with("truncated", rows.truncated());
    if !metrics.primary().is_finite() {
        return Err(TrainError::LossNotFinite);
    }
    if on_error == OnError::Skip {
        metrics = metrics.with("skipped", skipped.count);
    }
    if let Some(confusion) = T::confusion(&scored, rules) {
        metrics = metrics.with(CONFUSION, confusion.to_json());
    }
    let Some(asked) = request.bootstrap else {
        return Ok(metrics);
    };
    let units = T::drawable(scored);
    with_intervals(metrics, units.len(), asked, stop, |drawn| {
        T::metrics(drawn.iter().map(|unit| &units[*unit]), rules)
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
    let mut rows = T::encode(rows, &encoder, false)?;
    if request.data.on_error == OnError::Stop {
        let files = std::mem::take(&mut rows.files);
        let left_out = std::mem::take(&mut rows.left_out);
        let settled = rows.settle(OnError::Stop);
        let (read, _) =
            settled.map_err(|error| TrainError::from(error).of_remembered(remembered))?;
        rows = Rows {
            rows: read.into_iter().map(Ok).collect(),
            files,
            left_out,
        };
    }
    let rows: Vec<_> = rows.rows.into_iter().collect();
    opened.base.check_types(rows.iter().flatten())?;
    // With what follows the number of a row that could not be read.
    let header = T::header(&opened.rules);
    let blank: String = header.chars().filter(|c| *c == ',').collect();
    to.header(header);
    let mut first = 0;
    while first < rows.len() {
        stop.check()?;
        let lengths = rows[first..].iter();
        let count = at_once(lengths.map(|row| row.as_ref().map_or(0, n_tokens)));
        let some = &rows[first..first + count];
        let read: Vec<&Item<T>> = some.iter().flatten().collect();
        let mut outputs = outputs(&opened.model, read.iter().copied()).into_iter();
        for (number, row) in (first..).zip(some) {
            let (object, text) = match row {
                Err(error) => (
                    json!({ "row": number, "error": error.to_string() }),
                    format!("{number}{blank}"),
                ),
                Ok(item) => {
                    let outputs = outputs.next().unwrap_or_default();
                    let (object, text) = T::prediction(item, &outputs, &opened.rules);
                    (object, format!("{number},{text}"))
                }
            };
            if to.row(object, text).is_break() {
                return Ok(());
            }
        }
        first += count;
    }
    let failed = rows.iter().filter(|row| row.is_err()).count();
    if failed > 0 {
        to.note(format!("{failed} of {} rows could not be read", rows.len()));
    }
    let cut = rows.iter().flatten().filter(|row| row.truncated).count();
    if cut > 0 {
        to.note(format!("{cut} rows cut to {} tokens", encoder.length));
    }
    Ok(())
}
