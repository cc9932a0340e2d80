//! `[model]`.

use serde::Serialize;

use super::error::ConfigError;
use super::section::Section;

/// `[model]`: the base model, whose weights stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelConfig {
    /// What it is trained for; what the checkpoint says if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// A directory in Hugging Face layout, or a hub id such as `HuggingFaceTB/SmolLM2-135M`.
    pub path: String,
    /// The branch, tag or commit of a hub id; the hub's default branch if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

impl ModelConfig {
    pub(super) const KEYS: [&str; 3] = ["task", "path", "revision"];

    pub(super) fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            task: section.string("task")?,
            path: section.string("path")?.ok_or_else(|| {
                section.missing("path", "path = \"a model directory, or a hub id\"")
            })?,
            revision: section.string("revision")?,
        })
    }
}
