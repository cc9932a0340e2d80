//! Sources and targets: how they are read, encoded and held out, and what a result says of that.

use std::path::PathBuf;

use reparam_data::rows::{
    Fields, OnError, RowError, RowFormat, Rows, RowsOptions, SOURCE, SOURCE_AND_TARGET,
    SequenceOptions, SequenceRow, Skipped, encode_sequences, read_rows, sequence_rows,
};
use reparam_data::{
    ContentHash, DocumentSource, EncodedRow, FileDigest, FileShare, Size, TextTokenizer,
    hold_out as choose_held_out,
};
use reparam_formats::config::ModelJson;
use reparam_models::Architecture;
use serde::{Deserialize, Serialize};

use super::TARGET_LENGTH;
use crate::cards::{self, CARD_FILE};
use crate::task::{DEFAULT_LENGTH, DataRequest, ModelRequest};
use crate::{Result, Stop};

/// A source and its target.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) source: EncodedRow,
    pub(super) labels: Vec<u32>,
    /// The target as it is written.
    pub(super) target: String,
    /// Other targets that are as good.
    pub(super) more_targets: Vec<String>,
    pub(super) truncated: bool,
    pub(super) content: ContentHash,
    pub(super) place: DocumentSource,
}

impl Pair {
    pub(super) fn n_tokens(&self) -> usize {
        self.source.ids.len() + self.labels.len()
    }
}

/// The most tokens of a source and of a target.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lengths {
    pub(super) source: usize,
    pub(super) target: usize,
}

impl Lengths {
    /// What a model has positions for.
    pub(super) fn within(self, architecture: &Architecture) -> Self {
        let most = |of: &Architecture| of.max_tokens().unwrap_or(usize::MAX);
        let encoder = architecture.seq2seq.as_ref().map(|spec| &spec.encoder);
        Self {
            source: self.source.min(encoder.map_or(usize::MAX, most)),
            target: self.target.min(most(architecture)),
        }
    }
}

/// The pairs of files.
pub(super) struct Pairs {
    pub(super) pairs: Vec<Pair>,
    pub(super) skipped: Skipped,
    pub(super) files: Vec<FileDigest>,
}

impl Pairs {
    /// Reads rows with targets, and says how many were left out.
    pub(super) fn read(
        paths: &[PathBuf],
        options: &RowsOptions,
        on_error: OnError,
    ) -> Result<(Rows<SequenceRow>, Skipped)> {
        let rows = sequence_rows(read_rows(paths, &SOURCE_AND_TARGET, options)?);
        Ok(rows.settled(on_error)?)
    }

    /// Makes tokens of rows; `first` is what every target begins with.
    pub(super) fn encode(
        rows: Rows<SequenceRow>,
        tokenizer: &TextTokenizer,
        (lengths, first): (Lengths, Option<u32>),
        on_error: OnError,
        watch: Stop<'_>,
    ) -> Result<Self> {
        let files = rows.files.clone();
        let options = SequenceOptions {
            max_source: lengths.source,
            max_target: lengths.target,
            first,
        };
        let encoded = encode_sequences(rows, tokenizer, options, |row| row, watch)?;
        let (encoded, skipped) = encoded.settle(on_error)?;
        let pairs = encoded.into_iter().filter_map(|(row, encoded)| {
            let target = encoded.target?;
            Some(Pair {
                content: row.content(),
                place: row.place,
                target: row.target?,
                more_targets: row.more_targets,
                truncated: encoded.source.truncated || target.truncated,
                source: encoded.source,
                labels: target.labels,
            })
        });
        Ok(Self {
            pairs: pairs.collect(),
            skipped,
            files,
        })
    }
}

/// The texts of both sides, which the tokenizer of a new model is trained on.
pub(super) fn texts(rows: &Rows<SequenceRow>) -> Vec<String> {
    let rows = rows.rows.iter().flatten();
    let texts = rows.flat_map(|row| [Some(&row.source), row.target.as_ref()]);
    texts.flatten().cloned().collect()
}

/// Reads sources to write targets for, each in its place.
pub(super) fn sources(
    data: &DataRequest,
    options: &RowsOptions,
) -> Result<Vec<Result<SequenceRow, RowError>>> {
    let rows = sequence_rows(read_rows(&data.paths(), &SOURCE, options)?);
    Ok(match data.on_error {
        OnError::Skip => rows.rows,
        OnError::Stop => rows.settled(OnError::Stop)?.0.rows,
    })
}

/// Holds pairs out by their sources: what is learned, what is held out, and how much that is of each file.
pub(super) fn hold_out(
    pairs: Vec<Pair>,
    files: &[FileDigest],
    size: Size,
    seed: u64,
) -> Result<(Vec<Pair>, Vec<Pair>, Vec<FileShare>)> {
    let contents: Vec<_> = pairs.iter().map(|pair| pair.content).collect();
    let held_out = choose_held_out(&contents, size, seed)?;
    let places = pairs.iter().map(|pair| &*pair.place.path);
    let mut shares = FileShare::of_rows(files, places.zip(held_out.iter().copied()));
    // A row stands in the file of its source.
    shares.retain(|share| share.of > 0);
    let (mut train, mut eval) = (Vec::new(), Vec::new());
    for (pair, is_held_out) in pairs.into_iter().zip(held_out) {
        if is_held_out { &mut eval } else { &mut train }.push(pair);
    }
    eval.sort_by(|a: &Pair, b| (a.content, &a.target).cmp(&(b.content, &b.target)));
    Ok((train, eval, shares))
}

/// What a run says of its result.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct SequenceCard {
    task: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sequence_length: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_target_length: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    format: Option<RowFormat>,
    #[serde(default, skip_serializing_if = "Fields::is_empty")]
    fields: Fields,
}

impl SequenceCard {
    pub(super) fn new(task: &str, lengths: Lengths, options: &RowsOptions) -> Self {
        Self {
            task: task.to_owned(),
            sequence_length: Some(lengths.source),
            max_target_length: Some(lengths.target),
            // Of what is asked one file may hold both sides.
            format: options
                .format
                .filter(|format| *format != RowFormat::Parallel),
            fields: options.fields.clone(),
        }
    }

    /// Reads what the adapter of a request says, else the model, and where.
    pub(super) fn of(request: &ModelRequest, json: &ModelJson) -> Result<(Self, PathBuf)> {
        let task = <super::SequenceToSequence as crate::task::Task>::NAME;
        if let Some(directory) = &request.adapter
            && let Some(card) = cards::of_adapter(directory, task)?
        {
            return Ok((card, directory.join(CARD_FILE)));
        }
        let json = &json.json;
        let card = cards::of_model(json.path(), json.map(), task)?;
        Ok((card.unwrap_or_default(), json.path().to_owned()))
    }

    pub(super) fn source_length(&self) -> usize {
        self.sequence_length.unwrap_or(DEFAULT_LENGTH)
    }

    pub(super) fn target_length(&self) -> usize {
        self.max_target_length.unwrap_or(TARGET_LENGTH)
    }

    pub(super) fn says_how_to_read(&self) -> bool {
        self.format.is_some() || !self.fields.is_empty()
    }

    /// Returns how a file is read: as asked, else as in the run.
    pub(super) fn options(&self, data: &DataRequest) -> Result<RowsOptions> {
        data.row_options(self.format, &self.fields)
    }
}
