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
//! - [`read_rows`] reads `.jsonl`, `.json`, `.csv` and `.tsv` files, and plain lines. [`Fields`] says which column holds
//!   which field.
//! - [`text_rows`] takes a text, a second one, and labels from each row.
//! - [`Labels`] are the classes of a model in their order: those of its checkpoint, or those of the training data.
//! - [`RowBatch`] holds encoded rows one behind the other, without padding.
//! - [`ClassScorer`] measures, [`softmax`] and [`sigmoid`] make probabilities of logits.
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

mod batch;
mod error;
mod labels;
mod metrics;
mod read;
mod text;

pub use crate::source::{Column, Fields, FieldsError, OnError, Skipped};
pub use batch::{RowBatch, encode_rows};
pub use error::{Result, RowError};
pub use labels::{Classified, LabelKind, Labels};
pub use metrics::{ClassMetrics, ClassScorer, sigmoid, softmax};
pub use read::{Row, RowFormat, Rows, RowsOptions, Schema, read_rows};
pub use text::{LABELLED_TEXT, LabelValue, RowLabels, TEXT, TextRow, text_rows};
