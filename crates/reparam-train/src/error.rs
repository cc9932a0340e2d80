//! Why work on a model could not be done.

mod examples;
mod hint;

use std::path::{Path, PathBuf};

use reparam::methods::MethodError;
use reparam::optim::OptimError;
use reparam_data::preprocess::PreprocessError;
use reparam_data::rows::RowError;
use reparam_data::vocabulary::VocabularyError;
use reparam_data::word_pairs::WordPairError;
use reparam_data::{DataError, DocumentSource, TabularError};
use reparam_formats::FormatError;
use reparam_formats::config::ConfigError as ModelConfigError;
use reparam_formats::gguf::GgufError;
use reparam_formats::hub::HubError;
use reparam_formats::mlx::MlxError;
use reparam_formats::peft::PeftError;
use reparam_formats::word_vectors::WordVectorError;
use reparam_models::ModelError;
use reparam_ops::runtime::RuntimeError;
use thiserror::Error;

pub use self::examples::ExamplesError;
use crate::config::ConfigError;
use crate::event::{Failure, FailureKind};
use crate::merge::MergeError;
use crate::numbers::{bytes, given, readable};
use reparam_formats::{shown, shown_sentence};

/// What work on a model gives.
pub type Result<T, E = TrainError> = std::result::Result<T, E>;

/// Why a run, an evaluation or a generation failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The run file cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model was not found.
    #[error(transparent)]
    Hub(HubError),
    /// A file is missing, damaged or cannot be written.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The model's configuration cannot be used.
    #[error(transparent)]
    ModelConfig(#[from] ModelConfigError),
    /// The adapter cannot be used.
    #[error(transparent)]
    Peft(#[from] PeftError),
    /// The model or adapter cannot be written for llama.cpp.
    #[error(transparent)]
    Gguf(GgufError),
    /// The adapter cannot be one of MLX, or of PEFT.
    #[error(transparent)]
    Mlx(#[from] MlxError),
    /// Adapters could not be merged.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// What was asked for needs more memory than there is.
    #[error("this needs at least {} of memory, and there is {}", bytes(*need), bytes(u128::from(*have)))]
    DoesNotFit {
        /// Bytes that it surely takes.
        need: u128,
        /// Bytes that the process may have.
        have: u64,
        /// The setting that decides the largest part, and the bytes of that.
        largest: (String, u128),
    },
    /// What was found before the first step keeps the run from working.
    #[error("{}", findings.iter().map(|finding| finding.message.as_str()).collect::<Vec<_>>().join("; "))]
    Preflight {
        /// The findings that are errors.
        findings: Vec<crate::preflight::Finding>,
    },
    /// The data or the tokenizer cannot be used.
    #[error(transparent)]
    Data(DataError),
    /// The model cannot be loaded or run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The method cannot be attached.
    #[error(transparent)]
    Phi(#[from] MethodError),
    /// The update's settings cannot be used.
    #[error(transparent)]
    Update(OptimError),
    /// The runtime cannot compute on the calling thread.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A configuration that was put together in code has neither a method nor an adapter.
    #[error("there is neither a method nor an adapter to train")]
    NoMethod,
    /// The output directory is taken.
    #[error("{} already holds a run", directory.display())]
    OutputTaken {
        /// The directory.
        directory: PathBuf,
    },
    /// An adapter has rows for a head that is the table, and others for the table.
    #[error(
        "the adapter has other vectors of tokens for `{head}` than for the table, and they are one weight in its base"
    )]
    TiedTokens {
        /// The path of the head.
        head: String,
    },
    /// An adapter has rows of tokens, and a method on the head that is their table.
    #[error(
        "the adapter adapts the output head `{head}` and has vectors of tokens, and head and table are one weight in its base"
    )]
    TokensAndHead {
        /// The path of the head.
        head: String,
    },
    /// An adapter has tokens of its own, and the model at hand is loaded without them.
    #[error("the adapter in {} has a tokenizer of its own, and the model is loaded with another one", directory.display())]
    AdapterTokenizer {
        /// The directory of the adapter.
        directory: PathBuf,
    },
    /// An adapter has the vector of a token that no tokenizer has.
    #[error("the adapter has the vector of token {index}, and its tokenizer has {tokens} tokens")]
    TokensBeyond {
        /// The token.
        index: usize,
        /// How many there are.
        tokens: usize,
    },
    /// Tokens are to be added to an adapter that is trained on from.
    #[error(
        "`data.add_tokens` cannot be used with `model.adapter`, which is trained on with the tokens that it has"
    )]
    TokensOverAdapter,
    /// A head has a bias, which PEFT would leave out.
    #[error(
        "new tokens cannot be trained in an adapter here: the output head `{head}` has a bias, which PEFT leaves out once rows of it are trained"
    )]
    HeadBias {
        /// The path of the head.
        head: String,
    },
    /// Another process trains in the output directory.
    #[error("another process is training in {}", directory.display())]
    OutputInUse {
        /// The directory.
        directory: PathBuf,
    },
    /// A run was made by an older version, whose events this one does not read.
    #[error("the run in {} was made by another version of this program", directory.display())]
    OldRun {
        /// The directory.
        directory: PathBuf,
    },
    /// A run cannot go on from what it was not made from.
    #[error(
        "cannot resume: {what} is not what the run was started with{}",
        change.as_ref().map_or_else(String::new, |(before, now)| format!(" ({before}, now {now})"))
    )]
    ResumeDiffers {
        /// What differs.
        what: String,
        /// Of a key: its value at the start and its value now.
        change: Option<(String, String)>,
    },
    /// The files of a checkpoint do not belong together.
    #[error("the files of the checkpoint {} are of different steps", path.display())]
    CheckpointMixed {
        /// The checkpoint.
        path: PathBuf,
    },
    /// A model goes on from a state that is not there.
    #[error("the step before has left no state `{name}` of the model's size")]
    NoState {
        /// Its name in the file of the checkpoint.
        name: String,
    },
    /// A state is to be carried of a model that has none.
    #[error("`data.carry_state` has no effect: a model of type {model_type} has no state to carry", model_type = shown(model_type))]
    Stateless {
        /// `model_type` of its `config.json`.
        model_type: String,
    },
    /// The work was asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// A task has no such use.
    #[error("a model for {task} cannot be {what}", task = shown(task))]
    NotForTask {
        /// The task.
        task: String,
        /// What was asked of it.
        what: &'static str,
    },
    /// An option that a task does not look at.
    #[error("{option} has no effect for the task {task}")]
    NoFields {
        /// The task.
        task: &'static str,
        /// The option.
        option: &'static str,
    },
    /// A task makes models of its own architectures alone.
    #[error("a {task} model is a new one of its own architectures, and `{found}` is none", found = shown(found))]
    NeedsArchitecture {
        /// The task.
        task: &'static str,
        /// What the run file names.
        found: String,
        /// The architectures.
        known: &'static [&'static str],
    },
    /// Word vectors are of whole words.
    #[error("word vectors are of whole words, and this tokenizer makes parts of words")]
    NeedsWords,
    /// A word has no vector.
    #[error("`{word}` has no vector in {}", path.display(), word = shown(word))]
    NoVector {
        /// The word.
        word: String,
        /// The vectors.
        path: PathBuf,
    },
    /// Words and vectors have too little in common.
    #[error("too few of the words have vectors; {missing} do not")]
    NoCommonWords {
        /// The words or pairs without.
        missing: usize,
    },
    /// Word vectors are of another length than a model's token vectors.
    #[error("the vectors in {} have {found} numbers, those of the model's tokens {expected}", path.display())]
    VectorWidth {
        /// The file.
        path: PathBuf,
        /// Its numbers.
        found: usize,
        /// The model's.
        expected: usize,
    },
    /// Word vectors cannot be read or written.
    #[error(transparent)]
    WordVectors(#[from] WordVectorError),
    /// Examples for word vectors cannot be made.
    #[error(transparent)]
    WordPairs(#[from] WordPairError),
    /// What is done to texts cannot be done.
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
    /// The tokenizer of a new model cannot be made.
    #[error("the tokenizer of the new model cannot be made: {0}")]
    Vocabulary(#[from] VocabularyError),
    /// The tokenizer of a new model that writes texts cannot end one.
    #[error("the tokenizer of the new model has no token that ends a text")]
    NoSentenceMarks,
    /// A new model has fewer rows than its tokenizer has tokens.
    #[error("the tokenizer has {tokens} tokens, and the model a vocab_size of {rows}")]
    SmallVocabulary {
        /// The tokens.
        tokens: usize,
        /// The rows of the embedding.
        rows: usize,
    },
    /// The family of a new model does not know a key.
    #[error("`{architecture}` models do not read the key `{key}` of model.config", key = shown(key))]
    UnreadKey {
        /// The key.
        key: String,
        /// The family.
        architecture: String,
        /// The keys that it reads.
        known: Vec<String>,
    },
    /// A tokenizer has no token that masks others.
    #[error("the tokenizer in {} has no mask token", directory.display())]
    NoMaskToken {
        /// The model.
        directory: PathBuf,
    },
    /// An adapter has a head, but not all layers that its training drew.
    #[error(
        "the adapter has a head without the layer `{module}`, which neither it nor its base holds"
    )]
    HeadNotSaved {
        /// The layer.
        module: String,
    },
    /// A loss is of rows with other fields.
    #[error("{place}: the loss `{loss}` needs rows with {needs}")]
    LossNeeds {
        /// The first row that has others.
        place: DocumentSource,
        /// The loss.
        loss: &'static str,
        /// The fields.
        needs: &'static str,
    },
    /// An option that a method of explanation does not look at.
    #[error("{option} has no effect with --method {method}")]
    OptionOfMethod {
        /// The option.
        option: &'static str,
        /// The method.
        method: &'static str,
    },
    /// A tokenizer has no token for a baseline.
    #[error("the tokenizer has no {baseline} token")]
    NoSuchBaseline {
        /// The baseline.
        baseline: &'static str,
    },
    /// What attention looks at cannot be had.
    #[error("this model has no attention weights to follow")]
    NoAttention,
    /// The vectors of tokens cannot be had.
    #[error("this model has no table of token vectors that could be varied")]
    NoTokenVectors,
    /// A text without anything to explain.
    #[error("there is nothing to explain: {problem}")]
    NothingToExplain {
        /// Why.
        problem: String,
    },
    /// A label that the model does not have.
    #[error("the model has no label `{label}`", label = shown(label))]
    NoSuchLabel {
        /// The name.
        label: String,
        /// The labels of the model.
        labels: Vec<String>,
    },
    /// A setting or option is for labels of another kind.
    #[error("{option} is for rows with {}, and these labels are of rows with {}",
        if *several { "any number of labels" } else { "one label each" },
        if *several { "one label each" } else { "any number" })]
    WrongLabels {
        /// What was asked for.
        option: &'static str,
        /// Whether it is for rows with any number of labels.
        several: bool,
    },
    /// A weight is given for a label that the model does not have.
    #[error("data.class_weights has `{label}`, which is no label of this model", label = shown(label))]
    WeightOfNoLabel {
        /// The name.
        label: String,
        /// The labels of the model.
        labels: Vec<String>,
    },
    /// Something is chosen on held-out rows, and there are none.
    #[error("{setting} needs held-out rows")]
    NothingHeldOut {
        /// What needs them.
        setting: &'static str,
    },
    /// A run shall be decided by a metric that its task does not measure.
    #[error("the evaluations of this run have no metric `{metric}`", metric = shown(metric))]
    UnknownMetric {
        /// The name.
        metric: String,
        /// The metrics that they have.
        known: Vec<String>,
    },
    /// A run shall be decided by a metric that has no value on what is held out.
    #[error("the metric `{metric}` has no value on the held-out rows", metric = shown(metric))]
    MetricWithoutValue {
        /// The name.
        metric: String,
    },
    /// Rows say nothing that could be measured.
    #[error("there is nothing to compare: all scores or all similarities are the same")]
    NoCorrelation,
    /// All texts are empty.
    #[error("there is no token to mask: all texts are empty")]
    NothingToMask,
    /// Data cannot be read as the run of a model did.
    #[error("{source}")]
    Remembered {
        /// Where it says how that was.
        path: PathBuf,
        /// The options that say otherwise.
        options: &'static str,
        /// What is wrong.
        source: Box<TrainError>,
    },
    /// Rows, or the labels of a model, cannot be used.
    #[error(transparent)]
    Rows(RowError),
    /// A model cannot tell rows apart by examples.
    #[error(transparent)]
    Examples(#[from] ExamplesError),
    /// What a run wrote beside its result cannot be used.
    #[error("{}: {problem}", path.display(), problem = shown_sentence(problem))]
    Card {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The labels of a head are more or fewer than its classes.
    #[error("{} has {n_labels} labels for a head of {n_classes} classes", path.display())]
    LabelCount {
        /// The file with the labels.
        path: PathBuf,
        /// Its labels.
        n_labels: usize,
        /// The rows of the head.
        n_classes: usize,
    },
    /// A token's type has no row in the model.
    #[error("the tokenizer uses token type {found}, but the model has only {rows} types")]
    TokenType {
        /// The largest type.
        found: u32,
        /// The rows of the model's table.
        rows: usize,
    },
    /// What the task of a caller found wrong with its settings, its files or its model.
    #[error(transparent)]
    Task(Box<dyn std::error::Error + Send + Sync>),
    /// Nothing says what a model is for.
    #[error("cannot tell which task {model} is for", model = shown(model))]
    NoTask {
        /// The model.
        model: String,
        /// The tasks that there are.
        tasks: Vec<&'static str>,
    },
    /// A model does not do what is trained where neither run file nor model say what that is.
    #[error("{error}")]
    ModelOfAnotherKind {
        /// What is wrong with it.
        error: ModelError,
        /// How another task is chosen.
        advice: String,
    },
    /// There is no task of a name.
    #[error("no such task: {task}", task = shown(task))]
    UnknownTask {
        /// The name.
        task: String,
        /// The tasks that there are.
        tasks: Vec<&'static str>,
    },
    /// The output directory cannot be made or written.
    #[error("cannot write a run to {}", directory.display())]
    Output {
        /// The directory.
        directory: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// There is no adapter directory where one was named.
    #[error("no such adapter directory: {}", directory.display())]
    NoSuchAdapter {
        /// The path.
        directory: PathBuf,
    },
    /// An adapter was given as a model, and what its base is cannot be told or has no place.
    #[error("{} is an adapter, not a model", adapter.display())]
    AdapterAsModel {
        /// Its directory.
        adapter: PathBuf,
        /// The base, as far as the adapter says it.
        base: Option<String>,
    },
    /// The base that an adapter says it was trained on is not found.
    #[error("{} is an adapter of {base}, which is not found", adapter.display())]
    NoSuchBase {
        /// The adapter's directory.
        adapter: PathBuf,
        /// The base as the adapter names it.
        base: String,
        /// Why not.
        source: Box<TrainError>,
    },
    /// A directory with several runs was given as a model.
    #[error("{} is a directory of runs, not a model", path.display())]
    SeveralRuns {
        /// The directory.
        path: PathBuf,
        /// The names of the runs.
        runs: Vec<String>,
    },
    /// A rank was asked for of a method that has none.
    #[error("`{method}` has no rank")]
    NoRank {
        /// The method.
        method: String,
    },
    /// A run directory with an adapter was given as a model.
    #[error("{} is a run directory with an adapter, not a model", directory.display())]
    RunOfAdapter {
        /// The directory of the run.
        directory: PathBuf,
    },
    /// Activations are recomputed in bf16 only.
    #[error("recomputing activations has no effect in f32")]
    RecomputeInF32,
    /// No half of a block of the model is an operation that recomputes.
    #[error(
        "recomputing activations has no effect: all parts of this model have dropout of their own, scores by distance or recurrent layers"
    )]
    NothingRecomputed,
    /// Weights of 8-bit integers are for inference.
    #[error("the precision \"int8\" is for inference, not for training")]
    Int8InTraining,
    /// The table cannot be used.
    #[error(transparent)]
    Tabular(#[from] TabularError),
    /// A directory does not hold a regression.
    #[error("{} is not a regression's: {problem}", path.display(), problem = shown_sentence(problem))]
    NotARegression {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A network has more numbers than it could need.
    #[error("the network would have {parameters} parameters; the limit is {most}")]
    NetworkTooLarge {
        /// Its weights.
        parameters: usize,
        /// The bound.
        most: usize,
    },
    /// A schedule does not fit into the run.
    #[error(
        "the warm-up takes {warmup_steps} steps and the decay {decay_steps}, but the run has {max_steps}"
    )]
    ScheduleTooLong {
        /// The warm-up's length.
        warmup_steps: u64,
        /// The decay's length.
        decay_steps: u64,
        /// The run's length.
        max_steps: u64,
    },
    /// A prediction is larger than a number can be.
    #[error(
        "the prediction for row {row} (counted from 0 without the header) is not finite: {value}"
    )]
    PredictionNotFinite {
        /// The row of the file.
        row: usize,
        /// What came out.
        value: f64,
    },
    /// A batch has more rows than there are.
    #[error("the batch size is {batch_size}, but there are only {rows} training rows")]
    BatchTooLarge {
        /// The rows of a batch.
        batch_size: usize,
        /// The training rows.
        rows: usize,
    },
    /// The loss of a regression grew instead of falling.
    #[error(
        "the loss went from {} to {} by step {step} (learning rate {}{})",
        readable(*before),
        readable(*loss),
        given(*learning_rate),
        lambda.map_or_else(String::new, |lambda| format!(", lambda {}", given(lambda)))
    )]
    Grew {
        /// The last step.
        step: u64,
        /// Its loss, infinite if a number is no longer finite.
        loss: f64,
        /// The loss before the first step.
        before: f64,
        /// The learning rate of the step.
        learning_rate: f64,
        /// The constant factor of the gradient, if there is one.
        lambda: Option<f64>,
        /// What the product of the two has to stay below for plain descent on this data, if that is known.
        stable_rate: Option<f64>,
    },
    /// A study without anything to vary.
    #[error("the study has nothing to vary")]
    NothingToVary,
    /// What a study shall vary cannot be read.
    #[error(transparent)]
    Vary(#[from] crate::study::VaryError),
    /// The system gives no thread for a run.
    #[error("cannot start a thread")]
    NoThread {
        /// Why not.
        source: std::io::Error,
    },
    /// A run of a study failed, and not by divergence.
    #[error("the run {label} of the study failed: {source}")]
    StudyRun {
        /// What was varied.
        label: String,
        /// Why it failed.
        source: Box<TrainError>,
    },
    /// A picture cannot be drawn.
    #[error(transparent)]
    Plot(crate::plot::PlotError),
    /// A measured loss is not finite.
    #[error("the loss is not finite")]
    LossNotFinite,
    /// The warm-up is longer than the run.
    #[error("the warm-up takes {warmup_steps} steps, but the run has {max_steps}")]
    Warmup {
        /// Its length.
        warmup_steps: u64,
        /// The run's length.
        max_steps: u64,
    },
    /// Every gradient is zero, so no further step could change anything.
    #[error(
        "every gradient is zero at step {step}, with a loss of {loss:.4} \
         (learning rate {learning_rate:e})"
    )]
    Vanished {
        /// The step that was being made.
        step: u64,
        /// Its loss.
        loss: f64,
        /// Its learning rate.
        learning_rate: f64,
        /// The last saved adapter, if there is one.
        last_saved: Option<PathBuf>,
    },
    /// The loss or a gradient is not finite.
    #[error("{what} is not finite at step {step} (learning rate {learning_rate:e})")]
    Diverged {
        /// The loss, or a gradient with its name.
        what: String,
        /// The step that was being made.
        step: u64,
        /// Its learning rate.
        learning_rate: f64,
        /// The last saved adapter, if there is one.
        last_saved: Option<PathBuf>,
    },
}

impl From<HubError> for TrainError {
    fn from(error: HubError) -> Self {
        match error {
            HubError::Interrupted => Self::Interrupted,
            error => Self::Hub(error),
        }
    }
}

impl TrainError {
    pub(crate) fn not_for_task(task: &str, what: &'static str) -> Self {
        let task = task.to_owned();
        Self::NotForTask { task, what }
    }

    /// The same error, if it is one of reading data, with where it is said how they are read and the options that say
    /// otherwise; `None` if nothing says it.
    pub(crate) fn of_remembered(self, place: Option<(&Path, &'static str)>) -> Self {
        match (self, place) {
            (source @ (Self::Data(_) | Self::Rows(_)), Some((path, options))) => Self::Remembered {
                path: path.to_owned(),
                options,
                source: Box::new(source),
            },
            (error, _) => error,
        }
    }

    /// Returns the class of the error.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::StudyRun { source, .. } => source.kind(),
            Self::Examples(error) if error.is_of_request() => FailureKind::Config,
            Self::Config(_)
            | Self::Data(DataError::NoPrompts { .. } | DataError::NoTurns { .. })
            | Self::DoesNotFit { .. }
            | Self::RecomputeInF32
            | Self::NothingRecomputed
            | Self::Int8InTraining
            | Self::BatchTooLarge { .. }
            | Self::NetworkTooLarge { .. }
            | Self::ScheduleTooLong { .. }
            | Self::NothingToVary
            | Self::Vary(_)
            | Self::Update(_)
            | Self::Phi(MethodError::Peft(
                PeftError::InvalidPattern { .. }
                | PeftError::NoMatch { .. }
                | PeftError::NothingSelected { .. },
            ))
            | Self::NoRank { .. }
            | Self::Runtime(RuntimeError::Isa(_) | RuntimeError::ThreadTaken { .. })
            | Self::NoMethod
            | Self::NoSentenceMarks
            | Self::SmallVocabulary { .. }
            | Self::UnreadKey { .. }
            | Self::NeedsArchitecture { .. }
            | Self::NeedsWords
            | Self::OutputTaken { .. }
            | Self::OutputInUse { .. }
            | Self::OldRun { .. }
            | Self::ResumeDiffers { .. }
            | Self::NotForTask { .. }
            | Self::NoFields { .. }
            | Self::UnknownMetric { .. }
            | Self::OptionOfMethod { .. }
            | Self::NoSuchBaseline { .. }
            | Self::NoSuchLabel { .. }
            | Self::WrongLabels { .. }
            | Self::WeightOfNoLabel { .. }
            | Self::NothingHeldOut { .. }
            | Self::Stateless { .. }
            | Self::Merge(
                MergeError::TooFar { .. }
                | MergeError::OutputTaken { .. }
                | MergeError::Factor { .. }
                | MergeError::ComparesOneAdapter,
            )
            | Self::NoTask { .. }
            | Self::UnknownTask { .. }
            | Self::Warmup { .. } => FailureKind::Config,
            Self::Diverged { .. } | Self::Vanished { .. } | Self::Grew { .. } => {
                FailureKind::Diverged
            }
            Self::Output { .. }
            | Self::NoThread { .. }
            | Self::Runtime(RuntimeError::Threads { .. })
            | Self::Format(
                FormatError::Io { .. }
                | FormatError::DiskFull { .. }
                | FormatError::Permission { .. },
            )
            | Self::Peft(PeftError::File(
                FormatError::Io { .. }
                | FormatError::DiskFull { .. }
                | FormatError::Permission { .. },
            )) => FailureKind::Io,
            _ => FailureKind::Data,
        }
    }

    /// Returns the error as an event carries it.
    pub fn to_failure(&self) -> Failure {
        Failure {
            message: self.to_string(),
            kind: self.kind(),
            hints: self.hint().into_iter().collect(),
        }
    }
}

/// What is wrong with a file, its configuration or an adapter is that, whatever it was to become.
impl From<GgufError> for TrainError {
    fn from(error: GgufError) -> Self {
        match error {
            GgufError::File(error) => error.into(),
            GgufError::Config(error) => error.into(),
            GgufError::Peft(error) => error.into(),
            error => Self::Gguf(error),
        }
    }
}
