//! `[model]`.

use reparam::schema::{Range, SettingKind, SettingSpec, Settings, optional, required};
use reparam_formats::hub::HubOptions;
use serde::Serialize;

use super::Result;
use super::section::Section;
use super::task;

/// `[model]`: the base model, whose weights stay as they are.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelConfig {
    /// What it is trained for; what the checkpoint says if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// A directory in Hugging Face layout, or a hub id such as `HuggingFaceTB/SmolLM2-135M`.
    pub path: String,
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
        required(
            "path",
            SettingKind::Text,
            "\"a model directory, or a hub id\"",
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
    ];

    pub(super) fn read(section: &Section<'_>) -> Result<Self> {
        section.typed(Self::SPECS, |settings| {
            Ok(Self {
                task: settings.optional("task", Settings::text)?,
                path: settings.word("path")?.to_owned(),
                revision: settings.optional("revision", Settings::text)?,
                adapter: settings.optional("adapter", Settings::text)?,
                dropout: settings.optional("dropout", Settings::number)?,
            })
        })
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
