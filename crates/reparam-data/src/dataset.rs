//! Everything from paths to blocks in one call.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::error::{DataError, Result};
use crate::order::{Candidate, ContentHash, HeldOut, Size, hold_out_documents};
use crate::pack::{
    Batch, Block, Corpus, Cut, EncodedDocument, Learned, PackReport, PackingStrategy, Piece,
    TooLong, cut, joined, pack, streams,
};
use crate::source::{FileDigest, ReadOptions, ReadReport};
use crate::tokenizer::TextTokenizer;
use crate::watch::Watch;

mod look;
pub(crate) mod origins;
#[cfg(test)]
mod tests;
pub(crate) mod texts;
mod weights;

use origins::Origins;
use texts::Texts;
pub use weights::Weights;

/// Packed documents, what came of packing them, and what they were read from.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    corpus: Arc<Corpus>,
    learned: Learned,
    streams: Option<usize>,
    /// What is known of each document of the corpus; empty where it was not read.
    origins: Arc<Origins>,
    /// What predicts nothing.
    dropped: Vec<Piece>,
    /// The first examples that [`DatasetOptions::too_long`] has left out as a whole or in part.
    too_long: Vec<usize>,
    /// Whether pieces may be there several times.
    is_weighted: bool,
    /// The blocks.
    pub blocks: Vec<Block>,
    /// Counts.
    pub report: PackReport,
    /// The files that the documents were read from, if they were.
    pub read: ReadReport,
}

/// How texts become blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct DatasetOptions {
    /// How the files are read.
    pub read: ReadOptions,
    /// Whether the prompts of examples are predicted too; refused where there are none.
    pub train_on_prompt: bool,
    /// The most tokens of a piece and of a block; at least 2.
    pub sequence_length: usize,
    /// How pieces are put together into blocks.
    pub packing: PackingStrategy,
    /// Reads documents as so many streams instead of packing pieces: the blocks of a step, one a stream, go on where those
    /// of the step before end, and every token of a document but the first is predicted. Held-out texts are one stream.
    pub streams: Option<usize>,
    /// What is done with examples that are longer than a piece; those that are measured on included.
    pub too_long: TooLong,
    /// Where the tokens are kept; in memory alone if `None`.
    pub cache: Option<Cache>,
    /// How often an epoch has the documents of each path; once if `None`. What is held out is there once.
    pub weights: Option<Weights>,
}

/// A data set, and what is held out of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// What is learned.
    pub train: Dataset,
    /// What is measured on, in an order that does not depend on that of the files; `None` if nothing is held out.
    pub eval: Option<Dataset>,
    /// How much of each file is held out, in the order of the paths.
    pub held_out: Vec<FileShare>,
}

/// What is held out of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileShare {
    /// The file.
    pub file: PathBuf,
    /// How many of its units are held out.
    pub held_out: usize,
    /// How many it has.
    pub of: usize,
    /// What is counted.
    pub unit: Unit,
}

impl FileShare {
    /// Counts the rows of files: of each row, where it is from and whether it is held out.
    pub fn of_rows<'a>(
        files: &[FileDigest],
        rows: impl IntoIterator<Item = (&'a Path, bool)>,
    ) -> Vec<Self> {
        let mut counts: HashMap<&Path, (usize, usize)> = HashMap::new();
        for (path, is_held_out) in rows {
            let (held_out, of) = counts.entry(path).or_default();
            *held_out += usize::from(is_held_out);
            *of += 1;
        }
        let shares = files.iter().map(|file| {
            let count = counts.get(&*file.path).copied();
            let (held_out, of) = count.unwrap_or_default();
            Self {
                file: file.path.clone(),
                held_out,
                of,
                unit: Unit::Rows,
            }
        });
        shares.collect()
    }
}

/// What is held out as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Documents and examples.
    Documents,
    /// Stretches of documents.
    Pieces,
    /// Rows.
    Rows,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Documents => "documents",
            Self::Pieces => "pieces",
            Self::Rows => "rows",
        })
    }
}

impl Dataset {
    /// Reads, encodes, cuts and packs.
    ///
    /// # Errors
    ///
    /// Those of [`read_documents`](crate::source::read_documents), [`TextTokenizer::encode_documents`], [`cut`] and [`pack`], and
    /// [`DataError::NoPrompts`], [`DataError::WeightsOfStreams`], and those of [`Weights::check`].
    pub fn build(
        paths: &[PathBuf],
        tokenizer: &TextTokenizer,
        options: &DatasetOptions,
        watch: Watch<'_>,
    ) -> Result<Self> {
        let read = Texts::of(paths, tokenizer, options, watch)?;
        let learned = options.learned();
        let (cut, long) = read.cut(learned, options)?;
        let (corpus, origins) = (&read.corpus, &read.origins);
        let cut = read.weigh(cut, options.weights.as_ref());
        cut.check(corpus)?;
        let report = read.report.clone();
        let built = match options.streams {
            None => Self::of(corpus, cut, learned, options, report),
            Some(n) => Self::of_streams(corpus, &joined(cut), n, options, report),
        }?;
        Ok(built.without(long).at(origins))
    }

    /// Like [`Dataset::build`], but holds a part out as a second data set; with `size.fraction = 0` there is none.
    ///
    /// Documents are chosen by `seed` and by what they say, so that neither their order nor that of the files matters, and
    /// the same document is on one side however often it is there. They stay whole where that comes within half of `size`,
    /// which is measured in predicted tokens; else every n-th stretch of the pieces of each is held out. The documents are
    /// parted before they are packed, so that no block has both. In streams a stretch begins anew behind one of the other part.
    ///
    /// `train_on_prompt` changes what is learned, not what is measured by: what is held out is the same, and its prompts are
    /// not predicted.
    ///
    /// # Errors
    ///
    /// Those of [`Dataset::build`]; [`DataError::EvalFraction`] unless `0 <= fraction < 1`; [`DataError::TooFewToSplit`]
    /// for fewer than two pieces.
    pub fn build_split(
        paths: &[PathBuf],
        tokenizer: &TextTokenizer,
        options: &DatasetOptions,
        (size, seed): (Size, u64),
        watch: Watch<'_>,
    ) -> Result<Split> {
        if size.fraction == 0.0 {
            return Ok(Split {
                train: Self::build(paths, tokenizer, options, watch)?,
                eval: None,
                held_out: Vec::new(),
            });
        }
        let read = Texts::of(paths, tokenizer, options, watch)?;
        let (corpus, origins) = (&read.corpus, &read.origins);
        let (measured, long) = read.cut(Learned::Masked, options)?;
        let held_out = read.hold_out(&measured, size, seed)?;
        let shares = read.shares(&measured, &held_out);
        let (mut eval, rest) = measured.partition(|piece| held_out.has(piece));
        if let Some(n_streams) = options.streams {
            rest.check(corpus)?;
            eval.check(corpus)?;
            let (rest, mut eval) = (joined(rest), joined(eval));
            eval.sort_by_cached_key(|stretch| read.place(stretch, seed));
            let of = |stretches: &[Piece], n| {
                Self::of_streams(corpus, stretches, n, options, read.report.clone())
            };
            return Ok(Split {
                train: of(&rest, n_streams)?.at(origins),
                eval: Some(of(&eval, 1)?.at(origins)),
                held_out: shares,
            });
        }
        // Their order is that of their hashes, so that the sums of the loss are the same in each order of files.
        eval.pieces
            .sort_by_cached_key(|piece| read.place(piece, seed));
        let train = match options.learned() {
            Learned::Masked => rest,
            Learned::All => {
                let (all, _) = read.cut(Learned::All, options)?;
                all.partition(|piece| !held_out.has(piece)).0
            }
        };
        let train = read.weigh(train, options.weights.as_ref());
        train.check(corpus)?;
        eval.check(corpus)?;
        let train = Self::of(
            corpus,
            train,
            options.learned(),
            options,
            read.report.clone(),
        )?;
        let train = train.without(long);
        let eval = Self::of(corpus, eval, Learned::Masked, options, read.report)?;
        Ok(Split {
            train: train.at(origins),
            eval: Some(eval.at(origins)),
            held_out: shares,
        })
    }

    /// Cuts and packs documents that are encoded already.
    ///
    /// # Errors
    ///
    /// Those of [`Corpus::of`], [`cut`] and [`pack`].
    pub fn from_encoded(
        documents: impl IntoIterator<Item = EncodedDocument>,
        sequence_length: usize,
        packing: PackingStrategy,
    ) -> Result<Self> {
        let corpus = Arc::new(Corpus::of(documents)?);
        let options = DatasetOptions {
            read: ReadOptions::default(),
            train_on_prompt: false,
            sequence_length,
            packing,
            streams: None,
            too_long: TooLong::Cut,
            cache: None,
            weights: None,
        };
        let cut = cut(&corpus, sequence_length, Learned::Masked)?;
        Self::of(
            &corpus,
            cut,
            Learned::Masked,
            &options,
            ReadReport::default(),
        )
    }

    fn without(self, long: Long) -> Self {
        let report = PackReport {
            dropped_examples: long.dropped,
            truncated_examples: long.truncated,
            ..self.report
        };
        Self {
            too_long: long.first,
            report,
            ..self
        }
    }

    fn at(self, origins: &Arc<Origins>) -> Self {
        let origins = Arc::clone(origins);
        Self { origins, ..self }
    }

    fn of(
        corpus: &Arc<Corpus>,
        cut: Cut,
        learned: Learned,
        options: &DatasetOptions,
        read: ReadReport,
    ) -> Result<Self> {
        let length = options.sequence_length;
        let blocks = pack(&cut.pieces, length, options.packing)?;
        let report = PackReport::count(&cut, &blocks, length);
        Ok(Self {
            corpus: Arc::clone(corpus),
            learned,
            streams: None,
            origins: Arc::default(),
            dropped: cut.dropped,
            too_long: Vec::new(),
            is_weighted: options.weights.is_some(),
            blocks,
            report,
            read,
        })
    }

    fn of_streams(
        corpus: &Arc<Corpus>,
        stretches: &[Piece],
        n_streams: usize,
        options: &DatasetOptions,
        read: ReadReport,
    ) -> Result<Self> {
        let length = options.sequence_length;
        let (cut, blocks) = streams(stretches, n_streams, length)?;
        let report = PackReport::count(&cut, &blocks, length);
        Ok(Self {
            corpus: Arc::clone(corpus),
            learned: options.learned(),
            streams: Some(n_streams),
            origins: Arc::default(),
            dropped: cut.dropped,
            too_long: Vec::new(),
            is_weighted: options.weights.is_some(),
            blocks,
            report,
            read,
        })
    }

    /// Returns how many streams the blocks are of, if they go on from step to step.
    #[must_use]
    pub fn streams(&self) -> Option<usize> {
        self.streams
    }

    /// Concatenates the blocks with these indices, as [`BatchPlan::batch`](crate::BatchPlan::batch) gives them.
    ///
    /// # Errors
    ///
    /// [`DataError::File`] if the tokens are in a file of the cache that can no longer be read.
    ///
    /// # Panics
    ///
    /// If an index is not below the number of blocks, which a plan over these blocks never gives.
    pub fn batch(&self, indices: &[usize]) -> Result<Batch> {
        let blocks = indices.iter().map(|&index| &self.blocks[index]);
        Batch::concat(&self.corpus, self.learned, blocks)
    }
}

impl DatasetOptions {
    fn learned(&self) -> Learned {
        match self.train_on_prompt {
            true => Learned::All,
            false => Learned::Masked,
        }
    }
}

impl Texts {
    fn of(
        paths: &[PathBuf],
        tokenizer: &TextTokenizer,
        options: &DatasetOptions,
        watch: Watch<'_>,
    ) -> Result<Self> {
        if let Some(weights) = &options.weights {
            weights.check(paths.len())?;
            if options.streams.is_some() {
                return Err(DataError::WeightsOfStreams);
            }
        }
        let cache = options.cache.as_ref();
        let texts = Self::read(paths, tokenizer, &options.read, cache, watch)?;
        watch.check()?;
        let report = &texts.report;
        if report.line_ends > 0 {
            watch.note(&format!(
                "{} line ends \\r\\n of the files are read as \\n",
                report.line_ends
            ));
        }
        let turns = report.turns;
        if turns.not_located > 0 && !options.train_on_prompt {
            watch.note(&format!(
                "{} turns of the assistant are read and not learned: the chat template writes them otherwise once another \
                 message follows; {} are learned",
                turns.not_located, turns.learned
            ));
        }
        if options.train_on_prompt && !texts.corpus.has_masks() {
            let documents = texts.corpus.n_documents();
            return Err(DataError::NoPrompts { documents });
        }
        if let Some((count, first)) = &texts.special {
            watch.note(&tokenizer.describe_special(*count, first));
        }
        Ok(texts)
    }

    /// Cuts the documents into pieces, and says which examples were left out as too long.
    fn cut(&self, learned: Learned, options: &DatasetOptions) -> Result<(Cut, Long)> {
        let length = options.sequence_length;
        let mut cut = cut(&self.corpus, length, learned)?;
        let is_long = |piece: &Piece| {
            piece.of_example() && self.corpus.n_tokens_of(piece.document()) > length
        };
        if options.too_long == TooLong::Cut {
            return Ok((cut, Long::default()));
        }
        let all = || cut.pieces.iter().chain(&cut.dropped);
        let long: BTreeSet<usize> = all()
            .filter(|piece| is_long(piece))
            .map(Piece::document)
            .collect();
        let Some(&first) = long.first() else {
            return Ok((cut, Long::default()));
        };
        let truncates = options.too_long == TooLong::Truncate;
        let is_kept = |piece: &Piece| !is_long(piece) || truncates && piece.start() == 0;
        cut.pieces.retain(is_kept);
        cut.dropped.retain(is_kept);
        if options.too_long == TooLong::Refuse || cut.pieces.is_empty() {
            return Err(DataError::ExamplesTooLong {
                count: long.len(),
                first: self.origins.source(first, &self.report),
                tokens: self.corpus.n_tokens_of(first),
                sequence_length: length,
            });
        }
        let mut left_out = Long {
            first: long.iter().take(Long::FIRST).copied().collect(),
            ..Long::default()
        };
        match truncates {
            true => left_out.truncated = long.len(),
            false => left_out.dropped = long.len(),
        }
        Ok((cut, left_out))
    }

    fn hold_out(&self, measured: &Cut, size: Size, seed: u64) -> Result<Chosen> {
        let candidate = |hash: &ContentHash| Candidate {
            hash: *hash,
            weight: 0,
            pieces: 0,
        };
        let mut candidates: Vec<_> = self.origins.hashes.iter().map(candidate).collect();
        for piece in &measured.pieces {
            let candidate = &mut candidates[piece.document()];
            candidate.weight += piece.n_labelled() as u64;
            candidate.pieces += 1;
        }
        let stretches = match hold_out_documents(&candidates, size, seed)? {
            HeldOut::Documents(held_out) => return Ok(Chosen::Documents(held_out)),
            HeldOut::Pieces(stretches) => stretches,
        };
        let mut chosen = HashSet::new();
        for pieces in measured
            .pieces
            .chunk_by(|a, b| a.document() == b.document())
        {
            for stretch in &stretches[pieces[0].document()] {
                chosen.extend(pieces[stretch.clone()].iter().map(place));
            }
        }
        Ok(Chosen::Pieces(chosen))
    }

    /// Counts what is held out of each file, of pieces that can be measured on.
    fn shares(&self, measured: &Cut, chosen: &Chosen) -> Vec<FileShare> {
        let unit = match chosen {
            Chosen::Documents(_) => Unit::Documents,
            Chosen::Pieces(_) => Unit::Pieces,
        };
        let share = |digest: &FileDigest| FileShare {
            file: digest.path.clone(),
            held_out: 0,
            of: 0,
            unit,
        };
        let mut shares: Vec<_> = self.report.files.iter().map(share).collect();
        let mut last = None;
        for piece in &measured.pieces {
            let document = piece.document();
            if unit == Unit::Documents && last.replace(document) == Some(document) {
                continue;
            }
            let share = &mut shares[self.origins.file(document)];
            share.of += 1;
            share.held_out += usize::from(chosen.has(piece));
        }
        shares
    }

    /// The place of a piece in an order that does not depend on that of the files.
    fn place(&self, piece: &Piece, seed: u64) -> (u128, usize, usize) {
        let document = piece.document();
        (
            self.origins.hashes[document].place(seed),
            piece.start(),
            document,
        )
    }
}

/// The examples that are left out as too long.
#[derive(Default)]
struct Long {
    /// The first of them.
    first: Vec<usize>,
    /// How many are left out as a whole.
    dropped: usize,
    /// How many are left out but for their first piece.
    truncated: usize,
}

impl Long {
    /// How many are named.
    const FIRST: usize = 3;
}

/// What is held out.
enum Chosen {
    /// These documents.
    Documents(Vec<bool>),
    /// The pieces that begin here.
    Pieces(HashSet<(usize, usize)>),
}

impl Chosen {
    fn has(&self, piece: &Piece) -> bool {
        match self {
            Self::Documents(chosen) => chosen[piece.document()],
            Self::Pieces(chosen) => chosen.contains(&place(piece)),
        }
    }
}

/// Which document a piece is of, and where in it it begins.
fn place(piece: &Piece) -> (usize, usize) {
    (piece.document(), piece.start())
}
