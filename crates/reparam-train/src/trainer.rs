//! The one training loop: steps, evaluation, stopping, divergence, checkpoints and events of any task.

use std::path::PathBuf;
use std::time::Instant;

use reparam::optim::Optimizer;
use reparam_formats::file;
use reparam_formats::hub::HubOptions;
use reparam_ops::runtime::Runtime;
use serde_json::Value;

use crate::Stop;
use crate::config::Keep;
use crate::convergence::Convergence;
use crate::event::{
    Evaluation, Event, Finished, Observer, Start, Step, StopReason, Time, Variances,
};
use crate::keep::{remove_bests, tidy};
use crate::learner::{self, Stepped, diverged};
use crate::log::{RunLog, is_due};
use crate::memory::peak_rss_bytes;
use crate::preflight::{Finding, Severity, preflight};
use crate::provenance::{check_config, provenance};
use crate::run_dir::{CONFIG, PICTURE, RunDir};
use crate::seen::Look;
use crate::state::{Best, Pending, TrainState, save_best, theta_of};
use crate::task::{At, PreparedRun, ResultKind, RunPlan, TaskLearner, TaskRun};
use crate::{Result, TrainError};

/// How a successful run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// It was complete before: there was nothing to resume.
    AlreadyFinished,
    /// It was asked to stop, and did so after `step` with its state saved; after step 0 there was none to save.
    Interrupted {
        /// The last finished step.
        step: u64,
    },
}

/// What is measured of every step besides loss and gradient norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Measure {
    /// Nothing.
    #[default]
    Nothing,
    /// How gradients and updates vary from step to step; it costs two numbers a trained parameter.
    Variances,
}

/// How a run is made, apart from what its run file says.
#[derive(Debug, Clone)]
pub struct TrainOptions {
    /// Where models come from.
    pub hub: HubOptions,
    /// What the run computes with. Its threads are those that compute: [`TaskRun::threads`] is what the run file asks for.
    pub runtime: Runtime,
    /// What is measured of every step.
    pub measure: Measure,
    /// Whether a run goes on from its newest whole checkpoint.
    ///
    /// Without a checkpoint, or without the directory, it starts at step 0. Events behind the checkpoint are cut off.
    pub resume: bool,
    /// Whether a run takes the place of one that is in its directory, finished or not.
    ///
    /// The earlier one is removed when everything of the new one is loaded and checked; other files in the directory stay.
    pub force: bool,
}

impl TrainOptions {
    /// Returns the options of an ordinary new run.
    #[must_use]
    pub fn new(hub: HubOptions) -> Self {
        Self {
            hub,
            runtime: Runtime::default(),
            measure: Measure::Nothing,
            resume: false,
            force: false,
        }
    }
}

/// Trains as a run file says.
///
/// The output directory is taken first, so that no other process writes to it. Model, tokenizer, data and targets are checked
/// before anything is written there, and it is as it was if they do not pass. `observer` is told of every event on the calling
/// thread, `events.jsonl` gets the same. When `watch` asks for it, the step in progress is finished, a checkpoint and the result
/// are saved, and the run ends; before the first step it ends at once. A flag is a watch.
///
/// The result is the best of the models that were evaluated after a step, or the last one: see [`Keep`].
///
/// A run that goes on (see [`TrainOptions::resume`]) computes to the same bits as one that was never interrupted, on one
/// kind of processor.
///
/// # Errors
///
/// [`TrainError`]; a run that has started leaves a `failed` event and a checkpoint of its last
/// finished step. [`TrainError::ResumeDiffers`] when a run would go on with another configuration, base, tokenizer or
/// data.
pub fn train<'a>(
    run: &TaskRun,
    options: &TrainOptions,
    watch: impl Into<Stop<'a>>,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    let watch = watch.into();
    options
        .runtime
        .run(|| train_here(run, options, watch, observer))?
}

/// [`train`] with the runtime in force.
fn train_here(
    run: &TaskRun,
    options: &TrainOptions,
    watch: Stop<'_>,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    let config = run.to_toml()?;
    // Taken before anything is looked at, and given up again if no run comes of it.
    let mut directory = RunDir::take(run.output())?;
    let goes_on = options.resume && directory.holds_run();
    let replaces = options.force && directory.holds_run();
    if goes_on {
        if let Ok(before) = file::read_text(&directory.path().join(CONFIG)) {
            check_config(&before, &config)?;
        }
        if let Some(finished) = directory.finished()? {
            observer.on_event(&Event::Finished(finished), Time::now());
            return Ok(Outcome::AlreadyFinished);
        }
    } else if !replaces {
        RunDir::check_free(run.output())?;
    }
    directory.remove_leftovers()?;
    let mut prepared = run.prepare(&options.hub, watch)?;
    let found_before = preflight(&prepared, &Look::default())?;
    found_before.check()?;
    let (provenance, made_from) =
        provenance(&config, prepared.seed, &prepared.facts, &prepared.origins)?;
    let fresh = TrainState::new(run.task(), made_from);
    let mut found = None;
    let mut first = Vec::new();
    if goes_on {
        let (state, is_clean) = newest(&directory, &fresh, &mut prepared)?;
        if state.is_none() && !is_clean {
            prepared = run.prepare(&options.hub, watch)?;
        }
        directory.cut_events(state.as_ref().map_or(0, |state| state.events_bytes))?;
        directory.describe(&config, &provenance)?;
        found = Some(state);
    } else if replaces {
        // Behind this the earlier run is lost.
        watch.check()?;
        let removed = directory.replace(&config, &provenance)?;
        first.push(Event::Replaced { removed });
    } else {
        directory.begin(&config, &provenance)?;
    }
    if options.measure == Measure::Variances {
        prepared.optimizer.measure_variances();
    }
    let start = start(run, &prepared);
    let is_warning = |finding: &Finding| finding.severity == Severity::Warning;
    let warnings = found_before.findings.into_iter().filter(is_warning);
    first.extend(warnings.map(|finding| Event::Warning {
        message: finding.message,
        kind: Some(finding.kind.to_owned()),
        hint: finding.hint,
    }));
    let PreparedRun {
        learner,
        optimizer,
        plan,
        accumulation,
        unit,
        ..
    } = prepared;
    let mut trainer = Trainer {
        log: RunLog::new(directory, observer, plan.log_every),
        convergence: Convergence::new(plan.stop),
        state: fresh.clone(),
        consistent: fresh,
        is_spoiled: false,
        last_saved: None,
        started: Instant::now(),
        learner,
        optimizer,
        plan,
        accumulation,
        unit,
        stop: watch,
    };
    let result = trainer.run(start, first, found);
    if let Err(error) = &result {
        trainer.log.failed(error);
    }
    result
}

/// Loads the newest whole checkpoint; says with it whether what was prepared is untouched.
///
/// One that is damaged, or says more of the events than there is, is passed over. One of another run is an error.
fn newest(
    directory: &RunDir,
    fresh: &TrainState,
    prepared: &mut PreparedRun,
) -> Result<(Option<TrainState>, bool)> {
    let mut is_clean = true;
    for path in directory.checkpoints() {
        let Some(state) = TrainState::read(&path) else {
            continue;
        };
        state.made_from.check(&fresh.made_from)?;
        let best = state.best.filter(|_| prepared.plan.keep == Keep::Best);
        let has_best = best.is_none_or(|best| theta_of(&directory.best(best.step)).is_file());
        let is_ours = state.task == fresh.task
            && state.passes == state.step * prepared.accumulation
            && state.events_bytes <= directory.events_length()
            && has_best;
        if !is_ours {
            continue;
        }
        is_clean = false;
        let PreparedRun {
            learner, optimizer, ..
        } = prepared;
        if state.load(&path, learner.as_mut(), optimizer).is_ok() {
            return Ok((Some(state), false));
        }
    }
    Ok((None, is_clean))
}

/// What a run says of itself at its start.
pub(crate) fn start(run: &TaskRun, prepared: &PreparedRun) -> Start {
    let facts = &prepared.facts;
    Start {
        task: run.task().to_owned(),
        method: facts.method.clone(),
        model: facts.model.clone(),
        trainable_parameters: prepared.counts.trainable as u64,
        total_parameters: prepared.counts.total as u64,
        model_parameters: facts.model_parameters as u64,
        targets: facts.targets.clone(),
        scaling: facts.scaling,
        max_steps: prepared.plan.max_steps,
        batch_size: facts.batch_size as u64,
        gradient_accumulation: prepared.accumulation,
        precision: facts.precision.clone(),
        learning_rate: facts.learning_rate,
        lambda: facts.lambda,
        threads: Runtime::running_threads() as u64,
        seed: prepared.seed,
        output: run.output().to_owned(),
        data: facts.data.clone(),
    }
}

/// A run that has its directory.
struct Trainer<'a> {
    learner: Box<dyn TaskLearner>,
    optimizer: Optimizer,
    plan: RunPlan,
    accumulation: u64,
    unit: &'static str,
    stop: Stop<'a>,
    log: RunLog<'a>,
    convergence: Convergence,
    /// Where the run stands.
    state: TrainState,
    /// Where it stood when it could last be saved: whatever breaks off between, is done again.
    consistent: TrainState,
    /// Whether the update has seen a step that the model has not made.
    is_spoiled: bool,
    /// The last checkpoint, and the step after which it was saved.
    last_saved: Option<(u64, PathBuf)>,
    /// When the steps that this process makes began.
    started: Instant,
}

impl Trainer<'_> {
    /// `first` is told after the start; `found` is the checkpoint to go on from, the outer `None` a new run.
    fn run(
        &mut self,
        start: Start,
        first: Vec<Event>,
        found: Option<Option<TrainState>>,
    ) -> Result<Outcome> {
        let mut first = first.into_iter();
        match found {
            Some(Some(state)) => {
                self.convergence.seen = state.seen.clone();
                self.log.take_up()?;
                self.log.tell(&Event::Start(start));
                first.for_each(|event| self.log.tell(&event));
                self.log.emit(Event::Resumed { step: state.step })?;
                self.state = state;
            }
            is_resumed => {
                self.log.emit(Event::Start(start))?;
                first.try_for_each(|event| self.log.emit(event))?;
                if is_resumed.is_some() {
                    self.log.emit(Event::Resumed { step: 0 })?;
                }
            }
        }
        self.is_consistent();
        match self.steps() {
            Ok(()) => Ok(Outcome::Finished),
            Err(TrainError::Interrupted) => self.interrupted(),
            Err(error) => Err(self.rescue(error)),
        }
    }

    /// Makes steps until there is a reason to end, and ends.
    fn steps(&mut self) -> Result<()> {
        self.started = Instant::now();
        loop {
            if let Some(pending) = self.state.pending.clone() {
                if let Some(reason) = self.after_step(&pending)? {
                    return self.finish(reason);
                }
                self.state.pending = None;
                let before = self.consistent.best;
                self.is_consistent();
                let step = self.state.step;
                if step > 0 && is_due(self.plan.save_every, step) {
                    self.checkpoint()?;
                } else if self.state.best != before {
                    self.tidy();
                }
            }
            self.stop.check()?;
            self.step()?;
            self.is_consistent();
        }
    }

    /// Remembers that the run could be saved as it stands.
    fn is_consistent(&mut self) {
        self.state.seen = self.convergence.seen.clone();
        self.state.events_bytes = self.log.directory.events_length();
        self.consistent = self.state.clone();
    }

    /// Makes one step: forward and backward of every micro-batch, then the update.
    fn step(&mut self) -> Result<()> {
        let started = Instant::now();
        let stepped = learner::step(
            self.learner.as_mut(),
            &mut self.optimizer,
            |learner, loss, report| learner.check_gradient(loss, report),
        );
        let stepped = stepped.map_err(|error| {
            self.is_spoiled = true;
            self.learner.explain(error)
        })?;
        self.state.step += 1;
        self.state.passes += self.accumulation;
        let epoch = self.learner.epochs(self.state.passes);
        let step = step_event(&stepped, self.unit, (epoch, started));
        self.log.step(&step)?;
        self.learner.check_step(&step)?;
        // An accumulation that has not moved yet has not converged either.
        let has_moved = stepped.report.update_norm > 0.0;
        let mut reason = has_moved
            .then(|| self.convergence.after_step(step.loss, step.grad_norm))
            .flatten();
        if step.step >= self.plan.max_steps {
            reason = reason.or(Some(StopReason::Steps));
        }
        self.state.pending = Some(Pending {
            step: Some(step),
            reason,
        });
        Ok(())
    }

    /// Does what comes after a step, or before the first; returns why the run ends, if it does.
    fn after_step(&mut self, pending: &Pending) -> Result<Option<StopReason>> {
        let mut reason = pending.reason;
        let Some(step) = &pending.step else {
            self.evaluate(false)?;
            self.state.before = self.state.after;
            self.sample(self.evaluated(), 0)?;
            self.started = Instant::now();
            return Ok(None);
        };
        if is_due(self.plan.eval_every, step.step) || reason.is_some() {
            let patience = self.evaluate(reason.is_some())?;
            reason = reason.or(patience);
        }
        if reason.is_some() {
            self.learner.check_end(step)?;
        }
        Ok(reason)
    }

    /// Measures the model on what is held out; returns a reason to stop, if it gives one.
    ///
    /// The best model so far is written down, unless the run ends with it.
    fn evaluate(&mut self, is_last: bool) -> Result<Option<StopReason>> {
        let metrics = self.learner.evaluate(self.evaluated(), self.stop)?;
        let Some(metrics) = metrics else {
            return Ok(None);
        };
        if !metrics.primary().is_finite() {
            let what = format!("the held-out {}", metrics.primary_name());
            return Err(self.learner.explain(diverged(what, &self.optimizer)));
        }
        let metrics = match &self.plan.metric {
            Some(name) => metrics.decided_by(name)?,
            None => metrics,
        };
        let value = metrics.primary();
        let step = self.state.step;
        self.log
            .emit(Event::Evaluation(Evaluation::new(step, &metrics)))?;
        let before = self.state.before;
        let improved = before.is_none_or(|before| metrics.is_better_than(before));
        let is_best = |best: Best| metrics.is_better_than(best.value);
        if step > 0 && self.state.best.is_none_or(is_best) {
            self.state.best = Some(Best {
                step,
                value,
                improved,
            });
            if self.plan.keep == Keep::Best && !is_last {
                let path = self.log.directory.best(step);
                save_best(self.learner.as_ref(), &self.optimizer, &path)?;
            }
        }
        self.state.after = Some(value);
        self.state.improved = (step > 0).then_some(improved);
        self.state.metric = Some(metrics.primary_name().to_owned());
        Ok(self
            .convergence
            .after_evaluation(value, metrics.is_lower_better()))
    }

    /// Returns the parameters that are evaluated and saved: the trained ones, or an average that the update keeps.
    fn evaluated(&self) -> At<'static> {
        At::evaluated(self.learner.as_ref(), &self.optimizer)
    }

    /// Returns the step of the best model and the file of its theta, if that is the result and not the model as it is.
    fn earlier_best(&self, state: &TrainState) -> Option<(u64, PathBuf)> {
        let best = state.best.filter(|_| self.plan.keep == Keep::Best)?;
        let file = theta_of(&self.log.directory.best(best.step));
        (best.step < state.step).then_some((best.step, file))
    }

    /// Returns what [`earlier_best`](Self::earlier_best) found, or the model as it is.
    fn result<'a>(&self, best: Option<&'a (u64, PathBuf)>) -> At<'a> {
        best.map_or_else(|| self.evaluated(), |(_, file)| At::File(file))
    }

    fn sample(&mut self, at: At<'_>, step: u64) -> Result<()> {
        let Some((prompt, text)) = self.learner.sample(at, self.stop)? else {
            return Ok(());
        };
        self.log.emit(Event::Sample { step, prompt, text })
    }

    /// Writes the result, and says that the run is complete.
    fn finish(&mut self, reason: StopReason) -> Result<()> {
        let step = self.state.step;
        let seconds = self.seconds();
        let best = self.earlier_best(&self.state);
        let of_step = best.as_ref().map_or(step, |(step, _)| *step);
        let path = self.save_result(best.as_ref())?;
        self.log.emit(Event::Stopped { step, reason })?;
        if let Some(report) = self.learner.report(self.result(best.as_ref()))? {
            let files = [("report.json", Value::from(report.values.clone()))];
            for (name, value) in files.into_iter().chain(report.files) {
                let directory = &self.log.directory;
                directory.write(name, format!("{value:#}\n").as_bytes())?;
            }
            self.log.emit(Event::Report {
                report: report.values,
                text: report.text,
            })?;
        }
        self.log.emit(Event::Saved {
            step: of_step,
            path: path.clone(),
        })?;
        match self.sample(self.result(best.as_ref()), of_step) {
            // Everything else is done: without its last sample the run is complete sooner than it could be saved.
            Ok(()) | Err(TrainError::Interrupted) => {}
            Err(error) => return Err(error),
        }
        self.picture(self.state.best)?;
        let finished = self.finished(path, seconds);
        self.log.emit(Event::Finished(finished))?;
        remove_bests(&self.log.directory);
        Ok(())
    }

    fn finished(&self, path: PathBuf, seconds: f64) -> Finished {
        let state = &self.state;
        let (adapter, model) = match self.plan.result {
            ResultKind::Adapter => (Some(path), None),
            ResultKind::Model => (None, Some(path)),
        };
        let kept = state.best.filter(|_| self.plan.keep == Keep::Best);
        Finished {
            steps: state.step,
            seconds,
            metric: state.metric.clone(),
            before: state.before,
            after: kept.map(|best| best.value).or(state.after),
            best_step: state.best.map(|best| best.step),
            best_loss: state.best.map(|best| best.value),
            last_loss: state.after,
            improved: kept.map(|best| best.improved).or(state.improved),
            adapter,
            model,
        }
    }

    /// Returns the time that the steps of this run took, in all of its processes.
    fn seconds(&self) -> f64 {
        self.state.seconds + self.started.elapsed().as_secs_f64()
    }

    fn save_result(&self, best: Option<&(u64, PathBuf)>) -> Result<PathBuf> {
        let path = self.log.directory.result(self.plan.result);
        self.learner.save(self.result(best), &path)?;
        Ok(path)
    }

    /// Saves a checkpoint of where the run could last be saved, which is where it stands.
    fn checkpoint(&mut self) -> Result<()> {
        let state = TrainState {
            seconds: self.seconds(),
            ..self.consistent.clone()
        };
        let path = self.log.directory.checkpoint(state.step);
        self.log.directory.sync_events()?;
        state.save(self.learner.as_ref(), &self.optimizer, &path)?;
        self.tidy();
        self.saved(state.step, path)?;
        self.picture(state.best)
    }

    /// Draws the curves. A run is not lost over a picture.
    fn picture(&mut self, best: Option<Best>) -> Result<()> {
        match self.log.picture(best) {
            Ok(()) => Ok(()),
            Err(error) => self.log.emit(Event::Warning {
                message: format!("{PICTURE} is not up to date: {error}"),
                kind: None,
                hint: None,
            }),
        }
    }

    /// Removes the checkpoints and models that nothing needs any more.
    fn tidy(&self) {
        let TrainState { step, best, .. } = self.consistent;
        let best = best.map(|best| best.step);
        tidy(&self.log.directory, self.plan.keep_last, step, best);
    }

    fn saved(&mut self, step: u64, path: PathBuf) -> Result<()> {
        self.last_saved = Some((step, path.clone()));
        self.log.emit(Event::Saved { step, path })
    }

    /// Ends a run that was asked to stop, with its state and its result saved.
    ///
    /// Before the first step there is nothing to save.
    fn interrupted(&mut self) -> Result<Outcome> {
        let step = self.state.step;
        if step > 0 {
            self.checkpoint()?;
            // What an evaluation that was broken off has changed does not count.
            let best = self.earlier_best(&self.consistent);
            let path = self.save_result(best.as_ref())?;
            let step = best.map_or(step, |(step, _)| step);
            self.log.emit(Event::Saved { step, path })?;
        }
        self.log.emit(Event::Interrupted { step })?;
        Ok(Outcome::Interrupted { step })
    }

    /// Saves what the finished steps have learned when something after them fails.
    ///
    /// Returns the error that is to be reported, the first one.
    fn rescue(&mut self, mut error: TrainError) -> TrainError {
        let step = self.state.step;
        let is_saved = self
            .last_saved
            .as_ref()
            .is_some_and(|(saved, _)| *saved == step);
        if step > 0 && !is_saved {
            let path = self.log.directory.checkpoint(step);
            // A run cannot go on from an update that does not belong to the model; the model is worth keeping.
            let is_whole = !self.is_spoiled && self.consistent.step == step;
            // Whether it can be saved or written down does not change which error is the first.
            if is_whole {
                let _ = self.checkpoint();
            } else if self.learner.save(self.evaluated(), &path).is_ok() {
                let _ = self.saved(step, path);
            }
        }
        let _ = self.log.picture(self.consistent.best);
        if let TrainError::Diverged { last_saved, .. } | TrainError::Vanished { last_saved, .. } =
            &mut error
        {
            *last_saved = self.last_saved.as_ref().map(|(_, path)| path.clone());
        }
        error
    }
}

/// Returns what is said of a step that was started at a time.
fn step_event(stepped: &Stepped, unit: &str, (epoch, started): (Option<f64>, Instant)) -> Step {
    let report = &stepped.report;
    Step {
        step: report.step,
        epoch,
        loss: stepped.loss,
        learning_rate: report.learning_rate,
        grad_norm: report.grad_norm,
        weight: stepped.weight,
        unit: unit.to_owned(),
        per_second: stepped.weight / started.elapsed().as_secs_f64(),
        peak_rss_bytes: peak_rss_bytes(),
        variances: report.variances.map(|measured| Variances {
            grad_variance: measured.gradient,
            update_variance: measured.update,
            update_norm: report.update_norm,
        }),
    }
}
