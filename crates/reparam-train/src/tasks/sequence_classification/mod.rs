//! The task `sequence-classification`: classifying rows of text.

mod card;
mod measure;
mod open;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use reparam::ForwardContext;
use reparam::methods::AdapterMeta;
use reparam_data::rows::{
    LABELLED_TEXT, LabelKind, Labels, OnError, RowBatch, Rows, RowsOptions, Skipped, TextRow,
    encode_rows, read_rows, text_rows,
};
use reparam_data::{
    BatchPlan, ContentHash, EncodedRow, FileDigest, FileShare, Size, Unit, hold_out,
};
use reparam_formats::hub::HubOptions;
use reparam_models::{ClassTargets, NewHead, SequenceClassifier};
use serde_json::{Map, Value, json};

use self::card::Card;
use self::measure::{measure, row_tokens};
use self::open::{Base, precision};
use crate::cards::{self, CARD_FILE};
use crate::config::{EvalData, RowsConfig};
use crate::learner::Objective;
use crate::task::{
    BaseOrigin, EvalRequest, ModelRequest, PredictRequest, Predictions, Prepared, Task,
};
use crate::tasks::pretrained::{
    Adapter, Learned, Loaded, Saved, is_of_class, prepare, token_bytes,
};
use crate::{Metrics, Result, Stop};

/// Rows of text with their classes.
///
/// The head of a checkpoint that has one keeps its labels; for one that has none a new head is made, with the distinct
/// labels of the training files. Either is trained beside what the method trains.
#[derive(Debug)]
pub struct SequenceClassification {
    train: ClassRows,
    eval: Option<ClassRows>,
    /// Which rows a micro-batch has.
    plan: BatchPlan,
    kind: LabelKind,
    card: Card,
    /// `config.json` of the base.
    config: Map<String, Value>,
    result: Saved,
}

/// Rows that a model has seen or will see: their tokens and their classes.
#[derive(Debug, Clone, Default)]
struct ClassRows {
    encoded: Vec<EncodedRow>,
    classes: Vec<Vec<usize>>,
    /// What each row says.
    contents: Vec<ContentHash>,
    /// The file of each row.
    paths: Vec<Arc<Path>>,
    /// Rows that were left out.
    skipped: Skipped,
    files: Vec<FileDigest>,
}

impl ClassRows {
    /// Reads texts with labels, and says how many rows were left out.
    fn read(
        paths: &[PathBuf],
        options: &RowsOptions,
        on_error: OnError,
    ) -> Result<(Rows<TextRow>, Skipped)> {
        let rows = text_rows(read_rows(paths, &LABELLED_TEXT, options)?);
        let (files, left_out) = (rows.files.clone(), rows.left_out.clone());
        let (rows, skipped) = rows.settle(on_error)?;
        let rows = rows.into_iter().map(Ok).collect();
        let rows = Rows {
            rows,
            files,
            left_out,
        };
        Ok((rows, skipped))
    }

    /// Finds the classes of rows and makes tokens of their texts.
    fn encode(
        rows: Rows<TextRow>,
        labels: &Labels,
        (base, length): (&Base, usize),
        on_error: OnError,
        watch: Stop<'_>,
    ) -> Result<Self> {
        let files = rows.files.clone();
        let classified = labels.classes(rows)?;
        let encoded = encode_rows(classified, &base.tokenizer, length, |row| &row.text, watch)?;
        let (rows, skipped) = encoded.settle(on_error)?;
        let contents = rows.iter().map(|(row, _)| row.text.content()).collect();
        let paths = rows
            .iter()
            .map(|(row, _)| Arc::clone(&row.text.place.path))
            .collect();
        let (classes, encoded): (Vec<_>, Vec<_>) = rows
            .into_iter()
            .map(|(row, encoded)| (row.classes, encoded))
            .unzip();
        let types = encoded.iter().flat_map(|row| &row.type_ids);
        base.check_types(types.copied().max().unwrap_or(0))?;
        Ok(Self {
            encoded,
            classes,
            contents,
            paths,
            skipped,
            files,
        })
    }

    /// Holds rows out by their contents: what is learned, what is held out in an order that does not depend on that of the
    /// files, and how much that is of each file.
    fn hold_out(self, size: Size, seed: u64) -> Result<(Self, Self, Vec<FileShare>)> {
        let held_out = hold_out(&self.contents, size, seed)?;
        let mut counts: HashMap<&Path, (usize, usize)> = HashMap::new();
        for (path, is_held_out) in self.paths.iter().zip(&held_out) {
            let (chosen, of) = counts.entry(path).or_default();
            *chosen += usize::from(*is_held_out);
            *of += 1;
        }
        let shares = self.files.iter().map(|file| {
            let count = counts.get(&*file.path);
            let (held_out, of) = count.copied().unwrap_or_default();
            FileShare {
                file: file.path.clone(),
                held_out,
                of,
                unit: Unit::Rows,
            }
        });
        let shares = shares.collect();
        let (mut train, mut chosen) = (Self::default(), Vec::new());
        let rows = self.encoded.into_iter().zip(self.classes);
        for ((row, content), is_held_out) in rows.zip(self.contents).zip(held_out) {
            if is_held_out {
                chosen.push((content, row));
            } else {
                train.encoded.push(row.0);
                train.classes.push(row.1);
            }
        }
        chosen.sort_by_key(|(content, _)| *content);
        let (encoded, classes) = chosen.into_iter().map(|(_, row)| row).unzip();
        let eval = Self {
            encoded,
            classes,
            ..Self::default()
        };
        Ok((train, eval, shares))
    }

    /// Rows of which tokens were cut off.
    fn truncated(&self) -> usize {
        self.encoded.iter().filter(|row| row.truncated).count()
    }
}

impl Objective for SequenceClassification {
    type Model = SequenceClassifier;

    fn weight(&self, pass: u64) -> f64 {
        self.plan.batch_len(pass) as f64
    }

    fn epochs(&self, pass: u64) -> Option<f64> {
        Some(self.plan.epochs_before(pass))
    }

    fn loss(
        &self,
        model: &SequenceClassifier,
        pass: u64,
        total: f64,
        context: &ForwardContext,
    ) -> Result<Tensor<1>> {
        let rows = self.plan.batch(pass);
        let batch = RowBatch::concat(rows.iter().map(|row| &self.train.encoded[*row]));
        let classes: Vec<Vec<usize>> = rows
            .iter()
            .map(|row| self.train.classes[*row].clone())
            .collect();
        let single: Vec<usize>;
        let targets = match self.kind {
            LabelKind::One => {
                single = classes.concat();
                ClassTargets::One(&single)
            }
            LabelKind::Several => ClassTargets::Several(&classes),
        };
        let scale = (1.0 / total) as f32;
        Ok(model.loss(row_tokens(&batch), targets, scale, context))
    }
}

impl Task for SequenceClassification {
    const NAME: &'static str = "sequence-classification";
    const SUMMARY: &'static str = "classifies texts or pairs of texts";
    const UNIT: &'static str = "rows";
    const TASK_TYPE: Option<&'static str> = Some("SEQ_CLS");

    type Config = RowsConfig;

    fn recognizes(config: &Value) -> bool {
        is_of_class(config, &["ForSequenceClassification"])
    }

    fn prepare(config: &RowsConfig, hub: &HubOptions, watch: Stop<'_>) -> Result<Prepared<Self>> {
        let (data, train_config) = (&config.data, &config.train);
        let request = ModelRequest::new(&config.model.path).with_catalog(config.catalog.clone());
        let base = Base::open(&request, &config.model.hub(hub), config.model.dropout)?;
        let length = base.length(train_config.sequence_length);
        let options = data.options();
        let (texts, mut skipped) = ClassRows::read(&data.train, &options, data.on_error)?;
        let mut left_out = texts.left_out.clone();
        let adapter = Adapter::load(config)?;
        let labels =
            match base.labels_with(adapter.as_ref().map(|a| (&*a.directory, &a.tensors)))? {
                Some(labels) => labels,
                None => Labels::of_training(texts.rows.iter().flatten())?,
            };
        let all = ClassRows::encode(texts, &labels, (&base, length), data.on_error, watch)?;
        skipped.append(all.skipped.clone());
        let mut files = all.files.clone();
        let (train, eval, held_out) = match &data.eval {
            EvalData::Files(paths) => {
                let (texts, unread) = ClassRows::read(paths, &options, data.on_error)?;
                left_out.extend(texts.left_out.iter().cloned());
                let eval =
                    ClassRows::encode(texts, &labels, (&base, length), data.on_error, watch)?;
                skipped.append(unread);
                skipped.append(eval.skipped.clone());
                files.extend(eval.files.iter().cloned());
                (all, Some(eval), Vec::new())
            }
            EvalData::Fraction(0.0) => (all, None, Vec::new()),
            EvalData::Fraction(fraction) => {
                let size = Size {
                    fraction: *fraction,
                    max: data.eval_max.unwrap_or(u64::MAX),
                };
                let (train, eval, held_out) = all.hold_out(size, train_config.seed)?;
                (train, Some(eval), held_out)
            }
        };
        let new_head = NewHead {
            seed: train_config.seed,
        };
        let precision = precision(train_config.precision);
        let learned = Learned {
            count: train.encoded.len(),
            tokens: train.encoded.iter().map(|row| row.ids.len()).sum(),
            shuffle: data.shuffle,
            facts: json!({
                "train_rows": train.encoded.len(),
                "eval_rows": eval.as_ref().map_or(0, |eval| eval.encoded.len()),
                "labels": labels.names(),
                "sequence_length": length,
                "truncated": train.truncated(),
                "skipped": skipped.count,
                "skipped_rows": skipped.first,
                "left_out": left_out,
                "held_out": held_out,
            }),
            files,
        };
        let model = base.load(labels.len(), Some(new_head), precision)?;
        let loaded = Loaded {
            token_bytes: token_bytes(model.architecture(), precision),
            model,
            from: base.files.clone(),
            files: BaseOrigin::FILES.to_vec(),
            tokenizer: base.tokenizer.digest().clone(),
            precision,
            warnings: Vec::new(),
            adapter,
        };
        let adapt = |model: SequenceClassifier, _: &[_], meta: &mut AdapterMeta| {
            meta.modules_to_save = vec![model.classifier.path().to_owned()];
            model.with_trained_head()
        };
        prepare(config, loaded, learned, adapt, |plan, result| Self {
            train,
            eval,
            plan,
            kind: labels.kind(),
            card: Card::new(&labels, length, &options),
            config: base.files.json().json.map().clone(),
            result,
        })
    }

    fn evaluate(&self, model: &SequenceClassifier, stop: Stop<'_>) -> Result<Option<Metrics>> {
        let eval = self.eval.as_ref();
        eval.map(|eval| measure(model, eval, self.kind, stop))
            .transpose()
    }

    fn save(&self, model: &SequenceClassifier, directory: &Path) -> Result<()> {
        let whole = || {
            let (card, config) = (self.card.clone(), self.config.clone());
            let config = card.into_config(config, model.head().class);
            (model.valid().to_tensors(), config)
        };
        let card = cards::text(&self.card);
        self.result
            .save(model, directory, &[(CARD_FILE, &card)], whole)
    }

    fn eval(request: &EvalRequest, hub: &HubOptions, stop: Stop<'_>) -> Result<Metrics> {
        measure::eval(request, hub, stop)
    }

    fn predict(
        request: &PredictRequest,
        hub: &HubOptions,
        stop: Stop<'_>,
        rows: &mut dyn Predictions,
    ) -> Result<()> {
        measure::predict(request, hub, stop, rows)
    }
}
