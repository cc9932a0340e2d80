//! A task from outside the library: one file, added to the table, trained, interrupted and resumed by the one trainer.

use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, ElementConversion, Tensor, TensorData};
use reparam::ForwardContext;
use reparam::optim::{Decay, Momentum, Optimizer, Schedule};
use reparam_formats::hub::HubOptions;
use reparam_train::config::{Catalog, ConfigError, RunConfig, RunTree};
use reparam_train::{
    Metrics, ModuleLearner, Objective, Origins, Outcome, Prepared, ResultKind, RunFacts, RunFile,
    RunPlan, Stop, Task, TaskEntry, TaskRun, Tasks, TrainError,
};

use crate::witness::Witness;

/// Two numbers that are to become the mean of the points of each micro-batch: `sum |w - p|^2`.
#[derive(Module, Debug)]
struct Point {
    w: Param<Tensor<1>>,
}

/// The run file is that of a language model; only its steps and its directory are used.
#[derive(Debug, Clone)]
struct ToyConfig(RunConfig);

impl RunFile for ToyConfig {
    fn read(tree: &RunTree) -> Result<Self, ConfigError> {
        <RunConfig as RunFile>::read(tree).map(Self)
    }

    fn to_toml(&self) -> Result<String, ConfigError> {
        self.0.to_toml()
    }

    fn output(&self) -> &Path {
        &self.0.output.dir
    }

    fn threads(&self) -> usize {
        1
    }

    fn catalog(&self) -> &Catalog {
        &self.0.catalog
    }
}

#[derive(Debug)]
struct Toy;

impl Toy {
    /// The points of a micro-batch, two numbers each: as many as its number says, so that the batches weigh differently.
    fn points(pass: u64) -> Vec<[f64; 2]> {
        let count = 1 + pass % 3;
        (0..count)
            .map(|i| [(pass + i) as f64, (pass * i) as f64 / 2.0])
            .collect()
    }
}

fn tensor<const D: usize>(values: &[f64], shape: [usize; D]) -> Tensor<D> {
    let data = TensorData::new(values.to_vec(), shape);
    Tensor::from_data(data, (&Device::flex(), DType::F64))
}

impl Objective for Toy {
    type Model = Point;

    fn weight(&self, pass: u64) -> f64 {
        Self::points(pass).len() as f64
    }

    fn loss(
        &self,
        model: &Point,
        pass: u64,
        total: f64,
        _: &ForwardContext,
    ) -> Result<Tensor<1>, TrainError> {
        let points = Self::points(pass);
        let flat = points.as_flattened();
        let points = Tensor::from_inner(tensor(flat, [points.len(), 2]));
        let off = points - model.w.val().unsqueeze::<2>();
        Ok((off.clone() * off).sum() / total)
    }
}

impl Task for Toy {
    const NAME: &'static str = "toy";
    const SUMMARY: &'static str = "moves a point to the mean of others";
    const UNIT: &'static str = "points";
    type Config = ToyConfig;

    fn prepare(config: &ToyConfig, _: &HubOptions) -> Result<Prepared<Self>, TrainError> {
        let w = Tensor::from_inner(tensor(&[3.0, -1.0], [2])).require_grad();
        let optimizer = Optimizer::new(
            vec![Box::new(
                Momentum::new(0.9, false).map_err(TrainError::Update)?,
            )],
            config.0.optimizer.learning_rate,
            Schedule::warmup(0, Decay::None, 0.0).map_err(TrainError::Update)?,
            6,
        )
        .map_err(TrainError::Update)?;
        Ok(Prepared {
            learner: ModuleLearner {
                objective: Self,
                model: Point {
                    w: Param::from_tensor(w),
                },
                seed: 0,
                accumulation: 2,
                methods: config.0.catalog.methods.clone(),
            },
            optimizer,
            plan: RunPlan {
                max_steps: 6,
                eval_every: 2,
                log_every: 1,
                save_every: 0,
                stop: config.0.train.stop,
                result: ResultKind::Model,
            },
            facts: RunFacts {
                model: "a point".to_owned(),
                method: "full".to_owned(),
                model_parameters: 2,
                targets: Vec::new(),
                scaling: None,
                batch_size: 1,
                precision: "f64".to_owned(),
                learning_rate: 0.1,
                lambda: None,
                data: serde_json::Map::new(),
            },
            origins: Origins::default(),
        })
    }

    /// How far the point is from the origin; nearer is better.
    fn evaluate(&self, model: &Point, stop: Stop<'_>) -> Result<Option<Metrics>, TrainError> {
        stop.check()?;
        let square: f64 = model
            .w
            .val()
            .powi_scalar(2)
            .sum()
            .into_scalar::<f64>()
            .elem();
        Ok(Some(Metrics::lower_is_better("distance", square.sqrt())))
    }

    fn save(&self, model: &Point, directory: &Path) -> Result<(), TrainError> {
        std::fs::create_dir_all(directory).expect("a directory");
        let w = model.w.val().into_data().try_to_vec::<f64>().expect("f64");
        std::fs::write(directory.join("point.txt"), format!("{w:?}")).expect("writes");
        Ok(())
    }
}

fn run(directory: &Path) -> TaskRun {
    let text = format!(
        "[model]\ntask = \"toy\"\npath = \"none\"\n[data]\ntrain = \"none\"\n[optimizer]\nlearning_rate = 0.1\n\
         [output]\ndir = {directory:?}\n"
    );
    let tasks = Tasks::builtin().with(TaskEntry::of::<Toy>());
    let run = tasks.parse(&text, "run.toml", &[]).expect("a run file");
    assert_eq!(run.task(), "toy");
    // The table without it refuses it by name.
    let error = Tasks::builtin().parse(&text, "run.toml", &[]);
    assert!(error.expect_err("no such task").to_string().contains("toy"));
    run
}

#[test]
fn a_task_from_outside_trains_and_resumes() {
    let place = tempfile::tempdir().expect("a directory");
    let whole = run(&place.path().join("whole"));
    let mut witness = Witness::default();
    assert_eq!(
        witness.run(&whole, false).expect("a run"),
        Outcome::Finished
    );
    assert_eq!(witness.start().task, "toy");
    let steps = witness.steps();
    assert!(steps.iter().all(|step| step.unit == "points"));
    // The loss of a step is one mean over its points, whatever its micro-batches: here of passes 0 and 1.
    let points = [Toy::points(0), Toy::points(1)].concat();
    let square = |p: &[f64; 2]| (p[0] - 3.0).powi(2) + (p[1] + 1.0).powi(2);
    let mean = points.iter().map(square).sum::<f64>() / points.len() as f64;
    assert_eq!(steps[0].weight, points.len() as f64);
    assert!((steps[0].loss - mean).abs() < 1e-12, "{}", steps[0].loss);
    assert_eq!(
        witness
            .evaluations()
            .iter()
            .map(|(step, _)| *step)
            .collect::<Vec<_>>(),
        [0, 2, 4, 6]
    );

    // Interrupted after any step, it goes on to the same bits.
    let point = |run: &str| std::fs::read_to_string(place.path().join(run).join("model/point.txt"));
    for stop_at in 1..6 {
        let name = format!("stopped-{stop_at}");
        let stopped = run(&place.path().join(&name));
        let mut first = Witness {
            stop_at: Some(stop_at),
            ..Witness::default()
        };
        let outcome = first.run(&stopped, true).expect("it ends well");
        assert_eq!(outcome, Outcome::Interrupted { step: stop_at });
        let mut second = Witness::default();
        assert_eq!(
            second.run(&stopped, true).expect("a run"),
            Outcome::Finished
        );
        assert_eq!(
            point(&name).expect("a point"),
            point("whole").expect("a point")
        );
        let losses = [first.losses(), second.losses()].concat();
        assert_eq!(losses, witness.losses(), "{stop_at}");
        assert_eq!(second.finished().before, witness.finished().before);
        assert_eq!(second.finished().after, witness.finished().after);
        let mut third = Witness::default();
        let again = third.run(&stopped, true).expect("nothing to do");
        assert_eq!((again, third.events.len()), (Outcome::AlreadyFinished, 1));
    }
}
