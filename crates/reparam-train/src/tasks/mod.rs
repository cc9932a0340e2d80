//! The tasks of this crate, one file or folder each.

mod causal_lm;
mod pretrained;
pub mod regression;
mod sequence_classification;

pub use causal_lm::{CausalLanguageModel, trained_format};
pub use regression::Regression;
pub use sequence_classification::SequenceClassification;

use crate::task::TaskEntry;

/// Returns the built-in lines of the table. The first is the task of a model that does not say what it is for.
pub(crate) fn builtin() -> Vec<TaskEntry> {
    vec![
        TaskEntry::of::<CausalLanguageModel>(),
        TaskEntry::of::<Regression>(),
        TaskEntry::of::<SequenceClassification>(),
    ]
}
