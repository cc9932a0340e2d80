//! What is found before a run.

use serde::Serialize;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The run cannot work: it does not begin.
    Error,
    /// The run may well be another than the one that is wanted.
    Warning,
    /// Worth knowing, and harmless.
    Note,
}

impl Severity {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// Something about a run that is found before its first step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is looked at, in a word that does not change: `masked_rows`, `zero_weight`.
    pub kind: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What is found, with its numbers: a sentence without its period.
    pub message: String,
    /// What to do about it; a note may have none.
    pub hint: Option<String>,
}

impl Finding {
    /// Makes one that keeps the run from working.
    pub fn error(kind: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Severity::Error, kind, message, Some(hint.into()))
    }

    /// Makes one that the user should know before the run.
    pub fn warning(
        kind: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::new(Severity::Warning, kind, message, Some(hint.into()))
    }

    /// Makes one that is harmless.
    pub fn note(kind: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Note, kind, message, None)
    }

    fn new(
        severity: Severity,
        kind: &'static str,
        message: impl Into<String>,
        hint: Option<String>,
    ) -> Self {
        Self {
            kind,
            severity,
            message: message.into(),
            hint,
        }
    }
}
