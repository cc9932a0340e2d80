//! `[data]`.

use std::path::PathBuf;

use reparam_data::Format;
use serde::Serialize;

use super::error::ConfigError;
use super::section::{Range, Section};

/// `[data]`: the texts to train on and to evaluate with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DataConfig {
    /// The files to train on; in the run file one path or a list.
    pub train: Vec<PathBuf>,
    /// `eval` or `eval_fraction`: what the loss is measured on.
    #[serde(flatten)]
    pub eval: EvalData,
    /// The format of every file; told from each file's name and its first object if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Whether the prompts of examples are learned too, not given alone.
    pub train_on_prompt: bool,
    /// How documents are put into blocks of `sequence_length` tokens.
    pub packing: Packing,
    /// Whether the order of the blocks is drawn anew, from the seed, for each epoch.
    pub shuffle: bool,
}

/// What the loss is measured on, apart from the training data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum EvalData {
    /// Files of their own.
    #[serde(rename = "eval")]
    Files(Vec<PathBuf>),
    /// A part of the training data, in 0..1, that is held out; 0 for none.
    #[serde(rename = "eval_fraction")]
    Fraction(f64),
}

/// How documents are put into blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Packing {
    /// Each document goes where it leaves the least room: few padding tokens, few cuts.
    BestFit,
    /// Documents follow one another in the order of the files.
    Sequential,
    /// One document a block.
    None,
}

impl DataConfig {
    pub(super) const KEYS: [&str; 7] = [
        "train",
        "eval",
        "eval_fraction",
        "format",
        "train_on_prompt",
        "packing",
        "shuffle",
    ];

    /// The fraction that is held out if the file says nothing about evaluation.
    pub const DEFAULT_EVAL_FRACTION: f64 = 0.05;

    pub(super) fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        let paths = |list: Vec<String>| list.into_iter().map(PathBuf::from).collect();
        section.exclusive("eval_fraction", "eval")?;
        let eval = match section.strings("eval")? {
            Some(files) => EvalData::Files(paths(files)),
            None => EvalData::Fraction(
                section
                    .number("eval_fraction", Range::BelowOne)?
                    .unwrap_or(Self::DEFAULT_EVAL_FRACTION),
            ),
        };
        let format =
            section.choice("format", &Format::ALL.map(|format| (format.name(), format)))?;
        let train_on_prompt = section.boolean("train_on_prompt")?.unwrap_or(false);
        if train_on_prompt && matches!(format, Some(Format::Text | Format::Documents)) {
            return Err(section.no_effect(
                "train_on_prompt",
                "documents of this `format` have no prompts",
                "remove `train_on_prompt`",
            ));
        }
        Ok(Self {
            train: section
                .strings("train")?
                .map(paths)
                .ok_or_else(|| section.missing("train", "train = \"data.txt\""))?,
            eval,
            format,
            train_on_prompt,
            packing: section
                .choice(
                    "packing",
                    &[
                        ("best_fit", Packing::BestFit),
                        ("sequential", Packing::Sequential),
                        ("none", Packing::None),
                    ],
                )?
                .unwrap_or(Packing::BestFit),
            shuffle: section.boolean("shuffle")?.unwrap_or(true),
        })
    }
}
