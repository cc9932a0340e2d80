//! Encoded documents.

use std::ops::Range;
use std::sync::Arc;

use reparam_formats::file::InputFile;

use super::documents::{Documents, within};
use super::ids::{Ids, Sink};
use crate::error::{DataError, Result};

/// The token ids of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedDocument {
    /// The ids, special tokens included.
    pub ids: Vec<u32>,
    /// For each token whether it is to be predicted; `None` means all. The first token of a piece never is.
    pub loss_mask: Option<Vec<bool>>,
}

impl EncodedDocument {
    /// A document all of whose tokens are to be predicted.
    #[must_use]
    pub fn new(ids: Vec<u32>) -> Self {
        Self {
            ids,
            loss_mask: None,
        }
    }
}

/// The token ids of documents, one behind the other.
///
/// Pieces and blocks point into it, so that every token is there once: 4 bytes, in memory or in a file of the
/// [cache](crate::cache). A document takes 8 bytes of memory, and some more if it has a loss mask.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Corpus {
    ids: Ids,
    documents: Documents,
}

impl Corpus {
    /// Puts documents together.
    ///
    /// # Errors
    ///
    /// [`DataError::LossMaskLength`], [`DataError::TokenIdTooLarge`], [`DataError::CorpusTooLarge`].
    pub fn of(documents: impl IntoIterator<Item = EncodedDocument>) -> Result<Self> {
        let mut corpus = CorpusBuilder::in_memory();
        for document in documents {
            corpus.push(&document)?;
        }
        Ok(corpus.finish())
    }

    /// Puts the documents of a file together, as many ids as they have.
    pub(crate) fn stored(file: Arc<InputFile>, begin: u64, documents: Documents) -> Self {
        let len = documents.end();
        Self {
            ids: Ids::Stored { file, begin, len },
            documents,
        }
    }

    /// Number of documents.
    #[must_use]
    pub fn n_documents(&self) -> usize {
        self.documents.len()
    }

    /// Number of tokens.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.ids.len()
    }

    /// Number of tokens of a document.
    pub(crate) fn n_tokens_of(&self, document: usize) -> usize {
        self.range(document).len()
    }

    /// Returns the token ids of a document.
    ///
    /// # Errors
    ///
    /// [`DataError::File`] if they are in a file that can no longer be read.
    ///
    /// # Panics
    ///
    /// If there is no such document.
    pub fn ids(&self, document: usize) -> Result<Vec<u32>> {
        self.ids_of(document, 0..self.n_tokens_of(document))
    }

    /// Those of a range of a document's tokens.
    pub(crate) fn ids_of(&self, document: usize, range: Range<usize>) -> Result<Vec<u32>> {
        let begin = self.range(document).start;
        let mut ids = Vec::with_capacity(range.len());
        self.ids
            .read(begin + range.start..begin + range.end, &mut ids)?;
        Ok(ids)
    }

    /// For each token of a document whether it is to be predicted; `None` means all.
    ///
    /// # Panics
    ///
    /// If there is no such document.
    #[must_use]
    pub fn loss_mask(&self, document: usize) -> Option<Vec<bool>> {
        let mut mask = vec![false; self.range(document).len()];
        for &(begin, behind) in self.documents.masks.of(document)? {
            mask[begin as usize..behind as usize].fill(true);
        }
        Some(mask)
    }

    /// Whether a document has a loss mask, as an example of a prompt and a response does.
    pub(crate) fn has_mask(&self, document: usize) -> bool {
        self.documents.masks.of(document).is_some()
    }

    /// Whether any document has one.
    pub(crate) fn has_masks(&self) -> bool {
        !self.documents.masks.documents.is_empty()
    }

    pub(super) fn range(&self, document: usize) -> Range<usize> {
        self.documents.range(document)
    }

    /// Appends ids to `to`, by their place among all.
    pub(super) fn read(&self, range: Range<usize>, to: &mut Vec<u32>) -> Result<()> {
        self.ids.read(range, to)
    }

    /// What of a range of a document's tokens is to be predicted; `None` means all.
    pub(super) fn predicted(
        &self,
        document: usize,
        range: Range<usize>,
    ) -> Option<impl Iterator<Item = Range<usize>>> {
        Some(within(self.documents.masks.of(document)?, range))
    }
}

/// A corpus that grows.
#[derive(Debug)]
pub(crate) struct CorpusBuilder<S> {
    sink: S,
    /// The tokens so far.
    len: usize,
    /// The first id of the document that cannot be a label.
    too_large: Option<u32>,
    documents: Documents,
}

impl CorpusBuilder<Vec<u32>> {
    pub(crate) fn in_memory() -> Self {
        Self::new(Vec::new())
    }

    pub(crate) fn finish(self) -> Corpus {
        Corpus {
            ids: Ids::Memory(self.sink),
            documents: self.documents,
        }
    }
}

impl<S: Sink> CorpusBuilder<S> {
    pub(crate) fn new(sink: S) -> Self {
        Self {
            sink,
            len: 0,
            too_large: None,
            documents: Documents::default(),
        }
    }

    /// Adds a document.
    pub(crate) fn push(&mut self, document: &EncodedDocument) -> Result<()> {
        self.extend(&document.ids)?;
        self.end(document.loss_mask.as_deref())
    }

    /// Adds tokens to the document that [`end`](Self::end) will end.
    pub(crate) fn extend(&mut self, ids: &[u32]) -> Result<()> {
        // The first token of a document is no label.
        let is_first = usize::from(self.len == self.documents.end());
        let mut labels = ids.iter().skip(is_first);
        let is_too_large = |id: &&u32| i32::try_from(**id).is_err();
        self.too_large = self.too_large.or(labels.find(is_too_large).copied());
        self.len += ids.len();
        self.sink.put(ids)
    }

    /// Makes room for so many more tokens and no others, which costs no memory until they are there.
    pub(crate) fn reserve(&mut self, tokens: usize) {
        self.sink.reserve(tokens);
    }

    /// Takes back the tokens behind the last document that has ended.
    pub(crate) fn take_back(&mut self) -> Result<()> {
        self.len = self.documents.end();
        self.too_large = None;
        self.sink.truncate(self.len)
    }

    /// Ends a document.
    pub(crate) fn end(&mut self, mask: Option<&[bool]>) -> Result<()> {
        if let Some(id) = self.too_large {
            let document = self.documents.len();
            return Err(DataError::TokenIdTooLarge { document, id });
        }
        self.documents.push(self.len, mask)?;
        self.sink.ended();
        Ok(())
    }

    pub(crate) fn into_parts(self) -> (S, Documents) {
        (self.sink, self.documents)
    }
}
