//! Tasks over rows of text, with a head on a pretrained encoder: classes of rows or of words, spans.
//!
//! What such a task is, is a [`RowTask`]; [`OverRows`] makes a task of it. A row may be seen through several windows, each of which
//! is an example to learn.

mod card;
mod confusion;
mod explain;
pub(super) mod measure;
mod open;
mod preprocess;
mod seen;
mod set;
pub(super) mod threshold;
pub(super) mod vectors;
pub(super) mod weights;

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Tensor;
use reparam::ForwardContext;
use reparam::methods::AdapterMeta;
use reparam::schema::Settings;
use reparam_data::rows::{Labels, RowBatch, RowFormat, Rows, RowsOptions};
use reparam_data::{BatchPlan, ContentHash, DocumentSource, EncodedRow, TextTokenizer};
use reparam_formats::hub::HubOptions;
use reparam_models::architecture::PredictorSpec;
use reparam_models::{Architecture, NewModel, Predictor};
use serde_json::{Map, Value, json};

use self::card::Card;
pub use self::confusion::{CONFUSION, Confusion};
use self::measure::{measure, row_tokens};
use self::open::{Base, precision};
use self::preprocess::{inherited, preprocessor, to_learn, to_predict};
use self::set::Set;
use self::threshold::{Thresholds, thresholds};
use crate::cards::{self, CARD_FILE};
use crate::config::{EvalData, RowsConfig, RowsKeys};
use crate::explain::{ExplainRequest, Explanation, Shown};
use crate::learner::Objective;
use crate::new_model::Recipe;
use crate::open::data_files;
use crate::preflight::Footprint;
use crate::seen::{Look, Seen, Token};
use crate::task::{
    BOOTSTRAP, BaseOrigin, EvalRequest, PredictRequest, Predictions, Prepared, Task,
};
use crate::tasks::pretrained::{
    Adapter, Beginning, Learned, Loaded, Saved, check_recompute, findings, is_of_class, prepare,
    token_bytes,
};
use crate::{Metrics, Result, Stop, TrainError};

/// What rows are read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To learn from: they have to say what is right, and where.
    Learn,
    /// To measure with: they have to say what is right.
    Measure,
    /// To predict from.
    Predict,
}

/// A row as a model sees it.
#[derive(Debug, Clone)]
pub struct Item<T: RowTask> {
    /// What is read of it, one after the other; at least one.
    pub windows: Vec<Window<T::Target>>,
    /// What is needed to measure it, or to say what is predicted.
    pub about: T::About,
    /// What it says.
    pub content: ContentHash,
    /// Where it stands.
    pub place: DocumentSource,
    /// Whether a part of it is in none of the windows.
    pub truncated: bool,
}

/// A part of a row that a model sees at once.
#[derive(Debug, Clone)]
pub struct Window<T> {
    /// Its tokens.
    pub row: EncodedRow,
    /// What is right of it; empty where nothing is known.
    pub target: T,
}

/// What the outputs of a model mean, and what a run file says of that.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The classes of the model; of a task without, any.
    pub labels: Labels,
    /// The settings of [`RowTask::Keys`], or their defaults.
    pub settings: Settings,
    /// How much each class weighs in the training loss; none if all weigh the same.
    pub class_weights: Vec<f32>,
    /// The probability from which each class is predicted; none where classes exclude one another.
    pub thresholds: Vec<f64>,
}

impl Rules {
    /// What outputs mean where nothing was chosen on rows.
    pub(super) fn new(labels: Labels, settings: Settings) -> Self {
        let rules = Self {
            labels,
            settings,
            class_weights: Vec::new(),
            thresholds: Vec::new(),
        };
        rules.with_thresholds(&Thresholds::new())
    }

    /// Takes the thresholds that were chosen for some labels.
    fn with_thresholds(self, chosen: &Thresholds) -> Self {
        Self {
            thresholds: thresholds(&self, chosen),
            ..self
        }
    }

    /// The weight of a class in the training loss.
    pub(super) fn class_weight(&self, class: usize) -> f32 {
        self.class_weights.get(class).copied().unwrap_or(1.0)
    }
}

/// What rows are encoded with.
#[derive(Debug)]
pub struct Encoder<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a TextTokenizer,
    /// What the outputs of the model mean.
    pub rules: &'a Rules,
    /// The most tokens of a window.
    pub length: usize,

    /// What long work looks at.
    pub watch: Stop<'a>,
}

/// The outputs of a model for one window, row-major: of the window, or of each of its tokens.
pub type Outputs = Vec<f32>;

/// A task over rows of text: how rows are read, what is right, what it costs to be wrong, and what is said of it.
pub trait RowTask: fmt::Debug + Sized + 'static {
    /// As [`Task::NAME`].
    const NAME: &'static str;
    /// As [`Task::SUMMARY`].
    const SUMMARY: &'static str;
    /// As [`Task::UNIT`].
    const UNIT: &'static str;
    /// As [`Task::TASK_TYPE`].
    const TASK_TYPE: &'static str;
    /// As [`Task::FILE`].
    const FILE: Option<&'static str> = None;
    /// How the names of transformers' classes for it end; empty if there are none.
    const CLASS: &'static str;
    /// What the head is for, in an error.
    const HEAD: &'static str;
    /// Whether its outputs are classes with names.
    const HAS_LABELS: bool = true;
    /// Whether all windows of a row are learned together; otherwise each by itself.
    const TOGETHER: bool = false;
    /// Whether a row may have several classes, so that a model has to say which of the two is meant.
    const MAY_HAVE_SEVERAL: bool = false;
    /// The most tokens of a window, where nothing else is asked for.
    const LENGTH: usize;
    /// As [`Task::OPTIONS`].
    const OPTIONS: &'static [&'static str] = &[BOOTSTRAP];
    /// The options of explanations that it looks at; `None` if there is nothing to explain.
    const EXPLAINED: Option<&'static [&'static str]> = None;
    /// The files of the model's directory that say more of it than `config.json`.
    const FILES: &'static [&'static str] = &[];
    /// The heading of predictions that are lines.
    fn header(rules: &Rules) -> &'static str;

    /// What its `[data]` may say beside what all may.
    type Keys: RowsKeys<Format = RowFormat>;
    /// A row as it is read.
    type Row: fmt::Debug + Send;
    /// What is right of a window.
    type Target: fmt::Debug + Clone + Send + Sync;
    /// What is known of a row besides.
    type About: fmt::Debug + Clone + Send + Sync;
    /// What a row adds to the metrics.
    type Scored: fmt::Debug + 'static;

    /// Finds the head that is its own; `None` if the family has none. `file` gives a file of the model's directory by its name.
    ///
    /// # Errors
    ///
    /// A file that says of the head what cannot be done.
    fn head(
        architecture: &Architecture,
        file: &dyn Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Option<PredictorSpec>>;

    /// Returns the most tokens of a window that a model itself asks for. `file` is as for [`head`](Self::head).
    fn length(_file: &dyn Fn(&str) -> Option<Vec<u8>>) -> usize {
        Self::LENGTH
    }

    /// Reads rows.
    ///
    /// # Errors
    ///
    /// Files that cannot be read.
    fn read(paths: &[PathBuf], options: &RowsOptions, purpose: Purpose) -> Result<Rows<Self::Row>>;

    /// Returns the texts of a row: what the tokenizer of a new model is trained on.
    fn texts(row: &Self::Row) -> Vec<Cow<'_, str>>;

    /// Returns the texts of a row that may be changed before they become tokens; its [`Keys`](Self::Keys) then say what is done.
    fn texts_mut(_row: &mut Self::Row) -> Vec<&mut String> {
        Vec::new()
    }

    /// Returns the labels for a new head.
    ///
    /// # Errors
    ///
    /// Rows without labels, or with one label alone.
    fn labels<'a>(rows: impl Iterator<Item = &'a Self::Row>) -> Result<Labels>;

    /// Makes tokens of rows, which say what is right if `has_targets`. One that is wrong becomes an error in its place.
    ///
    /// # Errors
    ///
    /// [`TrainError::Interrupted`] when it is asked for; labels that can be read in two ways.
    fn encode(
        rows: Rows<Self::Row>,
        encoder: &Encoder<'_>,
        has_targets: bool,
    ) -> Result<Rows<Item<Self>>>;

    /// Checks rows to learn from or to measure on, before the first step.
    ///
    /// # Errors
    ///
    /// Rows that the settings cannot be followed with, or that nothing can be measured on.
    fn check(_items: &[Item<Self>], _rules: &Rules, _purpose: Purpose) -> Result<()> {
        Ok(())
    }

    /// Returns how many rows of each class are learned from; `None` for all rows.
    ///
    /// # Errors
    ///
    /// Settings that cannot be followed.
    fn few(_rules: &Rules) -> Result<Option<usize>> {
        Ok(None)
    }

    /// Returns the class of a row, where [`few`](Self::few) are asked for.
    fn class(_item: &Item<Self>) -> usize {
        0
    }

    /// Returns the weight of each class in the training loss; nothing if all weigh the same.
    ///
    /// # Errors
    ///
    /// Weights that do not fit the labels.
    fn class_weights(_items: &[Item<Self>], _rules: &Rules) -> Result<Vec<f32>> {
        Ok(Vec::new())
    }

    /// Returns how much a window weighs in the training loss.
    fn weight(target: &Self::Target, rules: &Rules) -> f64;

    /// Returns the scaled sum of the losses of a batch, `[1]`, from the outputs of its windows or of their tokens.
    fn loss(
        outputs: Tensor<2>,
        batch: &RowBatch,
        targets: &[&Self::Target],
        rules: &Rules,
        scale: f32,
    ) -> Result<Tensor<1>>;

    /// Measures a row by the outputs of each of its windows.
    fn score(item: &Item<Self>, outputs: &[Outputs], rules: &Rules) -> Self::Scored;

    /// Returns the metrics of rows.
    ///
    /// # Errors
    ///
    /// Rows that nothing can be measured on.
    fn metrics<'a>(
        scored: impl Iterator<Item = &'a Self::Scored>,
        rules: &Rules,
    ) -> Result<Metrics>;

    /// Makes of measured rows what can be drawn again for confidence intervals, each independent of the others.
    fn drawable(scored: Vec<Self::Scored>) -> Vec<Self::Scored> {
        scored
    }

    /// The classes of a row of which thresholds are chosen; `None` of a task without.
    fn classes(_item: &Item<Self>) -> Option<&[usize]> {
        None
    }

    /// Returns the labels that are right of a row, each as often as it is learned; of a task with labels.
    fn labels_of(item: &Item<Self>) -> Vec<usize> {
        Self::classes(item).unwrap_or_default().to_vec()
    }

    /// Returns the tokens of a window, with what is learned of them, and what the window is; by default all are read alone.
    fn shown(window: &Window<Self::Target>, _rules: &Rules) -> (Vec<Token>, Option<String>) {
        (plain_tokens(&window.row), None)
    }

    /// Returns how often each label is predicted as each, of labels that exclude one another.
    fn confusion(_scored: &[Self::Scored], _rules: &Rules) -> Option<Confusion> {
        None
    }

    /// Measures a model without a head by the examples of the request; of a task with [`EXAMPLES`](crate::EXAMPLES) among its
    /// options.
    ///
    /// # Errors
    ///
    /// [`TrainError::Examples`], and rows that cannot be measured.
    fn eval_by_examples(_: &EvalRequest, _: &HubOptions, _: Stop<'_>) -> Result<Metrics> {
        Err(TrainError::not_for_task(Self::NAME, "asked by examples"))
    }

    /// Predicts rows as [`eval_by_examples`](Self::eval_by_examples) measures them.
    ///
    /// # Errors
    ///
    /// As that.
    fn predict_by_examples(
        _: &PredictRequest,
        _: &HubOptions,
        _: Stop<'_>,
        _: &mut dyn Predictions,
    ) -> Result<()> {
        Err(TrainError::not_for_task(Self::NAME, "asked by examples"))
    }

    /// Makes tokens of a text to explain, with what is shown of it, and the place of the token whose output is explained.
    ///
    /// # Errors
    ///
    /// A text that cannot be encoded, or a word that it does not have.
    fn to_explain(
        _request: &ExplainRequest,
        _encoder: &Encoder<'_>,
    ) -> Result<(EncodedRow, Shown, Option<usize>)> {
        Err(TrainError::not_for_task(Self::NAME, "explained"))
    }

    /// Says what is predicted of a row: as an object, and as a line without the row's number.
    fn prediction(item: &Item<Self>, outputs: &[Outputs], rules: &Rules) -> (Value, String);
}

/// The tokens of a row, none of which is learned.
pub(super) fn plain_tokens(row: &EncodedRow) -> Vec<Token> {
    row.ids.iter().copied().map(Token::given).collect()
}

/// The data of one run of a task over rows.
///
/// The head of a checkpoint that has one keeps its labels; for one that has none a new head is made, with the distinct
/// labels of the training files. Either is trained beside what the method trains.
#[derive(Debug)]
pub struct OverRows<T: RowTask> {
    train: Set<T>,
    eval: Option<Set<T>>,
    /// Which windows a micro-batch has, or rows if they are learned together.
    plan: BatchPlan,
    rules: Rules,
    /// The most tokens of a window.
    length: usize,
    card: Card,
    /// `config.json` of the base.
    config: Map<String, Value>,
    result: Saved,
}

impl<T: RowTask> Objective for OverRows<T> {
    type Model = Predictor;

    fn weight(&self, pass: u64) -> f64 {
        let windows = self.train.windows(&self.plan.batch(pass)).into_iter();
        windows
            .map(|window| T::weight(&window.target, &self.rules))
            .sum()
    }

    fn epochs(&self, pass: u64) -> Option<f64> {
        Some(self.plan.epochs_before(pass))
    }

    fn tokens(&self, pass: u64) -> usize {
        let windows = self.train.windows(&self.plan.batch(pass)).into_iter();
        windows.map(|window| window.row.ids.len()).sum()
    }

    fn loss(
        &self,
        model: &Predictor,
        pass: u64,
        total: f64,
        context: &ForwardContext,
    ) -> Result<Tensor<1>> {
        let windows = self.train.windows(&self.plan.batch(pass));
        let batch = RowBatch::concat(windows.iter().map(|window| &window.row));
        let targets: Vec<&T::Target> = windows.iter().map(|window| &window.target).collect();
        let outputs = model.outputs(row_tokens(&batch), context);
        let scale = (1.0 / total) as f32;
        T::loss(outputs, &batch, &targets, &self.rules, scale)
    }
}

impl<T: RowTask> Task for OverRows<T> {
    const NAME: &'static str = T::NAME;
    const SUMMARY: &'static str = T::SUMMARY;
    const UNIT: &'static str = T::UNIT;
    const TASK_TYPE: Option<&'static str> = Some(T::TASK_TYPE);
    const FILE: Option<&'static str> = T::FILE;
    const OPTIONS: &'static [&'static str] = T::OPTIONS;

    type Config = RowsConfig<T::Keys>;

    fn recognizes(config: &Value) -> bool {
        !T::CLASS.is_empty() && is_of_class(config, &[T::CLASS])
    }

    fn prepare(
        config: &RowsConfig<T::Keys>,
        hub: &HubOptions,
        watch: Stop<'_>,
    ) -> Result<Prepared<Self>> {
        let (data, train_config) = (&config.data, &config.train);
        let beginning = Beginning::find(config, &config.model.hub(hub))?;
        let options = data.options();
        let files = data_files(&data.train, hub, watch)?;
        let (rows, mut skipped) = Set::<T>::read(&files, &options, data.on_error, Purpose::Learn)?;
        let mut left_out = rows.left_out.clone();
        let own = inherited::<T>(&data.own, &beginning, config.model.adapter.as_deref())?;
        let steps = preprocessor(&own)?;
        let (rows, of_texts) = to_learn::<T>(rows, steps.as_ref());
        let recipe = Recipe::of(config, NewModel::Body);
        let opened = beginning.open(&recipe, || {
            let texts = rows.rows.iter().flatten().flat_map(T::texts);
            Ok(texts.map(Cow::into_owned).collect())
        })?;
        let notes = opened.notes.clone();
        let base = Base::of::<T>(opened)?;
        let length = base.length(train_config.sequence_length);
        let adapter = Adapter::load(config)?;
        let of_head =
            base.labels_with::<T>(adapter.as_ref().map(|a| (&*a.directory, &a.tensors)))?;
        let labels = match of_head {
            Some(labels) => labels,
            None => T::labels(rows.rows.iter().flatten())?,
        };
        let mut rules = Rules::new(labels, own);
        let encoder = Encoder {
            tokenizer: &base.tokenizer,
            rules: &rules,
            length,
            watch,
        };
        let all = Set::<T>::encode(rows, &base, &encoder, data.on_error)?;
        skipped.append(all.skipped.clone());
        let mut files = all.files.clone();
        let (train, eval, held_out) = match &data.eval {
            EvalData::Files(paths) => {
                let of_eval = data_files(paths, hub, watch)?;
                let (rows, unread) =
                    Set::<T>::read(&of_eval, &options, data.on_error, Purpose::Measure)?;
                left_out.extend(rows.left_out.iter().cloned());
                let rows = to_predict::<T>(rows, steps.as_ref());
                let eval = Set::<T>::encode(rows, &base, &encoder, data.on_error)?;
                skipped.append(unread);
                skipped.append(eval.skipped.clone());
                files.extend(eval.files.iter().cloned());
                (all, Some(eval), Vec::new())
            }
            EvalData::Fraction(0.0) => (all, None, Vec::new()),
            EvalData::Fraction(fraction) => {
                let size = reparam_data::Size {
                    fraction: *fraction,
                    max: data.eval_max.unwrap_or(u64::MAX),
                };
                let (train, eval, held_out) = all.hold_out(size, train_config.seed)?;
                (train, Some(eval), held_out)
            }
        };
        let train = match T::few(&rules)? {
            Some(few) => train.few(few, train_config.seed),
            None => train,
        };
        T::check(&train.items, &rules, Purpose::Learn)?;
        if T::MAY_HAVE_SEVERAL {
            threshold::check(&rules, eval.is_some())?;
        }
        rules.class_weights = T::class_weights(&train.items, &rules)?;
        if let Some(eval) = &eval {
            T::check(&eval.items, &rules, Purpose::Measure)?;
        }
        let precision = precision(train_config.precision);
        let mut facts = json!({
            "train_rows": train.items.len(),
            "eval_rows": eval.as_ref().map_or(0, |eval| eval.items.len()),
            "sequence_length": length,
            "truncated": train.truncated(),
            "skipped": skipped.count,
            "skipped_rows": skipped.first,
            "left_out": left_out,
            "held_out": held_out,
        });
        if let Some(report) = of_texts {
            facts["text"] = json!(report);
        }
        if T::HAS_LABELS {
            facts["labels"] = json!(rules.labels.names());
        }
        if !rules.class_weights.is_empty() {
            facts["class_weights"] = json!(rules.class_weights);
        }
        let learned = Learned {
            count: train.n_units(),
            tokens: train.n_tokens(),
            shuffle: data.shuffle,
            facts,
            files,
        };
        let mut model = base.load(rules.labels.len(), Some(train_config.seed), precision)?;
        check_recompute(train_config.recompute, model.architecture(), precision)?;
        model.body.recompute = train_config.recompute;
        let architecture = model.architecture();
        let footprint = Footprint::of(architecture, (precision, train_config.recompute));
        let findings = findings(&notes, &base.tokenizer, architecture);
        let loaded = Loaded {
            new_rows: Vec::new(),
            token_bytes: token_bytes(architecture, precision),
            model,
            from: base.files.clone(),
            files: [&BaseOrigin::FILES[..], T::FILES].concat(),
            tokenizer: base.tokenizer.digest().clone(),
            precision,
            footprint: Some(footprint),
            findings,
            adapter,
        };
        let adapt = |model: Predictor, _: &[_], meta: &mut AdapterMeta| {
            meta.modules_to_save.clone_from(&model.trained);
            model.with_trained_head()
        };
        prepare(config, loaded, learned, adapt, |plan, result| Self {
            train,
            eval,
            plan,
            length,
            card: Card::new::<T>(&rules, length, &options),
            rules,
            config: base.files.json().json.map().clone(),
            result,
        })
    }

    fn evaluate(&self, model: &Predictor, stop: Stop<'_>) -> Result<Option<Metrics>> {
        let eval = self.eval.as_ref();
        eval.map(|eval| measure(model, eval, &self.rules, stop))
            .transpose()
    }

    fn seen(&self, look: &Look<'_>) -> Result<Option<Seen>> {
        seen::seen(self, look).map(Some)
    }

    fn save(&self, model: &Predictor, directory: &Path) -> Result<()> {
        let card = match &self.eval {
            Some(eval) if T::MAY_HAVE_SEVERAL && threshold::is_tuned(&self.rules) => {
                let chosen = measure::thresholds(&model.valid(), eval, &self.rules);
                self.card.clone().with_thresholds(chosen)
            }
            _ => self.card.clone(),
        };
        let whole = || {
            let (card, config) = (card.clone(), self.config.clone());
            let config = card.into_config::<T>(config, model.spec.class);
            (model.valid().to_tensors(), config)
        };
        let text = cards::text(&card);
        self.result
            .save(model, directory, &[(CARD_FILE, &text)], whole)
    }

    fn eval(request: &EvalRequest, hub: &HubOptions, stop: Stop<'_>) -> Result<Metrics> {
        measure::eval::<T>(request, hub, stop)
    }

    fn explain_text(
        request: &ExplainRequest,
        hub: &HubOptions,
        stop: Stop<'_>,
    ) -> Result<Vec<Explanation>> {
        explain::explain::<T>(request, hub, stop)
    }

    fn predict(
        request: &PredictRequest,
        hub: &HubOptions,
        stop: Stop<'_>,
        rows: &mut dyn Predictions,
    ) -> Result<()> {
        measure::predict::<T>(request, hub, stop, rows)
    }
}
