//! What the command line says about a run file.

use std::path::Path;

use reparam_train::config::Override;

use crate::error::{CliError, Result};

/// Returns the overrides of `--set` and `--output`, in the order in which they win.
pub(crate) fn overrides(set: Vec<String>, output: Option<&Path>) -> Result<Vec<Override>> {
    let mut overrides: Vec<Override> = set.into_iter().map(Override::set).collect();
    if let Some(directory) = output {
        let directory = directory
            .to_str()
            .ok_or_else(|| CliError::OutputNotUtf8(directory.to_string_lossy().into_owned()))?;
        overrides.push(Override::output(directory));
    }
    Ok(overrides)
}
