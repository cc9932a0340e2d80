//! Where the documents of a data set stand, and what they say.

use std::path::Path;

use crate::order::ContentHash;
use crate::source::{DocumentSource, ReadReport};

/// What is known of each document beside its tokens: 24 bytes of memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Origins {
    /// What each says.
    pub(crate) hashes: Vec<ContentHash>,
    /// Where each stands in its file.
    pub(crate) positions: Vec<Position>,
    /// The number of documents up to the end of each file of the report.
    ends: Vec<usize>,
}

/// Where a document stands in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: u32,
    /// Zero if the file is no array.
    pub(crate) item: u32,
}

impl Position {
    pub(crate) fn of(source: &DocumentSource) -> Self {
        let short = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            line: short(source.line),
            item: source.item.map_or(0, short),
        }
    }
}

impl Origins {
    /// Puts together what is known of documents; `files` have so many of them, in the order of the report. `None` if that cannot
    /// be.
    pub(crate) fn new<'a>(
        hashes: Vec<ContentHash>,
        positions: Vec<Position>,
        report: &ReadReport,
        files: impl Iterator<Item = (&'a Path, usize)>,
    ) -> Option<Self> {
        let mut counts = vec![0; report.files.len()];
        let mut file = 0;
        for (path, count) in files {
            // A file may have no document that is long enough, and one may be there several times.
            while *report.files.get(file)?.path != *path {
                file += 1;
            }
            counts[file] = count;
            file += 1;
        }
        let mut end = 0;
        let ends = counts.into_iter().map(|count: usize| {
            end += count;
            end
        });
        let ends: Vec<usize> = ends.collect();
        let n = ends.last().copied().unwrap_or(0);
        let fits = hashes.len() == n && positions.len() == n;
        fits.then_some(Self {
            hashes,
            positions,
            ends,
        })
    }

    /// The file of a document, by its place in the report.
    pub(crate) fn file(&self, document: usize) -> usize {
        self.ends.partition_point(|end| *end <= document)
    }

    /// Where a document stands that was read.
    pub(crate) fn source(&self, document: usize, report: &ReadReport) -> DocumentSource {
        let Position { line, item } = self.positions[document];
        DocumentSource {
            path: report.files[self.file(document)].path.as_path().into(),
            line: line as usize,
            item: (item > 0).then_some(item as usize),
        }
    }
}
