//! The classes of a model, and how the labels of rows name them.

use std::collections::{BTreeSet, HashMap};

use super::error::{Result, RowError};
use super::read::Rows;
use super::text::{LabelValue, RowLabels, TextRow};
use crate::source::DocumentSource;
use reparam_formats::nearest;

#[cfg(test)]
mod tests;

/// Whether classes exclude one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LabelKind {
    /// Each row has one class; probabilities are a softmax.
    One,
    /// Each row has any number of classes; each has a probability of its own, a sigmoid.
    Several,
}

/// The classes of a model in the order of their indices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    names: Vec<String>,
    kind: LabelKind,
    indices: HashMap<String, usize>,
}

/// A row with the classes that its labels name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classified {
    /// The row.
    pub text: TextRow,
    /// Indices of classes, ascending; exactly one with [`LabelKind::One`].
    pub classes: Vec<usize>,
}

impl Labels {
    /// The classes of a checkpoint: its `id2label` in order.
    ///
    /// # Errors
    ///
    /// [`RowError::NoLabels`] and [`RowError::RepeatedName`].
    pub fn new(names: Vec<String>, kind: LabelKind) -> Result<Self> {
        if names.is_empty() {
            return Err(RowError::NoLabels);
        }
        let mut indices = HashMap::with_capacity(names.len());
        for (index, name) in names.iter().enumerate() {
            if indices.insert(name.clone(), index).is_some() {
                return Err(RowError::RepeatedName { name: name.clone() });
            }
        }
        Ok(Self {
            names,
            kind,
            indices,
        })
    }

    /// The classes for a new head: the distinct labels of the training data, sorted by value if all are numbers, else by code
    /// point. Of several kinds if a row has `labels`.
    ///
    /// # Errors
    ///
    /// [`RowError::NoLabels`]; [`RowError::OneLabel`] if classes exclude one another and there is one.
    pub fn of_training<'a>(rows: impl IntoIterator<Item = &'a TextRow>) -> Result<Self> {
        let mut distinct = BTreeSet::new();
        let mut kind = LabelKind::One;
        for labels in rows.into_iter().filter_map(|row| row.labels.as_ref()) {
            if matches!(labels, RowLabels::Several(_)) {
                kind = LabelKind::Several;
            }
            distinct.extend(labels.values());
        }
        Self::of_distinct(distinct, kind)
    }

    pub(super) fn of_distinct(distinct: BTreeSet<&LabelValue>, kind: LabelKind) -> Result<Self> {
        // A set of strings is in the order of their bytes, which in UTF-8 is that of their code points.
        let mut distinct: Vec<&LabelValue> = distinct.into_iter().collect();
        let numbers: Option<Vec<f64>> = distinct.iter().map(|label| label.number()).collect();
        if let Some(numbers) = numbers {
            let mut order: Vec<usize> = (0..numbers.len()).collect();
            order.sort_by(|&a, &b| numbers[a].total_cmp(&numbers[b]));
            distinct = order.into_iter().map(|index| distinct[index]).collect();
        }
        if let ([label], LabelKind::One) = (&distinct[..], kind) {
            return Err(RowError::OneLabel {
                label: label.text().to_owned(),
            });
        }
        Self::new(
            distinct
                .into_iter()
                .map(|label| label.text().to_owned())
                .collect(),
            kind,
        )
    }

    /// The names, by index.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether they exclude one another.
    #[must_use]
    pub fn kind(&self) -> LabelKind {
        self.kind
    }

    /// The number of classes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is at least one")]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Finds the classes of rows. A label is a class's name, else its index. If labels are names as well as indices of other
    /// classes, they are all indices if some can only be indices and none can only be a name.
    ///
    /// Rows without a label, with one that the model does not have, or with several where classes exclude one another become
    /// errors in their place.
    ///
    /// # Errors
    ///
    /// [`RowError::AmbiguousLabel`] if it cannot be told which of the two is meant.
    pub fn classes(&self, rows: Rows<TextRow>) -> Result<Rows<Classified>> {
        let read = rows.rows.iter().flatten();
        let reading = self.reading(read.flat_map(|row| {
            let labels = row.labels.iter().flat_map(RowLabels::values);
            labels.map(|label| (&row.place, label))
        }))?;
        Ok(self.classes_as(rows, reading))
    }

    /// As [`classes`](Self::classes), of labels that are names: none is an index.
    #[must_use]
    pub fn classes_by_name(&self, rows: Rows<TextRow>) -> Rows<Classified> {
        self.classes_as(rows, Reading::Names)
    }

    fn classes_as(&self, rows: Rows<TextRow>, reading: Reading) -> Rows<Classified> {
        rows.and_then(|text| {
            let given = match (&text.labels, self.kind) {
                (None, _) => return Err(RowError::NoLabel { place: text.place }),
                (Some(RowLabels::Several(labels)), LabelKind::One) if labels.len() != 1 => {
                    return Err(RowError::SeveralLabels {
                        count: labels.len(),
                        place: text.place,
                    });
                }
                (Some(labels), _) => labels.values(),
            };
            let class = |label: &LabelValue| {
                self.class(label, reading)
                    .ok_or_else(|| self.unknown(label, &text))
            };
            let classes: BTreeSet<usize> = given.iter().map(class).collect::<Result<_>>()?;
            Ok(Classified {
                classes: classes.into_iter().collect(),
                text,
            })
        })
    }

    fn index(&self, label: &LabelValue) -> Option<usize> {
        label.index().filter(|index| *index < self.names.len())
    }

    pub(super) fn class(&self, label: &LabelValue, reading: Reading) -> Option<usize> {
        let name = self.indices.get(label.text()).copied();
        match reading {
            Reading::Names => name,
            Reading::NamesFirst => name.or_else(|| self.index(label)),
            Reading::Indices => self.index(label),
        }
    }

    /// Finds out how all labels are meant, each given with the place of its row.
    pub(super) fn reading<'a>(
        &self,
        labels: impl Iterator<Item = (&'a DocumentSource, &'a LabelValue)>,
    ) -> Result<Reading> {
        let (mut only_name, mut only_index, mut either) = (false, false, None);
        for (place, label) in labels {
            match (self.indices.get(label.text()), self.index(label)) {
                (Some(name), Some(index)) if *name != index => {
                    either.get_or_insert((place, label));
                }
                (Some(_), None) => only_name = true,
                (None, Some(_)) => only_index = true,
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
        match (either, only_name, only_index) {
            (Some((place, label)), true, true) => Err(RowError::AmbiguousLabel {
                place: place.clone(),
                label: label.text().to_owned(),
            }),
            (Some(_), false, true) => Ok(Reading::Indices),
            _ => Ok(Reading::NamesFirst),
        }
    }

    /// The name most like a label.
    pub(super) fn nearest(&self, label: &LabelValue) -> Option<String> {
        let names = self.names.iter().map(String::as_str);
        nearest(label.text(), names).map(str::to_owned)
    }

    fn unknown(&self, label: &LabelValue, row: &TextRow) -> RowError {
        RowError::UnknownLabel {
            place: row.place.clone(),
            label: label.text().to_owned(),
            nearest: self.nearest(label),
            labels: self.names.clone(),
        }
    }
}

/// What the labels of rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// A name.
    Names,
    /// A name, else an index.
    NamesFirst,
    /// An index.
    Indices,
}
