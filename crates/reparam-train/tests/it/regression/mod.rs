//! Whole regressions: the laws of the two-step update, what ends a run, and what it leaves.

mod best;
mod ends;
mod files;
mod laws;
mod methods;
mod predictions;
mod real_data;
mod tables;
mod updates;

use std::path::{Path, PathBuf};

use reparam_data::tabular::Selection;
use reparam_data::tabular::{Generate, Table, generate, mse, read_csv};
use reparam_formats::checkpoint::Checkpoint;
use reparam_train::RunFile as _;
use reparam_train::config::{Override, RegressionConfig, TableSource};
use reparam_train::regression::{RegressionModel, RegressionReport};
use reparam_train::{Outcome, TrainError};
use serde_json::Value;
use tempfile::TempDir;

use crate::witness::Witness;

/// 32 rows to learn from, 8 held out, three features.
const LINEAR: &str = "[model]\ntask = \"regression\"\n\
    [data]\ngenerate = { samples = 40, features = 3, noise = 5.0, seed = 1 }\nsplit_seed = 5\n\
    [optimizer]\nlearning_rate = 0.1\n[train]\nmax_steps = 60\nseed = 3\n";

const TRAIN_ROWS: usize = 32;

/// Eight hidden units are enough to bend.
const MLP: [&str; 3] = [
    "model.kind=mlp",
    "model.hidden=[8]",
    "optimizer.learning_rate=0.05",
];

/// A directory for tables and runs.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("writes");
        path
    }

    /// The run file with overrides; the results go to `run`.
    fn config(&self, run: &str, overrides: &[&str]) -> RegressionConfig {
        let output = self.path(run);
        let overrides: Vec<Override> = overrides
            .iter()
            .copied()
            .map(Override::set)
            .chain([Override::output(output.to_str().expect("UTF-8"))])
            .collect();
        RegressionConfig::parse(LINEAR, "run.toml", &overrides)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// A run file whose table is a file.
    fn csv_config(&self, run: &str, data: &str, rest: &str) -> RegressionConfig {
        let text = format!(
            "[model]\ntask = \"regression\"\n[data]\ntrain = {:?}\n{data}\n{rest}\n[output]\ndir = {:?}\n",
            self.path("table.csv"),
            self.path(run),
        );
        RegressionConfig::parse(&text, "run.toml", &[]).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Makes a run that has to finish.
    #[track_caller]
    fn finish(&self, run: &str, overrides: &[&str]) -> Witness {
        finish(&self.config(run, overrides))
    }

    /// Makes a run that has to fail.
    #[track_caller]
    fn fail(&self, run: &str, overrides: &[&str]) -> (TrainError, Witness) {
        let mut witness = Witness::default();
        let error = witness
            .regress(&self.config(run, overrides))
            .expect_err("it cannot be done");
        (error, witness)
    }

    /// The losses of the steps of a run.
    #[track_caller]
    fn losses(&self, run: &str, overrides: &[&str]) -> Vec<f64> {
        self.finish(run, overrides).losses()
    }

    fn weights(&self, run: &str) -> Vec<u8> {
        std::fs::read(self.path(run).join("model/model.safetensors")).expect("weights")
    }

    /// The saved tensors of a run by name.
    fn tensor(&self, run: &str, name: &str) -> Vec<f64> {
        let path = self.path(run).join("model/model.safetensors");
        let file = Checkpoint::open_file(&path).expect("weights");
        let view = file.get(name).expect(name);
        let bytes = view.bytes().expect("the tensor's bytes");
        let words = bytes.as_chunks::<8>().0.iter();
        words.map(|word| f64::from_le_bytes(*word)).collect()
    }

    fn model(&self, run: &str) -> RegressionModel {
        RegressionModel::load(&self.path(run)).expect("a model")
    }

    fn json(&self, run: &str, name: &str) -> Value {
        let text = std::fs::read_to_string(self.path(run).join(name)).expect(name);
        serde_json::from_str(&text).expect("JSON")
    }

    fn report(&self, run: &str) -> RegressionReport {
        serde_json::from_value(self.json(run, "report.json")).expect("a report")
    }

    /// The mean squared error of a run's saved model on its training rows, as its loss measures it: in units
    /// of the target's deviation.
    fn loss_of_saved(&self, config: &RegressionConfig) -> f64 {
        let run = config.output.dir.to_str().expect("UTF-8");
        let (train, _) = tables(config, &self.json(run, "split.json"));
        let predictions = self.model(run).predict(&train.x).expect("predicts");
        let scale = self.tensor(run, "standardization.target_scale")[0];
        mse(&predictions, &train.y).expect("an error") / scale.powi(2)
    }
}

#[track_caller]
fn finish(config: &RegressionConfig) -> Witness {
    let mut witness = Witness::default();
    let outcome = witness
        .regress(config)
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(outcome, Outcome::Finished);
    witness
}

/// The rows that a run has trained and tested on, read again.
fn tables(config: &RegressionConfig, split: &Value) -> (Table, Table) {
    let table = match &config.data.source {
        TableSource::Generate { generate: problem } => {
            generate(&Generate {
                samples: problem.samples,
                features: problem.features,
                noise: problem.noise,
                seed: problem.seed,
            })
            .expect("a table")
            .table
        }
        TableSource::Csv {
            train,
            target,
            features,
            missing,
        } => {
            let selection = Selection {
                target: target.clone(),
                features: features.clone(),
                missing: *missing,
            };
            read_csv(Path::new(train), &selection).expect("a table")
        }
    };
    // The split names rows of the source; a table without dropped rows has them all.
    let part = |name: &str| {
        let named: Vec<usize> = serde_json::from_value(split[name].clone()).expect("rows");
        let places: Vec<usize> = named
            .iter()
            .map(|row| {
                table
                    .rows
                    .iter()
                    .position(|known| known == row)
                    .expect("a row of the table")
            })
            .collect();
        table.subset(&places).expect("a part")
    };
    (part("train"), part("test"))
}

/// The largest relative difference of two lists of numbers.
#[track_caller]
fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    assert!(!a.is_empty());
    let each = a.iter().zip(b).map(|(a, b)| (a - b).abs() / b.abs());
    each.fold(0.0, f64::max)
}

fn bits(numbers: &[f64]) -> Vec<u64> {
    numbers.iter().map(|x| x.to_bits()).collect()
}
