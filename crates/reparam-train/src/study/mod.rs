//! The same run under several settings, side by side.

mod page;
mod plot;
mod vary;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use reparam_formats::FormatError;
use reparam_formats::atomic::write_file_atomic;
use reparam_formats::hub::HubOptions;
use serde::Serialize;

pub use plot::PlotError;
pub use vary::{Vary, VaryError};

use self::vary::{Variant, combinations};
use crate::config::Override;
use crate::event::{Event, FailureKind, Observer, StopReason};
use crate::run_dir::RunDir;
use crate::{Measure, Result, Runtime, TaskRun, Tasks, TrainError, TrainOptions, train};

/// What a study does.
#[derive(Debug, Clone)]
pub struct StudyRequest {
    /// The run file that everything starts from.
    pub run_file: PathBuf,
    /// What every run of the study overrides.
    pub overrides: Vec<Override>,
    /// What differs from run to run: every combination of the values is one run.
    pub vary: Vec<Vary>,
    /// What the runs compute with.
    pub runtime: Runtime,
}

/// A finished study.
#[derive(Debug, Clone, Serialize)]
pub struct Study {
    /// The runs, in order.
    pub runs: Vec<StudyRun>,
    /// The page with table and pictures.
    pub page: PathBuf,
}

/// One run of a study.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StudyRun {
    /// What was varied, as in `lambda=0.1`.
    pub label: String,
    /// The run directory.
    pub directory: PathBuf,
    /// The message, if it failed.
    pub failed: Option<String>,
    /// Whether it failed because it diverged.
    pub diverged: bool,
    /// Why it ended, if it did not fail.
    pub reason: Option<StopReason>,
    /// The steps it made.
    pub steps: u64,
    /// The measure that decides, on what is held out, before the first step.
    pub held_out_before: Option<f64>,
    /// The same at the end.
    pub held_out_after: Option<f64>,
    /// The first step's loss.
    pub first_loss: f64,
    /// The last step's loss.
    pub last_loss: f64,
    /// The largest norm of an update times the learning rate: the longest step.
    pub longest_step: f64,
    /// The variance of the gradient, the mean over the last half of the run.
    pub grad_variance: f64,
    /// The variance of the update, likewise.
    pub update_variance: f64,
}

/// The curves of one run.
#[derive(Debug, Default)]
struct Curves {
    steps: Vec<Point>,
    reason: Option<StopReason>,
    held_out: Vec<f64>,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    step: u64,
    loss: f64,
    longest: f64,
    grad_variance: f64,
    update_variance: f64,
}

impl StudyRun {
    /// The headings of [`row`](Self::row).
    pub const COLUMNS: [&'static str; 8] = page::COLUMNS;

    /// Returns the run as a row of the study's table.
    pub fn row(&self) -> [String; 8] {
        page::row(self)
    }
}

impl Observer for Curves {
    fn on_event(&mut self, event: &Event) {
        match event {
            Event::Step(step) => {
                let Some(variances) = step.variances else {
                    return;
                };
                self.steps.push(Point {
                    step: step.step,
                    loss: step.loss,
                    longest: variances.update_norm * step.learning_rate,
                    grad_variance: variances.grad_variance,
                    update_variance: variances.update_variance,
                });
            }
            Event::Stopped { reason, .. } => self.reason = Some(*reason),
            Event::Evaluation(evaluation) => self.held_out.push(evaluation.value()),
            _ => {}
        }
    }
}

/// Runs the same task under several settings, and writes a table and pictures.
///
/// The output directory of the run file gets `study.json`, `study.html` with everything on one page,
/// `loss.svg`, `grad_variance.svg` and `update_variance.svg`, and below it a run directory for each run. A run
/// that fails, by divergence or because its settings do not suit the task, is a row of the table like the others.
/// `on_run` is told of each run when it is done.
///
/// # Errors
///
/// Fails when there is nothing to vary, a setting is wrong, the output directory is taken, or every run fails for
/// another reason than divergence.
pub fn study(
    request: &StudyRequest,
    tasks: &Tasks,
    hub: &HubOptions,
    stop: &AtomicBool,
    on_run: &mut dyn FnMut(&StudyRun),
) -> Result<Option<Study>> {
    if request.vary.is_empty() {
        return Err(TrainError::NothingToVary);
    }
    vary::check(&request.vary)?;
    let variants = combinations(&request.vary);
    // What is varied may be what the run file leaves out.
    let mut overrides = request.overrides.clone();
    overrides.extend(variants.iter().take(1).flat_map(|v| v.overrides.clone()));
    let first = tasks.load(&request.run_file, &overrides)?;
    let directory = first.output().to_owned();
    if directory.join(page::PAGE).exists() || directory.join("events.jsonl").exists() {
        return Err(TrainError::OutputTaken { directory });
    }
    // A wrong value in the last variant shall not be found after all others have run.
    let mut configs = Vec::with_capacity(variants.len());
    for (number, variant) in variants.iter().enumerate() {
        let config = config_of(request, tasks, variant, number, &directory)?;
        RunDir::check_free(config.output())?;
        request.runtime.run(|| config.check())??;
        configs.push(config);
    }
    let mut runs = Vec::new();
    let mut all_curves = Vec::new();
    let mut first_error = None;
    for (variant, config) in variants.iter().zip(&configs) {
        let (run, curves, error) = run_one(config, &variant.label, (hub, &request.runtime), stop);
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        on_run(&run);
        first_error = first_error.or(error);
        runs.push(run);
        all_curves.push((variant.label.clone(), curves));
    }
    if let (Some(error), true) = (
        first_error,
        runs.iter().all(|run| run.failed.is_some() && !run.diverged),
    ) {
        return Err(error);
    }
    fs::create_dir_all(&directory)
        .map_err(|source| FormatError::io("create", &directory, source))?;
    let page = page::write(&directory, &request.run_file, &runs, &all_curves)?;
    Ok(Some(Study { runs, page }))
}

/// Returns the configuration of a run, with a directory of its own below the study's.
fn config_of(
    request: &StudyRequest,
    tasks: &Tasks,
    variant: &Variant,
    number: usize,
    directory: &Path,
) -> Result<TaskRun> {
    let own = directory.join(format!("run-{:02}", number + 1));
    let own = own.to_str().ok_or_else(|| TrainError::Output {
        directory: directory.to_owned(),
        source: std::io::ErrorKind::InvalidFilename.into(),
    })?;
    let mut overrides = request.overrides.clone();
    overrides.extend(variant.overrides.iter().cloned());
    overrides.push(Override::output(own));
    Ok(tasks.load(&request.run_file, &overrides)?)
}

fn run_one(
    config: &TaskRun,
    label: &str,
    (hub, runtime): (&HubOptions, &Runtime),
    stop: &AtomicBool,
) -> (StudyRun, Curves, Option<TrainError>) {
    let mut curves = Curves::default();
    let options = TrainOptions {
        measure: Measure::Variances,
        runtime: runtime.clone(),
        ..TrainOptions::new(hub.clone())
    };
    let outcome = train(config, &options, stop, &mut curves);
    let error = outcome.err();
    let diverged = error
        .as_ref()
        .is_some_and(|error| error.kind() == FailureKind::Diverged);
    let steps = &curves.steps;
    let settled = &steps[steps.len() / 2..];
    let mean = |value: fn(&Point) -> f64| {
        // A sum of nothing would be minus zero.
        settled.iter().map(value).fold(0.0, |sum, x| sum + x) / settled.len().max(1) as f64
    };
    let run = StudyRun {
        label: label.to_owned(),
        directory: config.output().to_owned(),
        reason: curves.reason.filter(|_| error.is_none()),
        steps: steps.last().map_or(0, |point| point.step),
        held_out_before: curves.held_out.first().copied(),
        held_out_after: curves.held_out.last().copied().filter(|_| error.is_none()),
        failed: error.as_ref().map(ToString::to_string),
        diverged,
        first_loss: steps.first().map_or(f64::NAN, |point| point.loss),
        last_loss: steps.last().map_or(f64::NAN, |point| point.loss),
        longest_step: steps
            .iter()
            .fold(0.0, |most, point| most.max(point.longest)),
        grad_variance: mean(|point| point.grad_variance),
        update_variance: mean(|point| point.update_variance),
    };
    (run, curves, error)
}

/// Writes a file of the study.
fn write(directory: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = directory.join(name);
    write_file_atomic(&path, text.as_bytes())?;
    Ok(path)
}
