//! A training run: its configuration, its steps, its evaluation, and what it reports.
//!
//! - [`config`] reads the run file into a checked [`config::RunConfig`];
//! - [`event`] defines what a run tells its observers and writes to `events.jsonl`.
//!
//! Nothing here prints, exits or reads environment variables: the program `reparam` does.

pub mod config;
pub mod event;
