//! What is looked at before the first step of every run: findings about the model, its data and the memory, and a dry run.
//!
//! Findings are a list that no line of a table is named in. What is known of a model with its tokenizer is found where it is
//! loaded, and is a part of [`RunFacts`](crate::RunFacts); what a task knows of its data is its [`Seen`]; what follows from both
//! is found here. [`train`](crate::train()) tells warnings as events and refuses to begin where there is an error;
//! [`dry_run`] returns all of it.

mod data;
mod dry_run;
mod finding;
mod memory;
mod model;
#[cfg(test)]
mod tests;

pub use self::dry_run::{DryRun, Inspected, Measured, dry_run, inspect_data};
pub use self::finding::{Finding, Severity};
pub(crate) use self::memory::state_per_parameter;
pub use self::memory::{Footprint, MemoryEstimate};
pub use self::model::LayerCount;
pub(crate) use self::model::{ModelLook, beyond, layers, of_tokenizer, of_weights};

use crate::seen::{Look, Seen};
use crate::task::PreparedRun;
use crate::{Result, TrainError};

/// What was looked at before the first step.
pub(crate) struct Preflight {
    pub(crate) findings: Vec<Finding>,
    pub(crate) seen: Option<Seen>,
    pub(crate) memory: Option<MemoryEstimate>,
}

/// Looks at a run that is prepared; `look` says how much of the data is shown.
pub(crate) fn preflight(prepared: &PreparedRun, look: &Look<'_>) -> Result<Preflight> {
    let mut findings = prepared.facts.findings.clone();
    let seen = prepared.learner.seen(look)?;
    if let Some(seen) = &seen {
        findings.extend(data::findings(seen));
        findings.extend(seen.findings.iter().cloned());
    }
    let memory = MemoryEstimate::of(prepared);
    findings.extend(memory.as_ref().and_then(MemoryEstimate::finding));
    // What keeps the run from working comes first; the order is else that in which it was found.
    findings.sort_by_key(|finding| finding.severity);
    Ok(Preflight {
        findings,
        seen,
        memory,
    })
}

impl Preflight {
    /// Refuses a run that cannot work.
    ///
    /// # Errors
    ///
    /// [`TrainError::Preflight`] with all findings that are errors.
    pub(crate) fn check(&self) -> Result<()> {
        refuse(&self.findings)
    }
}

/// Refuses a run with findings that are errors.
fn refuse(findings: &[Finding]) -> Result<()> {
    let is_error = |finding: &&Finding| finding.severity == Severity::Error;
    let errors: Vec<Finding> = findings.iter().filter(is_error).cloned().collect();
    match errors.is_empty() {
        true => Ok(()),
        false => Err(TrainError::Preflight { findings: errors }),
    }
}
