//! Encoded documents.

use std::ops::Range;

use super::Piece;
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
/// Pieces and blocks point into it, so that every token is in memory once: 4 bytes, and one more if a document has a
/// loss mask.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Corpus {
    ids: Vec<u32>,
    /// As long as the ids from the first document with a mask on; empty before.
    mask: Vec<bool>,
    documents: Vec<Span>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    end: usize,
    has_mask: bool,
}

impl Corpus {
    /// Puts documents together.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn of(documents: impl IntoIterator<Item = EncodedDocument>) -> Result<Self> {
        let mut corpus = Self::default();
        for document in documents {
            corpus.push(&document)?;
        }
        Ok(corpus)
    }

    /// Adds a document.
    ///
    /// # Errors
    ///
    /// [`DataError::LossMaskLength`], [`DataError::TokenIdTooLarge`].
    pub fn push(&mut self, document: &EncodedDocument) -> Result<()> {
        self.extend(&document.ids);
        self.end(document.loss_mask.as_deref())
    }

    /// Adds tokens to the document that [`end`](Self::end) will end.
    pub(crate) fn extend(&mut self, ids: &[u32]) {
        self.ids.extend_from_slice(ids);
    }

    /// Makes room for so many more tokens and no others, which costs no memory until they are there.
    pub(crate) fn reserve(&mut self, tokens: usize) {
        self.ids.reserve_exact(tokens);
    }

    /// Takes back the tokens behind the last document that has ended.
    pub(crate) fn take_back(&mut self) {
        let end = self.documents.last().map_or(0, |span| span.end);
        self.ids.truncate(end);
    }

    /// Ends a document.
    pub(crate) fn end(&mut self, mask: Option<&[bool]>) -> Result<()> {
        let document = self.documents.len();
        let begin = self.documents.last().map_or(0, |span| span.end);
        let ids = &self.ids[begin..];
        if let Some(mask) = mask.filter(|mask| mask.len() != ids.len()) {
            return Err(DataError::LossMaskLength {
                document,
                tokens: ids.len(),
                mask: mask.len(),
            });
        }
        // The first token of a document is no label.
        let mut labels = ids.iter().skip(1);
        if let Some(&id) = labels.find(|id| i32::try_from(**id).is_err()) {
            return Err(DataError::TokenIdTooLarge { document, id });
        }
        if let Some(mask) = mask {
            self.mask.resize(begin, true);
            self.mask.extend_from_slice(mask);
        } else if !self.mask.is_empty() {
            self.mask.resize(self.ids.len(), true);
        }
        self.documents.push(Span {
            end: self.ids.len(),
            has_mask: mask.is_some(),
        });
        Ok(())
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

    /// The token ids of a document.
    ///
    /// # Panics
    ///
    /// If there is no such document.
    #[must_use]
    pub fn ids(&self, document: usize) -> &[u32] {
        &self.ids[self.range(document)]
    }

    /// For each token of a document whether it is to be predicted; `None` means all.
    ///
    /// # Panics
    ///
    /// If there is no such document.
    #[must_use]
    pub fn loss_mask(&self, document: usize) -> Option<&[bool]> {
        let range = self.range(document);
        self.has_mask(document).then(|| &self.mask[range])
    }

    /// Whether a document has a loss mask, as an example of a prompt and a response does.
    pub(crate) fn has_mask(&self, document: usize) -> bool {
        self.documents[document].has_mask
    }

    pub(super) fn range(&self, document: usize) -> Range<usize> {
        let begin = match document {
            0 => 0,
            document => self.documents[document - 1].end,
        };
        begin..self.documents[document].end
    }

    /// Ids by their place among all.
    pub(super) fn slice(&self, range: Range<usize>) -> &[u32] {
        &self.ids[range]
    }

    /// What the last token of a piece predicts.
    pub(super) fn next(&self, piece: &Piece) -> Option<u32> {
        piece.goes_on.then(|| self.ids[piece.range().end])
    }

    /// Whether the token at a place among all is to be predicted.
    pub(super) fn is_predicted(&self, at: usize) -> bool {
        self.mask.get(at).is_none_or(|predicted| *predicted)
    }
}
