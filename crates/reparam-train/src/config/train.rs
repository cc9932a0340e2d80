//! `[train]`.

use reparam::schema::{
    Fallback, Range, SchemaError, SettingKind, SettingSpec, Settings, count, flag, number,
    optional, size, word,
};
use reparam_data::BatchPlan;
use reparam_kernels::Isa;
use serde::Serialize;

use super::Result;
use super::section::Section;
use super::words;

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
    /// Steps between checkpoints; 0 for none but where the run breaks off, a tenth of the run if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub save_every: Option<u64>,
    /// How many of the newest checkpoints stay; 0 for all.
    pub keep_last: u64,
    /// Which model the run results in.
    pub keep: Keep,
    /// The metric of the evaluations that decides; the task's own if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// When the run ends before its last step.
    #[serde(flatten)]
    pub stop: StopConfig,
    /// `sample_prompt` and `sample_tokens`: a text to generate before and after.
    #[serde(flatten)]
    pub sample: Option<SampleConfig>,
    /// Threads to compute with, at most 1024; 0 for as many as the machine has.
    pub threads: usize,
}

/// Which model a run results in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The best of those that were evaluated after a step; the last one if none was.
    #[default]
    Best,
    /// That after the last step.
    Last,
}

impl Keep {
    /// Both, with the words for them.
    pub const ALL: [(&'static str, Self); 2] = [("best", Self::Best), ("last", Self::Last)];

    pub(super) const SPEC: SettingSpec = word(
        "keep",
        &words::names(&Self::ALL),
        "best",
        "what the run results in: the best model that was evaluated after a step, or the last one",
    );
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
    /// Weights in bf16, and activations where operations are fused; sums in 32-bit floating point. With methods that have a plan.
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

const SEED: SettingSpec = SettingSpec {
    key: "seed",
    kind: SettingKind::COUNT_OR_ZERO,
    fallback: Fallback::Count(0),
    meaning: "seed of every random number",
};

/// The metric that decides.
pub(super) const METRIC: SettingSpec = optional(
    "metric",
    SettingKind::Text,
    "loss, or the first that eval prints",
    "metric of the evaluations by which keep and patience choose, such as f1_macro: any that eval prints",
);

/// A whole number that may be zero, and is by default.
pub(super) const fn period(key: &'static str, meaning: &'static str) -> SettingSpec {
    SettingSpec {
        key,
        kind: SettingKind::COUNT_OR_ZERO,
        fallback: Fallback::Count(0),
        meaning,
    }
}

impl Default for TrainConfig {
    fn default() -> Self {
        Settings::new("train", Self::SPECS, &[])
            .and_then(|settings| Self::of(&settings))
            .unwrap_or_else(|error| unreachable!("no setting of [train] is required: {error}"))
    }
}

impl TrainConfig {
    pub(super) const SPECS: &[SettingSpec] = &[
        optional(
            "max_steps",
            SettingKind::COUNT,
            "",
            "length in steps; excludes epochs",
        ),
        number(
            "epochs",
            Range::Positive,
            1.0,
            "length in passes over the data; may be a fraction",
        ),
        size(
            "batch_size",
            4,
            "blocks (language models) or rows per batch",
        ),
        SettingSpec {
            key: "sequence_length",
            kind: SettingKind::Count {
                least: 2,
                most: u64::MAX,
            },
            fallback: Fallback::Count(512),
            meaning: "maximum tokens of a piece and a block, or of a row",
        },
        size(
            "gradient_accumulation",
            1,
            "batches per step; the loss is the mean over all their tokens",
        ),
        SEED,
        word(
            "precision",
            &words::names(&Precision::TRAINING),
            "auto",
            "type of frozen weights and activations, see precision",
        ),
        flag(
            "recompute",
            false,
            "bf16: keep the input of each half of a layer alone and compute the rest again in the \
             backward pass: less memory, slower steps; not halves with dropout of their own",
        ),
        period(
            "eval_every",
            "steps between evaluations; 0 for one before the first step and one after the last",
        ),
        count(
            "log_every",
            1,
            "steps between step events in events.jsonl; the first is always there",
        ),
        optional(
            "save_every",
            SettingKind::COUNT_OR_ZERO,
            "a tenth of the run, at least 10",
            "steps between checkpoints for train --resume; 0 saves one only on interruption or failure",
        ),
        SettingSpec {
            key: "keep_last",
            kind: SettingKind::COUNT_OR_ZERO,
            fallback: Fallback::Count(2),
            meaning: "how many of the newest checkpoints stay; 0 for all",
        },
        Keep::SPEC,
        METRIC,
        StopConfig::SPECS[0],
        StopConfig::SPECS[1],
        StopConfig::SPECS[2],
        StopConfig::SPECS[3],
        optional(
            "sample_prompt",
            SettingKind::Text,
            "none",
            "prompt that the model continues, greedily, before and after the run",
        ),
        count(
            "sample_tokens",
            64,
            "maximum tokens of the sample; needs sample_prompt",
        ),
        SettingSpec {
            key: "threads",
            kind: SettingKind::Count {
                least: 0,
                // More threads than any machine of today has cores.
                most: 1024,
            },
            fallback: Fallback::Count(0),
            meaning: "compute threads; 0 for REPARAM_THREADS, else one per core",
        },
    ];

    pub(super) fn read(section: &Section<'_>) -> Result<Self> {
        section.exclusive("epochs", "max_steps")?;
        let config = section.typed(Self::SPECS, Self::of)?;
        StopConfig::check_window(section)?;
        if config.sample.is_none() && section.find("sample_tokens").is_some() {
            return Err(section.no_effect(
                "sample_tokens",
                "`sample_prompt` is absent",
                "give a `sample_prompt`, or remove `sample_tokens`",
            ));
        }
        Ok(config)
    }

    /// Returns the steps of a run over the data of a plan: those asked for, or as many as the epochs need.
    #[must_use]
    pub fn steps(&self, plan: &BatchPlan) -> u64 {
        match self.length {
            Length::MaxSteps(steps) => steps,
            Length::Epochs(epochs) => plan.steps_for(epochs),
        }
    }

    fn of(settings: &Settings) -> Result<Self, SchemaError> {
        let sample = settings.optional("sample_prompt", Settings::text)?;
        Ok(Self {
            length: match settings.optional("max_steps", Settings::count)? {
                Some(steps) => Length::MaxSteps(steps),
                None => Length::Epochs(settings.number("epochs")?),
            },
            batch_size: settings.size("batch_size")?,
            sequence_length: settings.size("sequence_length")?,
            gradient_accumulation: settings.size("gradient_accumulation")?,
            seed: settings.count("seed")?,
            precision: settings.choice("precision", &Precision::TRAINING)?,
            recompute: settings.flag("recompute")?,
            eval_every: settings.count("eval_every")?,
            log_every: settings.count("log_every")?,
            save_every: settings.optional("save_every", Settings::count)?,
            keep_last: settings.count("keep_last")?,
            keep: settings.choice("keep", &Keep::ALL)?,
            metric: settings.optional("metric", Settings::text)?,
            stop: StopConfig::of(settings)?,
            sample: match sample {
                None => None,
                Some(prompt) => Some(SampleConfig {
                    prompt,
                    tokens: settings.size("sample_tokens")?,
                }),
            },
            threads: settings.size("threads")?,
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

    pub(super) const SPECS: [SettingSpec; 4] = [
        optional(
            "stop_loss_change",
            SettingKind::Number(Range::Positive),
            "off",
            "end when the mean loss over a window of steps differs from that of the window before by less \
             than this fraction of it",
        ),
        count(
            "stop_window",
            Self::DEFAULT_WINDOW,
            "window in steps; needs stop_loss_change",
        ),
        optional(
            "stop_grad_norm",
            SettingKind::Number(Range::Positive),
            "off",
            "stop when the norm of the whole gradient, before any transform, is below this",
        ),
        optional(
            "patience",
            SettingKind::COUNT,
            "off",
            "stop after this many evaluations without a better held-out result; needs eval_every",
        ),
    ];

    pub(super) fn of(settings: &Settings) -> Result<Self, SchemaError> {
        let stop_loss_change = settings.optional("stop_loss_change", Settings::number)?;
        let window = settings.count("stop_window")?;
        Ok(Self {
            stop_loss_change,
            stop_window: stop_loss_change.map(|_| window),
            stop_grad_norm: settings.optional("stop_grad_norm", Settings::number)?,
            patience: settings.optional("patience", Settings::count)?,
        })
    }

    /// A window needs something that is compared from one to the next.
    pub(super) fn check_window(section: &Section<'_>) -> Result<()> {
        if section.find("stop_window").is_some() && section.find("stop_loss_change").is_none() {
            return Err(section.no_effect(
                "stop_window",
                "`stop_loss_change` is absent",
                "give `stop_loss_change`, such as 1e-4, or remove `stop_window`",
            ));
        }
        Ok(())
    }

    /// Evaluations in a row need evaluations during the run.
    pub(super) fn check(self, section: &Section<'_>, eval_every: u64) -> Result<()> {
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
