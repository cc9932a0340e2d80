//! `[method]`.

mod lora;
mod trained;

use serde::Serialize;

use super::error::ConfigError;
use super::section::Section;

pub use self::lora::{Bias, LoraConfig, LoraInit, ModuleSelector};
pub use self::trained::{
    GammaInit, OverparameterizedConfig, ScaleConfig, SigmaReparamConfig, TargetConfig, TrainedBias,
    WeightNormConfig, WeightNormInit, WeightScale,
};

/// `[method]`: how the weights are reparameterized, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MethodConfig {
    /// `W = W0 + s B A` with B and A of low rank.
    Lora(LoraConfig),
    /// `W = theta`: full training of the selected weights.
    Identity(TargetConfig),
    /// `W = s V` with a constant `s`.
    Scale(ScaleConfig),
    /// `W = g v / |v|` for each row.
    WeightNorm(WeightNormConfig),
    /// `W = gamma V / sigma(V)` with the spectral norm `sigma`.
    SigmaReparam(SigmaReparamConfig),
    /// `W = sum_k s_k V_k + B A + diag(d)`.
    Overparameterized(OverparameterizedConfig),
}

/// The kinds before their keys are read, with the keys of each.
#[derive(Clone, Copy)]
enum Kind {
    Lora,
    Identity,
    Scale,
    WeightNorm,
    SigmaReparam,
    Overparameterized,
}

const KINDS: [(&str, Kind, &[&str]); 6] = [
    ("lora", Kind::Lora, &LoraConfig::KEYS),
    ("identity", Kind::Identity, &TargetConfig::KEYS),
    ("scale", Kind::Scale, &ScaleConfig::KEYS),
    ("weight_norm", Kind::WeightNorm, &WeightNormConfig::KEYS),
    (
        "sigma_reparam",
        Kind::SigmaReparam,
        &SigmaReparamConfig::KEYS,
    ),
    (
        "overparameterized",
        Kind::Overparameterized,
        &OverparameterizedConfig::KEYS,
    ),
];

impl MethodConfig {
    /// Returns every key, those of all kinds included.
    pub(super) fn keys() -> Vec<&'static str> {
        let mut keys = vec!["kind"];
        for key in KINDS.iter().flat_map(|(_, _, keys)| *keys) {
            if !keys.contains(key) {
                keys.push(key);
            }
        }
        keys
    }

    /// Reads the section; a task leaves `kind` out and means its own.
    pub(super) fn read(
        section: &Section<'_>,
        default_kind: &str,
        default_bias: TrainedBias,
    ) -> Result<Self, ConfigError> {
        let choices: Vec<_> = KINDS
            .iter()
            .map(|(word, kind, keys)| (*word, (*word, *kind, *keys)))
            .collect();
        let by_default = || choices.iter().find(|(word, _)| *word == default_kind);
        let (word, kind, own) = section
            .choice("kind", &choices)?
            .or_else(|| by_default().map(|(_, choice)| *choice))
            .unwrap_or(choices[0].1);
        for (other, _, keys) in &KINDS {
            let foreign: Vec<&str> = keys
                .iter()
                .copied()
                .filter(|key| !own.contains(key))
                .collect();
            section.refuse(&foreign, word, other)?;
        }
        let targets = || TargetConfig::read(section, default_bias);
        Ok(match kind {
            Kind::Lora => Self::Lora(LoraConfig::read(section, default_bias)?),
            Kind::Identity => Self::Identity(targets()?),
            Kind::Scale => Self::Scale(ScaleConfig::read(section, targets()?)?),
            Kind::WeightNorm => Self::WeightNorm(WeightNormConfig::read(section, targets()?)?),
            Kind::SigmaReparam => {
                Self::SigmaReparam(SigmaReparamConfig::read(section, targets()?)?)
            }
            Kind::Overparameterized => {
                Self::Overparameterized(OverparameterizedConfig::read(section, targets()?)?)
            }
        })
    }

    /// Whether it runs on weights that are packed in bf16: what trains low-rank factors and nothing else.
    pub(crate) fn runs_in_bf16(&self) -> bool {
        matches!(self, Self::Lora(lora) if lora.bias == Bias::None)
    }

    /// The word for `kind`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Lora(_) => "lora",
            Self::Identity(_) => "identity",
            Self::Scale(_) => "scale",
            Self::WeightNorm(_) => "weight_norm",
            Self::SigmaReparam(_) => "sigma_reparam",
            Self::Overparameterized(_) => "overparameterized",
        }
    }
}
