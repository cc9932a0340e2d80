//! From files to packed batches: what a model learns from, without any tensor library.
//!
//! The texts of a language model walk one way:
//!
//! ```text
//! paths --source--> documents --tokenizer--> token ids --pack--> blocks --order--> batches
//! ```
//!
//! - [`source`] reads files, directories and patterns of texts, JSON and tables into [`Document`]s, texts or prompts with
//!   responses, and keeps a digest of every file.
//! - [`chat`] renders conversations by the model's own template, and says what of the text the assistant says.
//! - [`tokenizer`] encodes a document as its own template does, appends the end-of-text token, and masks prompts.
//! - [`mod@pack`] cuts documents into pieces, shifts their labels, and packs pieces into blocks that know where
//!   each piece begins, so that a document never sees another.
//! - [`cache`] keeps tokens on disk, by all that they follow from.
//! - [`order`] decides which blocks the batch of a given step has, from the seed and the step alone.
//! - [`dataset`] does all of it in one call.
//! - [`masking`] cuts texts for a masked language model, and chooses what it has to guess.
//!
//! Beside the texts there are tables: [`tabular`] reads or generates the numbers of a regression, holds rows out,
//! standardizes columns and solves the linear problem exactly. And there are rows with named fields: [`rows`] reads texts
//! with labels from JSON, tables and lines, and encodes them one a row, cut and not packed.
//!
//! What was not written for language models goes through three more: [`preprocess`] makes the writing of texts uniform and
//! splits them into words, [`vocabulary`] makes a tokenizer of them, and [`word_pairs`] what word vectors are learned from.
//!
//! # Example
//!
//! ```
//! use reparam_data::{Batch, Corpus, EncodedDocument, IGNORE_INDEX, Learned, PackingStrategy, cut, pack};
//!
//! let documents = [EncodedDocument::new(vec![1, 5, 6, 2]), EncodedDocument::new(vec![1, 7, 2])];
//! let corpus = Corpus::of(documents)?;
//! let cut = cut(&corpus, 8, Learned::Masked)?;
//! let blocks = pack(&cut.pieces, 8, PackingStrategy::Sequential)?;
//! let batch = Batch::concat(&corpus, Learned::Masked, &blocks)?;
//! assert_eq!(batch.input_ids, [1, 5, 6, 2, 1, 7, 2]);
//! assert_eq!(batch.position_ids, [0, 1, 2, 3, 0, 1, 2]);
//! assert_eq!(batch.labels, [5, 6, 2, IGNORE_INDEX, 7, 2, IGNORE_INDEX]);
//! assert_eq!(batch.bounds, [0, 4, 7]);
//! # Ok::<(), reparam_data::DataError>(())
//! ```
#![forbid(unsafe_code)]

pub mod cache;
pub mod chat;
pub mod dataset;
pub mod error;
pub mod masking;
pub mod order;
pub mod pack;
pub mod preprocess;
pub mod resample;
pub mod rows;
pub mod source;
pub mod tabular;
pub mod tokenizer;
pub mod vocabulary;
pub mod watch;
pub mod word_pairs;

pub use cache::Cache;
pub use dataset::{Dataset, DatasetOptions, FileShare, Split, Unit, Weights};
pub use error::{DataError, Result, Unlearnable};
pub use order::{BatchPlan, ContentHash, Size, hold_out, permutation};
pub use pack::{
    Batch, Block, Corpus, Cut, EncodedDocument, IGNORE_INDEX, Learned, PackReport, PackingStrategy,
    Piece, TooLong, cut, pack,
};
pub use resample::{percentile_interval, resample};
pub use source::{
    ChatOptions, Document, DocumentSource, Fields, FieldsError, FileDigest, Format, LearnedTurns,
    OnError, ReadOptions, ReadReport, Skipped, Source, Template, TurnCount, read_documents,
    read_watched, visit_documents,
};
pub use tabular::{Table, TabularError};
pub use tokenizer::{
    EncodedCorpus, EncodedPiece, EncodedRow, EncodedSpans, EncodedTarget, EncodedWords, SpecialIds,
    SpecialTokens, StreamDecoder, TextTokenizer, Window, WindowOptions, WordSpan,
};
pub use watch::{Interrupted, Phase, Progress, Watch};
