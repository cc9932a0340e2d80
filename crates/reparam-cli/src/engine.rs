//! What the program needs done, and the plain values that go in and come out.

mod native;

pub(crate) use native::open;

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use reparam_data::Format;
use reparam_train::bench::{BenchReport, BenchRequest};
use reparam_train::config::{Precision, TaskConfig};
use reparam_train::event::{FailureKind, Observer};
use reparam_train::regression::Prediction;
use reparam_train::study::{Study, StudyRequest, StudyRun};
use serde::Serialize;

/// The work behind the commands.
///
/// An engine prints nothing and reads no environment variables.
pub(crate) trait Engine {
    /// Trains as the configuration says, telling `observer` of every event.
    fn train(
        &self,
        request: TrainRequest,
        observer: &mut dyn Observer,
    ) -> Result<TrainOutcome, EngineError>;

    /// Makes the same run under several settings, telling `on_run` of each; `None` if it was stopped.
    fn study(
        &self,
        request: StudyRequest,
        stop: &AtomicBool,
        on_run: &mut dyn FnMut(&StudyRun),
    ) -> Result<Option<Study>, EngineError>;

    /// Predicts the rows of a table.
    fn predict(&self, request: PredictRequest) -> Result<Prediction, EngineError>;

    /// Measures the loss of a model on a file.
    fn eval(&self, request: EvalRequest) -> Result<EvalReport, EngineError>;

    /// Continues a prompt, handing out the text piece by piece until told to break off.
    fn generate(
        &self,
        request: GenerateRequest,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<GenerateReport, EngineError>;

    /// Measures training steps.
    fn bench(&self, request: BenchRequest) -> Result<BenchReport, EngineError>;

    /// Describes a model, an adapter, a run directory or a tensor file.
    fn inspect(&self, request: InspectRequest) -> Result<InspectReport, EngineError>;

    /// What the kernels can use of this machine, as names and values for `reparam doctor`.
    fn capabilities(&self) -> Vec<(String, String)>;
}

/// What the environment says about every kind of work.
#[derive(Debug, Clone, Default)]
pub(crate) struct EngineSettings {
    /// Threads to compute with where the run file leaves it open; all cores if `None`.
    pub(crate) threads: Option<NonZeroUsize>,
    /// The instruction set that kernels are forced to.
    pub(crate) isa: Option<String>,
    /// Where models come from.
    pub(crate) hub: HubSettings,
}

/// How the hub is reached and where its files are kept.
#[derive(Clone, Default)]
pub(crate) struct HubSettings {
    /// The address, if it is not the usual one.
    pub(crate) endpoint: Option<String>,
    /// The access token.
    pub(crate) token: Option<String>,
    /// Whether the hub is never contacted.
    pub(crate) offline: bool,
    /// The directory of models; `None` if not even a home directory is known.
    pub(crate) cache: Option<PathBuf>,
}

impl fmt::Debug for HubSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubSettings")
            .field("endpoint", &self.endpoint)
            // A log is no place for a token.
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("offline", &self.offline)
            .field("cache", &self.cache)
            .finish()
    }
}

/// A run to do.
#[derive(Debug)]
pub(crate) struct TrainRequest {
    pub(crate) config: TaskConfig,
    /// Set when the run shall stop after its current step, with its adapter saved.
    pub(crate) stop: Arc<AtomicBool>,
}

/// How a run ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TrainOutcome {
    /// All steps are done.
    Finished,
    /// It was stopped after `step`, whose state is saved.
    Interrupted { step: u64 },
}

/// Rows to predict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PredictRequest {
    /// A run directory of a regression, or the model directory in it.
    pub(crate) model: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) drop_rows: bool,
}

/// A loss to measure.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EvalRequest {
    /// A directory or a hub id.
    pub(crate) model: String,
    pub(crate) adapter: Option<PathBuf>,
    pub(crate) data: PathBuf,
    /// `None` to tell it from the file.
    pub(crate) format: Option<Format>,
    pub(crate) sequence_length: usize,
    pub(crate) precision: Precision,
}

/// A measured loss.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct EvalReport {
    /// The mean negative log-likelihood of a predicted token, in nats.
    pub(crate) loss: f64,
    /// `exp(loss)`.
    pub(crate) perplexity: f64,
    /// The number of predicted tokens.
    pub(crate) tokens: u64,
}

/// A text to generate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GenerateRequest {
    /// A directory or a hub id.
    pub(crate) model: String,
    pub(crate) adapter: Option<PathBuf>,
    pub(crate) prompt: String,
    pub(crate) max_new_tokens: usize,
    pub(crate) sampling: Sampling,
    pub(crate) precision: Precision,
}

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Sampling {
    /// The most likely one.
    Greedy,
    /// One drawn from the distribution.
    Random {
        /// What logits are divided by, greater than 0.
        temperature: f64,
        /// Only the most likely ones, this many, are drawn from.
        top_k: Option<usize>,
        /// Only the fewest whose probabilities sum to this, in (0, 1], are drawn from.
        top_p: Option<f64>,
        /// What the draws are derived from.
        seed: u64,
    },
}

/// A generated text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct GenerateReport {
    /// What was added to the prompt.
    pub(crate) text: String,
    /// The ids of the added tokens.
    pub(crate) tokens: Vec<u32>,
    /// The number of tokens of the prompt.
    pub(crate) prompt_tokens: usize,
    /// Why it ended.
    pub(crate) finish_reason: FinishReason,
    /// Added tokens a second after the first, which the prompt has to be read for.
    pub(crate) tokens_per_s: f64,
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FinishReason {
    /// The model said so.
    EndOfText,
    /// It has as many tokens as were asked for.
    MaxNewTokens,
    /// The reader wanted no more.
    Stopped,
}

/// Something to describe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InspectRequest {
    pub(crate) path: PathBuf,
}

/// A description.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct InspectReport {
    /// What it is, such as `model` or `adapter`.
    pub(crate) kind: String,
    /// What is worth knowing of it, in the order to show it.
    pub(crate) properties: Vec<(String, serde_json::Value)>,
    /// Its tensors, in the order of the file.
    pub(crate) tensors: Vec<TensorInfo>,
}

/// A tensor in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TensorInfo {
    pub(crate) name: String,
    /// The element type in the file's own words, such as `BF16`.
    pub(crate) dtype: String,
    pub(crate) shape: Vec<u64>,
    /// Its size in the file.
    pub(crate) bytes: u64,
}

impl TensorInfo {
    /// The number of elements.
    pub(crate) fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// Work that failed.
#[derive(Debug)]
pub(crate) struct EngineError {
    kind: FailureKind,
    error: Box<dyn std::error::Error + Send + Sync>,
    hints: Vec<String>,
}

impl EngineError {
    /// Wraps a library's error with its class and its hints.
    pub(crate) fn new(
        kind: FailureKind,
        error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
        hints: impl IntoIterator<Item = String>,
    ) -> Self {
        Self {
            kind,
            error: error.into(),
            hints: hints.into_iter().collect(),
        }
    }

    pub(crate) fn kind(&self) -> FailureKind {
        self.kind
    }

    pub(crate) fn hints(&self) -> &[String] {
        &self.hints
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for EngineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}
