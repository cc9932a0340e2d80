//! `[output]`.

use std::path::PathBuf;

use serde::Serialize;

use super::error::ConfigError;
use super::section::Section;

/// `[output]`: where the results of the run go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutputConfig {
    /// The run directory, made if it does not exist.
    pub dir: PathBuf,
}

impl OutputConfig {
    pub(super) const KEYS: [&str; 1] = ["dir"];

    pub(super) fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            dir: section
                .string("dir")?
                .ok_or_else(|| section.missing("dir", "dir = \"runs/name\""))?
                .into(),
        })
    }
}
