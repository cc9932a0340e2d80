//! Rows with named fields: what tasks over rows learn from and predict.
//!
//! ```text
//! paths --read_rows--> rows of fields --text_rows--> texts with labels --Labels--> classes
//!                                                          |
//!                             encode_rows <---------------+
//!                                |
//!                           RowBatch: ids, types, positions, bounds
//! ```
//!
//! - [`read_rows`] reads `.jsonl`, `.json`, `.csv`, `.tsv` and `.conll` files, plain lines, pairs of files with aligned lines,
//!   and the JSON of SQuAD. [`Fields`] says which column holds which field; a [`Schema`] which fields a task has.
//! - [`RowBatch`] holds encoded rows one behind the other, without padding.
//!
//! Each kind of rows has what takes it, what encodes it and what measures it:
//!
//! | rows | taken by | encoded by | measured by |
//! | --- | --- | --- | --- |
//! | texts with labels | [`text_rows`], [`Labels::classes`] | [`encode_rows`] | [`ClassScorer`] |
//! | tokens with tags | [`token_rows`], [`Labels::tags`] | [`encode_tokens`] | [`EntityScorer`] |
//! | questions with answers | [`question_rows`] | [`encode_questions`], [`span_targets`] | [`best_span`], [`AnswerScorer`] |
//! | pairs of texts | [`pair_rows`] | [`encode_texts`] | [`pearson`], [`spearman`], [`RetrievalScorer`] |
//! | sources with targets | [`sequence_rows`] | [`encode_sequences`] | [`BleuStats`], [`ChrfStats`], [`RougeStats`] |
//!
//! [`Labels`] are the classes of a model in their order: those of its checkpoint, or those of the training data; [`softmax`] and
//! [`sigmoid`] make probabilities of logits.
//!
//! A row that cannot be read is an error in its place, so that [`Rows::settle`] can stop at it or leave it out, and a
//! prediction can say so in its line.
//!
//! # Example
//!
//! ```
//! use reparam_data::rows::{LabelKind, Labels, OnError, RowsOptions, read_rows, text_rows};
//!
//! let directory = std::env::temp_dir().join("reparam-rows-example");
//! std::fs::create_dir_all(&directory)?;
//! let path = directory.join("mail.tsv");
//! std::fs::write(&path, "Kind\tBody\nham\tsee you at five\nspam\tyou have won\n")?;
//!
//! let options = RowsOptions { fields: "text=Body,label=Kind".parse()?, ..RowsOptions::default() };
//! let rows = text_rows(read_rows(&[path], &reparam_data::rows::LABELLED_TEXT, &options)?);
//! let labels = Labels::of_training(rows.rows.iter().flatten())?;
//! assert_eq!(labels.names(), ["ham", "spam"]);
//! assert_eq!(labels.kind(), LabelKind::One);
//!
//! let (rows, skipped) = labels.classes(rows)?.settle(OnError::Stop)?;
//! assert_eq!((rows[1].text.text.as_str(), &rows[1].classes[..], skipped.count), ("you have won", &[1][..], 0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod answers;
mod batch;
mod bleu;
mod bleu_tokens;
mod chrf;
mod conll;
mod correlation;
mod entities;
mod error;
mod format;
mod labels;
mod metrics;
mod ngrams;
mod pairs;
mod parallel;
mod questions;
mod read;
mod retrieval;
mod rouge;
mod sequences;
mod spans;
mod squad;
mod tags;
#[cfg(test)]
mod testing;
mod text;
mod thresholds;
mod tokens;

pub use crate::source::{Column, Fields, FieldsError, OnError, Skipped};
pub use answers::{AnswerMetrics, AnswerScorer};
pub use batch::{RowBatch, encode_rows, encode_texts};
pub use bleu::{Bleu, BleuStats};
pub use bleu_tokens::BleuTokenizer;
pub use chrf::{Chrf, ChrfStats};
pub use correlation::{pearson, spearman};
pub use entities::{Entity, EntityCounts, EntityMetrics, EntityScore, EntityScorer};
pub use error::{Result, RowError};
pub use format::RowFormat;
pub use labels::{Classified, LabelKind, Labels};
pub use metrics::{ClassMetrics, ClassScore, ClassScorer, log_softmax, sigmoid, softmax};
pub use pairs::{EMBEDDING, Pair, PairRow, pair_rows};
pub use questions::{
    ANSWERED_QUESTION, Answer, AnswerPlaces, QUESTION, QuestionRow, question_rows,
};
pub use read::{Row, Rows, RowsOptions, Schema, read_rows};
pub use retrieval::{AnchorScore, RECALL_AT, Retrieval, RetrievalMetrics, RetrievalScorer};
pub use rouge::{Rouge, RougeStats};
pub use sequences::{
    EncodedSequence, SOURCE, SOURCE_AND_TARGET, SequenceOptions, SequenceRow, encode_sequences,
    sequence_rows,
};
pub use spans::{Span, SpanLogits, SpanOptions, best_span, encode_questions, span_targets};
pub use tags::TaggedRow;
pub use text::{LABELLED_TEXT, LabelValue, RowLabels, TEXT, TextRow, text_rows};
pub use thresholds::{THRESHOLD, best_threshold};
pub use tokens::{TAGGED_TOKENS, TOKENS, TokenRow, encode_tokens, token_rows};
