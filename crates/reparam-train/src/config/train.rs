//! `[train]`.

use reparam_kernels::Isa;
use serde::Serialize;

use super::error::ConfigError;
use super::section::{Range, Section};

/// `[train]`: how long the run is, how much it does at once and what it reports.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainConfig {
    /// `max_steps` or `epochs`: how long the run is.
    #[serde(flatten)]
    pub length: Length,
    /// Blocks in a batch, in 1..=65536.
    pub batch_size: usize,
    /// Tokens in a block, at least 2, since the first of a document is not predicted.
    pub sequence_length: usize,
    /// Batches whose gradients make one step, in 1..=65536; the mean is over their tokens.
    pub gradient_accumulation: usize,
    /// What every random number of the run is derived from.
    pub seed: u64,
    /// What activations are computed in.
    pub precision: Precision,
    /// Whether activations are computed again in the backward pass instead of being kept; in bf16 only.
    pub recompute: bool,
    /// Steps between evaluations; 0 for one at the start and one at the end.
    pub eval_every: u64,
    /// Steps between the steps that are reported, at least 1.
    pub log_every: u64,
    /// Steps between saved states; 0 for one at the end.
    pub save_every: u64,
    /// When the run ends before its last step.
    #[serde(flatten)]
    pub stop: StopConfig,
    /// `sample_prompt` and `sample_tokens`: a text to generate before and after.
    #[serde(flatten)]
    pub sample: Option<SampleConfig>,
    /// Threads to compute with, at most 1024; 0 for as many as the machine has.
    pub threads: usize,
}

/// How long the run is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub enum Length {
    /// Steps of the optimizer, at least 1.
    #[serde(rename = "max_steps")]
    MaxSteps(u64),
    /// Times that the data are gone through, greater than 0; a fraction of an epoch is allowed.
    #[serde(rename = "epochs")]
    Epochs(f64),
}

/// What activations are computed in. Trainable parameters, optimizer state and loss are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// bf16 where the machine multiplies bf16 natively, the checkpoint's weights are bf16 and the method runs in it; else f32.
    /// Weights are never rounded without being asked.
    Auto,
    /// Weights and activations in bf16, sums in 32-bit floating point; with `lora` only.
    Bf16,
    /// 32-bit floating point.
    F32,
    /// Activations in bf16, weights as 8-bit integers with a scale for each of their rows; for inference only.
    Int8,
}

impl Precision {
    /// The precisions of a run with the words for them.
    pub const TRAINING: [(&'static str, Self); 3] = [
        ("auto", Self::Auto),
        ("bf16", Self::Bf16),
        ("f32", Self::F32),
    ];

    /// The precisions of a model that is only asked, with the words for them.
    pub const INFERENCE: [(&'static str, Self); 4] = [
        ("auto", Self::Auto),
        ("bf16", Self::Bf16),
        ("f32", Self::F32),
        ("int8", Self::Int8),
    ];

    /// Returns what it means on this machine; `fits_bf16` says whether model and method do.
    #[must_use]
    pub fn resolve(self, fits_bf16: bool) -> reparam_models::Precision {
        match self {
            Self::Bf16 => reparam_models::Precision::Bf16,
            Self::Auto if fits_bf16 && Isa::current().multiplies_bf16() => {
                reparam_models::Precision::Bf16
            }
            Self::Auto | Self::F32 => reparam_models::Precision::F32,
            Self::Int8 => reparam_models::Precision::Int8,
        }
    }
}

/// A text that shows what the model says before and after the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SampleConfig {
    /// What the model continues.
    #[serde(rename = "sample_prompt")]
    pub prompt: String,
    /// The most tokens it adds, at least 1.
    #[serde(rename = "sample_tokens")]
    pub tokens: usize,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            length: Length::Epochs(1.0),
            batch_size: 4,
            sequence_length: 512,
            gradient_accumulation: 1,
            seed: 0,
            precision: Precision::Auto,
            recompute: false,
            eval_every: 0,
            log_every: 1,
            save_every: 0,
            stop: StopConfig::default(),
            sample: None,
            threads: 0,
        }
    }
}

impl TrainConfig {
    pub(super) const KEYS: [&str; 18] = [
        "max_steps",
        "epochs",
        "batch_size",
        "sequence_length",
        "gradient_accumulation",
        "seed",
        "precision",
        "recompute",
        "eval_every",
        "log_every",
        "save_every",
        "stop_loss_change",
        "stop_window",
        "stop_grad_norm",
        "patience",
        "sample_prompt",
        "sample_tokens",
        "threads",
    ];

    /// More threads than any machine of today has cores.
    const MOST_THREADS: i128 = 1024;

    /// How many tokens a sample has if the file does not say.
    pub const DEFAULT_SAMPLE_TOKENS: usize = 64;

    pub(super) fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        let default = Self::default();
        section.exclusive("epochs", "max_steps")?;
        let length = match section.integer("max_steps", 1)? {
            Some(steps) => Length::MaxSteps(steps),
            None => section
                .number("epochs", Range::Positive)?
                .map_or(default.length, Length::Epochs),
        };
        Ok(Self {
            length,
            batch_size: section.size("batch_size")?.unwrap_or(default.batch_size),
            sequence_length: section
                .integer("sequence_length", 2)?
                .unwrap_or(default.sequence_length),
            gradient_accumulation: section
                .size("gradient_accumulation")?
                .unwrap_or(default.gradient_accumulation),
            seed: section.integer("seed", 0)?.unwrap_or(default.seed),
            precision: section
                .choice("precision", &Precision::TRAINING)?
                .unwrap_or(default.precision),
            recompute: section.boolean("recompute")?.unwrap_or(default.recompute),
            eval_every: section
                .integer("eval_every", 0)?
                .unwrap_or(default.eval_every),
            log_every: section
                .integer("log_every", 1)?
                .unwrap_or(default.log_every),
            save_every: section
                .integer("save_every", 0)?
                .unwrap_or(default.save_every),
            stop: StopConfig::read(section)?,
            sample: read_sample(section)?,
            threads: section
                .find("threads")
                .map(|entry| section.size_of("threads", &entry.node, 0, Self::MOST_THREADS))
                .transpose()?
                .unwrap_or(default.threads),
        })
    }
}

/// When a run ends before its last step; all conditions are off unless they are given.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct StopConfig {
    /// The relative change of the mean loss from one window of steps to the next, greater than 0, below which
    /// the run has converged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_loss_change: Option<f64>,
    /// The steps of such a window, at least 1; there if `stop_loss_change` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_window: Option<u64>,
    /// The norm of the gradient, greater than 0, below which the run has converged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_grad_norm: Option<f64>,
    /// How many evaluations in a row may pass without a lower held-out loss, at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<u64>,
}

impl StopConfig {
    /// The steps of a window if the file does not say.
    pub const DEFAULT_WINDOW: u64 = 10;

    pub(super) fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        let stop_loss_change = section.number("stop_loss_change", Range::Positive)?;
        let window = section.integer("stop_window", 1)?;
        if window.is_some() && stop_loss_change.is_none() {
            return Err(section.no_effect(
                "stop_window",
                "`stop_loss_change` is absent",
                "give `stop_loss_change`, such as 1e-4, or remove `stop_window`",
            ));
        }
        Ok(Self {
            stop_loss_change,
            stop_window: stop_loss_change.map(|_| window.unwrap_or(Self::DEFAULT_WINDOW)),
            stop_grad_norm: section.number("stop_grad_norm", Range::Positive)?,
            patience: section.integer("patience", 1)?,
        })
    }

    /// Evaluations in a row need evaluations during the run.
    pub(super) fn check(self, section: &Section<'_>, eval_every: u64) -> Result<(), ConfigError> {
        if self.patience.is_some() && eval_every == 0 {
            return Err(section.no_effect(
                "patience",
                "`eval_every` is 0, so nothing is evaluated before the end",
                "set `eval_every`, or remove `patience`",
            ));
        }
        Ok(())
    }
}

fn read_sample(section: &Section<'_>) -> Result<Option<SampleConfig>, ConfigError> {
    let tokens = section.integer("sample_tokens", 1)?;
    match section.string("sample_prompt")? {
        Some(prompt) => Ok(Some(SampleConfig {
            prompt,
            tokens: tokens.unwrap_or(TrainConfig::DEFAULT_SAMPLE_TOKENS),
        })),
        None if tokens.is_some() => Err(section.no_effect(
            "sample_tokens",
            "`sample_prompt` is absent",
            "give a `sample_prompt`, or remove `sample_tokens`",
        )),
        None => Ok(None),
    }
}
