//! Rows of a source and its target: a text and its translation, its summary, its answer.

use super::batch::{in_parallel, located};
use super::error::RowError;
use super::read::{Row, Rows, Schema};
use crate::order::ContentHash;
use crate::source::DocumentSource;
use crate::tokenizer::{EncodedRow, EncodedTarget, TextTokenizer};
use crate::watch::{Interrupted, Watch};

#[cfg(test)]
mod tests;

/// The fields of sources with targets, to learn from and to measure on.
pub const SOURCE_AND_TARGET: Schema = Schema {
    required: &["source", "target"],
    optional: &[],
    unread: &[],
};

/// The fields of sources to generate from; targets may be there and are not read.
pub const SOURCE: Schema = Schema {
    required: &["source"],
    optional: &[],
    unread: &["target"],
};

/// What data sets call a source, besides `source`: those of translation, of summaries and of texts made of data.
const SOURCES: [&str; 9] = [
    "src",
    "source_text",
    "input_text",
    "document",
    "article",
    "dialogue",
    "text",
    "mr",
    "meaning_representation",
];

/// What they call a target. `input` and `output` are in neither list: in Alpaca's rows the input is half of the source.
const TARGETS: [&str; 6] = [
    "tgt",
    "target_text",
    "summary",
    "highlights",
    "ref",
    "human_reference",
];

/// The names that a field may have where nothing says which column it is.
pub(super) fn other_names(field: &str) -> &'static [&'static str] {
    match field {
        "source" => &SOURCES,
        "target" => &TARGETS,
        _ => &[],
    }
}

/// A source, with its target if that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceRow {
    /// What is given, never blank.
    pub source: String,
    /// What is to be generated, never blank. Of several targets the first.
    pub target: Option<String>,
    /// Further targets, each as good as the first, for measures that compare with all of them.
    pub more_targets: Vec<String>,
    /// Where the source stands.
    pub place: DocumentSource,
}

/// Takes the sources and the targets of rows.
///
/// A target is a string or a list of strings. A row of which one is blank becomes an error in its place ([`RowError::Blank`]), as
/// does a field of another type.
#[must_use]
pub fn sequence_rows(rows: Rows<Row>) -> Rows<SequenceRow> {
    rows.and_then(|row| {
        let filled = |field, text: Option<String>| match text {
            None => Err(row.wrong_type(field, "a string", "null".to_owned())),
            Some(text) if text.trim().is_empty() => Err(RowError::Blank {
                place: row.place.clone(),
                field,
            }),
            Some(text) => Ok(text),
        };
        let source = filled("source", row.text("source")?)?;
        let targets = match row.has("target") {
            true => row.texts("target")?,
            false => Vec::new(),
        };
        let targets = targets.into_iter().map(|text| filled("target", text));
        let mut targets = targets.collect::<Result<Vec<_>, _>>()?.into_iter();
        Ok(SequenceRow {
            source,
            target: targets.next(),
            more_targets: targets.collect(),
            place: row.place,
        })
    })
}

/// How sources and targets are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceOptions {
    /// The most tokens of a source, those of the template and EOS included.
    pub max_source: usize,
    /// The most labels of a target, EOS included.
    pub max_target: usize,
    /// The token that every target begins with: the model's `forced_bos_token_id`.
    pub first: Option<u32>,
}

/// A source and its target as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedSequence {
    /// What the encoder reads.
    pub source: EncodedRow,
    /// What the decoder has to predict; `None` if there is no target.
    pub target: Option<EncodedTarget>,
}

/// Encodes sources and targets in parallel; see [`TextTokenizer::encode_source`] and [`TextTokenizer::encode_target`]. `row`
/// gives the texts of a row.
///
/// A row that cannot be encoded becomes an error in its place.
///
/// # Errors
///
/// [`Interrupted`] when `watch` asks for it.
pub fn encode_sequences<T: Send>(
    rows: Rows<T>,
    tokenizer: &TextTokenizer,
    options: SequenceOptions,
    row: impl Fn(&T) -> &SequenceRow + Sync,
    watch: Watch<'_>,
) -> std::result::Result<Rows<(T, EncodedSequence)>, Interrupted> {
    let SequenceOptions {
        max_source,
        max_target,
        first,
    } = options;
    let encode = |item: T| {
        let SequenceRow {
            source,
            target,
            place,
            ..
        } = row(&item);
        let encoded = tokenizer.encode_source(source, max_source);
        let target = target.as_ref();
        let target = target.map(|text| tokenizer.encode_target(text, max_target, first));
        let encoded = encoded.and_then(|source| {
            let target = target.transpose()?;
            Ok(EncodedSequence { source, target })
        });
        let encoded = encoded.map_err(|error| located(place, error))?;
        Ok((item, encoded))
    };
    in_parallel(rows, encode, watch)
}

impl SequenceRow {
    /// A digest of the source alone: all targets of one source are on the same side where rows are held out.
    #[must_use]
    pub fn content(&self) -> ContentHash {
        ContentHash::of([self.source.as_bytes()])
    }
}
