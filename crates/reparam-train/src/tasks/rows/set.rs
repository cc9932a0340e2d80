//! Rows that a model has seen or will see.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::PathBuf;

use reparam_data::rows::{OnError, Rows, RowsOptions, Skipped};
use reparam_data::{FileDigest, FileShare, Size, hold_out, permutation};

use super::open::Base;
use super::{Encoder, Item, Purpose, RowTask, Window};
use crate::Result;

/// The rows of files, encoded.
#[derive(Debug)]
pub(super) struct Set<T: RowTask> {
    pub(super) items: Vec<Item<T>>,
    /// What is learned at once: a row, and which of its windows.
    units: Vec<(usize, Range<usize>)>,
    /// Rows that were left out.
    pub(super) skipped: Skipped,
    pub(super) files: Vec<FileDigest>,
}

impl<T: RowTask> Set<T> {
    fn new(items: Vec<Item<T>>, skipped: Skipped, files: Vec<FileDigest>) -> Self {
        let mut units = Vec::new();
        for (row, item) in items.iter().enumerate() {
            let n = item.windows.len();
            match T::TOGETHER {
                true => units.push((row, 0..n)),
                false => units.extend((0..n).map(|window| (row, window..window + 1))),
            }
        }
        Self {
            units,
            items,
            skipped,
            files,
        }
    }

    /// Reads rows that say what is right, and says how many were left out.
    pub(super) fn read(
        paths: &[PathBuf],
        options: &RowsOptions,
        on_error: OnError,
        purpose: Purpose,
    ) -> Result<(Rows<T::Row>, Skipped)> {
        Ok(T::read(paths, options, purpose)?.settled(on_error)?)
    }

    /// Makes tokens of rows to learn from.
    pub(super) fn encode(
        rows: Rows<T::Row>,
        base: &Base,
        encoder: &Encoder<'_>,
        on_error: OnError,
    ) -> Result<Self> {
        let files = rows.files.clone();
        let (items, skipped) = T::encode(rows, encoder, true)?.settle(on_error)?;
        base.check_types(&items)?;
        Ok(Self::new(items, skipped, files))
    }

    /// Holds rows out by their contents: what is learned, what is held out in an order that does not depend on that of the
    /// files, and how much that is of each file.
    pub(super) fn hold_out(self, size: Size, seed: u64) -> Result<(Self, Self, Vec<FileShare>)> {
        let contents: Vec<_> = self.items.iter().map(|item| item.content).collect();
        let held_out = hold_out(&contents, size, seed)?;
        let places = self.items.iter().map(|item| &*item.place.path);
        let shares = FileShare::of_rows(&self.files, places.zip(held_out.iter().copied()));
        let (mut train, mut eval) = (Vec::new(), Vec::new());
        for (item, is_held_out) in self.items.into_iter().zip(held_out) {
            if is_held_out { &mut eval } else { &mut train }.push(item);
        }
        eval.sort_by_key(|item: &Item<T>| item.content);
        let set = |items| Self::new(items, Skipped::default(), Vec::new());
        Ok((set(train), set(eval), shares))
    }

    /// Keeps so many rows of each class, which follow from the seed and what the rows say.
    pub(super) fn few(mut self, most: usize, seed: u64) -> Self {
        self.items.sort_by_key(|item| item.content);
        let mut kept: HashMap<usize, usize> = HashMap::new();
        let order = permutation(self.items.len(), seed, 0);
        let chosen = order.into_iter().filter(|index| {
            let count = kept.entry(T::class(&self.items[*index])).or_default();
            *count += 1;
            *count <= most
        });
        let chosen: HashSet<usize> = chosen.collect();
        let items = self.items.into_iter().enumerate();
        let items = items.filter_map(|(index, item)| chosen.contains(&index).then_some(item));
        Self::new(items.collect(), self.skipped, self.files)
    }

    /// The windows of units, one after the other.
    pub(super) fn windows(&self, units: &[usize]) -> Vec<&Window<T::Target>> {
        let units = units.iter().map(|unit| &self.units[*unit]);
        let windows = units.flat_map(|(row, windows)| &self.items[*row].windows[windows.clone()]);
        windows.collect()
    }

    /// The number of what is learned at once.
    pub(super) fn n_units(&self) -> usize {
        self.units.len()
    }

    pub(super) fn n_tokens(&self) -> usize {
        let windows = self.items.iter().flat_map(|item| &item.windows);
        windows.map(|window| window.row.ids.len()).sum()
    }

    /// Rows of which a part is in no window.
    pub(super) fn truncated(&self) -> usize {
        self.items.iter().filter(|item| item.truncated).count()
    }
}
