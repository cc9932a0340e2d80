//! The tags of tokens as classes of a model.

use std::collections::BTreeSet;

use super::error::{Result, RowError};
use super::labels::{LabelKind, Labels};
use super::read::Rows;
use super::tokens::TokenRow;

#[cfg(test)]
mod tests;

/// A row of tokens with the classes that its tags name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaggedRow {
    /// The row.
    pub row: TokenRow,
    /// One index of a class a token.
    pub classes: Vec<usize>,
}

impl Labels {
    /// The classes for a new head over tokens: the distinct tags of the training data, sorted as by
    /// [`of_training`](Self::of_training).
    ///
    /// # Errors
    ///
    /// [`RowError::NoLabels`] if there are no tags, [`RowError::OneLabel`] if all are the same.
    pub fn of_tags<'a>(rows: impl IntoIterator<Item = &'a TokenRow>) -> Result<Self> {
        let tags = rows.into_iter().filter_map(|row| row.tags.as_ref());
        let distinct: BTreeSet<_> = tags.flatten().collect();
        Self::of_distinct(distinct, LabelKind::One)
    }

    /// Finds the classes of tags, each a class's name or its index; which of the two is told as by
    /// [`classes`](Self::classes).
    ///
    /// Rows without tags, or with one that the model does not have, become errors in their place.
    ///
    /// # Errors
    ///
    /// [`RowError::AmbiguousLabel`] if it cannot be told whether names or indices are meant.
    pub fn tags(&self, rows: Rows<TokenRow>) -> Result<Rows<TaggedRow>> {
        let read = rows.rows.iter().flatten();
        let reading = self.reading(read.flat_map(|row| {
            let tags = row.tags.iter().flatten();
            tags.map(|tag| (&row.place, tag))
        }))?;
        Ok(rows.and_then(|row| {
            let Some(tags) = &row.tags else {
                return Err(RowError::NoTags { place: row.place });
            };
            let class = |(index, tag): (usize, _)| {
                self.class(tag, reading)
                    .ok_or_else(|| RowError::UnknownTag {
                        place: row.place.clone(),
                        number: index + 1,
                        token: row.tokens[index].clone(),
                        tag: tag.text().to_owned(),
                        nearest: self.nearest(tag),
                        labels: self.names().to_vec(),
                    })
            };
            let classes = tags.iter().enumerate().map(class).collect::<Result<_>>()?;
            Ok(TaggedRow { classes, row })
        }))
    }
}
