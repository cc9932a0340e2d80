//! Training a regression.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{ElementConversion, Tensor};
use reparam::ForwardContext;
use reparam::methods;
use reparam::optim::Optimizer;
use reparam::parameters;
use reparam_data::BatchPlan;

use super::RegressionModel;
use super::network::{Network, activation, tensor, widths};
use super::report::{Errors, errors, report};
use super::table::Tables;
use crate::config::{Activation, RegressionConfig, RegressionModelKind, starts_from_data};
use crate::convergence::Convergence;
use crate::event::{Event, Finished, Observer, RegressionStart, Step, StopReason};
use crate::log::{RunLog, is_due};
use crate::provenance::table_provenance;
use crate::run::{Measure, Outcome, diverged, not_finite, step_event};
use crate::run_dir::RunDir;
use crate::{TrainError, settings};

/// A loss this many times that of the first step will not come down again.
///
/// The first loss of a standardized target is about its variance, one. A batch of unlucky rows may be a few
/// times worse; ten thousand times is a hundred standard deviations off.
const GROWN: f64 = 1e4;

/// A run that ends with a loss this many times that of its start has gone astray: bounded steps that are too
/// long go to and fro. A short run on unlucky batches may end a little above its start.
const NOT_LEARNED: f64 = 2.0;

/// The most numbers that a network may have: beyond it a width is a slip of the finger.
const MOST_PARAMETERS: usize = 100_000_000;

/// Trains a regression as a configuration says.
///
/// Everything is checked before anything is written. `observer` is told of every event on the calling
/// thread, `events.jsonl` gets the same. When `stop` becomes true, the step in progress is finished, the model
/// saved, and the run ends.
///
/// The run directory gets `model/`, `report.json` with what the last event says, and `split.json` with the rows
/// of the source that were trained and tested on.
///
/// # Errors
///
/// [`TrainError`]; a run whose loss grows without bound, or ends far above where it started, has diverged.
pub fn train_regression(
    config: &RegressionConfig,
    measure: Measure,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Outcome, TrainError> {
    config.check()?;
    RunDir::check_free(&config.output.dir)?;
    let tables = Tables::prepare(config)?;
    let mut progress = Progress::new(config, &tables)?;
    if measure == Measure::Variances {
        progress.optimizer.measure_variances();
    }
    let resolved = config.to_toml()?;
    let digest = tables.train.digest.as_ref();
    let provenance = table_provenance(&resolved, config.train.seed, digest);
    let run_dir = RunDir::create(&config.output.dir, &resolved, &provenance)?;
    let mut run = Run {
        config,
        tables,
        log: RunLog::new(run_dir, observer, config.train.log_every),
    };
    let result = run.run(progress, stop);
    if let Err(error) = &result {
        run.log.failed(error);
    }
    result
}

/// Checks that a run could start, without a directory and without a step.
pub(crate) fn check_regression(config: &RegressionConfig) -> Result<(), TrainError> {
    config.check()?;
    let tables = Tables::prepare(config)?;
    Progress::new(config, &tables).map(drop)
}

struct Run<'a> {
    config: &'a RegressionConfig,
    tables: Tables,
    log: RunLog<'a>,
}

/// How far a run is.
struct Progress {
    network: Network,
    activation: Activation,
    optimizer: Optimizer,
    /// The training rows as the model sees them, `[n, d]` and `[n, 1]`.
    x: Tensor<2>,
    y: Tensor<2>,
    plan: Option<BatchPlan>,
    seed: u64,
}

impl Progress {
    fn new(config: &RegressionConfig, tables: &Tables) -> Result<Self, TrainError> {
        let train = &tables.train;
        let (n, d) = (train.n_rows, train.n_features());
        let x = tensor(&tables.standardizer.apply_features(&train.x)?, [n, d]);
        let y = tensor(&tables.standardizer.apply_target(&train.y), [n, 1]);
        let kind = &config.model.kind;
        let widths = widths(kind, d);
        let sizes = widths
            .windows(2)
            .map(|pair| pair[0].saturating_mul(pair[1]));
        let parameters = sizes.fold(0, usize::saturating_add);
        if parameters > MOST_PARAMETERS {
            return Err(TrainError::NetworkTooLarge {
                parameters,
                most: MOST_PARAMETERS,
            });
        }
        let network = Network::random(&widths, config.train.seed);
        let method = settings::method(&config.method, config.train.max_steps)?;
        let (mut network, _) = method.attach(network, config.train.seed)?;
        if starts_from_data(&config.method) {
            network = network.initialize_from_data(x.clone(), activation(kind))?;
        }
        let network = network.train();
        let optimizer =
            settings::optimizer(&config.optimizer, &config.method, config.train.max_steps)?;
        optimizer.check(&network).map_err(TrainError::Update)?;
        let plan = match config.train.batch_size {
            None => None,
            Some(size) if size > n => {
                return Err(TrainError::BatchTooLarge {
                    batch_size: size,
                    rows: n,
                });
            }
            Some(size) => Some(BatchPlan::new(n, size, config.train.seed, true)?),
        };
        Ok(Self {
            network,
            activation: activation(kind),
            optimizer,
            x: Tensor::from_inner(x),
            y: Tensor::from_inner(y),
            plan,
            seed: config.train.seed,
        })
    }

    /// Returns the rows of the coming step.
    fn batch(&self) -> (Tensor<2>, Tensor<2>) {
        let Some(plan) = &self.plan else {
            return (self.x.clone(), self.y.clone());
        };
        let rows: Vec<i64> = plan
            .batch(self.optimizer.steps_done())
            .into_iter()
            .map(|row| row as i64)
            .collect();
        let rows = Tensor::<1, burn::tensor::Int>::from_data(rows.as_slice(), &self.x.device());
        (
            self.x.clone().select(0, rows.clone()),
            self.y.clone().select(0, rows),
        )
    }

    fn loss(
        &self,
        network: &Network,
        (x, y): &(Tensor<2>, Tensor<2>),
        context: &ForwardContext,
    ) -> Tensor<1> {
        let difference = network.forward(x.clone(), self.activation, context) - y.clone();
        (difference.clone() * difference).mean()
    }

    /// Returns the mean squared error over all training rows, as the model sees them.
    fn train_loss(&self) -> f64 {
        let rows = (self.x.clone(), self.y.clone());
        let loss = self.loss(&self.network, &rows, &ForwardContext::inference());
        loss.into_scalar::<f64>().elem()
    }

    /// Makes one step: gradient, gradient update, parameter update.
    ///
    /// Returns with it whether anything moved.
    fn step(&mut self) -> Result<(Step, bool), TrainError> {
        let started = Instant::now();
        let batch = self.batch();
        let n_rows = batch.0.dims()[0];
        let take = |network: &Network, loss: Tensor<1>| {
            parameters::take_gradients(network, &mut loss.backward())
        };
        // Both gradients of a probe are of one network: what drops out is the same.
        let context = ForwardContext::training(self.seed, self.optimizer.steps_done());
        let loss = self.loss(&self.network, &batch, &context);
        let loss_value: f64 = loss.clone().into_scalar::<f64>().elem();
        if !loss_value.is_finite() {
            return Err(diverged("the loss".to_owned(), &self.optimizer));
        }
        let mut gradients = take(&self.network, loss);
        let point = self.optimizer.probe(&self.network, &gradients);
        if let Some(point) = point.map_err(|error| not_finite(error, &self.optimizer))? {
            gradients = take(&point, self.loss(&point, &batch, &context));
        }
        let moved = self.optimizer.step(self.network.clone(), gradients);
        let (network, report) = moved.map_err(|error| not_finite(error, &self.optimizer))?;
        self.network = methods::after_step(network);
        let step = step_event(&report, loss_value, n_rows, started);
        Ok((step, report.update_norm > 0.0))
    }

    /// Returns the network that is evaluated and saved, without autodiff.
    fn evaluated(&self) -> Network {
        let average = self.optimizer.evaluated(&self.network);
        average.unwrap_or_else(|| self.network.clone()).valid()
    }
}

impl Run<'_> {
    fn run(&mut self, mut progress: Progress, stop: &AtomicBool) -> Result<Outcome, TrainError> {
        self.start(&progress)?;
        let started = Instant::now();
        let loss_before = self.evaluate(&progress, 0)?.mse;
        let reason = match self.steps(&mut progress, loss_before, stop) {
            Ok(reason) => reason,
            Err(error) => {
                self.rescue(&progress);
                return Err(error);
            }
        };
        let steps = progress.optimizer.steps_done();
        let model = self.model(&progress);
        let path = self.log.directory.model();
        model.save(&path)?;
        let Some(reason) = reason else {
            self.log.emit(Event::Saved { step: steps, path })?;
            self.log.emit(Event::Interrupted { step: steps })?;
            return Ok(Outcome::Interrupted { step: steps });
        };
        self.log.emit(Event::Stopped {
            step: steps,
            reason,
        })?;
        let report = report(&model, &self.tables)?;
        self.write_json("report.json", &report)?;
        let split = serde_json::json!({
            "train": self.tables.train.rows,
            "test": self.tables.test.rows,
        });
        self.write_json("split.json", &split)?;
        let loss_after = report.test_mse;
        self.log.emit(Event::RegressionReport(report))?;
        self.log.emit(Event::Saved {
            step: steps,
            path: path.clone(),
        })?;
        self.log.emit(Event::Finished(Finished {
            steps,
            seconds: started.elapsed().as_secs_f64(),
            loss_before: Some(loss_before),
            loss_after: Some(loss_after),
            adapter: None,
            model: Some(path),
        }))?;
        Ok(Outcome::Finished)
    }

    fn start(&mut self, progress: &Progress) -> Result<(), TrainError> {
        let config = self.config;
        let train = &self.tables.train;
        let start = RegressionStart {
            model: match config.model.kind {
                RegressionModelKind::Linear => "linear".to_owned(),
                RegressionModelKind::Mlp { .. } => "mlp".to_owned(),
            },
            method: config.method.kind.clone(),
            trainable_parameters: parameters::count(&progress.network).trainable as u64,
            features: train.features.clone(),
            target: train.target.clone(),
            train_rows: train.n_rows as u64,
            test_rows: self.tables.test.n_rows as u64,
            dropped_rows: self.tables.n_dropped as u64,
            max_steps: config.train.max_steps,
            batch_size: config.train.batch_size.unwrap_or(train.n_rows) as u64,
            learning_rate: config.optimizer.learning_rate,
            lambda: settings::lambda(&config.optimizer.update, config.train.max_steps),
            seed: config.train.seed,
            output: config.output.dir.clone(),
        };
        self.log.emit(Event::RegressionStart(start))
    }

    /// Makes the steps, and returns why there are no more; `None` if it was asked to stop.
    fn steps(
        &mut self,
        progress: &mut Progress,
        held_out: f64,
        stop: &AtomicBool,
    ) -> Result<Option<StopReason>, TrainError> {
        let config = &self.config.train;
        let mut convergence = Convergence::new(config.stop, Some(held_out));
        let before = progress.train_loss();
        for step in 1..=config.max_steps {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let (report, has_moved) = match progress.step() {
                Ok(step) => step,
                Err(error) => return Err(self.explain(error, before)),
            };
            let (loss, grad_norm) = (report.loss, report.grad_norm);
            let learning_rate = report.learning_rate;
            self.log.step(&report)?;
            if loss > before * GROWN {
                return Err(self.grown(step, loss, before, learning_rate));
            }
            // An accumulation that has not moved yet has not converged either.
            let mut reason = has_moved
                .then(|| convergence.after_step(loss, grad_norm))
                .flatten();
            if step == config.max_steps {
                reason = reason.or(Some(StopReason::Steps));
            }
            if is_due(config.eval_every, step) || reason.is_some() {
                let evaluation = self.evaluate(progress, step)?;
                reason = reason.or(convergence.after_evaluation(evaluation.mse));
            }
            if let Some(reason) = reason {
                let after = progress.train_loss();
                // Nor is a loss that is no number below what it was.
                if after.is_nan() || after > before * NOT_LEARNED {
                    return Err(self.grown(step, after, before, learning_rate));
                }
                return Ok(Some(reason));
            }
        }
        Ok(Some(StopReason::Steps))
    }

    /// Says of a failed step what the loss of a linear model allows.
    fn explain(&self, error: TrainError, before: f64) -> TrainError {
        match error {
            TrainError::Diverged {
                step,
                learning_rate,
                ..
            } => self.grown(step, f64::INFINITY, before, learning_rate),
            other => other,
        }
    }

    /// Saves what the finished steps have led to when something after them fails.
    fn rescue(&mut self, progress: &Progress) {
        let step = progress.optimizer.steps_done();
        let path = self.log.directory.checkpoint(step);
        // The error that ended the run is the one to report, not that of writing this down.
        if step > 0 && self.model(progress).save(&path).is_ok() {
            let _ = self.log.emit(Event::Saved { step, path });
        }
    }

    fn grown(&self, step: u64, loss: f64, before: f64, learning_rate: f64) -> TrainError {
        let config = self.config;
        let curvature = self.tables.curvature().ok();
        let curvature = curvature.filter(|_| settings::is_plain_descent(config));
        TrainError::Grew {
            step,
            loss,
            before,
            learning_rate,
            lambda: settings::lambda(&config.optimizer.update, config.train.max_steps),
            stable_rate: curvature.map(|curvature| 2.0 / curvature),
        }
    }

    fn evaluate(&mut self, progress: &Progress, step: u64) -> Result<Errors, TrainError> {
        let errors = errors(&self.model(progress), &self.tables.test)?;
        self.log.emit(Event::RegressionEvaluation {
            step,
            test_mse: errors.mse,
            test_r2: errors.r2,
        })?;
        Ok(errors)
    }

    fn model(&self, progress: &Progress) -> RegressionModel {
        RegressionModel::new(
            progress.evaluated(),
            progress.activation,
            self.tables.train.features.clone(),
            self.tables.train.target.clone(),
            self.tables.standardizer.clone(),
        )
    }

    fn write_json(&self, name: &str, value: &impl serde::Serialize) -> Result<(), TrainError> {
        let path = self.config.output.dir.join(name);
        let mut json = serde_json::to_string_pretty(value)
            .map_err(|error| reparam_formats::FormatError::io("write", &path, error.into()))?;
        json.push('\n');
        self.log.directory.write(name, json.as_bytes())?;
        Ok(())
    }
}
