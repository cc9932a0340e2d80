//! What the user should know although nothing failed.

use std::sync::{Arc, Mutex, PoisonError};

use reparam_models::Architecture;

/// Collects warnings, each once; clones collect together.
///
/// Libraries do not print: who asked takes them out and shows them.
#[derive(Debug, Clone, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Adds a warning, a sentence without its period, unless it is there.
    pub fn add(&self, warning: impl Into<String>) {
        let warning = warning.into();
        let mut warnings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    /// Adds a warning if there is one.
    pub(crate) fn extend(&self, warning: Option<String>) {
        if let Some(warning) = warning {
            self.add(warning);
        }
    }

    /// Takes out what has been added.
    #[must_use]
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Says that a sequence is longer than those that a model was made for, if it is.
///
/// A model with learned positions refuses it ([`ModelError::TooLong`](reparam_models::ModelError::TooLong)); one with rotary
/// positions computes something.
pub(crate) fn beyond_positions(architecture: &Architecture, n_tokens: usize) -> Option<String> {
    let most = architecture.max_positions;
    (n_tokens > most).then(|| {
        format!(
            "the model was made for sequences of up to {most} tokens (max_position_embeddings), and {n_tokens} are \
             asked for: what is beyond is new to it, and usually comes out worse"
        )
    })
}

/// What was said so far is no part of what is asked.
impl PartialEq for Warnings {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
