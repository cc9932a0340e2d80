//! The tasks of this crate, one file or folder each.

mod causal_lm;
mod embedding;
mod masked_lm;
mod next_token;
mod pretrained;
mod question_answering;
pub mod regression;
pub mod rows;
mod seen_texts;
mod seq2seq;
mod sequence_classification;
mod texts;
mod token_classification;
mod word_embedding;

pub use causal_lm::{CausalLanguageModel, TrainedTexts};
pub use embedding::{Embedding, Sentences};
pub use masked_lm::{MaskedKeys, MaskedLanguageModel};
pub use question_answering::{QuestionAnswering, Questions};
pub use regression::Regression;
pub use seq2seq::{PairKeys, SequenceToSequence};
pub use sequence_classification::{SequenceClassification, SequenceKeys, Sequences};
pub use token_classification::{TokenClassification, WordKeys, Words};
pub use word_embedding::{VectorKeys, WordEmbedding};

use crate::task::TaskEntry;

/// Returns the built-in lines of the table. The first is the task of a model that does not say what it is for.
pub(crate) fn builtin() -> Vec<TaskEntry> {
    vec![
        TaskEntry::of::<CausalLanguageModel>(),
        TaskEntry::of::<Embedding>(),
        TaskEntry::of::<MaskedLanguageModel>(),
        TaskEntry::of::<QuestionAnswering>(),
        TaskEntry::of::<Regression>(),
        TaskEntry::of::<SequenceToSequence>(),
        TaskEntry::of::<SequenceClassification>(),
        TaskEntry::of::<TokenClassification>(),
        TaskEntry::of::<WordEmbedding>(),
    ]
}
