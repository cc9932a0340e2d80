//! Rows that an embedding is learned from and measured on: pairs with a score, or an anchor with what is like it.

use super::error::{Result, RowError};
use super::read::{Row, Rows, Schema};
use crate::order::ContentHash;
use crate::source::DocumentSource;

#[cfg(test)]
mod tests;

/// The fields of pairs with a score and of anchors with positives; each row has those of one form.
pub const EMBEDDING: Schema = Schema {
    required: &[],
    optional: &[
        "text",
        "text_pair",
        "score",
        "anchor",
        "positive",
        "negative",
    ],
    unread: &[],
};

/// Texts and how they are like one another.
#[derive(Debug, Clone, PartialEq)]
pub struct PairRow {
    /// The texts.
    pub pair: Pair,
    /// Where they stand.
    pub place: DocumentSource,
}

/// What is said of some texts.
#[derive(Debug, Clone, PartialEq)]
pub enum Pair {
    /// How alike two texts are.
    Scored {
        /// The first text.
        text: String,
        /// The second text.
        text_pair: String,
        /// The larger, the more alike; the scale is the data's own.
        score: f64,
    },
    /// That one text is more like another than any third.
    Ranked {
        /// The text that is compared.
        anchor: String,
        /// What is like it.
        positive: String,
        /// What is not, though it may seem so.
        negative: Option<String>,
    },
}

/// Takes pairs of texts from rows: `text`, `text_pair` and `score`, or `anchor`, `positive` and, if there is one, `negative`. A
/// row with fields of both forms is read as the second one. A blank cell of a table is no field.
///
/// A row that is neither becomes an error in its place ([`RowError::NoPair`]), as does a field of another type.
#[must_use]
pub fn pair_rows(rows: Rows<Row>) -> Rows<PairRow> {
    rows.and_then(|row| {
        let pair = pair(&row)?;
        Ok(PairRow {
            pair,
            place: row.place,
        })
    })
}

fn pair(row: &Row) -> Result<Pair> {
    let text = |field| -> Result<_> {
        let text = row.text(field)?;
        Ok(text.filter(|text| !text.trim().is_empty()))
    };
    let missing = |fields: &[(&'static str, bool)]| RowError::NoPair {
        place: row.place.clone(),
        missing: fields
            .iter()
            .filter(|(_, is_there)| !is_there)
            .map(|(field, _)| *field)
            .collect(),
    };
    let (anchor, positive) = (text("anchor")?, text("positive")?);
    if anchor.is_some() || positive.is_some() {
        let there = [
            ("anchor", anchor.is_some()),
            ("positive", positive.is_some()),
        ];
        let (Some(anchor), Some(positive)) = (anchor, positive) else {
            return Err(missing(&there));
        };
        let negative = text("negative")?;
        return Ok(Pair::Ranked {
            anchor,
            positive,
            negative,
        });
    }
    // Such a text may be blank, as it may be where texts are classified.
    let (text, text_pair) = (row.text("text")?, row.text("text_pair")?);
    let score = row.number("score")?;
    let there = [
        ("text", text.is_some()),
        ("text_pair", text_pair.is_some()),
        ("score", score.is_some()),
    ];
    let (Some(text), Some(text_pair), Some(score)) = (text, text_pair, score) else {
        return Err(missing(&there));
    };
    Ok(Pair::Scored {
        text,
        text_pair,
        score,
    })
}

impl PairRow {
    /// A digest of what the row says.
    #[must_use]
    pub fn content(&self) -> ContentHash {
        let (texts, score) = match &self.pair {
            Pair::Scored {
                text,
                text_pair,
                score,
            } => ([Some(text), Some(text_pair), None], Some(score)),
            Pair::Ranked {
                anchor,
                positive,
                negative,
            } => ([Some(anchor), Some(positive), negative.as_ref()], None),
        };
        let score = score.map(|score| score.to_bits().to_le_bytes());
        let texts = texts.into_iter().flatten().map(|text| text.as_bytes());
        let kind: &[u8] = if score.is_some() { &[1] } else { &[0] };
        let score = score.as_ref().map(|bytes| &bytes[..]);
        ContentHash::of([kind].into_iter().chain(texts).chain(score))
    }
}
