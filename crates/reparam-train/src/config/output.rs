//! `[output]`.

use std::path::PathBuf;

use reparam::schema::{SettingKind, SettingSpec, required};
use serde::Serialize;

use super::Result;
use super::section::Section;

/// `[output]`: where the results of the run go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutputConfig {
    /// The run directory, made if it does not exist.
    pub dir: PathBuf,
}

impl OutputConfig {
    pub(super) const SPECS: &[SettingSpec] = &[required(
        "dir",
        SettingKind::Text,
        "\"runs/name\"",
        "the run directory; created if missing, and must not hold a run",
    )];

    pub(super) fn read(section: &Section<'_>) -> Result<Self> {
        section.typed(Self::SPECS, |settings| {
            Ok(Self {
                dir: settings.word("dir")?.into(),
            })
        })
    }
}
