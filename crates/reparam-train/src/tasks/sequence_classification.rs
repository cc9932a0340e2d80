//! The task `sequence-classification`: classifying rows of text.

mod examples;
mod prototypes;
mod shots;

use std::borrow::Cow;
use std::path::PathBuf;

use burn::tensor::Tensor;
use reparam::schema::{SettingKind, SettingSpec, Settings, optional};
use reparam_data::EncodedRow;
use reparam_data::rows::{
    ClassScore, ClassScorer, LABELLED_TEXT, LabelKind, Labels, RowBatch, RowError, RowFormat, Rows,
    RowsOptions, TEXT, TextRow, encode_rows, read_rows, sigmoid, softmax, text_rows,
};
use reparam_formats::hub::HubOptions;
use reparam_models::architecture::PredictorSpec;
use reparam_models::{Architecture, ClassTargets, class_loss};
use serde_json::{Map, Value, json};

use super::rows::threshold;
use super::rows::weights::{CLASS_WEIGHTS, class_weights, one_class_loss};
use super::rows::{
    Confusion, Encoder, Item, Outputs, OverRows, Purpose, RowTask, Rules, Window, plain_tokens,
};
use crate::config::{RowsKeys, TEXT_SETTING};
use crate::explain::{ExplainRequest, Shown};
use crate::numbers::csv_cell;
use crate::seen::Token;
use crate::task::{
    BOOTSTRAP, DEFAULT_LENGTH, EXAMPLES, EvalRequest, LABEL_WORDS, PredictRequest, Predictions,
    SHOTS, THRESHOLD,
};
use crate::{Metrics, Result, Stop, TrainError};

/// Rows of text with their classes.
pub type SequenceClassification = OverRows<Sequences>;

/// The settings of `[data]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceKeys;

/// The key for learning from few rows.
const FEW: &str = "examples_per_class";

impl RowsKeys for SequenceKeys {
    type Format = RowFormat;
    const OWN: &'static [SettingSpec] = &[
        TEXT_SETTING,
        CLASS_WEIGHTS,
        threshold::SETTING,
        optional(
            FEW,
            SettingKind::COUNT,
            "all rows",
            "training rows of each class that are kept, drawn by train.seed",
        ),
    ];
}

/// What the task `sequence-classification` is.
#[derive(Debug)]
pub struct Sequences;

impl RowTask for Sequences {
    const NAME: &'static str = "sequence-classification";
    const SUMMARY: &'static str = "classifies texts or pairs of texts";
    const UNIT: &'static str = "rows";
    const TASK_TYPE: &'static str = "SEQ_CLS";
    const CLASS: &'static str = "ForSequenceClassification";
    const HEAD: &'static str = "sequence-classification";
    const MAY_HAVE_SEVERAL: bool = true;
    const LENGTH: usize = DEFAULT_LENGTH;
    const EXPLAINED: Option<&'static [&'static str]> = Some(&["--pair"]);
    const OPTIONS: &'static [&'static str] = &[BOOTSTRAP, THRESHOLD, SHOTS, EXAMPLES, LABEL_WORDS];

    type Keys = SequenceKeys;
    type Row = TextRow;
    /// Its classes, by index.
    type Target = Vec<usize>;
    type About = ();
    type Scored = ClassScore;

    fn header(rules: &Rules) -> &'static str {
        match rules.labels.kind() {
            LabelKind::One => "row,label,score",
            LabelKind::Several => "row,labels",
        }
    }

    fn head(
        architecture: &Architecture,
        _: &dyn Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Option<PredictorSpec>> {
        Ok(architecture.heads.sequence.clone())
    }

    fn read(paths: &[PathBuf], options: &RowsOptions, purpose: Purpose) -> Result<Rows<TextRow>> {
        let schema = match purpose {
            Purpose::Learn | Purpose::Measure => &LABELLED_TEXT,
            Purpose::Predict => &TEXT,
        };
        Ok(text_rows(read_rows(paths, schema, options)?))
    }

    fn texts(row: &TextRow) -> Vec<Cow<'_, str>> {
        let texts = [Some(&row.text), row.text_pair.as_ref()];
        let texts = texts.into_iter().flatten();
        texts.map(|text| text.as_str().into()).collect()
    }

    fn texts_mut(row: &mut TextRow) -> Vec<&mut String> {
        let texts = [Some(&mut row.text), row.text_pair.as_mut()];
        texts.into_iter().flatten().collect()
    }

    fn labels<'a>(rows: impl Iterator<Item = &'a TextRow>) -> Result<Labels> {
        Ok(Labels::of_training(rows)?)
    }

    fn encode(
        rows: Rows<TextRow>,
        encoder: &Encoder<'_>,
        has_targets: bool,
    ) -> Result<Rows<Item<Self>>> {
        let rows = match has_targets {
            true => {
                let classified = encoder.rules.labels.classes(rows)?;
                classified.and_then(|row| Ok((row.text, row.classes)))
            }
            false => rows.and_then(|text| Ok((text, Vec::new()))),
        };
        let Encoder {
            tokenizer,
            length,
            watch,
            ..
        } = *encoder;
        let encoded = encode_rows(rows, tokenizer, length, |(text, _)| text, watch)?;
        Ok(encoded.and_then(|((text, target), row)| {
            Ok(Item {
                about: (),
                content: text.content(),
                place: text.place,
                truncated: row.truncated,
                windows: vec![Window { row, target }],
            })
        }))
    }

    fn few(rules: &Rules) -> Result<Option<usize>> {
        let few = rules.settings.optional(FEW, Settings::size)?;
        match (few, rules.labels.kind()) {
            (Some(_), LabelKind::Several) => {
                let what = "learned from a number of rows of each class, where a row has several";
                Err(TrainError::not_for_task(Self::NAME, what))
            }
            _ => Ok(few),
        }
    }

    fn class(item: &Item<Self>) -> usize {
        let target = item
            .windows
            .first()
            .and_then(|window| window.target.first());
        target.copied().unwrap_or_default()
    }

    fn class_weights(items: &[Item<Self>], rules: &Rules) -> Result<Vec<f32>> {
        let windows = items.iter().flat_map(|item| &item.windows);
        class_weights(
            rules,
            windows.flat_map(|window| window.target.iter().copied()),
        )
    }

    fn weight(classes: &Vec<usize>, rules: &Rules) -> f64 {
        match classes[..] {
            [class] => f64::from(rules.class_weight(class)),
            _ => 1.0,
        }
    }

    fn loss(
        outputs: Tensor<2>,
        _: &RowBatch,
        targets: &[&Vec<usize>],
        rules: &Rules,
        scale: f32,
    ) -> Result<Tensor<1>> {
        let classes: Vec<Vec<usize>> = targets.iter().map(|classes| (*classes).clone()).collect();
        if rules.labels.kind() == LabelKind::Several {
            return Ok(class_loss(outputs, ClassTargets::Several(&classes), scale));
        }
        Ok(one_class_loss(outputs, &classes.concat(), rules, scale))
    }

    fn score(item: &Item<Self>, outputs: &[Outputs], rules: &Rules) -> ClassScore {
        scorer(rules).score(&outputs[0], &item.windows[0].target)
    }

    fn metrics<'a>(scored: impl Iterator<Item = &'a ClassScore>, rules: &Rules) -> Result<Metrics> {
        let mut scorer = scorer(rules);
        scored.for_each(|row| scorer.count(row));
        let metrics = scorer.finish().ok_or(RowError::NoLabels)?;
        let mut measured = Metrics::lower_is_better("loss", metrics.loss)
            .with("accuracy", metrics.accuracy)
            .with("f1_macro", metrics.f1_macro)
            .with("f1_micro", metrics.f1_micro);
        if let Some(matthews) = metrics.matthews {
            measured = measured.with("matthews", matthews);
        }
        Ok(measured.with("examples", metrics.examples))
    }

    fn classes(item: &Item<Self>) -> Option<&[usize]> {
        item.windows.first().map(|window| &window.target[..])
    }

    fn shown(window: &Window<Vec<usize>>, rules: &Rules) -> (Vec<Token>, Option<String>) {
        let names = window
            .target
            .iter()
            .map(|class| &rules.labels.names()[*class]);
        let names: Vec<&str> = names.map(String::as_str).collect();
        (plain_tokens(&window.row), Some(names.join(", ")))
    }

    fn confusion(scored: &[ClassScore], rules: &Rules) -> Option<Confusion> {
        let labels = &rules.labels;
        let pair = |row: &ClassScore| Some((*row.classes.first()?, *row.predicted.first()?));
        let pairs = scored.iter().filter_map(pair);
        (labels.kind() == LabelKind::One).then(|| Confusion::of(labels.names(), pairs))
    }

    fn eval_by_examples(
        request: &EvalRequest,
        hub: &HubOptions,
        stop: Stop<'_>,
    ) -> Result<Metrics> {
        examples::eval(request, hub, stop)
    }

    fn predict_by_examples(
        request: &PredictRequest,
        hub: &HubOptions,
        stop: Stop<'_>,
        to: &mut dyn Predictions,
    ) -> Result<()> {
        examples::predict(request, hub, stop, to)
    }

    fn to_explain(
        request: &ExplainRequest,
        encoder: &Encoder<'_>,
    ) -> Result<(EncodedRow, Shown, Option<usize>)> {
        let (text, pair) = (&request.text, request.pair.as_deref());
        let encoded = encoder.tokenizer.encode_spans(text, pair, encoder.length)?;
        let shown = Shown::of_spans(&encoded, text, pair);
        Ok((encoded.row, shown, None))
    }

    fn prediction(_: &Item<Self>, outputs: &[Outputs], rules: &Rules) -> (Value, String) {
        said(&outputs[0], rules)
    }
}

/// Says which labels are predicted: as an object, and as a line.
fn said(logits: &[f32], rules: &Rules) -> (Value, String) {
    let labels = &rules.labels;
    let predicted = scorer(rules).prediction(logits);
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
            let line = format!("{},{:.6}", csv_cell(name), scores[*class]);
            (json!({ "label": name, "scores": by_name }), line)
        }
        _ => (
            json!({ "labels": predicted_names, "scores": by_name }),
            csv_cell(&predicted_names.join(";")),
        ),
    }
}

fn scorer(rules: &Rules) -> ClassScorer {
    let labels = &rules.labels;
    let scorer = ClassScorer::new(labels.len(), labels.kind());
    match labels.kind() {
        LabelKind::One => scorer,
        LabelKind::Several => scorer.with_thresholds(&rules.thresholds),
    }
}
