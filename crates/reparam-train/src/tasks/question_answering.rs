//! The task `question-answering`: finding the answer to a question in a text.

use std::borrow::Cow;
use std::path::PathBuf;

use burn::tensor::Tensor;
use reparam::schema::{SettingSpec, count};
use reparam_data::rows::{
    ANSWERED_QUESTION, AnswerPlaces, AnswerScorer, LabelKind, Labels, QUESTION, QuestionRow,
    RowBatch, RowError, RowFormat, Rows, RowsOptions, Span, SpanLogits, SpanOptions, best_span,
    encode_questions, log_softmax, question_rows, read_rows, span_targets,
};
use reparam_data::tokenizer::{Window as ContextWindow, WindowOptions};
use reparam_models::architecture::PredictorSpec;
use reparam_models::{Architecture, span_loss};
use serde_json::{Value, json};

use super::rows::{
    Encoder, Item, Outputs, OverRows, Purpose, RowTask, Rules, Window, plain_tokens,
};
use crate::config::RowsKeys;
use crate::numbers::csv_cell;
use crate::seen::Token;
use crate::{Metrics, Result};

/// Rows of questions about texts.
pub type QuestionAnswering = OverRows<Questions>;

/// What the task `question-answering` is.
///
/// A long text is read in windows that overlap, each of which is learned by itself; one without the answer learns the first token,
/// which says that there is none.
#[derive(Debug)]
pub struct Questions;

/// The settings of `[data]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuestionKeys;

impl RowsKeys for QuestionKeys {
    type Format = RowFormat;
    const OWN: &'static [SettingSpec] = &[
        count(
            "stride",
            128,
            "tokens that a window of a long context shares with the next one",
        ),
        count("max_answer_tokens", 30, "maximum tokens of an answer"),
    ];
}

/// What is known of a question.
#[derive(Debug, Clone)]
pub struct AboutQuestion {
    row: QuestionRow,
    windows: Vec<ContextWindow>,
}

/// How a question is answered.
#[derive(Debug, Clone, Copy)]
pub struct QuestionScore {
    /// Exact match and F1.
    answer: (f64, f64),
    /// The sum over its windows.
    loss: f64,
    windows: usize,
}

impl RowTask for Questions {
    const NAME: &'static str = "question-answering";
    const SUMMARY: &'static str = "finds answers to questions in texts";
    const UNIT: &'static str = "windows";
    const TASK_TYPE: &'static str = "QUESTION_ANS";
    const CLASS: &'static str = "ForQuestionAnswering";
    const HEAD: &'static str = "question-answering";
    const HAS_LABELS: bool = false;
    const LENGTH: usize = 384;

    type Keys = QuestionKeys;
    type Row = QuestionRow;
    /// The places of the first and the last token of the answer.
    type Target = (usize, usize);
    type About = AboutQuestion;
    type Scored = QuestionScore;

    fn header(_: &Rules) -> &'static str {
        "row,answer,start,end,score"
    }

    fn head(
        architecture: &Architecture,
        _: &dyn Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Option<PredictorSpec>> {
        Ok(architecture.heads.span.clone())
    }

    fn read(
        paths: &[PathBuf],
        options: &RowsOptions,
        purpose: Purpose,
    ) -> Result<Rows<QuestionRow>> {
        let (schema, places) = match purpose {
            Purpose::Learn => (&ANSWERED_QUESTION, AnswerPlaces::Checked),
            Purpose::Measure => (&ANSWERED_QUESTION, AnswerPlaces::Optional),
            Purpose::Predict => (&QUESTION, AnswerPlaces::Optional),
        };
        Ok(question_rows(read_rows(paths, schema, options)?, places))
    }

    fn texts(row: &QuestionRow) -> Vec<Cow<'_, str>> {
        vec![row.question.as_str().into(), row.context.as_str().into()]
    }

    fn labels<'a>(_: impl Iterator<Item = &'a QuestionRow>) -> Result<Labels> {
        let ends = ["start", "end"].map(str::to_owned);
        Ok(Labels::new(ends.to_vec(), LabelKind::One)?)
    }

    fn encode(rows: Rows<QuestionRow>, encoder: &Encoder<'_>, _: bool) -> Result<Rows<Item<Self>>> {
        let stride = encoder.rules.settings.count("stride")? as usize;
        let options = WindowOptions {
            max_length: encoder.length,
            // A short window cannot share most of itself.
            stride: stride.min(encoder.length / 3),
        };
        let encoded = encode_questions(rows, encoder.tokenizer, options, |row| row, encoder.watch)?;
        Ok(encoded.and_then(|(row, windows)| {
            let mut answers = row.answers.iter().flatten();
            let answer = answers.find_map(|answer| answer.characters.clone());
            let targets = span_targets(&windows, answer.as_ref());
            let seen = windows.iter().zip(targets);
            Ok(Item {
                windows: seen
                    .map(|(window, target)| Window {
                        row: window.row.clone(),
                        target,
                    })
                    .collect(),
                content: row.content(),
                place: row.place.clone(),
                truncated: false,
                about: AboutQuestion { row, windows },
            })
        }))
    }

    fn weight(_: &(usize, usize), _: &Rules) -> f64 {
        1.0
    }

    fn loss(
        outputs: Tensor<2>,
        batch: &RowBatch,
        targets: &[&(usize, usize)],
        _: &Rules,
        scale: f32,
    ) -> Result<Tensor<1>> {
        let spans: Vec<(usize, usize)> = targets.iter().map(|span| **span).collect();
        Ok(span_loss(outputs, &batch.bounds, &spans, scale))
    }

    fn shown(window: &Window<(usize, usize)>, _: &Rules) -> (Vec<Token>, Option<String>) {
        let mut tokens = plain_tokens(&window.row);
        // Where a window has no answer, its first token stands for that.
        let (first, last) = window.target;
        tokens[first..=last]
            .iter_mut()
            .for_each(|token| token.learned = true);
        let label = if last == 0 { "no answer" } else { "answer" };
        (tokens, Some(label.to_owned()))
    }

    fn score(item: &Item<Self>, outputs: &[Outputs], rules: &Rules) -> QuestionScore {
        let logits = ends(outputs);
        // Where an answer stands that is not where it is said to be, nobody knows.
        let mut answers = item.about.row.answers.iter().flatten().peekable();
        let is_known =
            answers.peek().is_none() || answers.any(|answer| answer.characters.is_some());
        let (mut loss, mut windows) = (0.0, 0);
        let known = item.windows.iter().zip(&logits).filter(|_| is_known);
        for (window, [start, end]) in known {
            let (first, last) = window.target;
            loss -= (log_softmax(start, first) + log_softmax(end, last)) / 2.0;
            windows += 1;
        }
        let (answer, _) = answer(item, &logits, span_options(rules));
        let right = item.about.row.answers.iter().flatten();
        QuestionScore {
            answer: AnswerScorer::measure(&answer, right.map(|answer| &*answer.text)),
            loss,
            windows,
        }
    }

    fn metrics<'a>(scored: impl Iterator<Item = &'a QuestionScore>, _: &Rules) -> Result<Metrics> {
        let mut answers = AnswerScorer::new();
        let (mut loss, mut windows) = (0.0, 0);
        for question in scored {
            answers.count(question.answer);
            loss += question.loss;
            windows += question.windows;
        }
        let metrics = answers.finish().ok_or(RowError::NoLabels)?;
        Ok(
            Metrics::higher_is_better("exact_match", metrics.exact_match)
                .with("f1", metrics.f1)
                .with("loss", (windows > 0).then(|| loss / windows as f64))
                .with("examples", metrics.examples),
        )
    }

    fn prediction(item: &Item<Self>, outputs: &[Outputs], rules: &Rules) -> (Value, String) {
        let (answer, span) = answer(item, &ends(outputs), span_options(rules));
        let (start, end) = match &span.characters {
            Some(characters) => (Some(characters.start), Some(characters.end)),
            None => (None, None),
        };
        let number = |number: Option<usize>| number.map(|n| n.to_string()).unwrap_or_default();
        let line = format!(
            "{},{},{},{:.6}",
            csv_cell(&answer),
            number(start),
            number(end),
            span.score
        );
        let object = json!({ "answer": answer, "start": start, "end": end, "score": span.score });
        (object, line)
    }
}

fn span_options(rules: &Rules) -> SpanOptions {
    let most = rules.settings.count("max_answer_tokens");
    SpanOptions {
        max_tokens: most.map_or(30, |most| most as usize),
        no_answer: true,
    }
}

/// The logits of first and last tokens of each window.
fn ends(outputs: &[Outputs]) -> Vec<[Vec<f32>; 2]> {
    let of =
        |outputs: &Outputs, end: usize| outputs.chunks_exact(2).map(|both| both[end]).collect();
    outputs
        .iter()
        .map(|outputs| [of(outputs, 0), of(outputs, 1)])
        .collect()
}

/// The best answer over all windows of a question: its text, and where it stands.
fn answer(
    item: &Item<Questions>,
    logits: &[[Vec<f32>; 2]],
    options: SpanOptions,
) -> (String, Span) {
    let AboutQuestion { row, windows } = &item.about;
    let logits = logits.iter().map(|[start, end]| SpanLogits { start, end });
    let span = best_span(windows.iter().zip(logits), options);
    let text = span.characters.as_ref().map(|at| row.text_at(at));
    (text.unwrap_or_default(), span)
}
