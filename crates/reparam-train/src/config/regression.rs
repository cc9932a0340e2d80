//! The run file of the task `regression`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::ConfigError;
use super::method::TrainedBias;
use super::optimizer::{self, Defaults};
use super::section::{MOST, Range, Section};
use super::suggest::Layout;
use super::tree::{Entry, Override, Value};
use super::{
    MethodConfig, OptimizerConfig, OutputConfig, StopConfig, check_warmup, load_tree,
    open_sections, parse_tree, to_toml,
};

/// Everything that a regression needs, with all defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RegressionConfig {
    /// `[model]`: what predicts.
    pub model: RegressionModelConfig,
    /// `[data]`: the table.
    pub data: TableConfig,
    /// `[method]`: how the weights are reparameterized.
    pub method: MethodConfig,
    /// `[optimizer]`: the two-step update.
    pub optimizer: OptimizerConfig,
    /// `[train]`: how long, and when it ends before.
    pub train: RegressionTrainConfig,
    /// `[output]`: where the results go.
    pub output: OutputConfig,
}

/// `[model]`: what predicts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RegressionModelConfig {
    /// Always `regression`.
    pub task: &'static str,
    /// Which model.
    #[serde(flatten)]
    pub kind: RegressionModelKind,
}

/// Which model predicts.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RegressionModelKind {
    /// `y = x W' + b`.
    Linear,
    /// Linear layers with an activation between each two.
    Mlp {
        /// The widths of the hidden layers.
        hidden: Vec<usize>,
        /// What is between the layers.
        activation: Activation,
    },
}

/// What is between two layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// The hyperbolic tangent.
    Tanh,
    /// The positive part.
    Relu,
}

impl Activation {
    /// The activations with the words for them.
    pub const ALL: [(&'static str, Self); 2] = [("tanh", Self::Tanh), ("relu", Self::Relu)];
}

/// `[data]`: the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TableConfig {
    /// Where it comes from.
    #[serde(flatten)]
    pub source: TableSource,
    /// The fraction, in 0..1, of the rows that is held out for the test.
    pub test_fraction: f64,
    /// What decides which rows are held out.
    pub split_seed: u64,
    /// Whether features and target are scaled to mean 0 and variance 1, as measured on the training rows.
    /// Errors are reported in the target's own units all the same.
    pub standardize: bool,
}

/// Where a table comes from.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum TableSource {
    /// A CSV file with a header.
    Csv {
        /// The file.
        train: PathBuf,
        /// The column that is predicted.
        target: String,
        /// The columns it is predicted from; all others if absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        features: Option<Vec<String>>,
        /// What happens to rows with missing values.
        missing: MissingValues,
    },
    /// `generate`: a linear problem with noise.
    Generate {
        /// Its shape.
        generate: GenerateConfig,
    },
}

/// A linear problem: normal features, coefficients in 0..100, normal noise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct GenerateConfig {
    /// Rows, at least 2.
    pub samples: usize,
    /// Features, at least 1.
    pub features: usize,
    /// The standard deviation of the noise, at least 0.
    pub noise: f64,
    /// What everything is drawn from.
    pub seed: u64,
}

/// What happens to rows with missing values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingValues {
    /// They are an error that lists them.
    Error,
    /// They are left out, and reported.
    DropRows,
}

/// `[train]`: how long the run is and when it ends before.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RegressionTrainConfig {
    /// Steps of the optimizer, at least 1: the horizon T.
    pub max_steps: u64,
    /// Rows in a batch; all of them if absent, which makes the gradient exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<usize>,
    /// What first values and the order of the rows are drawn from.
    pub seed: u64,
    /// Steps between evaluations on the test rows; 0 for one at the start and one at the end.
    pub eval_every: u64,
    /// Steps between the steps that are reported, at least 1.
    pub log_every: u64,
    /// When the run ends before its last step.
    #[serde(flatten)]
    pub stop: StopConfig,
}

/// The word in `[model]`.
const TASK: &str = "regression";

impl RegressionConfig {
    /// Reads a run file, with overrides; a later one wins over an earlier one.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is not TOML, and everything that [`parse`](Self::parse) refuses.
    pub fn load_with(path: &Path, overrides: &[Override]) -> Result<Self, ConfigError> {
        Self::read(&load_tree(path, overrides)?)
    }

    /// Reads the text of a run file; `name` is what errors call it.
    ///
    /// # Errors
    ///
    /// Those of [`RunConfig::parse`](super::RunConfig::parse), for this task's keys.
    pub fn parse(text: &str, name: &str, overrides: &[Override]) -> Result<Self, ConfigError> {
        Self::read(&parse_tree(text, name, overrides)?)
    }

    fn layout() -> Layout {
        vec![
            ("model", vec!["task", "kind", "hidden", "activation"]),
            (
                "data",
                vec![
                    "train",
                    "target",
                    "features",
                    "missing",
                    "generate",
                    "test_fraction",
                    "split_seed",
                    "standardize",
                ],
            ),
            ("method", MethodConfig::keys()),
            ("optimizer", OptimizerConfig::keys()),
            (
                "train",
                vec![
                    "max_steps",
                    "batch_size",
                    "seed",
                    "eval_every",
                    "log_every",
                    "stop_loss_change",
                    "stop_window",
                    "stop_grad_norm",
                    "patience",
                ],
            ),
            ("output", OutputConfig::KEYS.to_vec()),
        ]
    }

    pub(super) fn read(root: &[Entry]) -> Result<Self, ConfigError> {
        let [model, data, method, optimizer, train, output] = open_sections(root, &Self::layout())?;
        let train_config = RegressionTrainConfig::read(&train)?;
        let config = Self {
            model: RegressionModelConfig::read(&model)?,
            data: TableConfig::read(&data, train_config.seed)?,
            method: MethodConfig::read(&method, "identity", TrainedBias::All)?,
            optimizer: OptimizerConfig::read(&optimizer, Defaults::REGRESSION)?,
            train: train_config,
            output: OutputConfig::read(&output)?,
        };
        optimizer::check_chain(&optimizer, &config.optimizer)?;
        check_warmup(&optimizer, &config.optimizer, config.train.max_steps)?;
        config.train.stop.check(&train, config.train.eval_every)?;
        Ok(config)
    }

    /// The whole configuration as TOML that reads back to an equal one.
    ///
    /// # Errors
    ///
    /// [`ConfigErrorKind::Write`](super::ConfigErrorKind::Write) if a path is not UTF-8, which TOML
    /// cannot express.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        to_toml(self)
    }

    /// Checks a configuration that was put together in code, as if it had been read from a file.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse) and [`to_toml`](Self::to_toml).
    pub fn check(&self) -> Result<(), ConfigError> {
        Self::parse(&self.to_toml()?, "run configuration", &[]).map(|_| ())
    }
}

#[derive(Clone, Copy)]
enum ModelWord {
    Linear,
    Mlp,
}

impl RegressionModelConfig {
    fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        let word = section.choice(
            "kind",
            &[("linear", ModelWord::Linear), ("mlp", ModelWord::Mlp)],
        )?;
        let kind = match word.unwrap_or(ModelWord::Linear) {
            ModelWord::Linear => {
                section.refuse(&["hidden", "activation"], "linear", "mlp")?;
                RegressionModelKind::Linear
            }
            ModelWord::Mlp => RegressionModelKind::Mlp {
                hidden: read_hidden(section)?,
                activation: section
                    .choice("activation", &Activation::ALL)?
                    .unwrap_or(Activation::Tanh),
            },
        };
        Ok(Self { task: TASK, kind })
    }
}

fn read_hidden(section: &Section<'_>) -> Result<Vec<usize>, ConfigError> {
    let Some(Entry { node, .. }) = section.find("hidden") else {
        return Ok(vec![32]);
    };
    match &node.value {
        Value::Array(items) if items.is_empty() => {
            Err(section.out_of_range("hidden", node, "a list of at least one width"))
        }
        Value::Array(items) => items
            .iter()
            .map(|item| section.size_of("hidden", item, 1, MOST))
            .collect(),
        _ => Err(section.wrong_type("hidden", node, "a list of widths, such as [32]")),
    }
}

impl TableConfig {
    fn read(section: &Section<'_>, seed: u64) -> Result<Self, ConfigError> {
        for key in ["train", "target", "features", "missing"] {
            section.exclusive(key, "generate")?;
        }
        let source = match section.find("generate") {
            Some(entry) => TableSource::Generate {
                generate: read_generate(section, entry)?,
            },
            None => TableSource::Csv {
                train: section
                    .string("train")?
                    .ok_or_else(|| section.missing("train", "train = \"table.csv\""))?
                    .into(),
                target: section
                    .string("target")?
                    .ok_or_else(|| section.missing("target", "target = \"a column\""))?,
                features: section.strings("features")?,
                missing: section
                    .choice(
                        "missing",
                        &[
                            ("error", MissingValues::Error),
                            ("drop_rows", MissingValues::DropRows),
                        ],
                    )?
                    .unwrap_or(MissingValues::Error),
            },
        };
        let test_fraction = section
            .number("test_fraction", Range::BelowOne)?
            .unwrap_or(0.2);
        if let (Some(entry), true) = (section.find("test_fraction"), test_fraction == 0.0) {
            return Err(section.out_of_range(
                "test_fraction",
                &entry.node,
                "greater than 0 and less than 1",
            ));
        }
        Ok(Self {
            source,
            test_fraction,
            split_seed: section.integer("split_seed", 0)?.unwrap_or(seed),
            standardize: section.boolean("standardize")?.unwrap_or(true),
        })
    }
}

fn read_generate(section: &Section<'_>, entry: &Entry) -> Result<GenerateConfig, ConfigError> {
    const EXPECTED: &str = "a table, such as { samples = 100, features = 1, noise = 10.0 }";
    let Value::Table(entries) = &entry.node.value else {
        return Err(section.wrong_type("generate", &entry.node, EXPECTED));
    };
    let table = Section::inline("data.generate", entries, &entry.key_span);
    const KEYS: [&str; 4] = ["samples", "features", "noise", "seed"];
    table.refuse_unknown(&KEYS)?;
    Ok(GenerateConfig {
        samples: table
            .integer("samples", 2)?
            .ok_or_else(|| table.missing("samples", "generate.samples = 100"))?,
        features: table
            .integer("features", 1)?
            .ok_or_else(|| table.missing("features", "generate.features = 1"))?,
        noise: table.number("noise", Range::NonNegative)?.unwrap_or(0.0),
        seed: table.integer("seed", 0)?.unwrap_or(0),
    })
}

impl RegressionTrainConfig {
    fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            max_steps: section.integer("max_steps", 1)?.unwrap_or(1000),
            batch_size: section
                .find("batch_size")
                .map(|entry| section.integer_of("batch_size", &entry.node, 1))
                .transpose()?,
            seed: section.integer("seed", 0)?.unwrap_or(0),
            eval_every: section.integer("eval_every", 0)?.unwrap_or(0),
            log_every: section.integer("log_every", 1)?.unwrap_or(1),
            stop: StopConfig::read(section)?,
        })
    }
}
