//! Encoded documents and the pieces they are cut into.

use super::IGNORE_INDEX;
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

/// A stretch of one document, with the labels of its positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    document: usize,
    start: usize,
    of_example: bool,
    ids: Vec<u32>,
    labels: Vec<i32>,
}

impl Piece {
    /// Index of the document that it comes from.
    #[must_use]
    pub fn document(&self) -> usize {
        self.document
    }

    /// Where in the document it begins, in tokens.
    #[must_use]
    pub fn start(&self) -> usize {
        self.start
    }

    /// Whether its document has a loss mask, as an example of a prompt and a response does.
    #[must_use]
    pub fn of_example(&self) -> bool {
        self.of_example
    }

    /// The token ids.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// What each position predicts, or [`IGNORE_INDEX`]; as long as [`Piece::ids`].
    #[must_use]
    pub fn labels(&self) -> &[i32] {
        &self.labels
    }

    /// Number of tokens.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "a piece has at least two tokens"
    )]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Number of positions that predict something; at least 1, but for a piece that is left out.
    #[must_use]
    pub fn n_labelled(&self) -> usize {
        self.labels
            .iter()
            .filter(|label| **label != IGNORE_INDEX)
            .count()
    }
}

/// The pieces of some documents, and what was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The pieces, in the order of the documents.
    pub pieces: Vec<Piece>,
    /// Pieces left out because no position of them predicts anything: those of one token, and those whose
    /// loss mask is empty; in the order of the documents.
    pub dropped: Vec<Piece>,
}

impl Cut {
    /// Takes out what begins at token `begins.1` of document `begins.0` or behind it.
    pub(crate) fn split_off(&mut self, begins: (usize, usize)) -> Self {
        let tail = |pieces: &mut Vec<Piece>| {
            let is_before = |piece: &Piece| (piece.document, piece.start) < begins;
            pieces.split_off(pieces.partition_point(is_before))
        };
        Self {
            pieces: tail(&mut self.pieces),
            dropped: tail(&mut self.dropped),
        }
    }
}

/// Cuts documents into pieces of at most `sequence_length` tokens.
///
/// # Errors
///
/// [`DataError::SequenceTooShort`] for `sequence_length < 2`, [`DataError::LossMaskLength`],
/// [`DataError::TokenIdTooLarge`], and [`DataError::NothingToLearn`] if no token is left to be predicted.
pub fn cut(documents: &[EncodedDocument], sequence_length: usize) -> Result<Cut> {
    if sequence_length < 2 {
        return Err(DataError::SequenceTooShort { sequence_length });
    }
    let mut cut = Cut {
        pieces: Vec::new(),
        dropped: Vec::new(),
    };
    for (document, EncodedDocument { ids, loss_mask }) in documents.iter().enumerate() {
        if let Some(mask) = loss_mask.as_ref().filter(|mask| mask.len() != ids.len()) {
            let (tokens, mask) = (ids.len(), mask.len());
            return Err(DataError::LossMaskLength {
                document,
                tokens,
                mask,
            });
        }
        for (index, ids) in ids.chunks(sequence_length).enumerate() {
            let start = index * sequence_length;
            let mask = loss_mask
                .as_ref()
                .map(|mask| &mask[start..start + ids.len()]);
            let piece = Piece {
                document,
                start,
                of_example: loss_mask.is_some(),
                ids: ids.to_vec(),
                labels: labels(document, ids, mask)?,
            };
            if piece.n_labelled() == 0 {
                cut.dropped.push(piece);
            } else {
                cut.pieces.push(piece);
            }
        }
    }
    if cut.pieces.is_empty() {
        return Err(DataError::NothingToLearn {
            documents: documents.len(),
            tokens: cut.dropped.iter().map(Piece::len).sum(),
            masked: documents
                .iter()
                .any(|document| document.loss_mask.is_some()),
        });
    }
    Ok(cut)
}

/// The next token at every position, where it is to be learned.
fn labels(document: usize, ids: &[u32], mask: Option<&[bool]>) -> Result<Vec<i32>> {
    let mut labels = Vec::with_capacity(ids.len());
    for next in 1..ids.len() {
        let id = ids[next];
        let label = i32::try_from(id).map_err(|_| DataError::TokenIdTooLarge { document, id })?;
        labels.push(if mask.is_none_or(|mask| mask[next]) {
            label
        } else {
            IGNORE_INDEX
        });
    }
    labels.push(IGNORE_INDEX);
    Ok(labels)
}
