//! The task `sequence-classification`: classifying rows of text.

mod card;
mod measure;
mod open;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use reparam::ForwardContext;
use reparam::methods::{self, AdapterMeta, MethodConfig};
use reparam_data::rows::{
    LABELLED_TEXT, LabelKind, Labels, OnError, RowBatch, Rows, RowsOptions, TextRow, encode_rows,
    hold_out, read_rows, text_rows,
};
use reparam_data::{BatchPlan, EncodedRow, FileDigest};
use reparam_formats::hub::HubOptions;
use reparam_models::{ClassTargets, NewHead, SequenceClassifier};
use serde_json::{Map, Value, json};

use self::card::Card;
use self::measure::{measure, row_tokens};
use self::open::{Base, precision};
use crate::cards::{self, CARD_FILE};
use crate::config::{EvalData, RowsConfig};
use crate::export::save_model;
use crate::learner::{ModuleLearner, Objective};
use crate::task::{
    BaseOrigin, EvalRequest, ModelRequest, Origins, PredictRequest, Predictions, Prepared,
    ResultKind, RunFacts, RunPlan, Task,
};
use crate::{Metrics, Stop, TrainError};

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
    result: Saved,
}

/// What a run results in.
#[derive(Debug)]
enum Saved {
    /// An adapter in PEFT's format, with the head.
    Adapter(Arc<dyn MethodConfig>, Box<AdapterMeta>),
    /// The model with its effective weights, beside what its base's directory has.
    Model {
        base: PathBuf,
        config: Map<String, Value>,
    },
}

/// Rows that a model has seen or will see: their tokens and their classes.
#[derive(Debug, Clone, Default)]
struct ClassRows {
    encoded: Vec<EncodedRow>,
    classes: Vec<Vec<usize>>,
    /// Rows that were left out.
    skipped: usize,
    files: Vec<FileDigest>,
}

impl ClassRows {
    /// Reads texts with labels, and says how many rows were left out.
    fn read(
        paths: &[PathBuf],
        options: &RowsOptions,
        on_error: OnError,
    ) -> Result<(Rows<TextRow>, usize), TrainError> {
        let rows = text_rows(read_rows(paths, &LABELLED_TEXT, options)?);
        let files = rows.files.clone();
        let (rows, skipped) = rows.settle(on_error)?;
        let rows = rows.into_iter().map(Ok).collect();
        Ok((Rows { rows, files }, skipped.count))
    }

    /// Finds the classes of rows and makes tokens of their texts.
    fn encode(
        rows: Rows<TextRow>,
        labels: &Labels,
        base: &Base,
        length: usize,
        on_error: OnError,
    ) -> Result<Self, TrainError> {
        let files = rows.files.clone();
        let classified = labels.classes(rows)?;
        let encoded = encode_rows(classified, &base.tokenizer, length, |row| &row.text);
        let (rows, skipped) = encoded.settle(on_error)?;
        let (classes, encoded): (Vec<_>, Vec<_>) = rows
            .into_iter()
            .map(|(row, encoded)| (row.classes, encoded))
            .unzip();
        let types = encoded.iter().flat_map(|row| &row.type_ids);
        base.check_types(types.copied().max().unwrap_or(0))?;
        Ok(Self {
            encoded,
            classes,
            skipped: skipped.count,
            files,
        })
    }

    fn subset(&self, rows: &[usize]) -> Self {
        Self {
            encoded: rows.iter().map(|row| self.encoded[*row].clone()).collect(),
            classes: rows.iter().map(|row| self.classes[*row].clone()).collect(),
            ..Self::default()
        }
    }

    /// Rows of which tokens were cut off.
    fn truncated(&self) -> usize {
        self.encoded.iter().filter(|row| row.truncated).count()
    }
}

impl Objective for SequenceClassification {
    type Model = SequenceClassifier;

    fn weight(&self, pass: u64) -> f64 {
        self.plan.batch(pass).len() as f64
    }

    fn loss(
        &self,
        model: &SequenceClassifier,
        pass: u64,
        total: f64,
        context: &ForwardContext,
    ) -> Result<Tensor<1>, TrainError> {
        let rows = self.plan.batch(pass);
        let batch = RowBatch::concat(rows.iter().map(|row| &self.train.encoded[*row]));
        let classes: Vec<Vec<usize>> = rows
            .iter()
            .map(|row| self.train.classes[*row].clone())
            .collect();
        let scale = (1.0 / total) as f32;
        Ok(match self.kind {
            LabelKind::One => {
                let classes: Vec<usize> = classes.into_iter().flatten().collect();
                model.loss(
                    row_tokens(&batch),
                    ClassTargets::One(&classes),
                    scale,
                    context,
                )
            }
            LabelKind::Several => model.loss(
                row_tokens(&batch),
                ClassTargets::Several(&classes),
                scale,
                context,
            ),
        })
    }
}

impl Task for SequenceClassification {
    const NAME: &'static str = "sequence-classification";
    const SUMMARY: &'static str = "classifies texts or pairs of texts";
    const UNIT: &'static str = "rows";
    const TASK_TYPE: Option<&'static str> = Some("SEQ_CLS");

    type Config = RowsConfig;

    fn recognizes(config: &Value) -> bool {
        let named = config["architectures"].as_array().into_iter().flatten();
        named
            .filter_map(Value::as_str)
            .any(|name| name.ends_with("ForSequenceClassification"))
    }

    fn prepare(config: &RowsConfig, hub: &HubOptions) -> Result<Prepared<Self>, TrainError> {
        let (data, train_config) = (&config.data, &config.train);
        let request = ModelRequest::new(&config.model.path).with_catalog(config.catalog.clone());
        let base = Base::open(&request, &config.model.hub(hub), config.model.dropout)?;
        let length = base.length(train_config.sequence_length);
        let options = data.options();
        let (texts, skipped) = ClassRows::read(&data.train, &options, data.on_error)?;
        let labels = match base.labels()? {
            Some(labels) => labels,
            None => Labels::of_training(texts.rows.iter().flatten())?,
        };
        let all = ClassRows::encode(texts, &labels, &base, length, data.on_error)?;
        let skipped = skipped + all.skipped;
        let mut files = all.files.clone();
        let (train, eval) = match &data.eval {
            EvalData::Files(paths) => {
                let (texts, _) = ClassRows::read(paths, &options, data.on_error)?;
                let eval = ClassRows::encode(texts, &labels, &base, length, data.on_error)?;
                files.extend(eval.files.iter().cloned());
                (all, Some(eval))
            }
            EvalData::Fraction(0.0) => (all, None),
            EvalData::Fraction(fraction) => {
                let (train, held_out) = hold_out(all.encoded.len(), *fraction, train_config.seed)?;
                (all.subset(&train), Some(all.subset(&held_out)))
            }
        };
        let max_steps = train_config.steps(train.encoded.len());
        let method = config.catalog.method(&config.method, max_steps)?;
        let new_head = NewHead {
            seed: train_config.seed,
        };
        let precision = precision(train_config.precision);
        let model = base.load(labels.len(), Some(new_head), precision)?;
        let model_parameters = model.num_params();
        let (model, report) = methods::attach(model, &*method, train_config.seed)?;
        let model = model.with_trained_head().train();
        let head = model.classifier.path().to_owned();
        let kind = if method.spec().peft.is_some() {
            ResultKind::Adapter
        } else {
            ResultKind::Model
        };
        let result = match kind {
            ResultKind::Model => Saved::Model {
                base: base.directory.clone(),
                config: base.json.json.map().clone(),
            },
            ResultKind::Adapter => {
                let meta = AdapterMeta {
                    base_model_name_or_path: Some(config.model.path.clone()),
                    revision: config.model.revision.clone(),
                    task_type: Self::TASK_TYPE.map(str::to_owned),
                    modules_to_save: vec![head],
                    ..AdapterMeta::new(&*method, &report.modules)
                };
                // What cannot be written is known before the first step, not after the last.
                methods::to_adapter(&model, &*method, &meta)?;
                Saved::Adapter(method.clone(), Box::new(meta))
            }
        };
        let optimizer = config
            .catalog
            .optimizer(&config.optimizer, &config.method, max_steps)?;
        optimizer.check(&model).map_err(TrainError::Update)?;
        let plan = BatchPlan::new(
            train.encoded.len(),
            train_config.batch_size,
            train_config.seed,
            data.shuffle,
        )?;
        let facts = RunFacts {
            model: config.model.path.clone(),
            method: config.method.kind.clone(),
            model_parameters,
            targets: report
                .modules
                .into_iter()
                .map(|module| module.module)
                .collect(),
            scaling: method.scaling(),
            batch_size: train_config.batch_size,
            precision: precision.name().to_owned(),
            learning_rate: config.optimizer.learning_rate,
            lambda: config.optimizer.update.lambda(max_steps),
            data: facts(&train, eval.as_ref(), &labels, (length, skipped)),
        };
        let origins = Origins {
            base: Some(BaseOrigin {
                model: config.model.path.clone(),
                revision: config.model.revision.clone(),
                directory: base.directory.clone(),
                files: BaseOrigin::FILES.to_vec(),
            }),
            tokenizer: Some(base.tokenizer.digest().clone()),
            data: files,
        };
        Ok(Prepared {
            learner: ModuleLearner {
                objective: Self {
                    train,
                    eval,
                    plan,
                    kind: labels.kind(),
                    card: Card::new(&labels, length, &options),
                    result,
                },
                model,
                seed: train_config.seed,
                accumulation: train_config.gradient_accumulation as u64,
                methods: config.catalog.methods.clone(),
            },
            optimizer,
            plan: RunPlan::new(train_config, max_steps, kind),
            facts,
            origins,
        })
    }

    fn evaluate(
        &self,
        model: &SequenceClassifier,
        stop: Stop<'_>,
    ) -> Result<Option<Metrics>, TrainError> {
        let eval = self.eval.as_ref();
        eval.map(|eval| measure(model, eval, self.kind, stop))
            .transpose()
    }

    fn save(&self, model: &SequenceClassifier, directory: &Path) -> Result<(), TrainError> {
        match &self.result {
            Saved::Adapter(method, meta) => {
                let files = methods::to_adapter(model, &**method, meta)?;
                Ok(files.save_with(directory, &[(CARD_FILE, &cards::text(&self.card))])?)
            }
            Saved::Model { base, config } => {
                let config = self
                    .card
                    .clone()
                    .into_config(config.clone(), model.head().class);
                save_model(model.valid().to_tensors(), base, &config, directory)
            }
        }
    }

    fn eval(
        request: &EvalRequest,
        hub: &HubOptions,
        stop: Stop<'_>,
    ) -> Result<Metrics, TrainError> {
        measure::eval(request, hub, stop)
    }

    fn predict(
        request: &PredictRequest,
        hub: &HubOptions,
        stop: Stop<'_>,
        rows: &mut dyn Predictions,
    ) -> Result<(), TrainError> {
        measure::predict(request, hub, stop, rows)
    }
}

fn facts(
    train: &ClassRows,
    eval: Option<&ClassRows>,
    labels: &Labels,
    (length, skipped): (usize, usize),
) -> Map<String, Value> {
    let facts = json!({
        "train_rows": train.encoded.len(),
        "eval_rows": eval.map_or(0, |eval| eval.encoded.len()),
        "labels": labels.names(),
        "sequence_length": length,
        "truncated": train.truncated(),
        "skipped": skipped,
    });
    match facts {
        Value::Object(facts) => facts,
        _ => Map::new(),
    }
}
