//! A training run: its configuration, its steps, its evaluation, and what it reports.
//!
//! - [`config`] reads the run file into a checked configuration;
//! - [`Task`] is what a model is trained for, [`Tasks`] the table of tasks; [`tasks`] has one file or folder each;
//! - [`train()`] makes the steps of any of them, and [`study`] the same run under several settings;
//! - [`mod@preflight`] is what is looked at before the first step, and a dry run; [`mod@seen`] what a model sees of its data;
//! - [`event`] defines what a run tells its observers and writes to `events.jsonl`;
//! - [`mod@bench`] measures training steps;
//! - [`mod@chat`] renders conversations for a loaded model, and holds one with it;
//! - [`mod@merge`] puts adapters into the weights of their base, [`convert`] writes the formats of other programs;
//! - [`Session`] is a loaded language model for everything else: [`evaluate_file`], generation.
//!
//! Nothing here prints, exits or reads environment variables: the program `reparam` does.

mod adapter;
pub mod bench;
mod bootstrap;
mod cards;
pub mod chat;
pub mod config;
mod convergence;
pub mod convert;
mod error;
mod evaluate;
pub mod event;
pub mod explain;
mod export;
mod generate;
mod history;
pub mod inspect;
mod json;
mod keep;
mod learner;
mod log;
mod markup;
mod memory;
pub mod merge;
mod metrics;
mod model_files;
mod new_model;
mod new_tokens;
pub mod numbers;
mod open;
mod plot;
pub mod preflight;
mod provenance;
mod replace;
mod run_dir;
pub mod seen;
mod session;
mod settings;
mod state;
mod stop;
mod streams;
pub mod study;
mod task;
pub mod tasks;
mod trainer;
mod warnings;

pub use bootstrap::{Bootstrap, INTERVALS, LEVEL};
pub use error::{ExamplesError, Result, TrainError};
pub use evaluate::{evaluate, evaluate_file};
pub use generate::{FinishReason, Generated};
pub use learner::{Carried, Learner, ModuleLearner, Objective, Pass};
pub use memory::peak_rss_bytes;
pub use metrics::Metrics;
pub use model_files::ModelFiles;
pub use reparam_data::{Phase, Progress, Watch, Watch as Stop};
pub use reparam_ops::runtime::{Runtime, RuntimeError, RuntimeOptions};
pub use session::Session;
pub use task::{
    BOOTSTRAP, BaseOrigin, CHAT_TEMPLATE, DECODING, DEFAULT_LENGTH, DataRequest, Decoding,
    EXAMPLES, EvalRequest, ExamplesRequest, GENERATE, LABEL_WORDS, ModelRequest, NORMALIZE,
    Origins, POOLING, PredictRequest, Predictions, Prepared, Report, ResultKind, RunFacts, RunFile,
    RunPlan, SHOTS, TARGETS, THRESHOLD, Task, TaskEntry, TaskRun, Tasks,
};
pub use tasks::regression;
pub use tasks::rows::CONFUSION;
pub use trainer::{Measure, Outcome, TrainOptions, train};
pub use warnings::Warnings;
