//! Measuring a classifier, and predicting with it.

use burn::tensor::Tensor;
use reparam::ForwardContext;
use reparam_data::rows::{
    ClassScorer, LabelKind, Labels, OnError, RowBatch, RowError, Rows, TEXT, encode_rows,
    read_rows, sigmoid, softmax, text_rows,
};
use reparam_data::{EncodedRow, Phase};
use reparam_formats::hub::HubOptions;
use reparam_models::{RowTokens, SequenceClassifier};
use serde_json::{Map, Value, json};

use super::open::Opened;
use super::{ClassRows, SequenceClassification};
use crate::evaluate::at_once;
use crate::numbers::csv_cell;
use crate::task::{DEFAULT_LENGTH, EvalRequest, PredictRequest, Predictions, Task};
use crate::{Metrics, Result, Stop, TrainError};

/// Measures a model on rows with classes.
pub(super) fn measure(
    model: &SequenceClassifier,
    rows: &ClassRows,
    kind: LabelKind,
    stop: Stop<'_>,
) -> Result<Metrics> {
    let n_classes = model.n_classes();
    let mut scorer = ClassScorer::new(n_classes, kind);
    let mut first = 0;
    let total = rows.encoded.len() as u64;
    while first < rows.encoded.len() {
        stop.check()?;
        stop.at(Phase::Evaluating, first as u64, total);
        let count = at_once(rows.encoded[first..].iter().map(|row| row.ids.len()));
        let range = first..first + count;
        let logits = logits(model, &rows.encoded[range.clone()]);
        for (logits, classes) in logits.chunks_exact(n_classes).zip(&rows.classes[range]) {
            scorer.add(logits, classes);
        }
        first += count;
    }
    stop.at(Phase::Evaluating, total, total);
    let metrics = scorer.finish().ok_or(RowError::NoLabels)?;
    let mut measured = Metrics::lower_is_better("loss", metrics.loss)
        .with("accuracy", metrics.accuracy)
        .with("f1_macro", metrics.f1_macro)
        .with("f1_micro", metrics.f1_micro);
    if let Some(matthews) = metrics.matthews {
        measured = measured.with("matthews", matthews);
    }
    Ok(measured
        .with("examples", metrics.examples)
        .with("truncated", rows.truncated()))
}

fn logits(model: &SequenceClassifier, rows: &[EncodedRow]) -> Vec<f32> {
    let batch = RowBatch::concat(rows);
    let logits: Tensor<2> = model.logits(row_tokens(&batch), &ForwardContext::inference());
    logits.into_data().iter::<f32>().collect()
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

pub(super) fn eval(request: &EvalRequest, hub: &HubOptions, stop: Stop<'_>) -> Result<Metrics> {
    request.data.refuse_template(SequenceClassification::NAME)?;
    let opened = Opened::open(&request.model, hub)?;
    let options = opened.card.options(&request.data)?;
    let remembered = opened.remembered(&request.data);
    let length = length(&opened, request.sequence_length);
    let paths = [request.data.path.clone()];
    let on_error = request.data.on_error;
    let read = ClassRows::read(&paths, &options, on_error);
    let (texts, mut skipped) = read.map_err(|error| error.of_remembered(remembered))?;
    let rows = ClassRows::encode(
        texts,
        &opened.labels,
        (&opened.base, length),
        on_error,
        stop,
    )?;
    skipped.append(rows.skipped.clone());
    let metrics = measure(&opened.model, &rows, opened.labels.kind(), stop)?;
    if !metrics.primary().is_finite() {
        return Err(TrainError::LossNotFinite);
    }
    Ok(match on_error {
        OnError::Stop => metrics,
        OnError::Skip => metrics.with("skipped", skipped.count),
    })
}

/// The most tokens of a row: as asked, else as in the run.
fn length(opened: &Opened, asked: Option<usize>) -> usize {
    opened.base.length(
        asked
            .or(opened.card.sequence_length)
            .unwrap_or(DEFAULT_LENGTH),
    )
}

pub(super) fn predict(
    request: &PredictRequest,
    hub: &HubOptions,
    stop: Stop<'_>,
    to: &mut dyn Predictions,
) -> Result<()> {
    if request.drop_rows {
        return Err(TrainError::NoFields {
            task: SequenceClassification::NAME,
            option: "--drop-rows",
        });
    }
    request.data.refuse_template(SequenceClassification::NAME)?;
    let opened = Opened::open(&request.model, hub)?;
    let options = opened.card.options(&request.data)?;
    let remembered = opened.remembered(&request.data);
    let length = length(&opened, request.sequence_length);
    let read = read_rows(std::slice::from_ref(&request.data.path), &TEXT, &options);
    let texts = text_rows(read.map_err(|error| TrainError::from(error).of_remembered(remembered))?);
    let mut rows = encode_rows(texts, &opened.base.tokenizer, length, |text| text, stop)?;
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
    let mut encoded = Vec::with_capacity(rows.rows.len());
    for row in rows.rows {
        encoded.push(match row {
            Ok((_, row)) => {
                opened
                    .base
                    .check_types(row.type_ids.iter().copied().max().unwrap_or(0))?;
                Ok(row)
            }
            Err(error) => Err(error.to_string()),
        });
    }
    let kind = opened.labels.kind();
    // With what follows the number of a row that could not be read.
    let (header, blank) = match kind {
        LabelKind::One => ("row,label,score", ",,"),
        LabelKind::Several => ("row,labels", ","),
    };
    to.header(header);
    let mut first = 0;
    while first < encoded.len() {
        stop.check()?;
        let lengths = encoded[first..].iter();
        let count = at_once(lengths.map(|row| row.as_ref().map_or(0, |row| row.ids.len())));
        let rows = &encoded[first..first + count];
        let read: Vec<EncodedRow> = rows.iter().filter_map(|row| row.clone().ok()).collect();
        let logits = match read.is_empty() {
            true => Vec::new(),
            false => logits(&opened.model, &read),
        };
        let mut logits = logits.chunks_exact(opened.labels.len());
        for (row, entry) in (first..).zip(rows) {
            let (object, text) = match entry {
                Err(error) => (
                    json!({ "row": row, "error": error }),
                    format!("{row}{blank}"),
                ),
                Ok(_) => {
                    let logits = logits.next().unwrap_or_default();
                    prediction(logits, &opened.labels, row)
                }
            };
            if to.row(object, text).is_break() {
                return Ok(());
            }
        }
        first += count;
    }
    let failed = encoded.iter().filter(|row| row.is_err()).count();
    if failed > 0 {
        to.note(format!(
            "{failed} of {} rows could not be read",
            encoded.len()
        ));
    }
    let cut = encoded.iter().flatten().filter(|row| row.truncated).count();
    if cut > 0 {
        to.note(format!("{cut} rows cut to {length} tokens"));
    }
    Ok(())
}

/// A prediction as an object and as a line.
fn prediction(logits: &[f32], labels: &Labels, row: usize) -> (Value, String) {
    let predicted = ClassScorer::new(labels.len(), labels.kind()).prediction(logits);
    let names = labels.names();
    let scores: Vec<f64> = match labels.kind() {
        LabelKind::One => softmax(logits),
        LabelKind::Several => logits.iter().map(|logit| sigmoid(*logit)).collect(),
    };
    let by_name: Map<String, Value> = names
        .iter()
        .zip(&scores)
        .map(|(name, score)| (name.clone(), json!(score)))
        .collect();
    let predicted_names: Vec<&str> = predicted
        .iter()
        .map(|class| names[*class].as_str())
        .collect();
    match (labels.kind(), &predicted[..]) {
        (LabelKind::One, [class]) => {
            let name = &names[*class];
            let line = format!("{row},{},{:.6}", csv_cell(name), scores[*class]);
            (json!({ "label": name, "scores": by_name }), line)
        }
        _ => {
            let line = format!("{row},{}", csv_cell(&predicted_names.join(";")));
            (
                json!({ "labels": predicted_names, "scores": by_name }),
                line,
            )
        }
    }
}
