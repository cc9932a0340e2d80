//! Everything from paths to blocks in one call.

use std::path::PathBuf;

use crate::error::Result;
use crate::order::split;
use crate::pack::{Batch, Block, Cut, EncodedDocument, PackReport, PackingStrategy, cut, pack};
use crate::source::{FileDigest, Format, read_documents};
use crate::tokenizer::TextTokenizer;

#[cfg(test)]
mod tests;

/// Packed documents, what came of packing them, and what they were read from.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// The blocks.
    pub blocks: Vec<Block>,
    /// Counts.
    pub report: PackReport,
    /// The files, in the order of the paths; empty if the documents did not come from files.
    pub digests: Vec<FileDigest>,
}

impl Dataset {
    /// Reads, encodes, cuts and packs.
    ///
    /// # Arguments
    ///
    /// - `format`: of all files, or `None` to tell each from its extension.
    /// - `sequence_length`: most tokens of a piece and of a block; at least 2.
    ///
    /// # Errors
    ///
    /// Those of [`read_documents`], [`TextTokenizer::encode_documents`], [`cut`] and [`pack`].
    pub fn build(
        paths: &[PathBuf],
        format: Option<Format>,
        tokenizer: &TextTokenizer,
        sequence_length: usize,
        packing: PackingStrategy,
    ) -> Result<Self> {
        let source = read_documents(paths, format)?;
        let encoded = tokenizer.encode_documents(&source.documents)?;
        let cut = cut(&encoded, sequence_length)?;
        Self::of(cut, sequence_length, packing, source.files)
    }

    /// Like [`Dataset::build`], but holds out the last `eval_fraction` of the pieces as a second data set.
    ///
    /// The pieces are split before they are packed, so that no block has both (see [`split`]). Pieces left out
    /// are counted in the report of the first part. With `eval_fraction = 0` there is no second part.
    ///
    /// # Errors
    ///
    /// Those of [`Dataset::build`] and [`split`].
    pub fn build_split(
        paths: &[PathBuf],
        format: Option<Format>,
        tokenizer: &TextTokenizer,
        sequence_length: usize,
        packing: PackingStrategy,
        eval_fraction: f64,
    ) -> Result<(Self, Option<Self>)> {
        let source = read_documents(paths, format)?;
        let encoded = tokenizer.encode_documents(&source.documents)?;
        let mut train = cut(&encoded, sequence_length)?;
        let pieces = train
            .pieces
            .split_off(split(train.pieces.len(), eval_fraction)?);
        let eval = Cut {
            pieces,
            dropped_pieces: 0,
            dropped_tokens: 0,
        };
        let train = Self::of(train, sequence_length, packing, source.files.clone())?;
        let eval = if eval.pieces.is_empty() {
            None
        } else {
            Some(Self::of(eval, sequence_length, packing, source.files)?)
        };
        Ok((train, eval))
    }

    /// Cuts and packs documents that are encoded already.
    ///
    /// # Errors
    ///
    /// Those of [`cut`] and [`pack`].
    pub fn from_encoded(
        documents: &[EncodedDocument],
        sequence_length: usize,
        packing: PackingStrategy,
    ) -> Result<Self> {
        Self::of(
            cut(documents, sequence_length)?,
            sequence_length,
            packing,
            Vec::new(),
        )
    }

    fn of(
        cut: Cut,
        sequence_length: usize,
        packing: PackingStrategy,
        digests: Vec<FileDigest>,
    ) -> Result<Self> {
        let blocks = pack(&cut.pieces, sequence_length, packing)?;
        let dropped = (cut.dropped_pieces, cut.dropped_tokens);
        let report = PackReport::count(&cut.pieces, &blocks, sequence_length, dropped);
        Ok(Self {
            blocks,
            report,
            digests,
        })
    }

    /// Concatenates the blocks with these indices, as [`BatchPlan::batch`](crate::BatchPlan::batch) gives them.
    ///
    /// # Panics
    ///
    /// If an index is not below the number of blocks, which a plan over these blocks never gives.
    #[must_use]
    pub fn batch(&self, indices: &[usize]) -> Batch {
        Batch::concat(indices.iter().map(|&index| &self.blocks[index]))
    }
}
