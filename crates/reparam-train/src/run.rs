//! The training loop.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::module::Module;
use burn::tensor::ElementConversion;
use reparam::ForwardContext;
use reparam::methods;
use reparam::optim::{OptimError, Optimizer, StepReport};
use reparam::parameters::{self, ParameterList};
use reparam_data::{BatchPlan, Dataset};
use reparam_formats::hub::HubOptions;
use reparam_models::{CausalLm, Precision, Sampling};

use crate::config::{RunConfig, SampleConfig};
use crate::convergence::Convergence;
use crate::evaluate::{evaluate, token_batch};
use crate::event::{Event, Finished, Observer, Start, Step, StopReason, Variances};
use crate::log::{RunLog, is_due};
use crate::memory::peak_rss_bytes;
use crate::prepare::{Attached, Prepared};
use crate::run_dir::RunDir;
use crate::{Session, TrainError, settings};

/// How a run ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// It was asked to stop, and did so after `step` with the adapter saved.
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

/// Trains as a configuration says.
///
/// Everything is checked before anything is written: model, tokenizer, data, targets and the
/// output directory. `observer` is told of every event on the calling thread, `events.jsonl`
/// gets the same. When `stop` becomes true, the step in progress is finished, the adapter saved,
/// and the run ends.
///
/// # Errors
///
/// [`TrainError`]; a run that has started leaves a `failed` event and a checkpoint of its last
/// finished step.
pub fn train(
    config: &RunConfig,
    hub: &HubOptions,
    measure: Measure,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Outcome, TrainError> {
    config.check()?;
    RunDir::check_free(&config.output.dir)?;
    let mut prepared = Prepared::new(config, hub)?;
    if measure == Measure::Variances {
        prepared.optimizer.measure_variances();
    }
    let run_dir = prepared.create_run_dir(config)?;
    let mut run = Run {
        config,
        log: RunLog::new(run_dir, observer, config.train.log_every),
        last_saved: None,
    };
    let result = run.run(prepared, stop);
    if let Err(error) = &result {
        run.log.failed(error);
    }
    result
}

/// A run that has its directory.
struct Run<'a> {
    config: &'a RunConfig,
    log: RunLog<'a>,
    /// The last saved adapter and the step after which it was saved.
    last_saved: Option<(u64, PathBuf)>,
}

/// What a run learns from and is measured on.
struct RunData {
    train: Dataset,
    eval: Option<Dataset>,
    plan: BatchPlan,
}

impl RunData {
    /// Counts the labelled tokens of a micro-batch.
    fn n_labelled(&self, pass: u64) -> usize {
        let blocks = self.plan.batch(pass);
        blocks
            .into_iter()
            .map(|block| self.train.blocks[block].n_labelled())
            .sum()
    }
}

/// How far a run is.
struct Progress {
    /// The model of the last finished step.
    model: CausalLm,
    /// The session whose model evaluates and generates: a copy that shares the base.
    session: Session,
    optimizer: Optimizer,
    /// The last measured held-out loss.
    loss_after: Option<f64>,
}

impl Progress {
    /// Returns the model that is evaluated and saved: the trained one, or an average that the update keeps.
    fn evaluated(&self) -> CausalLm {
        let average = self.optimizer.evaluated(&self.model);
        average.unwrap_or_else(|| self.model.clone())
    }
}

impl Run<'_> {
    fn run(&mut self, prepared: Prepared, stop: &AtomicBool) -> Result<Outcome, TrainError> {
        let Prepared {
            session,
            attached,
            train,
            eval,
            plan,
            max_steps,
            optimizer,
            precision,
        } = prepared;
        let model = session.model.clone().train();
        self.start(
            &model,
            &attached,
            &train,
            eval.as_ref(),
            (max_steps, precision),
        )?;
        let loss_before = self.evaluate(&session.model, eval.as_ref(), 0, &optimizer)?;
        self.sample(&session, 0)?;

        let data = RunData { train, eval, plan };
        let mut progress = Progress {
            model,
            session,
            optimizer,
            loss_after: loss_before,
        };
        let started = Instant::now();
        let stopped = match self.steps(&mut progress, &data, &attached, max_steps, stop) {
            Ok(stopped) => stopped,
            Err(error) => return Err(self.rescue(error, &attached, &progress)),
        };
        let seconds = started.elapsed().as_secs_f64();

        let steps = progress.optimizer.steps_done();
        let path = if attached.is_adapter() {
            self.log.directory.adapter()
        } else {
            self.log.directory.model()
        };
        attached.save(&progress.evaluated(), &path)?;
        let Some(reason) = stopped else {
            self.saved(steps, path)?;
            self.log.emit(Event::Interrupted { step: steps })?;
            return Ok(Outcome::Interrupted { step: steps });
        };
        self.log.emit(Event::Stopped {
            step: steps,
            reason,
        })?;
        self.saved(steps, path.clone())?;
        self.sample(&progress.session, steps)?;
        let (adapter, model) = if attached.is_adapter() {
            (Some(path), None)
        } else {
            (None, Some(path))
        };
        self.log.emit(Event::Finished(Finished {
            steps,
            seconds,
            loss_before,
            loss_after: progress.loss_after,
            adapter,
            model,
        }))?;
        Ok(Outcome::Finished)
    }

    fn start(
        &mut self,
        model: &CausalLm,
        attached: &Attached,
        train: &Dataset,
        eval: Option<&Dataset>,
        (max_steps, precision): (u64, Precision),
    ) -> Result<(), TrainError> {
        let config = &self.config.train;
        let counts = parameters::count(model);
        let modules = attached.modules.iter();
        self.log.emit(Event::Start(Start {
            method: self.config.method.kind.clone(),
            model: self.config.model.path.clone(),
            trainable_parameters: counts.trainable as u64,
            total_parameters: counts.total as u64,
            model_parameters: attached.model_parameters as u64,
            targets: modules.map(|module| module.module.clone()).collect(),
            scaling: attached.scaling,
            train_tokens: train.report.tokens as u64,
            labelled_tokens: train.report.labelled_tokens as u64,
            cut_examples: train.report.cut_examples as u64,
            blocks: train.report.blocks as u64,
            eval_tokens: eval.map_or(0, |eval| eval.report.labelled_tokens as u64),
            max_steps,
            batch_size: config.batch_size as u64,
            sequence_length: config.sequence_length as u64,
            gradient_accumulation: config.gradient_accumulation as u64,
            precision: precision.name().to_owned(),
            lambda: settings::lambda(&self.config.optimizer.update, max_steps),
            threads: rayon::current_num_threads() as u64,
            seed: config.seed,
            output: self.config.output.dir.clone(),
        }))
    }

    /// Makes the steps, and returns why there are no more; `None` if it was asked to stop.
    ///
    /// Whatever fails, `progress` holds the model of the last finished step.
    fn steps(
        &mut self,
        progress: &mut Progress,
        data: &RunData,
        attached: &Attached,
        max_steps: u64,
        stop: &AtomicBool,
    ) -> Result<Option<StopReason>, TrainError> {
        let mut convergence = Convergence::new(self.config.train.stop, progress.loss_after);
        for step in 1..=max_steps {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let (report, has_moved) = self.step(progress, data)?;
            self.log.step(&report)?;
            // An accumulation that has not moved yet has not converged either.
            let mut reason = has_moved
                .then(|| convergence.after_step(report.loss, report.grad_norm))
                .flatten();
            if step == max_steps {
                reason = reason.or(Some(StopReason::Steps));
            }
            if is_due(self.config.train.eval_every, step) || reason.is_some() {
                progress.session.model = progress.evaluated().valid();
                let model = &progress.session.model;
                progress.loss_after =
                    self.evaluate(model, data.eval.as_ref(), step, &progress.optimizer)?;
                let patience = progress
                    .loss_after
                    .and_then(|loss| convergence.after_evaluation(loss));
                reason = reason.or(patience);
            }
            if reason.is_some() {
                return Ok(reason);
            }
            if is_due(self.config.train.save_every, step) {
                let path = self.log.directory.checkpoint(step);
                attached.save(&progress.evaluated(), &path)?;
                self.saved(step, path)?;
            }
        }
        Ok(Some(StopReason::Steps))
    }

    /// Makes one step: forward and backward of every micro-batch, then the update.
    ///
    /// Returns with it whether anything moved.
    fn step(
        &mut self,
        progress: &mut Progress,
        data: &RunData,
    ) -> Result<(Step, bool), TrainError> {
        let started = Instant::now();
        let seed = self.config.train.seed;
        let accumulation = self.config.train.gradient_accumulation as u64;
        let optimizer = &mut progress.optimizer;
        let first_pass = optimizer.steps_done() * accumulation;
        let passes = first_pass..first_pass + accumulation;
        // One normalization for the whole step: with a mean for each micro-batch, tokens of a
        // short one would weigh more.
        let tokens: usize = passes.clone().map(|pass| data.n_labelled(pass)).sum();
        let scale = 1.0 / tokens as f32;

        let model = &progress.model;
        let pass_over = |model: &CausalLm| -> (f64, ParameterList) {
            let mut loss = 0.0;
            let mut gradients: Option<ParameterList> = None;
            for pass in passes.clone() {
                let batch = data.train.batch(&data.plan.batch(pass));
                let context = ForwardContext::training(seed, pass);
                let micro_loss = model.loss(token_batch(&batch), &batch.labels, scale, &context);
                loss += micro_loss.clone().into_scalar::<f32>().elem::<f64>();
                let micro = parameters::take_gradients(model, &mut micro_loss.backward());
                gradients = Some(match gradients {
                    None => micro,
                    Some(sum) => add(sum, micro),
                });
            }
            (loss, gradients.unwrap_or_default())
        };
        let (loss, mut gradients) = pass_over(model);
        if !loss.is_finite() {
            return Err(diverged("the loss".to_owned(), optimizer));
        }
        let probed = optimizer.probe(model, &gradients);
        if let Some(point) = probed.map_err(|error| not_finite(error, optimizer))? {
            (_, gradients) = pass_over(&point);
        }
        // The copy shares all tensors; the model stays what it is if the step fails.
        let (model, report) = optimizer
            .step(model.clone(), gradients)
            .map_err(|error| not_finite(error, optimizer))?;
        // Numbers that overflow inside a normalization come out as zeros instead of infinities:
        // the loss stays finite, and nothing would ever be learned again. A loss of zero is the
        // one honest reason for it.
        if report.grad_norm == 0.0 && loss > 0.0 {
            return Err(TrainError::Vanished {
                step: report.step,
                loss,
                learning_rate: report.learning_rate,
                last_saved: None,
            });
        }
        progress.model = methods::after_step(model);
        let step = step_event(&report, loss, tokens, started);
        Ok((step, report.update_norm > 0.0))
    }

    /// Saves what the finished steps have learned when something after them fails.
    ///
    /// Returns the error that is to be reported, the first one.
    fn rescue(
        &mut self,
        mut error: TrainError,
        attached: &Attached,
        progress: &Progress,
    ) -> TrainError {
        let steps_done = match &error {
            // The failed step has been counted, but its result was dropped.
            TrainError::Vanished { step, .. } => step - 1,
            _ => progress.optimizer.steps_done(),
        };
        let is_saved = self
            .last_saved
            .as_ref()
            .is_some_and(|(step, _)| *step == steps_done);
        if steps_done > 0 && !is_saved {
            let path = self.log.directory.checkpoint(steps_done);
            if attached.save(&progress.evaluated(), &path).is_ok() {
                // Whether the event can be written does not change what is on the disk.
                let _ = self.saved(steps_done, path);
            }
        }
        if let TrainError::Diverged { last_saved, .. } | TrainError::Vanished { last_saved, .. } =
            &mut error
        {
            *last_saved = self.last_saved.as_ref().map(|(_, path)| path.clone());
        }
        error
    }

    fn evaluate(
        &mut self,
        model: &CausalLm,
        eval: Option<&Dataset>,
        step: u64,
        optimizer: &Optimizer,
    ) -> Result<Option<f64>, TrainError> {
        let Some(eval) = eval else {
            return Ok(None);
        };
        let evaluation = evaluate(model, eval);
        if !evaluation.loss.is_finite() {
            return Err(diverged("the held-out loss".to_owned(), optimizer));
        }
        self.log.emit(Event::Evaluation {
            step,
            loss: evaluation.loss,
            perplexity: evaluation.perplexity(),
            tokens: evaluation.tokens,
        })?;
        Ok(Some(evaluation.loss))
    }

    fn sample(&mut self, session: &Session, step: u64) -> Result<(), TrainError> {
        let Some(SampleConfig { prompt, tokens }) = &self.config.train.sample else {
            return Ok(());
        };
        let (_, generation) = session.generate(prompt, *tokens, Sampling::greedy())?;
        let ids = generation.collect::<Result<Vec<_>, _>>()?;
        let prompt_ids = session.tokenizer.encode(prompt, true)?;
        let mut decoder = session.tokenizer.stream_decoder(true);
        decoder.skip(&prompt_ids)?;
        let mut text = String::new();
        for id in ids {
            text.extend(decoder.push(id)?);
        }
        text.extend(decoder.finish()?);
        self.log.emit(Event::Sample {
            step,
            prompt: prompt.clone(),
            text,
        })
    }

    fn saved(&mut self, step: u64, path: PathBuf) -> Result<(), TrainError> {
        self.last_saved = Some((step, path.clone()));
        self.log.emit(Event::Saved { step, path })
    }
}

pub(crate) fn diverged(what: String, optimizer: &Optimizer) -> TrainError {
    TrainError::Diverged {
        what,
        step: optimizer.steps_done() + 1,
        learning_rate: optimizer.next_learning_rate(),
        last_saved: None,
    }
}

/// Returns a failed step's error as a run's.
pub(crate) fn not_finite(error: OptimError, optimizer: &Optimizer) -> TrainError {
    match error {
        OptimError::NonFinite { name } => diverged(format!("the gradient of `{name}`"), optimizer),
        OptimError::NonFiniteParameter { name } => {
            diverged(format!("`{name}` after the update"), optimizer)
        }
        other => TrainError::Update(other),
    }
}

/// Returns what is said of a step that was started at a time and learned from so many tokens or rows.
pub(crate) fn step_event(report: &StepReport, loss: f64, tokens: usize, started: Instant) -> Step {
    Step {
        step: report.step,
        loss,
        learning_rate: report.learning_rate,
        grad_norm: report.grad_norm,
        tokens: tokens as u64,
        tokens_per_s: tokens as f64 / started.elapsed().as_secs_f64(),
        peak_rss_bytes: peak_rss_bytes(),
        variances: report.variances.map(|measured| Variances {
            grad_variance: measured.gradient,
            update_variance: measured.update,
            update_norm: report.update_norm,
        }),
    }
}

fn add(sum: ParameterList, other: ParameterList) -> ParameterList {
    sum.into_iter()
        .zip(other)
        .map(|(sum, other)| {
            let values = sum.values.clone() + other.values;
            sum.with_values(values)
        })
        .collect()
}
