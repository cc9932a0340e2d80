//! `[model]`.

use reparam::schema::{Range, SettingKind, SettingSpec, Settings, optional};
use reparam_formats::hub::HubOptions;
use serde::Serialize;

use super::new_model::NewModelConfig;
use super::section::Section;
use super::{Result, task};

/// `[model]`: what is trained, a model at a path or a new one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelConfig {
    /// What it is trained for; what the checkpoint says if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// A directory in Hugging Face layout, or a hub id such as `HuggingFaceTB/SmolLM2-135M`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A new model instead.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub new: Option<NewModelConfig>,
    /// The branch, tag or commit of a hub id; the hub's default branch if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The directory of an adapter to train on from: its method, with its values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// The probability of each dropout that the model's family has in training; what its configuration says if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
}

impl ModelConfig {
    pub(super) const ADAPTER: SettingSpec = optional(
        "adapter",
        SettingKind::Text,
        "none",
        "an adapter directory to train on from; excludes [method], since method and settings are the adapter's",
    );

    pub(super) const SPECS: &[SettingSpec] = &[
        task::SPEC,
        optional(
            "path",
            SettingKind::Text,
            "required without architecture",
            "a directory in Hugging Face layout, or a hub id such as HuggingFaceTB/SmolLM2-135M",
        ),
        optional(
            "revision",
            SettingKind::Text,
            "the hub's default branch",
            "branch, tag or commit of a hub id",
        ),
        Self::ADAPTER,
        optional(
            "dropout",
            SettingKind::Number(Range::BelowOne),
            "what the model says",
            "probability of the model's own dropout in training; 0 turns it off",
        ),
        NewModelConfig::SPECS[0],
        NewModelConfig::SPECS[1],
        NewModelConfig::SPECS[2],
        NewModelConfig::SPECS[3],
    ];

    pub(super) fn read(section: &Section<'_>) -> Result<Self> {
        let new = NewModelConfig::read(section, &section.read(Self::SPECS)?)?;
        if new.is_none() && section.find("path").is_none() {
            return Err(section.missing("path", "\"a model directory, or a hub id\""));
        }
        section.typed(Self::SPECS, |settings| {
            Ok(Self {
                task: settings.optional("task", Settings::text)?,
                path: settings.optional("path", Settings::text)?,
                new,
                revision: settings.optional("revision", Settings::text)?,
                adapter: settings.optional("adapter", Settings::text)?,
                dropout: settings.optional("dropout", Settings::number)?,
            })
        })
    }

    /// Returns what the model is called: its path, or the family of a new one.
    pub fn name(&self) -> &str {
        match (&self.path, &self.new) {
            (Some(path), _) => path,
            (None, Some(new)) => &new.architecture,
            (None, None) => "",
        }
    }

    /// Returns how the model is found: with its revision, if it says one.
    #[must_use]
    pub fn hub(&self, hub: &HubOptions) -> HubOptions {
        let revision = self.revision.clone();
        HubOptions {
            revision: revision.unwrap_or_else(|| hub.revision.clone()),
            ..hub.clone()
        }
    }
}
