//! The training loop.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::module::Module;
use burn::tensor::ElementConversion;
use reparam::ForwardContext;
use reparam::parameters::{self, ParameterList};
use reparam::update::{Optimizer, StepReport, UpdateError};
use reparam_data::{Batch, BatchPlan, Dataset};
use reparam_formats::hub::HubOptions;
use reparam_models::{CausalLm, Sampling};

use crate::config::{Length, RunConfig, SampleConfig};
use crate::evaluate::{evaluate, token_batch};
use crate::event::{Event, Finished, Observer, Start, Step};
use crate::memory::peak_rss_bytes;
use crate::prepare::{Attached, Prepared};
use crate::run_dir::RunDir;
use crate::{TrainError, settings};

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

/// Trains as a configuration says.
///
/// Everything is checked before anything is written: model, tokenizer, data, targets and the
/// output directory. `observer` is told of every event on the calling thread, `events.jsonl`
/// gets the same. When `stop` becomes true, the step in progress is finished, the adapter saved,
/// and the run ends.
///
/// # Errors
///
/// [`TrainError`]; a run that has started leaves a `failed` event and, if its loss or a gradient is
/// no longer finite, a checkpoint of its last finished step.
pub fn train(
    config: &RunConfig,
    hub: &HubOptions,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Outcome, TrainError> {
    config.check()?;
    RunDir::check_free(&config.output.dir)?;
    let prepared = Prepared::new(config, hub)?;
    let run_dir = prepared.create_run_dir(config)?;
    let mut run = Run {
        config,
        hub_model: config.model.path.clone(),
        run_dir,
        observer,
        last_saved: None,
    };
    let result = run.run(prepared, stop);
    if let Err(error) = &result {
        let failed = Event::Failed {
            error: error.to_failure(),
        };
        // The error that ended the run is the one to report, not that of writing it down.
        let _ = run.run_dir.append(&failed);
    }
    result
}

/// A run that has its directory.
struct Run<'a> {
    config: &'a RunConfig,
    hub_model: String,
    run_dir: RunDir,
    observer: &'a mut dyn Observer,
    last_saved: Option<PathBuf>,
}

impl Run<'_> {
    fn run(&mut self, prepared: Prepared, stop: &AtomicBool) -> Result<Outcome, TrainError> {
        let Prepared {
            session,
            attached,
            train,
            eval,
            ..
        } = prepared;
        let train_config = &self.config.train;
        let accumulation = train_config.gradient_accumulation as u64;
        let plan = BatchPlan::new(
            train.blocks.len(),
            train_config.batch_size,
            train_config.seed,
            self.config.data.shuffle,
        )?;
        let max_steps = max_steps(train_config.length, &train, accumulation, &plan);
        let mut optimizer = settings::optimizer(&self.config.optimizer, max_steps)?;
        // From here on the session's model is the one that evaluates, a copy that shares the base.
        let mut session = session;
        let mut model = session.model.clone().train();
        let counts = parameters::count(&model);
        self.emit(Event::Start(Start {
            method: self.config.method.name().to_owned(),
            model: self.hub_model.clone(),
            trainable_parameters: counts.trainable as u64,
            total_parameters: counts.total as u64,
            targets: attached
                .modules
                .iter()
                .map(|module| module.module.clone())
                .collect(),
            scaling: attached.scaling,
            train_tokens: train.report.tokens as u64,
            labelled_tokens: train.report.labelled_tokens as u64,
            blocks: train.report.blocks as u64,
            eval_tokens: eval
                .as_ref()
                .map_or(0, |eval| eval.report.labelled_tokens as u64),
            max_steps,
            batch_size: train_config.batch_size as u64,
            sequence_length: train_config.sequence_length as u64,
            gradient_accumulation: accumulation,
            precision: "f32".to_owned(),
            lambda: settings::lambda(&self.config.optimizer, max_steps),
            threads: rayon::current_num_threads() as u64,
            seed: train_config.seed,
            output: self.config.output.dir.clone(),
        }))?;
        let loss_before = self.evaluate(&session.model, eval.as_ref(), 0)?;
        self.sample(&session, 0)?;

        let started = Instant::now();
        let mut interrupted = None;
        let mut evaluated = (0, loss_before);
        for step in 1..=max_steps {
            if stop.load(Ordering::Relaxed) {
                interrupted = Some(step - 1);
                break;
            }
            let steps_done = optimizer.steps_done();
            // The copy shares all tensors; it is what is left if the step fails.
            model = match self.step(model.clone(), &mut optimizer, &train, &plan) {
                Ok(model) => model,
                Err(error) => {
                    return Err(self.rescue(error, &attached, &model, steps_done));
                }
            };
            let is_last = step == max_steps;
            if is_due(train_config.eval_every, step) || is_last {
                session.model = model.valid();
                evaluated = (step, self.evaluate(&session.model, eval.as_ref(), step)?);
            }
            if is_due(train_config.save_every, step) && !is_last {
                let adapter = attached.to_adapter(&model)?;
                let path = self.run_dir.save_checkpoint(&adapter, step)?;
                self.saved(step, path)?;
            }
        }
        let seconds = started.elapsed().as_secs_f64();

        let steps = optimizer.steps_done();
        let path = self.run_dir.save_adapter(&attached.to_adapter(&model)?)?;
        self.saved(steps, path.clone())?;
        if let Some(step) = interrupted {
            self.emit(Event::Interrupted { step })?;
            return Ok(Outcome::Interrupted { step });
        }
        self.sample(&session, steps)?;
        self.emit(Event::Finished(Finished {
            steps,
            seconds,
            loss_before,
            loss_after: evaluated.1,
            adapter: path,
        }))?;
        Ok(Outcome::Finished)
    }

    /// Makes one step: forward and backward of every micro-batch, then the update.
    fn step(
        &mut self,
        model: CausalLm,
        optimizer: &mut Optimizer,
        train: &Dataset,
        plan: &BatchPlan,
    ) -> Result<CausalLm, TrainError> {
        let started = Instant::now();
        let seed = self.config.train.seed;
        let accumulation = self.config.train.gradient_accumulation as u64;
        let first_pass = optimizer.steps_done() * accumulation;
        let batches: Vec<Batch> = (first_pass..first_pass + accumulation)
            .map(|pass| train.batch(&plan.batch(pass)))
            .collect();
        // One normalization for the whole step: with a mean for each micro-batch, tokens of a
        // short one would weigh more.
        let tokens: usize = batches.iter().map(Batch::n_labelled).sum();
        let scale = 1.0 / tokens as f32;

        let mut loss = 0.0;
        let mut gradients: Option<ParameterList> = None;
        for (pass, batch) in (first_pass..).zip(&batches) {
            let context = ForwardContext::training(seed, pass);
            let micro_loss = model.loss(token_batch(batch), &batch.labels, scale, &context);
            loss += micro_loss.clone().into_scalar::<f32>().elem::<f64>();
            let micro = parameters::take_gradients(&model, &mut micro_loss.backward());
            gradients = Some(match gradients {
                None => micro,
                Some(sum) => add(sum, micro),
            });
        }
        if !loss.is_finite() {
            return Err(diverged("the loss".to_owned(), optimizer));
        }
        let (model, report) = optimizer
            .step(model, gradients.unwrap_or_default())
            .map_err(|error| match error {
                UpdateError::NonFinite { name } => {
                    diverged(format!("the gradient of `{name}`"), optimizer)
                }
                other => TrainError::Update(other),
            })?;
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
        self.report_step(report, loss, tokens, started)?;
        Ok(model)
    }

    fn report_step(
        &mut self,
        report: StepReport,
        loss: f64,
        tokens: usize,
        started: Instant,
    ) -> Result<(), TrainError> {
        let event = Event::Step(Step {
            step: report.step,
            loss,
            learning_rate: report.learning_rate,
            grad_norm: report.grad_norm,
            tokens: tokens as u64,
            tokens_per_s: tokens as f64 / started.elapsed().as_secs_f64(),
            peak_rss_bytes: peak_rss_bytes(),
        });
        if report.step == 1 || is_due(self.config.train.log_every, report.step) {
            self.run_dir.append(&event)?;
        }
        self.observer.on_event(&event);
        Ok(())
    }

    /// Saves what the finished steps have learned when the next one fails, and says so in the error.
    fn rescue(
        &mut self,
        mut error: TrainError,
        attached: &Attached,
        model: &CausalLm,
        steps_done: u64,
    ) -> TrainError {
        let (TrainError::Diverged { last_saved, .. } | TrainError::Vanished { last_saved, .. }) =
            &mut error
        else {
            return error;
        };
        if steps_done > 0 {
            let saved = attached
                .to_adapter(model)
                .and_then(|adapter| self.run_dir.save_checkpoint(&adapter, steps_done))
                .and_then(|path| self.saved(steps_done, path));
            if let Err(error) = saved {
                return error;
            }
        }
        last_saved.clone_from(&self.last_saved);
        error
    }

    fn evaluate(
        &mut self,
        model: &CausalLm,
        eval: Option<&Dataset>,
        step: u64,
    ) -> Result<Option<f64>, TrainError> {
        let Some(eval) = eval else {
            return Ok(None);
        };
        let evaluation = evaluate(model, eval);
        self.emit(Event::Evaluation {
            step,
            loss: evaluation.loss,
            perplexity: evaluation.perplexity(),
            tokens: evaluation.tokens,
        })?;
        Ok(Some(evaluation.loss))
    }

    fn sample(&mut self, session: &crate::Session, step: u64) -> Result<(), TrainError> {
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
        self.emit(Event::Sample {
            step,
            prompt: prompt.clone(),
            text,
        })
    }

    fn saved(&mut self, step: u64, path: PathBuf) -> Result<(), TrainError> {
        self.last_saved = Some(path.clone());
        self.emit(Event::Saved { step, path })
    }

    fn emit(&mut self, event: Event) -> Result<(), TrainError> {
        self.run_dir.append(&event)?;
        self.observer.on_event(&event);
        Ok(())
    }
}

fn diverged(what: String, optimizer: &Optimizer) -> TrainError {
    TrainError::Diverged {
        what,
        step: optimizer.steps_done() + 1,
        learning_rate: optimizer.next_learning_rate(),
        last_saved: None,
    }
}

fn is_due(every: u64, step: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
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

/// Returns the steps of a run: those asked for, or as many as the epochs need.
fn max_steps(length: Length, train: &Dataset, accumulation: u64, plan: &BatchPlan) -> u64 {
    match length {
        Length::MaxSteps(steps) => steps,
        Length::Epochs(epochs) => {
            let blocks = (epochs * train.blocks.len() as f64).ceil() as u64;
            let blocks_a_step = plan.batch_size() as u64 * accumulation;
            blocks.div_ceil(blocks_a_step).max(1)
        }
    }
}
