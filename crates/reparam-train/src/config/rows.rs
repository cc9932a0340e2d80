//! `[data]` of tasks over rows, and over texts that are taken one by one.

use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;

use reparam::schema::{SettingKind, SettingSpec, Settings, count, optional};
use reparam_data::rows::{Fields, OnError, RowFormat, RowsOptions};
use reparam_data::{Format, ReadOptions};
use serde::Serialize;

use super::data::{
    FORMAT, FORMATS, check_eval_max, fields, paths, recompute_in_f32, write_on_error,
};
use super::section::Section;
use super::{
    DataConfig, EvalData, Precision, Result, RowsConfig, RunData, runs_in_bf16, text, words,
};

/// How files are written, as run files say it.
pub trait FileFormat: fmt::Debug + Copy + PartialEq + Serialize + 'static {
    /// The setting.
    const SPEC: SettingSpec;
    /// Its words.
    const WORDS: &'static [(&'static str, Self)];
}

impl FileFormat for Format {
    const SPEC: SettingSpec = FORMAT;
    const WORDS: &'static [(&'static str, Self)] = &FORMATS;
}

impl FileFormat for RowFormat {
    const SPEC: SettingSpec = optional(
        "format",
        SettingKind::Word(&words::names(&ROW_FORMATS)),
        "by extension",
        "file format, see rows of text",
    );
    const WORDS: &'static [(&'static str, Self)] = &ROW_FORMATS;
}

/// What the `[data]` of a task may say that is its own.
pub trait RowsKeys: fmt::Debug + Clone + PartialEq + 'static {
    /// How its files are written.
    type Format: FileFormat;
    /// The most that is held out, in what the task counts.
    const EVAL_MAX: SettingSpec = count(
        "eval_max",
        2000,
        "maximum rows to hold out, whatever eval_fraction says",
    );
    /// Whether its models run on weights that are packed in bf16.
    const RUNS_IN_BF16: bool = true;
    /// The settings that no other task has.
    const OWN: &'static [SettingSpec] = &[];
}

/// Rows without settings of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoKeys;

impl RowsKeys for NoKeys {
    type Format = RowFormat;
}

/// `[data]`: the rows to train on and to evaluate with.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(bound = "")]
pub struct RowsDataConfig<K: RowsKeys = NoKeys> {
    /// The files to train on; in the run file one path or a list.
    pub train: Vec<PathBuf>,
    /// `eval` or `eval_fraction`: what the model is measured on.
    #[serde(flatten)]
    pub eval: EvalData,
    /// The most that is held out; only where a part of the training data is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_max: Option<u64>,
    /// The format of every file; told from each file's name, or from its first row, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<K::Format>,
    /// Which column holds which field.
    #[serde(skip_serializing_if = "Fields::is_empty")]
    pub fields: Fields,
    /// What is done with a row that cannot be read.
    #[serde(serialize_with = "write_on_error")]
    pub on_error: OnError,
    /// Whether the order of the rows is drawn anew, from the seed, for each epoch.
    pub shuffle: bool,
    /// What only this task has.
    #[serde(flatten)]
    pub own: Settings,
    #[serde(skip)]
    keys: PhantomData<K>,
}

const ROW_FORMATS: [(&str, RowFormat); RowFormat::ALL.len()] = {
    let mut words = [("", RowFormat::Jsonl); RowFormat::ALL.len()];
    let mut i = 0;
    while i < words.len() {
        words[i] = (RowFormat::ALL[i].name(), RowFormat::ALL[i]);
        i += 1;
    }
    words
};

impl<K: RowsKeys> RowsDataConfig<K> {
    /// The settings that all such tasks have.
    const COMMON: &'static [SettingSpec] = &[
        DataConfig::TRAIN,
        DataConfig::EVAL,
        DataConfig::EVAL_FRACTION,
        K::EVAL_MAX,
        K::Format::SPEC,
        DataConfig::FIELDS,
        DataConfig::ON_ERROR,
        DataConfig::SHUFFLE,
    ];
}

impl<K: RowsKeys> RunData for RowsDataConfig<K> {
    fn specs() -> Vec<&'static SettingSpec> {
        Self::COMMON.iter().chain(K::OWN).collect()
    }

    fn read(section: &Section<'_>) -> Result<Self> {
        section.exclusive("eval_fraction", "eval")?;
        let fields = fields(section)?;
        let own = section.read(K::OWN)?;
        text::check(section, &own)?;
        let config = section.typed(Self::COMMON, |settings| {
            let eval = EvalData::of(settings)?;
            Ok(Self {
                train: paths(settings, "train")?,
                eval_max: eval.max(settings)?,
                eval,
                format: settings.optional("format", |settings, key| {
                    settings.choice(key, K::Format::WORDS)
                })?,
                fields,
                on_error: settings.choice("on_error", &OnError::WORDS)?,
                shuffle: settings.flag("shuffle")?,
                own,
                keys: PhantomData,
            })
        })?;
        check_eval_max(section, &config.eval)?;
        Ok(config)
    }

    fn eval(&self) -> &EvalData {
        &self.eval
    }

    /// Refuses what only language models that predict the next token do.
    fn check(run: &RowsConfig<K>, train: &Section<'_>) -> Result<()> {
        if run.train.sample.is_some() {
            let reason = "a model of this task generates no text";
            return Err(train.no_effect("sample_prompt", reason, "remove `sample_prompt`"));
        }
        // What an adapter runs in is known when it is read.
        let method = run.method.as_ref();
        let runs_in_bf16 = method.is_none_or(|method| runs_in_bf16(&run.catalog, method));
        if run.train.precision == Precision::Bf16 && !(K::RUNS_IN_BF16 && runs_in_bf16) {
            let reason = match K::RUNS_IN_BF16 {
                true => "the `kind` in [method] runs in f32 only",
                false => "a model of this task runs in f32",
            };
            return Err(train.no_effect("precision", reason, "set `precision` to \"f32\""));
        }
        if run.train.recompute && run.train.precision != Precision::Bf16 {
            return Err(recompute_in_f32(train));
        }
        Ok(())
    }
}

impl<K: RowsKeys<Format = RowFormat>> RowsDataConfig<K> {
    /// Returns how the files are read.
    #[must_use]
    pub fn options(&self) -> RowsOptions {
        RowsOptions {
            format: self.format,
            fields: self.fields.clone(),
        }
    }
}

impl<K: RowsKeys<Format = Format>> RowsDataConfig<K> {
    /// Returns how the files are read.
    #[must_use]
    pub fn reading(&self) -> ReadOptions {
        ReadOptions {
            format: self.format,
            fields: self.fields.clone(),
            on_error: self.on_error,
            ..ReadOptions::default()
        }
    }
}
