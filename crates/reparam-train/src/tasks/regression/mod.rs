//! The task `regression`: predicting a number from a row of a table.
//!
//! It is the smallest task there is, and the one that the two-step update is explained on: the loss is
//! known, the exact solution is known, and a run takes a moment. Methods and updates are those of a language
//! model; only the model and its data are others.

mod model_file;
mod network;
mod predict;
mod report;
mod table;

use std::path::Path;

use burn::module::Module;
use burn::tensor::{ElementConversion, Int, Tensor};
use reparam::ForwardContext;
use reparam::methods;
use reparam::optim::{BuildContext, StepReport};
use reparam_data::BatchPlan;
use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::hub::HubOptions;
use serde_json::{Map, Value, json};

pub use model_file::RegressionModel;
pub use predict::{Prediction, predict_file};
pub use reparam_data::tabular::{MissingPolicy, TabularError};
pub use report::RegressionReport;

use self::network::{Network, activation, tensor, widths};
use self::report::{measure_model, report};
use self::table::Tables;
use crate::config::{
    Activation, Lambda, RegressionConfig, RegressionModelKind, UpdateConfig, starts_from_data,
};
use crate::event::Step;
use crate::inspect::{Description, Kind, files, tensors};
use crate::json::object;
use crate::learner::{Carried, ModuleLearner, Objective};
use crate::task::{
    BOOTSTRAP, EvalRequest, Origins, PredictRequest, Predictions, Prepared, Report, ResultKind,
    RunFacts, RunFile as _, RunPlan, Task,
};
use crate::{Metrics, Result, Stop, TrainError};

/// A loss this many times that of the first step will not come down again.
///
/// The first loss of a standardized target is about its variance, one. A batch of unlucky rows may be a few
/// times worse; ten thousand times is a hundred standard deviations off.
const GROWN: f64 = 1e4;

/// A run that ends with a loss this many times that of its start has gone astray: bounded steps that are too
/// long go to and fro. A short run on unlucky batches may end a little above its start.
const NOT_LEARNED: f64 = 2.0;

/// The most numbers that a network may have: beyond it a width is almost certainly a typo.
const MOST_PARAMETERS: usize = 100_000_000;

/// A table to learn from.
///
/// The run directory gets `model/`, `report.json` with what the report says, and `split.json` with the rows
/// of the source that were trained and tested on. A run whose loss grows without bound, or ends far above where it
/// started, has diverged.
#[derive(Debug)]
pub struct Regression {
    tables: Tables,
    activation: Activation,
    /// The training rows as the model sees them, `[n, d]` and `[n, 1]`.
    x: Tensor<2>,
    y: Tensor<2>,
    /// Which rows a step has; `None` for all.
    plan: Option<BatchPlan>,
    /// The loss of all training rows before the first step.
    before: f64,
    /// The constant factor of the gradient, if there is one.
    lambda: Option<f64>,
    /// What the product of learning rate and factor has to stay below, where that is known.
    stable_rate: Option<f64>,
}

impl Objective for Regression {
    type Model = Network;

    fn weight(&self, pass: u64) -> f64 {
        match &self.plan {
            None => self.tables.train.n_rows as f64,
            Some(plan) => plan.batch_len(pass) as f64,
        }
    }

    fn epochs(&self, pass: u64) -> Option<f64> {
        Some(match &self.plan {
            None => pass as f64,
            Some(plan) => plan.epochs_before(pass),
        })
    }

    fn loss(
        &self,
        network: &Network,
        pass: u64,
        total: f64,
        context: &ForwardContext,
    ) -> Result<Tensor<1>> {
        let (mut x, mut y) = (self.x.clone(), self.y.clone());
        if let Some(plan) = &self.plan {
            let rows: Vec<i64> = plan.batch(pass).into_iter().map(|row| row as i64).collect();
            let rows = Tensor::<1, Int>::from_data(rows.as_slice(), &x.device());
            (x, y) = (x.select(0, rows.clone()), y.select(0, rows));
        }
        // Not a sum divided by `total`: Burn's backward step of a division by a number rounds it to 32 bits.
        let share = x.dims()[0] as f64 / total;
        Ok(self.squared_errors(network, x, y, context).mean() * share)
    }
}

impl Task for Regression {
    const NAME: &'static str = "regression";
    const SUMMARY: &'static str = "predicts a number from a row of a table";
    const UNIT: &'static str = "rows";
    const OPTIONS: &'static [&'static str] = &[BOOTSTRAP];

    type Config = RegressionConfig;

    fn recognizes(config: &Value) -> bool {
        config["model_type"] == model_file::MODEL_TYPE
    }

    fn prepare(config: &RegressionConfig, _: &HubOptions, _: Stop<'_>) -> Result<Prepared<Self>> {
        prepare(config)
    }

    fn check(config: &RegressionConfig) -> Result<()> {
        config.check()?;
        prepare(config).map(drop)
    }

    fn evaluate(&self, network: &Network, stop: Stop<'_>) -> Result<Option<Metrics>> {
        stop.check()?;
        measure_model(&self.model(network), &self.tables.test).map(Some)
    }

    fn save(&self, network: &Network, directory: &Path) -> Result<()> {
        self.model(&network.valid()).save(directory)
    }

    fn report(&self, network: &Network) -> Result<Option<Report>> {
        report(&self.model(network), &self.tables).map(Some)
    }

    /// The gradient of a table may well be zero: at the exact solution, or where no unit is active.
    fn check_gradient(&self, _: f64, _: &StepReport) -> Result<()> {
        Ok(())
    }

    fn check_step(&self, step: &Step) -> Result<()> {
        if step.loss > self.before * GROWN {
            return Err(self.grown(step.step, step.loss, step.learning_rate));
        }
        Ok(())
    }

    fn check_end(&self, network: &Network, last: &Step) -> Result<()> {
        let after = self.train_loss(network);
        // Nor is a loss that is no number below what it was.
        if after.is_nan() || after > self.before * NOT_LEARNED {
            return Err(self.grown(last.step, after, last.learning_rate));
        }
        Ok(())
    }

    /// Says of a failed step what the loss of a linear model allows.
    fn explain(&self, error: TrainError) -> TrainError {
        match error {
            TrainError::Diverged {
                step,
                learning_rate,
                ..
            } => self.grown(step, f64::INFINITY, learning_rate),
            other => other,
        }
    }

    fn describe(directory: &Path) -> Result<Option<Description>> {
        if !RegressionModel::is_at(directory) {
            return Ok(None);
        }
        let model = RegressionModel::load(directory)?;
        let checkpoint = Checkpoint::open(directory)?;
        Ok(Some(Description {
            kind: Kind::OfTask(Self::NAME),
            properties: vec![
                ("target", json!(model.target())),
                ("features", json!(model.features())),
                ("layers", json!(model.n_layers())),
                ("files", files(&checkpoint)),
            ],
            tensors: tensors(&checkpoint),
        }))
    }

    fn eval(request: &EvalRequest, _: &HubOptions, stop: Stop<'_>) -> Result<Metrics> {
        stop.check()?;
        predict::eval(request, stop)
    }

    fn predict(
        request: &PredictRequest,
        _: &HubOptions,
        stop: Stop<'_>,
        rows: &mut dyn Predictions,
    ) -> Result<()> {
        predict::predict(request, stop, rows)
    }
}

impl Regression {
    fn squared_errors(
        &self,
        network: &Network,
        x: Tensor<2>,
        y: Tensor<2>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        let difference = network.forward(x, self.activation, context) - y;
        difference.clone() * difference
    }

    /// Returns the mean squared error over all training rows, as the model sees them.
    fn train_loss(&self, network: &Network) -> f64 {
        let (x, y) = (self.x.clone(), self.y.clone());
        let errors = self.squared_errors(network, x, y, &ForwardContext::inference());
        errors.mean().into_scalar::<f64>().elem()
    }

    fn model(&self, network: &Network) -> RegressionModel {
        RegressionModel::new(
            network.clone(),
            self.activation,
            &self.tables.train,
            self.tables.standardizer.clone(),
        )
    }

    fn grown(&self, step: u64, loss: f64, learning_rate: f64) -> TrainError {
        TrainError::Grew {
            step,
            loss,
            before: self.before,
            learning_rate,
            lambda: self.lambda,
            stable_rate: self.stable_rate,
        }
    }
}

fn prepare(config: &RegressionConfig) -> Result<Prepared<Regression>> {
    let tables = Tables::prepare(config)?;
    let train = &tables.train;
    let (n, d) = (train.n_rows, train.n_features());
    let x = tensor(&tables.standardizer.apply_features(&train.x)?, [n, d]);
    let y = tensor(&tables.standardizer.apply_target(&train.y), [n, 1]);
    let (network, model_parameters) = network(config, d, x.clone())?;
    let (catalog, max_steps) = (&config.catalog, config.train.max_steps);
    let optimizer = catalog.optimizer(&config.optimizer, &config.method, max_steps)?;
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
    let lambda = config.optimizer.update.lambda(max_steps);
    let facts = RunFacts {
        findings: Vec::new(),
        layers: Vec::new(),
        target_modules: Vec::new(),
        footprint: None,
        model: match config.model.kind {
            RegressionModelKind::Linear => "linear".to_owned(),
            RegressionModelKind::Mlp { .. } => "mlp".to_owned(),
        },
        method: config.method.kind.clone(),
        model_parameters,
        targets: Vec::new(),
        scaling: None,
        batch_size: config.train.batch_size.unwrap_or(n),
        precision: "f64".to_owned(),
        learning_rate: config.optimizer.learning_rate,
        lambda,
        data: data_facts(&tables),
    };
    let origins = Origins {
        data: train.digest.iter().cloned().collect(),
        ..Origins::default()
    };
    let curvature = tables.curvature().ok();
    let curvature = curvature.filter(|_| is_plain_descent(config));
    let mut task = Regression {
        tables,
        activation: activation(&config.model.kind),
        x: Tensor::from_inner(x),
        y: Tensor::from_inner(y),
        plan,
        before: 0.0,
        lambda,
        stable_rate: curvature.map(|curvature| 2.0 / curvature),
    };
    task.before = task.train_loss(&network);
    Ok(Prepared {
        learner: ModuleLearner {
            carried: Carried::new(),
            objective: task,
            model: network,
            seed: config.train.seed,
            accumulation: 1,
            methods: config.catalog.methods.clone(),
        },
        optimizer,
        plan: RunPlan {
            max_steps: config.train.max_steps,
            eval_every: config.train.eval_every,
            log_every: config.train.log_every,
            // A run takes a moment.
            save_every: 0,
            keep_last: 0,
            keep: config.train.keep,
            metric: config.train.metric.clone(),
            stop: config.train.stop,
            result: ResultKind::Model,
        },
        facts,
        origins,
    })
}

/// Returns whether a run is plain gradient descent on a linear model, up to lambda: where the largest stable learning rate
/// is known.
fn is_plain_descent(config: &RegressionConfig) -> bool {
    let UpdateConfig::Named(update) = &config.optimizer.update else {
        return false;
    };
    let context = BuildContext::new(&config.catalog.transforms);
    let method = config
        .catalog
        .method(&config.method, config.train.max_steps);
    config.model.kind == RegressionModelKind::Linear
        && method.is_ok_and(|method| method.is_identity())
        && context
            .build(&update.algorithm)
            .is_ok_and(|chain| chain.is_empty())
        && update.lambda != Some(Lambda::Adaptive)
}

/// Makes the network with its method attached, and counts its numbers before that.
fn network(config: &RegressionConfig, n_features: usize, x: Tensor<2>) -> Result<(Network, usize)> {
    let kind = &config.model.kind;
    let widths = widths(kind, n_features);
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
    let model_parameters = network.num_params();
    let method = config
        .catalog
        .method(&config.method, config.train.max_steps)?;
    let (mut network, _) = methods::attach(network, &*method, config.train.seed)?;
    if starts_from_data(&config.catalog, &config.method) {
        network = network.initialize_from_data(x, activation(kind))?;
    }
    Ok((network.train(), model_parameters))
}

fn data_facts(tables: &Tables) -> Map<String, Value> {
    object(json!({
        "features": tables.train.features,
        "target": tables.train.target,
        "train_rows": tables.train.n_rows,
        "test_rows": tables.test.n_rows,
        "dropped_rows": tables.n_dropped,
    }))
}
