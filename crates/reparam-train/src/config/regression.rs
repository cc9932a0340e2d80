//! The run file of the task `regression`.

use std::path::{Path, PathBuf};

use reparam::schema::{
    Fallback, MOST, Range, SettingKind, SettingSpec, Settings, count, flag, number, optional,
    required, word,
};
use reparam_data::tabular::MissingPolicy;
use serde::Serialize;

use super::catalog::Catalog;
use super::section::Section;
use super::task::RunTree;
use super::{
    Keep, MethodConfig, OptimizerConfig, OutputConfig, Result, RunKeys, StopConfig, check_update,
    defaults, method, open_sections, task, train, words,
};
use crate::task::RunFile;

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
    /// Where methods and transforms are looked up; no part of the file.
    #[serde(skip)]
    pub catalog: Catalog,
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
        missing: MissingPolicy,
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

const MISSING: [(&str, MissingPolicy); 2] = [
    ("error", MissingPolicy::Error),
    ("drop_rows", MissingPolicy::DropRows),
];

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
    /// Which model the run results in.
    pub keep: Keep,
    /// The metric of the evaluations that decides; `mse` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// When the run ends before its last step.
    #[serde(flatten)]
    pub stop: StopConfig,
}

/// The word in `[model]`.
const TASK: &str = "regression";

impl RegressionModelConfig {
    pub(super) const SPECS: &[SettingSpec] = &[
        task::SPEC,
        word(
            "kind",
            &["linear", "mlp"],
            "linear",
            "linear: y = x w + b; mlp: linear layers with activations between them",
        ),
        SettingSpec {
            key: "hidden",
            kind: SettingKind::Counts {
                noun: "width",
                least: 1,
                most: MOST,
            },
            fallback: Fallback::Counts(&[32]),
            meaning: "mlp: widths of the hidden layers",
        },
        word(
            "activation",
            &words::names(&Activation::ALL),
            "tanh",
            "mlp: activation between the layers",
        ),
    ];

    fn read(section: &Section<'_>) -> Result<Self> {
        let kind = section.typed(Self::SPECS, |settings| {
            Ok(match settings.word("kind")? {
                "mlp" => RegressionModelKind::Mlp {
                    hidden: settings.counts("hidden")?,
                    activation: settings.choice("activation", &Activation::ALL)?,
                },
                _ => RegressionModelKind::Linear,
            })
        })?;
        if kind == RegressionModelKind::Linear {
            section.refuse(&["hidden", "activation"], "linear", |_| vec!["mlp"])?;
        }
        Ok(Self { task: TASK, kind })
    }
}

/// The settings of `generate`.
static GENERATE: [SettingSpec; 4] = [
    required(
        "samples",
        SettingKind::Count {
            least: 2,
            most: u64::MAX,
        },
        "100",
        "rows",
    ),
    required("features", SettingKind::COUNT, "1", "features"),
    number(
        "noise",
        Range::NonNegative,
        0.0,
        "standard deviation of the noise",
    ),
    train::period("seed", "what everything is drawn from"),
];

/// The settings of a file.
const OF_FILES: [&str; 4] = ["train", "target", "features", "missing"];

impl TableConfig {
    pub(super) const SPECS: &[SettingSpec] = &[
        optional(
            "train",
            SettingKind::Text,
            "required",
            "a CSV file with a header; excludes generate",
        ),
        optional("target", SettingKind::Text, "required", "column to predict"),
        optional(
            "features",
            SettingKind::Texts,
            "every other column",
            "columns to predict from",
        ),
        word(
            "missing",
            &words::names(&MISSING),
            "error",
            "rows with missing values: error, or drop_rows to leave them out and count them",
        ),
        optional(
            "generate",
            SettingKind::Table(&GENERATE),
            "",
            "makes a linear problem instead: samples and features, required; noise (0), the standard \
             deviation of the noise; seed (0)",
        ),
        number(
            "test_fraction",
            Range::InsideUnit,
            0.2,
            "fraction of the rows to hold out, rounded up",
        ),
        optional(
            "split_seed",
            SettingKind::COUNT_OR_ZERO,
            "train.seed",
            "seed of the split",
        ),
        flag(
            "standardize",
            true,
            "scale features and target to mean 0 and variance 1, as measured on the training rows",
        ),
    ];

    fn read(section: &Section<'_>, seed: u64) -> Result<Self> {
        for key in OF_FILES {
            section.exclusive(key, "generate")?;
        }
        if section.find("generate").is_none() {
            for (key, example) in [("train", "\"table.csv\""), ("target", "\"a column\"")] {
                if section.find(key).is_none() {
                    return Err(section.missing(key, example));
                }
            }
        }
        section.typed(Self::SPECS, |settings| {
            let source = if settings.has("generate") {
                let generate = settings.table("generate", &GENERATE)?;
                TableSource::Generate {
                    generate: GenerateConfig {
                        samples: generate.size("samples")?,
                        features: generate.size("features")?,
                        noise: generate.number("noise")?,
                        seed: generate.count("seed")?,
                    },
                }
            } else {
                let features = settings.optional("features", Settings::texts)?;
                TableSource::Csv {
                    train: settings.word("train")?.into(),
                    target: settings.text("target")?,
                    features: features.map(<[String]>::to_vec),
                    missing: settings.choice("missing", &MISSING)?,
                }
            };
            Ok(Self {
                source,
                test_fraction: settings.number("test_fraction")?,
                split_seed: settings
                    .optional("split_seed", Settings::count)?
                    .unwrap_or(seed),
                standardize: settings.flag("standardize")?,
            })
        })
    }
}

impl RegressionTrainConfig {
    pub(super) const SPECS: &[SettingSpec] = &[
        count("max_steps", 1000, "length of the run: the horizon T"),
        optional(
            "batch_size",
            SettingKind::COUNT,
            "all rows",
            "rows per batch; with all rows the gradient is exact",
        ),
        train::period("seed", "seed of initial values and the order of rows"),
        train::period(
            "eval_every",
            "steps between evaluations on the held-out rows; 0 for one before the first step and one \
             after the last",
        ),
        count(
            "log_every",
            1,
            "steps between step events in events.jsonl; the first is always there",
        ),
        Keep::SPEC,
        train::METRIC,
        StopConfig::SPECS[0],
        StopConfig::SPECS[1],
        StopConfig::SPECS[2],
        StopConfig::SPECS[3],
    ];

    fn read(section: &Section<'_>) -> Result<Self> {
        StopConfig::check_window(section)?;
        section.typed(Self::SPECS, |settings| {
            Ok(Self {
                max_steps: settings.count("max_steps")?,
                batch_size: settings.optional("batch_size", Settings::size)?,
                seed: settings.count("seed")?,
                eval_every: settings.count("eval_every")?,
                log_every: settings.count("log_every")?,
                keep: settings.choice("keep", &Keep::ALL)?,
                metric: settings.optional("metric", Settings::text)?,
                stop: StopConfig::of(settings)?,
            })
        })
    }
}

impl RunFile for RegressionConfig {
    fn keys() -> RunKeys {
        let own = [
            RegressionModelConfig::SPECS,
            TableConfig::SPECS,
            RegressionTrainConfig::SPECS,
        ];
        RunKeys {
            own: own.map(|specs| specs.iter().collect()),
            method: defaults::NEW_METHOD,
            optimizer: defaults::REGRESSION_OPTIMIZER,
        }
    }

    fn read(tree: &RunTree) -> Result<Self> {
        let catalog = tree.catalog();
        let layout = Self::keys().layout(catalog);
        let [model, data, method, optimizer, train, output] =
            open_sections(tree.root(), &layout, catalog)?;
        let train_config = RegressionTrainConfig::read(&train)?;
        let config = Self {
            model: RegressionModelConfig::read(&model)?,
            data: TableConfig::read(&data, train_config.seed)?,
            method: method::read(&method, defaults::NEW_METHOD)?,
            optimizer: OptimizerConfig::read(&optimizer, defaults::REGRESSION_OPTIMIZER)?,
            train: train_config,
            output: OutputConfig::read(&output)?,
            catalog: catalog.clone(),
        };
        check_update(&optimizer, &config.optimizer, Some(config.train.max_steps))?;
        config.train.stop.check(&train, config.train.eval_every)?;
        Ok(config)
    }

    fn output(&self) -> &Path {
        &self.output.dir
    }

    fn threads(&self) -> usize {
        0
    }

    fn catalog(&self) -> &Catalog {
        &self.catalog
    }
}
