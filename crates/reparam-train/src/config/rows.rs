//! The run file of tasks over rows of texts.

use std::path::{Path, PathBuf};

use reparam::schema::{SettingKind, SettingSpec, Settings, optional, word};
use reparam_data::rows::{Fields, OnError, RowFormat, RowsOptions};
use serde::{Serialize, Serializer};

use super::catalog::Catalog;
use super::error::ConfigError;
use super::optimizer;
use super::section::Section;
use super::task::RunTree;
use super::train::{Length, Precision, TrainConfig};
use super::{
    DataConfig, EvalData, MethodConfig, ModelConfig, OptimizerConfig, OutputConfig,
    check_evaluation, check_method, check_warmup, defaults, layout, method, open_sections, to_toml,
    words,
};
use crate::task::RunFile;

/// Everything that a run over rows of texts needs, with all defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RowsConfig {
    /// `[model]`: what is trained.
    pub model: ModelConfig,
    /// `[data]`: the rows.
    pub data: RowsDataConfig,
    /// `[method]`: how its weights are reparameterized.
    pub method: MethodConfig,
    /// `[optimizer]`: how the trainable parameters are updated.
    pub optimizer: OptimizerConfig,
    /// `[train]`: how long, how many rows at once. A row has at most `sequence_length` tokens.
    pub train: TrainConfig,
    /// `[output]`: where the results go.
    pub output: OutputConfig,
    /// Where methods and transforms are looked up; no part of the file.
    #[serde(skip)]
    pub catalog: Catalog,
}

/// `[data]`: the rows to train on and to evaluate with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RowsDataConfig {
    /// The files to train on; in the run file one path or a list.
    pub train: Vec<PathBuf>,
    /// `eval` or `eval_fraction`: what the model is measured on.
    #[serde(flatten)]
    pub eval: EvalData,
    /// The format of every file; told from each file's name if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<RowFormat>,
    /// Which column holds which field.
    #[serde(skip_serializing_if = "Fields::is_empty")]
    pub fields: Fields,
    /// What is done with a row that cannot be read.
    #[serde(serialize_with = "write_on_error")]
    pub on_error: OnError,
    /// Whether the order of the rows is drawn anew, from the seed, for each epoch.
    pub shuffle: bool,
}

const FORMATS: [(&str, RowFormat); RowFormat::ALL.len()] = {
    let mut words = [("", RowFormat::Jsonl); RowFormat::ALL.len()];
    let mut i = 0;
    while i < words.len() {
        words[i] = (RowFormat::ALL[i].name(), RowFormat::ALL[i]);
        i += 1;
    }
    words
};

fn write_on_error<S: Serializer>(on_error: &OnError, serializer: S) -> Result<S::Ok, S::Error> {
    words::write(&OnError::WORDS, on_error, serializer)
}

impl RowsDataConfig {
    pub(super) const SPECS: &[SettingSpec] = &[
        DataConfig::TRAIN,
        DataConfig::EVAL,
        DataConfig::EVAL_FRACTION,
        optional(
            "format",
            SettingKind::Word(&words::names(&FORMATS)),
            "by extension",
            "file format, see rows of text",
        ),
        optional(
            "fields",
            SettingKind::Text,
            "columns named as the fields",
            "which column holds which field, as in text=review,label=kind; by number if no line names the columns",
        ),
        word(
            "on_error",
            &words::names(&OnError::WORDS),
            "error",
            "unreadable rows: error, or skip to leave them out and count them",
        ),
        DataConfig::SHUFFLE,
    ];

    fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        section.exclusive("eval_fraction", "eval")?;
        let fields = match section.find("fields") {
            None => Fields::default(),
            Some(entry) => {
                let text = section.string_of("fields", &entry.node, "a string")?;
                text.parse().map_err(|_| {
                    let expected = "fields with their columns, such as \"text=review,label=kind\" or \"text=2,label=1\"";
                    section.out_of_range("fields", &entry.node, expected)
                })?
            }
        };
        let paths = |list: &[String]| list.iter().map(PathBuf::from).collect();
        section.typed(Self::SPECS, |settings| {
            Ok(Self {
                train: paths(settings.texts("train")?),
                eval: match settings.optional("eval", Settings::texts)? {
                    Some(files) => EvalData::Files(paths(files)),
                    None => EvalData::Fraction(settings.number("eval_fraction")?),
                },
                format: settings
                    .optional("format", |settings, key| settings.choice(key, &FORMATS))?,
                fields,
                on_error: settings.choice("on_error", &OnError::WORDS)?,
                shuffle: settings.flag("shuffle")?,
            })
        })
    }

    /// Returns how the files are read.
    #[must_use]
    pub fn options(&self) -> RowsOptions {
        RowsOptions {
            format: self.format,
            fields: self.fields.clone(),
        }
    }
}

impl RowsConfig {
    fn read_sections(root: &[super::tree::Entry], catalog: &Catalog) -> Result<Self, ConfigError> {
        let specs = [
            ModelConfig::SPECS,
            RowsDataConfig::SPECS,
            TrainConfig::SPECS,
        ];
        let layout = layout(catalog, specs);
        let [model, data, method, optimizer, train, output] =
            open_sections(root, &layout, catalog)?;
        let config = Self {
            model: ModelConfig::read(&model)?,
            data: RowsDataConfig::read(&data)?,
            method: method::read(&method, defaults::METHOD)?,
            optimizer: OptimizerConfig::read(&optimizer, defaults::OPTIMIZER)?,
            train: TrainConfig::read(&train)?,
            output: OutputConfig::read(&output)?,
            catalog: catalog.clone(),
        };
        check_method(catalog, &config.method, &method)?;
        optimizer::check_chain(&optimizer, &config.optimizer)?;
        if let Length::MaxSteps(steps) = config.train.length {
            check_warmup(&optimizer, &config.optimizer, steps)?;
        }
        check_evaluation(&config.data.eval, &config.train, &train)?;
        config.train.stop.check(&train, config.train.eval_every)?;
        config.check_train(&train)?;
        Ok(config)
    }

    /// What only language models do.
    fn check_train(&self, train: &Section<'_>) -> Result<(), ConfigError> {
        if self.train.sample.is_some() {
            let reason = "a model of this task generates no text";
            return Err(train.no_effect("sample_prompt", reason, "remove `sample_prompt`"));
        }
        if self.train.precision == Precision::Bf16 {
            let reason = "a model of this task runs in f32";
            return Err(train.no_effect("precision", reason, "set `precision` to \"f32\""));
        }
        if self.train.recompute {
            let reason = "it applies to bf16, and this run is in f32";
            return Err(train.no_effect("recompute", reason, "remove `recompute`"));
        }
        Ok(())
    }
}

impl RunFile for RowsConfig {
    fn read(tree: &RunTree) -> Result<Self, ConfigError> {
        Self::read_sections(tree.root(), tree.catalog())
    }

    fn to_toml(&self) -> Result<String, ConfigError> {
        to_toml(self)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let tree = super::parse_tree(&self.to_toml()?, "run configuration", &[])?;
        Self::read_sections(&tree, &self.catalog).map(|_| ())
    }

    fn output(&self) -> &Path {
        &self.output.dir
    }

    fn threads(&self) -> usize {
        self.train.threads
    }

    fn catalog(&self) -> &Catalog {
        &self.catalog
    }
}
