//! Runs of both tasks, studies, evaluations and twenty steps against PyTorch, through the public interface.

mod adapters;
mod best;
mod bf16;
mod causal_lm;
mod classification;
mod encoder_decoders;
mod encoders;
mod evaluation;
mod examples;
mod explain;
mod gguf;
mod golden_steps;
mod inspect;
mod instructions;
mod measures;
mod merging;
mod new_models;
mod recurrent;
mod regression;
mod resume;
mod runs;
mod streams;
mod study;
mod token_adapters;
mod tokens;
mod toys;
mod witness;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use reparam_formats::hub::HubOptions;
use reparam_train::config::Precision;
use reparam_train::{
    EvalRequest, Metrics, ModelRequest, Runtime, RuntimeOptions, Session, Stop, TaskEntry, Tasks,
};

/// Resolves a path in the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}

/// Settings with which the hub is never asked.
fn offline() -> HubOptions {
    HubOptions {
        offline: true,
        ..HubOptions::new("no-such-cache")
    }
}

/// Runs `work` on a thread of its own, which computes with that many.
fn with_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    let runtime = Runtime::new(RuntimeOptions {
        threads: NonZeroUsize::new(threads),
        ..RuntimeOptions::default()
    });
    let on_thread = || runtime.run(work).expect("a thread of its own");
    std::thread::scope(|scope| scope.spawn(on_thread).join().expect("no panic"))
}

fn stories() -> Session {
    let path = repository("assets/stories260K");
    Session::open(path.to_str().expect("UTF-8"), &offline(), Precision::F32)
        .expect("the built-in model")
}

/// The task that a model says it is for.
fn task_of(model: &ModelRequest) -> TaskEntry {
    let tasks = Tasks::builtin();
    let task = tasks.of_request(None, model, &offline());
    *task.unwrap_or_else(|error| panic!("{error}"))
}

/// What that task measures of a model.
fn measured(request: &EvalRequest) -> Metrics {
    let metrics = task_of(&request.model).eval(request, &offline(), Stop::never());
    metrics.unwrap_or_else(|error| panic!("{error}"))
}

/// The entries of a directory, sorted.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .collect();
    names.sort();
    names
}
