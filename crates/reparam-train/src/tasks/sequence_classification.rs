//! The task `sequence-classification`: classifying rows of text.

use std::borrow::Cow;
use std::path::PathBuf;

use burn::tensor::Tensor;
use reparam::schema::{SettingKind, SettingSpec, Settings, optional};
use reparam_data::rows::{
    ClassScorer, LABELLED_TEXT, LabelKind, Labels, RowBatch, RowError, RowFormat, Rows,
    RowsOptions, TEXT, TextRow, encode_rows, read_rows, sigmoid, softmax, text_rows,
};
use reparam_models::architecture::PredictorSpec;
use reparam_models::{Architecture, ClassTargets, class_loss};
use serde_json::{Map, Value, json};

use super::rows::{Encoder, Item, Outputs, OverRows, Purpose, RowTask, Rules, Window};
use crate::config::{RowsKeys, TEXT_SETTING};
use crate::numbers::csv_cell;
use crate::task::DEFAULT_LENGTH;
use crate::{Metrics, Result, TrainError};

/// Rows of text with their classes.
pub type SequenceClassification = OverRows<Sequences>;

/// The settings of `[data]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassKeys;

/// The key for learning from few rows.
const FEW: &str = "examples_per_class";

impl RowsKeys for ClassKeys {
    type Format = RowFormat;
    const OWN: &'static [SettingSpec] = &[
        TEXT_SETTING,
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

    type Keys = ClassKeys;
    type Row = TextRow;
    /// Its classes, by index.
    type Target = Vec<usize>;
    type About = ();
    type Scorer = ClassScorer;

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

    fn weight(_: &Vec<usize>) -> f64 {
        1.0
    }

    fn loss(
        outputs: Tensor<2>,
        _: &RowBatch,
        targets: &[&Vec<usize>],
        rules: &Rules,
        scale: f32,
    ) -> Result<Tensor<1>> {
        let classes: Vec<Vec<usize>> = targets.iter().map(|classes| (*classes).clone()).collect();
        let single: Vec<usize>;
        let targets = match rules.labels.kind() {
            LabelKind::One => {
                single = classes.concat();
                ClassTargets::One(&single)
            }
            LabelKind::Several => ClassTargets::Several(&classes),
        };
        Ok(class_loss(outputs, targets, scale))
    }

    fn scorer(Rules { labels, .. }: &Rules) -> ClassScorer {
        ClassScorer::new(labels.len(), labels.kind())
    }

    fn score(scorer: &mut ClassScorer, item: &Item<Self>, outputs: &[Outputs]) {
        for (window, logits) in item.windows.iter().zip(outputs) {
            scorer.add(logits, &window.target);
        }
    }

    fn finish(scorer: ClassScorer, _: &Rules) -> Result<Metrics> {
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

    fn prediction(_: &Item<Self>, outputs: &[Outputs], rules: &Rules) -> (Value, String) {
        let labels = &rules.labels;
        let logits = &outputs[0];
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
                let line = format!("{},{:.6}", csv_cell(name), scores[*class]);
                (json!({ "label": name, "scores": by_name }), line)
            }
            _ => (
                json!({ "labels": predicted_names, "scores": by_name }),
                csv_cell(&predicted_names.join(";")),
            ),
        }
    }
}
