//! `[data]` of masked language models.

use std::path::PathBuf;

use reparam::schema::{Range, SettingSpec, count, flag, number};
use reparam_data::{Fields, Format, OnError, ReadOptions};
use serde::Serialize;

use super::data::{FORMAT, FORMATS, check_eval_max, fields, paths, write_on_error};
use super::rows::check_encoder;
use super::section::Section;
use super::{DataConfig, EvalData, MaskedConfig, Result, RunData};

/// `[data]`: the texts to train on and to evaluate with, and what is masked of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MaskedDataConfig {
    /// The files to train on; in the run file one path or a list.
    pub train: Vec<PathBuf>,
    /// `eval` or `eval_fraction`: what the loss is measured on.
    #[serde(flatten)]
    pub eval: EvalData,
    /// The most pieces that are held out; only where a part of the training data is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_max: Option<u64>,
    /// The format of every file; told from each file's name and its first row if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Which column holds which field.
    #[serde(skip_serializing_if = "Fields::is_empty")]
    pub fields: Fields,
    /// What is done with a row that cannot be read.
    #[serde(serialize_with = "write_on_error")]
    pub on_error: OnError,
    /// The share of tokens, or words, to guess.
    pub mask_probability: f64,
    /// Whether the tokens of a word are masked together.
    pub whole_words: bool,
    /// Whether the order of the pieces is drawn anew, from the seed, for each epoch.
    pub shuffle: bool,
}

/// The settings of the section.
pub(super) const SPECS: &[SettingSpec] = &[
    DataConfig::TRAIN,
    DataConfig::EVAL,
    DataConfig::EVAL_FRACTION,
    count(
        "eval_max",
        1000,
        "maximum pieces to hold out, whatever eval_fraction says",
    ),
    FORMAT,
    DataConfig::FIELDS,
    DataConfig::ON_ERROR,
    number(
        "mask_probability",
        Range::BelowOne,
        0.15,
        "share of tokens to guess, or of words with whole_words",
    ),
    flag("whole_words", false, "mask all tokens of a word together"),
    DataConfig::SHUFFLE,
];

impl RunData for MaskedDataConfig {
    fn specs() -> Vec<&'static SettingSpec> {
        SPECS.iter().collect()
    }

    fn read(section: &Section<'_>) -> Result<Self> {
        section.exclusive("eval_fraction", "eval")?;
        let fields = fields(section)?;
        let config = section.typed(SPECS, |settings| {
            let eval = EvalData::of(settings)?;
            Ok(Self {
                train: paths(settings, "train")?,
                eval_max: eval.max(settings)?,
                eval,
                format: settings
                    .optional("format", |settings, key| settings.choice(key, &FORMATS))?,
                fields,
                on_error: settings.choice("on_error", &OnError::WORDS)?,
                mask_probability: settings.number("mask_probability")?,
                whole_words: settings.flag("whole_words")?,
                shuffle: settings.flag("shuffle")?,
            })
        })?;
        check_eval_max(section, &config.eval)?;
        Ok(config)
    }

    fn eval(&self) -> &EvalData {
        &self.eval
    }

    fn check(run: &MaskedConfig, train: &Section<'_>) -> Result<()> {
        check_encoder(&run.train, train)
    }
}

impl MaskedDataConfig {
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
