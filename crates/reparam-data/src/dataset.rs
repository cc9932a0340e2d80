//! Everything from paths to blocks in one call.

use std::path::PathBuf;

use crate::error::{DataError, Result};
use crate::order::split;
use crate::pack::{Batch, Block, Cut, EncodedDocument, PackReport, PackingStrategy, cut, pack};
use crate::source::{ReadOptions, ReadReport, read_documents};
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
    /// The files that the documents were read from, if they were.
    pub read: ReadReport,
}

/// How texts become blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetOptions {
    /// How the files are read.
    pub read: ReadOptions,
    /// Whether the prompts of examples are predicted too; refused where there are none.
    pub train_on_prompt: bool,
    /// The most tokens of a piece and of a block; at least 2.
    pub sequence_length: usize,
    /// How pieces are put together into blocks.
    pub packing: PackingStrategy,
}

impl Dataset {
    /// Reads, encodes, cuts and packs.
    ///
    /// # Errors
    ///
    /// Those of [`read_documents`], [`TextTokenizer::encode_documents`], [`cut`] and [`pack`], and
    /// [`DataError::NoPrompts`].
    pub fn build(
        paths: &[PathBuf],
        tokenizer: &TextTokenizer,
        options: &DatasetOptions,
    ) -> Result<Self> {
        let source = read_documents(paths, &options.read)?;
        let mut encoded = tokenizer.encode_documents(&source.documents)?;
        if options.train_on_prompt {
            unmask(&mut encoded)?;
        }
        let cut = cut(&encoded, options.sequence_length)?;
        Self::of(cut, options.sequence_length, options.packing, source.report)
    }

    /// Like [`Dataset::build`], but holds out the last `eval_fraction` of the pieces as a second data set.
    ///
    /// The pieces are split before they are packed, so that no block has both (see [`split`]). With
    /// `eval_fraction = 0` there is no second part. `train_on_prompt` changes what is learned, not what it is measured by:
    /// the pieces held out are the last of those with a response, whose prompts are not predicted, and all that comes
    /// before the first of them is learned.
    ///
    /// # Errors
    ///
    /// Those of [`Dataset::build`] and [`split`].
    pub fn build_split(
        paths: &[PathBuf],
        tokenizer: &TextTokenizer,
        options: &DatasetOptions,
        eval_fraction: f64,
    ) -> Result<(Self, Option<Self>)> {
        if eval_fraction == 0.0 {
            return Ok((Self::build(paths, tokenizer, options)?, None));
        }
        let DatasetOptions {
            sequence_length,
            packing,
            ..
        } = *options;
        let source = read_documents(paths, &options.read)?;
        let mut encoded = tokenizer.encode_documents(&source.documents)?;
        let mut train = cut(&encoded, sequence_length)?;
        let unmasked = if options.train_on_prompt {
            unmask(&mut encoded)?;
            Some(cut(&encoded, sequence_length)?)
        } else {
            None
        };
        let first = &train.pieces[split(train.pieces.len(), eval_fraction)?];
        let begins = (first.document(), first.start());
        let eval = train.split_off(begins);
        if let Some(unmasked) = unmasked {
            train = unmasked;
            train.split_off(begins);
        }
        let train = Self::of(train, sequence_length, packing, source.report.clone())?;
        let eval = Self::of(eval, sequence_length, packing, source.report)?;
        Ok((train, Some(eval)))
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
            ReadReport::default(),
        )
    }

    fn of(
        cut: Cut,
        sequence_length: usize,
        packing: PackingStrategy,
        read: ReadReport,
    ) -> Result<Self> {
        let blocks = pack(&cut.pieces, sequence_length, packing)?;
        let report = PackReport::count(&cut, &blocks, sequence_length);
        Ok(Self {
            blocks,
            report,
            read,
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

/// Has every token predicted.
fn unmask(documents: &mut [EncodedDocument]) -> Result<()> {
    let n_documents = documents.len();
    let mut masks = documents
        .iter_mut()
        .filter_map(|document| document.loss_mask.as_mut())
        .peekable();
    if masks.peek().is_none() {
        return Err(DataError::NoPrompts {
            documents: n_documents,
        });
    }
    // Filled and not removed, because an example has a mask.
    masks.for_each(|mask| mask.fill(true));
    Ok(())
}
