//! The same run under several settings, side by side.

mod html;
mod page;
mod seeds;
mod vary;

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use reparam_formats::FormatError;
use reparam_formats::atomic::write_file_atomic;
use reparam_formats::hub::HubOptions;
use serde::Serialize;

pub use crate::plot::PlotError;
pub use seeds::Repeated;
pub use vary::{Vary, VaryError};

use self::vary::{Variant, combinations};
use crate::config::Override;
use crate::event::{Event, FailureKind, Observer, StopReason, Time};
use crate::metrics::is_better;
use crate::provenance::in_common;
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
    /// What the runs compute with where their run file says no number of threads.
    pub runtime: Runtime,
}

/// A finished study.
#[derive(Debug, Serialize)]
pub struct Study {
    /// The runs, in order.
    pub runs: Vec<StudyRun>,
    /// Which run is the best: by what is held out, else by the last loss; `None` if all failed. Where seeds repeat settings, it
    /// is one of the best setting.
    pub best: Option<usize>,
    /// The settings, where several runs of one differ in `train.seed` alone; else none.
    pub settings: Vec<Repeated>,
    /// Which setting is the best, by its mean.
    pub best_setting: Option<usize>,
    /// The page with table and pictures.
    pub page: PathBuf,
    /// The first run that failed otherwise than by divergence, as an error.
    #[serde(skip)]
    pub failed: Option<TrainError>,
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
    /// The same of the result.
    pub held_out_after: Option<f64>,
    /// The name of that measure.
    pub metric: Option<String>,
    /// The step after which the best model was measured.
    pub best_step: Option<u64>,
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
    /// The measure that decides, by step.
    held_out: Vec<(u64, f64)>,
    metric: Option<String>,
    higher_is_better: bool,
    after: Option<f64>,
    best_step: Option<u64>,
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
    pub const COLUMNS: [&'static str; 9] = page::COLUMNS;

    /// Returns the run as a row of the study's table.
    pub fn row(&self) -> [String; 9] {
        page::row(self)
    }
}

impl Observer for Curves {
    fn on_event(&mut self, event: &Event, _: Time) {
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
            Event::Evaluation(evaluation) => {
                self.metric = Some(evaluation.primary.clone());
                self.higher_is_better = !evaluation.lower_is_better;
                self.held_out.push((evaluation.step, evaluation.value()));
            }
            Event::Finished(finished) => {
                self.after = finished.after;
                self.best_step = finished.best_step;
            }
            _ => {}
        }
    }
}

/// Runs the same task under several settings, and writes a table and pictures.
///
/// The output directory of the run file gets `study.json`, `study.html` with everything on one page, `held_out.svg` where
/// something is held out, `loss.svg`, `grad_variance.svg` and `update_variance.svg`, and below it a run directory for each
/// run. Where values of `train.seed` repeat settings, there is also `settings.json` with what they give on average, and, if one
/// other key with numbers is varied, `settings.svg`. A run that fails, by divergence or because its settings or its data do not suit the task, is a row of the table
/// like the others; unless it diverged, it is also [`Study::failed`]. `on_run` is told of each run when it is done.
///
/// Each run has a thread, so that it can compute with as many threads as its run file says.
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
        configs.push(on_a_thread(|| {
            let config = config_of(request, tasks, variant, number, &directory)?;
            RunDir::check_free(config.output())?;
            runtime(request, &config).run(|| config.check())??;
            config.to_toml()
        })?);
    }
    let began = SystemTime::now();
    let mut runs = Vec::new();
    let mut all_curves = Vec::new();
    let mut failed = None;
    for (number, variant) in variants.iter().enumerate() {
        let (run, curves, error) = on_a_thread(|| {
            let config = config_of(request, tasks, variant, number, &directory)?;
            let runtime = runtime(request, &config);
            Ok(run_one(&config, &variant.label, (hub, runtime), stop))
        })?;
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        on_run(&run);
        if !run.diverged {
            failed = failed.or(error.map(|error| (variant.label.clone(), error)));
        }
        runs.push(run);
        all_curves.push((variant.label.clone(), curves));
    }
    let is_one_there = runs.iter().any(|run| run.failed.is_none() || run.diverged);
    let failed = match failed {
        Some((_, error)) if !is_one_there => return Err(error),
        failed => failed.map(|(label, source)| TrainError::StudyRun {
            label,
            source: Box::new(source),
        }),
    };
    fs::create_dir_all(&directory)
        .map_err(|source| FormatError::io("create", &directory, source))?;
    let decides = Decides::of(&runs, &all_curves);
    let settings = Repeated::of(&variants, &runs, &decides);
    let best_setting = decides.best_setting(&settings);
    let among: Vec<usize> = match best_setting {
        Some(best) => settings[best].runs.clone(),
        None => (0..runs.len()).collect(),
    };
    let values = among
        .into_iter()
        .map(|run| (run, decides.value(&runs[run])));
    let best = decides.best(values);
    let made = page::Made {
        run_file: &request.run_file,
        began,
        shared: in_common(configs.iter().map(String::as_str)),
        best,
        settings: &settings,
        best_setting,
        key: vary::only_key(&request.vary),
    };
    let page = page::write(&directory, &made, &runs, &all_curves)?;
    Ok(Some(Study {
        runs,
        best,
        settings,
        best_setting,
        page,
        failed,
    }))
}

/// Returns what a run computes with.
fn runtime(request: &StudyRequest, config: &TaskRun) -> Runtime {
    match NonZeroUsize::new(config.threads()) {
        None => request.runtime.clone(),
        Some(threads) => request.runtime.with_threads(threads),
    }
}

/// Does some work on a thread of its own: one that has computed with a number of threads cannot do so with another.
fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    // As much as the first thread of a process has.
    const STACK: usize = 8 << 20;
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(STACK);
        let started = builder.spawn_scoped(scope, work);
        let thread = started.map_err(|source| TrainError::NoThread { source })?;
        let done = thread.join();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Which number of a run decides: of what is held out, else the last loss.
#[derive(Debug)]
struct Decides {
    metric: String,
    held_out: bool,
    lower_is_better: bool,
}

impl Decides {
    fn of(runs: &[StudyRun], curves: &[(String, Curves)]) -> Self {
        let mut runs = runs.iter().zip(curves);
        let found = runs.find_map(|(run, (_, curves))| {
            run.held_out_after.filter(|_| run.failed.is_none())?;
            Some(Self {
                metric: run.metric.clone()?,
                held_out: true,
                lower_is_better: !curves.higher_is_better,
            })
        });
        found.unwrap_or_else(|| Self {
            metric: "loss".to_owned(),
            held_out: false,
            lower_is_better: true,
        })
    }

    /// The number of a run that came to its end.
    fn value(&self, run: &StudyRun) -> Option<f64> {
        match (&run.failed, self.held_out) {
            (Some(_), _) => None,
            (None, true) => run.held_out_after,
            (None, false) => Some(run.last_loss),
        }
    }

    /// The place of the setting with the best mean, of those that most seeds came to an end with: means over different seeds do not
    /// compare.
    fn best_setting(&self, settings: &[Repeated]) -> Option<usize> {
        let most = settings.iter().map(|setting| setting.seeds).max()?;
        let means = settings.iter();
        let means = means.map(|setting| setting.mean.filter(|_| setting.seeds == most));
        self.best(means.enumerate())
    }

    /// The place of the best of some numbers.
    fn best(&self, values: impl Iterator<Item = (usize, Option<f64>)>) -> Option<usize> {
        let values = values.filter_map(|(place, value)| Some((place, value?)));
        let better = |best: (usize, f64), other: (usize, f64)| match is_better(
            other.1,
            best.1,
            self.lower_is_better,
        ) {
            true => other,
            false => best,
        };
        values.reduce(better).map(|(place, _)| place)
    }
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
    (hub, runtime): (&HubOptions, Runtime),
    stop: &AtomicBool,
) -> (StudyRun, Curves, Option<TrainError>) {
    let mut curves = Curves::default();
    let options = TrainOptions {
        measure: Measure::Variances,
        runtime,
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
        held_out_before: curves.held_out.first().map(|(_, value)| *value),
        held_out_after: curves.after,
        metric: curves.metric.clone(),
        best_step: curves.best_step,
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
