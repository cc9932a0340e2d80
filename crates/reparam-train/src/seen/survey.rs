//! Counting rows.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use reparam_data::{ContentHash, FileDigest};

use super::{Bin, FileTokens, Lengths, Noticed, Seen};

/// How many places of rows are listed.
const FIRST: usize = 3;

/// How many groups of lengths there are at most.
const BINS: u64 = 10;

/// A row that is counted.
#[derive(Debug, Clone, Copy)]
pub struct Surveyed<'a> {
    /// Its tokens.
    pub tokens: usize,
    /// Those that are predicted; of a task that predicts no tokens, anything above zero.
    pub labelled: usize,
    /// Whether a part of it is cut off.
    pub truncated: bool,
    /// What it says.
    pub content: Option<ContentHash>,
    /// The file that it is from, if it was read from one.
    pub path: Option<&'a Path>,
}

/// Counts rows one after the other, and makes a [`Seen`] of them.
#[derive(Debug, Default)]
pub struct Survey {
    lengths: Vec<u32>,
    labelled: u64,
    truncated: Noticed,
    masked: Noticed,
    duplicates: Noticed,
    /// A half of the hash of each content: two others of ten million have the same with a chance of 3 in a million, and the
    /// memory is half as much.
    contents: HashSet<u64>,
    held_out: Noticed,
    files: Vec<FileTokens>,
    of_file: HashMap<Box<Path>, usize>,
}

impl Noticed {
    fn add(&mut self, place: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < FIRST {
            self.first.push(place());
        }
    }
}

impl Survey {
    /// Begins; files are listed in the order of their digests.
    #[must_use]
    pub fn new(files: &[FileDigest]) -> Self {
        let mut survey = Self::default();
        for file in files {
            survey.file(&file.path);
        }
        survey
    }

    fn file(&mut self, path: &Path) -> &mut FileTokens {
        let next = self.files.len();
        let at = *self.of_file.entry(path.into()).or_insert(next);
        if at == next {
            self.files.push(FileTokens {
                file: path.to_owned(),
                rows: 0,
                tokens: 0,
            });
        }
        &mut self.files[at]
    }

    /// Counts a row; `place` says where it stands.
    pub fn add(&mut self, row: Surveyed<'_>, place: impl Fn() -> String) {
        self.lengths
            .push(u32::try_from(row.tokens).unwrap_or(u32::MAX));
        self.labelled += row.labelled as u64;
        if row.truncated {
            self.truncated.add(&place);
        }
        if row.labelled == 0 {
            self.masked.add(&place);
        }
        if let Some(content) = row.content
            && !self.contents.insert(half(content))
        {
            self.duplicates.add(&place);
        }
        if let Some(path) = row.path {
            let file = self.file(path);
            file.rows += 1;
            file.tokens += row.tokens as u64;
        }
    }

    /// Counts a row that is held out; call it after the rows that are learned.
    pub fn held_out(&mut self, content: ContentHash, place: impl FnOnce() -> String) {
        if self.contents.contains(&half(content)) {
            self.held_out.add(place);
        }
    }

    /// Returns what was counted; `labelled` says whether the task predicts tokens.
    #[must_use]
    pub fn finish(self, unit: &'static str, sequence_length: usize, labelled: bool) -> Seen {
        let tokens = self.lengths.iter().map(|length| u64::from(*length)).sum();
        Seen {
            unit,
            rows: self.lengths.len() as u64,
            tokens,
            labelled_tokens: labelled.then_some(self.labelled),
            sequence_length: sequence_length as u64,
            lengths: lengths(self.lengths),
            truncated: self.truncated,
            dropped: Noticed::default(),
            held_out_dropped: Noticed::default(),
            masked: self.masked,
            duplicates: self.duplicates,
            held_out_duplicates: self.held_out,
            fill: None,
            files: self
                .files
                .into_iter()
                .filter(|file| file.rows > 0)
                .collect(),
            labels: Vec::new(),
            examples: Vec::new(),
            findings: Vec::new(),
        }
    }
}

fn half(content: ContentHash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = content.to_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Says how long rows are.
fn lengths(mut lengths: Vec<u32>) -> Lengths {
    lengths.sort_unstable();
    let n = lengths.len();
    let (Some(&min), Some(&max)) = (lengths.first(), lengths.last()) else {
        return Lengths::default();
    };
    // The smallest length that so many of a hundred rows do not exceed.
    let share = |percent: usize| u64::from(lengths[(n * percent).div_ceil(100).max(1) - 1]);
    let sum: f64 = lengths.iter().map(|length| f64::from(*length)).sum();
    let (min, max) = (u64::from(min), u64::from(max));
    let width = (max - min + 1).div_ceil(BINS);
    let mut histogram: Vec<Bin> = (min..=max)
        .step_by(width as usize)
        .map(|from| Bin {
            from,
            to: (from + width - 1).min(max),
            rows: 0,
        })
        .collect();
    for length in &lengths {
        histogram[((u64::from(*length) - min) / width) as usize].rows += 1;
    }
    Lengths {
        min,
        median: share(50),
        mean: sum / n as f64,
        p95: share(95),
        max,
        histogram,
    }
}
