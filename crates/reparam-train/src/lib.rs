//! A training run: its configuration, its steps, its evaluation, and what it reports.
//!
//! - [`config`] reads the run file into a checked [`config::RunConfig`];
//! - [`train()`] prepares and makes the steps of a language model, [`regression`] those of a table;
//! - [`study`] makes the same run under several settings;
//! - [`event`] defines what a run tells its observers and writes to `events.jsonl`;
//! - [`mod@bench`] measures training steps;
//! - [`Session`] is a loaded model for everything else: [`evaluate_file`], generation.
//!
//! Nothing here prints, exits or reads environment variables: the program `reparam` does.

pub mod bench;
pub mod config;
mod convergence;
mod error;
mod evaluate;
pub mod event;
mod export;
pub mod inspect;
mod log;
mod memory;
mod numbers;
mod prepare;
mod provenance;
pub mod regression;
mod run;
mod run_dir;
mod session;
mod settings;
pub mod study;

pub use error::TrainError;
pub use evaluate::{Evaluation, evaluate, evaluate_file};
pub use memory::peak_rss_bytes;
pub use run::{Measure, Outcome, train};
pub use session::Session;
