//! Where documents begin in a corpus, and what of them is predicted: a few bytes a document.

use std::ops::Range;

use crate::error::{DataError, Result};

/// The documents of a corpus.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Documents {
    /// Where each ends among all tokens.
    pub(crate) ends: Vec<u64>,
    pub(crate) masks: Masks,
}

/// The loss masks of those documents that have one, as stretches of tokens that are predicted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Masks {
    /// The documents, ascending.
    pub(crate) documents: Vec<u32>,
    /// Where the stretches of each end among all stretches.
    pub(crate) ends: Vec<u32>,
    /// The first token of a stretch and the one behind it, in their document.
    pub(crate) stretches: Vec<(u32, u32)>,
}

impl Documents {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Where the next document begins.
    pub(crate) fn end(&self) -> usize {
        self.ends.last().map_or(0, |end| *end as usize)
    }

    /// The tokens of a document among all.
    pub(crate) fn range(&self, document: usize) -> Range<usize> {
        let begin = match document {
            0 => 0,
            document => self.ends[document - 1],
        };
        begin as usize..self.ends[document] as usize
    }

    /// Ends a document behind `end` tokens.
    ///
    /// # Errors
    ///
    /// [`DataError::LossMaskLength`], [`DataError::CorpusTooLarge`].
    pub(crate) fn push(&mut self, end: usize, mask: Option<&[bool]>) -> Result<()> {
        let document = self.len();
        let tokens = end - self.end();
        let too_large = |what, count| DataError::CorpusTooLarge { what, count };
        // Pieces count in 32 bits.
        u32::try_from(tokens).map_err(|_| too_large("tokens in one document", tokens))?;
        let number = u32::try_from(document).map_err(|_| too_large("documents", document))?;
        if let Some(mask) = mask {
            if mask.len() != tokens {
                return Err(DataError::LossMaskLength {
                    document,
                    tokens,
                    mask: mask.len(),
                });
            }
            let mut at = 0;
            for run in mask.chunk_by(|a, b| a == b) {
                let behind = at + run.len() as u32;
                if run[0] {
                    self.masks.stretches.push((at, behind));
                }
                at = behind;
            }
            let n = self.masks.stretches.len();
            let n = u32::try_from(n).map_err(|_| too_large("stretches of responses", n))?;
            self.masks.documents.push(number);
            self.masks.ends.push(n);
        }
        self.ends.push(end as u64);
        Ok(())
    }
}

impl Documents {
    /// Whether what was read from a file can be the documents of so many tokens.
    pub(crate) fn is_valid(&self, tokens: u64) -> bool {
        let Masks {
            documents,
            ends,
            stretches,
        } = &self.masks;
        let begins = std::iter::once(&0).chain(ends);
        let of_document = |(document, (begin, end)): (&u32, (&u32, &u32))| {
            let document = *document as usize;
            let stretches = stretches.get(*begin as usize..*end as usize);
            let in_order = |stretches: &[(u32, u32)]| {
                stretches.iter().all(|(begin, behind)| begin < behind)
                    && stretches.is_sorted_by(|a, b| a.1 <= b.0)
            };
            document < self.len()
                && stretches.is_some_and(|stretches| {
                    let last = stretches.last().map_or(0, |(_, behind)| *behind as usize);
                    in_order(stretches) && last <= self.range(document).len()
                })
        };
        let first = self.ends.first().copied().unwrap_or(0);
        let lengths = self.ends.windows(2).map(|pair| pair[1] - pair[0]);
        self.ends.is_sorted()
            && lengths
                .chain([first])
                .all(|length| u32::try_from(length).is_ok())
            && self.ends.last().copied().unwrap_or(0) == tokens
            && documents.is_sorted_by(|a, b| a < b)
            && documents.iter().zip(begins.zip(ends)).all(of_document)
            && ends.last().map_or(0, |end| *end as usize) == stretches.len()
    }
}

impl Masks {
    /// The stretches of a document that are predicted; `None` if it has no mask.
    pub(crate) fn of(&self, document: usize) -> Option<&[(u32, u32)]> {
        let number = u32::try_from(document).ok()?;
        let place = self.documents.binary_search(&number).ok()?;
        let begin = match place {
            0 => 0,
            place => self.ends[place - 1] as usize,
        };
        Some(&self.stretches[begin..self.ends[place] as usize])
    }
}

/// The parts of a document's stretches that are in a range of its tokens.
pub(super) fn within(
    stretches: &[(u32, u32)],
    range: Range<usize>,
) -> impl Iterator<Item = Range<usize>> {
    let first = stretches.partition_point(|(_, behind)| *behind as usize <= range.start);
    let stretches = stretches[first..].iter();
    let stretches = stretches.take_while({
        let end = range.end;
        move |(begin, _)| (*begin as usize) < end
    });
    stretches.map(move |(begin, behind)| {
        range.start.max(*begin as usize)..range.end.min(*behind as usize)
    })
}
