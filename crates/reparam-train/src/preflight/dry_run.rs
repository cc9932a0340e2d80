//! Everything of a run but the run: what is found, what it sees, and two measured steps. Nothing is written but the caches.

use std::time::Instant;

use reparam_kernels::memory::release_freed_pages;
use serde::Serialize;

use super::{Finding, LayerCount, MemoryEstimate, preflight};
use crate::event::Start;
use crate::learner;
use crate::memory::peak_rss_bytes;
use crate::run_dir::RunDir;
use crate::seen::{Look, Seen};
use crate::session::load_tokenizer;
use crate::task::{PreparedRun, TaskRun};
use crate::trainer::start;
use crate::{Result, Stop, TrainError, TrainOptions};

/// How many steps the size of the run is counted from.
const STEPS_COUNTED: u64 = 2_000;

/// What a run would be.
#[derive(Debug, Clone, Serialize)]
pub struct DryRun {
    /// What is trained, on what, for how long.
    pub run: Start,
    /// The linear layers by kind, with and without what is trained.
    pub layers: Vec<LayerCount>,
    /// The entries of a list of `target_modules`, with the layers that they name.
    pub target_modules: Vec<LayerCount>,
    /// What the model will see; `None` for a task that does not say.
    pub data: Option<Seen>,
    /// What the run is expected to take; `None` for a task that does not say what a token costs.
    pub memory: Option<MemoryEstimate>,
    /// What two steps took; `None` where an error keeps the run from working.
    pub measured: Option<Measured>,
    /// What was found, errors first.
    pub findings: Vec<Finding>,
}

/// What two steps took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// The loss of the first step.
    pub loss: f64,
    /// The seconds of the first step, which makes what later ones use again.
    pub first_step_seconds: f64,
    /// The seconds of the second, which is one of the largest of the run.
    pub second_step_seconds: f64,
    /// What all steps of the run will take, by the second one and the tokens of each; without evaluations and checkpoints.
    pub run_seconds: f64,
    /// The most memory that the process has held by then.
    pub peak_rss_bytes: u64,
}

impl DryRun {
    /// Refuses a run that cannot work.
    ///
    /// # Errors
    ///
    /// [`TrainError::Preflight`].
    pub fn check(&self) -> Result<()> {
        super::refuse(&self.findings)
    }
}

/// Loads and checks all of a run, and makes two steps of it, the second with the largest micro-batch.
///
/// Nothing is written but the caches, that of the hub and that of tokens, and the run directory is only looked at.
///
/// # Errors
///
/// Whatever keeps a run from starting, [`TrainError::Interrupted`], and a step that fails. What the preflight finds is none.
pub fn dry_run(run: &TaskRun, options: &TrainOptions, watch: Stop<'_>) -> Result<DryRun> {
    options.runtime.run(|| {
        let mut prepared = run.prepare(&options.hub, watch)?;
        // What reading and encoding has left is not what the run holds.
        release_freed_pages();
        let about = start(run, &prepared);
        let seen = preflight(&prepared, &Look::default())?;
        let mut findings = seen.findings.clone();
        findings.extend(of_output(run, options));
        findings.sort_by_key(|finding| finding.severity);
        let works = seen.check().is_ok();
        let measured = works.then(|| measure(&mut prepared, watch)).transpose()?;
        Ok(DryRun {
            run: about,
            layers: prepared.facts.layers,
            target_modules: prepared.facts.target_modules,
            data: seen.seen,
            memory: seen.memory,
            measured,
            findings,
        })
    })?
}

/// Finds that the run directory is not free.
fn of_output(run: &TaskRun, options: &TrainOptions) -> Option<Finding> {
    if options.resume || options.force {
        return None;
    }
    let error = RunDir::check_free(run.output()).err()?;
    let hint = error.hint().unwrap_or_default();
    Some(Finding::error("output", error.to_string(), hint))
}

/// Makes two steps.
fn measure(prepared: &mut PreparedRun, watch: Stop<'_>) -> Result<Measured> {
    let step = |prepared: &mut PreparedRun, number: u64| -> Result<(f64, f64)> {
        watch.check()?;
        let started = Instant::now();
        let PreparedRun {
            learner, optimizer, ..
        } = prepared;
        let stepped = learner::step_at(
            learner.as_mut(),
            optimizer,
            number,
            |learner, loss, report| learner.check_gradient(loss, report),
        );
        let stepped = stepped.map_err(|error| prepared.learner.explain(error))?;
        Ok((stepped.loss, started.elapsed().as_secs_f64()))
    };
    let (largest, _) = prepared.largest();
    let (loss, first_step_seconds) = step(prepared, 0)?;
    // What a step leaves, only the next one goes on from.
    let number = match prepared.learner.carried().is_empty() {
        true => largest,
        false => 1.min(prepared.plan.max_steps - 1),
    };
    let (_, second_step_seconds) = step(prepared, number)?;
    let max_steps = prepared.plan.max_steps;
    let counted = max_steps.min(STEPS_COUNTED);
    let tokens = |step: u64| prepared.tokens_of(step) as f64;
    let all: f64 = (0..counted).map(tokens).sum();
    let all = all * max_steps as f64 / counted.max(1) as f64;
    let of_second = tokens(number).max(1.0);
    Ok(Measured {
        loss,
        first_step_seconds,
        second_step_seconds,
        run_seconds: second_step_seconds * all / of_second,
        peak_rss_bytes: peak_rss_bytes(),
    })
}

/// What a model will see of its data, with what the preflight finds.
#[derive(Debug, Clone, Serialize)]
pub struct Inspected {
    /// The word for the task.
    pub task: String,
    /// The model as the run file names it.
    pub model: String,
    /// What it will see.
    pub data: Seen,
    /// What was found, errors first.
    pub findings: Vec<Finding>,
}

/// Loads a run, and says what its model will see: the first `rows` rows decoded, and the numbers of all.
///
/// # Errors
///
/// Whatever keeps a run from starting, and [`TrainError::NotForTask`] of a task without texts.
pub fn inspect_data(
    run: &TaskRun,
    options: &TrainOptions,
    rows: usize,
    watch: Stop<'_>,
) -> Result<Inspected> {
    options.runtime.run(|| {
        let prepared = run.prepare(&options.hub, watch)?;
        let base = prepared.origins.base.as_ref();
        let tokenizer = base.map(|base| load_tokenizer(&base.from, &Default::default()));
        let tokenizer = tokenizer.transpose()?;
        let look = Look {
            tokenizer: tokenizer.as_ref(),
            rows,
        };
        let found = preflight(&prepared, &look)?;
        let Some(data) = found.seen else {
            let what = "inspected by its tokens: it learns from something else";
            return Err(TrainError::not_for_task(run.task(), what));
        };
        let (about_memory, findings) = (|f: &Finding| f.kind == "memory", found.findings);
        Ok(Inspected {
            task: run.task().to_owned(),
            model: prepared.facts.model,
            data,
            findings: findings.into_iter().filter(|f| !about_memory(f)).collect(),
        })
    })?
}
