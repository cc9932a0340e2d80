//! Telling rows apart by solved examples, with a model that has no head for their labels.
//!
//! A language model reads some of them before each row ([`shots`](super::shots)), an embedding model compares a row with the
//! mean of each class ([`prototypes`](super::prototypes)). Either gives each label a number, of which the softmax is what is
//! predicted.

use std::ops::ControlFlow;
use std::path::Path;

use reparam::schema::Settings;
use reparam_data::rows::{
    ClassScore, Classified, Fields, LabelKind, Labels, Rows, RowsOptions, TextRow,
};
use reparam_data::{OnError, Phase, Skipped, permutation};
use reparam_formats::hub::HubOptions;

use super::prototypes::Prototypes;
use super::shots::Shots;
use super::{SequenceKeys, Sequences, said, scorer};
use crate::bootstrap::with_intervals;
use crate::config::RowsKeys;
use crate::task::{
    DataRequest, EvalRequest, ExamplesRequest, ModelRequest, PredictRequest, Predictions, THRESHOLD,
};
use crate::tasks::rows::measure::{completed, in_place, say, say_cut};
use crate::tasks::rows::vectors::Body;
use crate::tasks::rows::{Purpose, RowTask, Rules};
use crate::{ExamplesError, Metrics, Result, Stop, TrainError, Warnings};

/// The rows that are looked at together.
const ROWS_AT_ONCE: usize = 64;

/// A solved example: its text, and its class by index.
pub(super) type Example = (TextRow, usize);

/// What a model says of a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Said {
    /// A number for each label, of which the softmax is its probability.
    pub(super) logits: Vec<f32>,
    /// The label with the largest log-likelihood a character, of a language model.
    pub(super) by_length: Option<usize>,
    /// Whether a part of the row was not read.
    pub(super) is_cut: bool,
}

/// A model that tells rows apart by examples.
pub(super) trait ByExamples {
    /// Says of each row what its label is.
    ///
    /// # Errors
    ///
    /// [`TrainError::Interrupted`]; a row that cannot be read.
    fn say(&mut self, rows: &[&TextRow], stop: Stop<'_>) -> Result<Vec<Said>>;

    /// Refuses a row that it cannot say anything of, which then may be skipped.
    fn fits(&self, _row: &TextRow) -> Result<()> {
        Ok(())
    }

    /// The most tokens that it reads at once.
    fn length(&self) -> usize;

    /// Says what the user should know of rows that are measured.
    fn check(&self, _rows: &[Classified]) {}
}

/// A model that is opened, with its labels.
struct Opened {
    model: Box<dyn ByExamples>,
    rules: Rules,
    /// What is printed beside the metrics.
    asked: ExamplesRequest,
}

impl Opened {
    /// Reads the examples, opens the model and gives it them.
    fn open(
        (model, data): (&ModelRequest, &DataRequest),
        asked: &ExamplesRequest,
        (length, threshold): (Option<usize>, Option<f64>),
        (hub, stop): (&HubOptions, Stop<'_>),
    ) -> Result<Self> {
        let body = Body::of::<Sequences>(model, hub)?;
        match body {
            Body::Headed => {
                let option = asked.options().next().unwrap_or_default();
                return Err(ExamplesError::HasHead { option }.into());
            }
            Body::Seq2seq => return Err(ExamplesError::WritesTargets.into()),
            Body::Causal | Body::Encoder => {}
        }
        if threshold.is_some() {
            return Err(TrainError::WrongLabels {
                option: THRESHOLD,
                several: true,
            });
        }
        let (labels, examples) = match &asked.path {
            Some(path) => read(path, data, asked.seed, &model.warnings)?,
            None => (of_words(body, asked)?, Vec::new()),
        };
        let settings = Settings::new("data", SequenceKeys::OWN, &[])?;
        let rules = Rules::new(labels, settings);
        let labels = &rules.labels;
        let model: Box<dyn ByExamples> = match body {
            Body::Causal => {
                let of = (labels, examples);
                Box::new(Shots::open((model, data), asked, of, length, hub)?)
            }
            _ => {
                let of = (labels, examples);
                Box::new(Prototypes::open(
                    (model, data),
                    asked,
                    of,
                    length,
                    (hub, stop),
                )?)
            }
        };
        Ok(Self {
            model,
            rules,
            asked: asked.clone(),
        })
    }
}

/// Returns the labels of a language model that is shown no examples.
fn of_words(body: Body, asked: &ExamplesRequest) -> Result<Labels> {
    if body != Body::Causal || asked.shots.is_some_and(|shots| shots > 0) {
        return Err(ExamplesError::NoFile.into());
    }
    let names: Vec<String> = asked.words.keys().cloned().collect();
    match &names[..] {
        [] => Err(ExamplesError::NoLabels.into()),
        [label] => Err(ExamplesError::OneWord {
            label: label.clone(),
        }
        .into()),
        _ => Ok(Labels::new(names, LabelKind::One)?),
    }
}

/// How rows and examples are read: a model without a head has none of its own.
fn options(data: &DataRequest) -> Result<RowsOptions> {
    data.row_options(None, &Fields::default())
}

/// Reads examples, in an order that follows from the seed and what they say, and their labels.
fn read(
    path: &Path,
    data: &DataRequest,
    seed: u64,
    warnings: &Warnings,
) -> Result<(Labels, Vec<Example>)> {
    let paths = [path.to_owned()];
    let rows = Sequences::read(&paths, &options(data)?, Purpose::Measure)?;
    let (rows, mut skipped) = rows.settled(data.on_error)?;
    let labels = Sequences::labels(rows.rows.iter().flatten())?;
    if labels.kind() == LabelKind::Several {
        return Err(ExamplesError::SeveralLabels.into());
    }
    let (mut rows, more) = labels.classes_by_name(rows).settle(data.on_error)?;
    skipped.append(more);
    if skipped.count > 0 {
        warnings.add(format!(
            "examples left out, since they cannot be read: {}",
            skipped.count
        ));
    }
    rows.sort_by_key(|row| row.text.content());
    let order = permutation(rows.len(), seed, 0).into_iter();
    let drawn = order.map(|index| {
        let row = &rows[index];
        (row.text.clone(), row.classes[0])
    });
    let drawn = drawn.collect();
    Ok((labels, drawn))
}

/// Measures a model on rows.
pub(super) fn eval(request: &EvalRequest, hub: &HubOptions, stop: Stop<'_>) -> Result<Metrics> {
    let data = &request.data;
    let asked = request.examples.clone().unwrap_or_default();
    let rest = (request.sequence_length, request.threshold);
    let mut opened = Opened::open((&request.model, data), &asked, rest, (hub, stop))?;
    let paths = std::slice::from_ref(&data.path);
    let rows = Sequences::read(paths, &options(data)?, Purpose::Measure)?;
    let (rows, mut skipped) = opened
        .rules
        .labels
        .classes_by_name(rows)
        .settle(data.on_error)?;
    let rows = match data.on_error {
        OnError::Stop => rows,
        OnError::Skip => fitting(rows, &*opened.model, &mut skipped)?,
    };
    opened.model.check(&rows);
    let rules = &opened.rules;
    let scorer = scorer(rules);
    let total = rows.len() as u64;
    let mut scored: Vec<(ClassScore, Option<bool>)> = Vec::with_capacity(rows.len());
    let mut cut = 0;
    for some in rows.chunks(ROWS_AT_ONCE) {
        stop.at(Phase::Evaluating, scored.len() as u64, total);
        let texts: Vec<&TextRow> = some.iter().map(|row| &row.text).collect();
        for (row, said) in some.iter().zip(opened.model.say(&texts, stop)?) {
            let by_length = said.by_length.map(|class| row.classes == [class]);
            scored.push((scorer.score(&said.logits, &row.classes), by_length));
            cut += usize::from(said.is_cut);
        }
    }
    stop.at(Phase::Evaluating, total, total);
    let metrics = measured(scored.iter(), rules)?.with("truncated", cut);
    let metrics = match opened.asked.shots {
        Some(shots) => metrics.with("shots", shots).with("seed", opened.asked.seed),
        None => metrics,
    };
    let classes: Vec<ClassScore> = scored.iter().map(|(score, _)| score.clone()).collect();
    let confusion = Sequences::confusion(&classes, rules);
    let metrics = completed(metrics, confusion, request, &skipped)?;
    let Some(bootstrap) = request.bootstrap else {
        return Ok(metrics);
    };
    with_intervals(metrics, scored.len(), bootstrap, stop, |drawn| {
        measured(drawn.iter().map(|row| &scored[*row]), rules)
    })
}

/// Returns the rows that a model can say something of, and counts the others.
///
/// # Errors
///
/// What is wrong with the first, if there is no other.
fn fitting(
    rows: Vec<Classified>,
    model: &dyn ByExamples,
    skipped: &mut Skipped,
) -> Result<Vec<Classified>> {
    let mut first = None;
    let mut fit = Vec::with_capacity(rows.len());
    for row in rows {
        match model.fits(&row.text) {
            Ok(()) => fit.push(row),
            Err(error) => {
                skipped.append(Skipped {
                    count: 1,
                    first: vec![error.to_string()],
                });
                first.get_or_insert(error);
            }
        }
    }
    match first {
        Some(error) if fit.is_empty() => Err(error),
        _ => Ok(fit),
    }
}

/// The metrics of rows, with `accuracy_norm` where labels have a length.
fn measured<'a>(
    scored: impl Iterator<Item = &'a (ClassScore, Option<bool>)> + Clone,
    rules: &Rules,
) -> Result<Metrics> {
    let metrics = Sequences::metrics(scored.clone().map(|(score, _)| score), rules)?;
    let right: Option<Vec<bool>> = scored.map(|(_, is_right)| *is_right).collect();
    Ok(match right {
        Some(right) => {
            let n_right = right.iter().filter(|is_right| **is_right).count();
            metrics.with("accuracy_norm", n_right as f64 / right.len() as f64)
        }
        None => metrics,
    })
}

/// Predicts rows.
pub(super) fn predict(
    request: &PredictRequest,
    hub: &HubOptions,
    stop: Stop<'_>,
    to: &mut dyn Predictions,
) -> Result<()> {
    let data = &request.data;
    let asked = request.examples.clone().unwrap_or_default();
    let rest = (request.sequence_length, request.threshold);
    let mut opened = Opened::open((&request.model, data), &asked, rest, (hub, stop))?;
    let paths = std::slice::from_ref(&data.path);
    let rows: Rows<TextRow> = Sequences::read(paths, &options(data)?, Purpose::Predict)?;
    let rows = in_place(rows, data.on_error)?.into_iter();
    let rows = rows.map(|row| -> Result<TextRow> {
        let row = row?;
        if data.on_error == OnError::Skip {
            opened.model.fits(&row)?;
        }
        Ok(row)
    });
    let rows: Vec<Result<TextRow>> = rows.collect();
    let (rules, model) = (&opened.rules, &mut opened.model);
    let mut cut = 0;
    let predicted = |rows: &[&TextRow]| {
        let all = model.say(rows, stop)?;
        cut += all.iter().filter(|said| said.is_cut).count();
        Ok(all.iter().map(|row| said(&row.logits, rules)).collect())
    };
    let header = Sequences::header(rules);
    // About as many tokens as there are bytes are no more than that.
    let length = |row: &TextRow| row.text.len();
    match say(&rows, header, length, predicted, stop, to)? {
        ControlFlow::Continue(()) => say_cut(cut, opened.model.length(), to),
        ControlFlow::Break(()) => {}
    }
    Ok(())
}
