//! The loss on data that is not trained on.

use std::ops::Range;
use std::path::PathBuf;

use burn::tensor::ElementConversion;
use reparam::ForwardContext;
use reparam_data::{
    Batch, Block, Cache, Dataset, DatasetOptions, OnError, PackingStrategy, Phase, Piece,
    ReadOptions, TooLong,
};
use reparam_models::{CausalLm, TokenBatch};
use reparam_ops::RecurrentState;

use crate::bootstrap::{Bootstrap, with_intervals};
use crate::task::DEFAULT_LENGTH;
use crate::warnings::beyond_positions;
use crate::{Metrics, Result, Session, Stop, TrainError, streams};

/// The tokens that are evaluated at once: enough to keep the threads busy, and no more than a usual step has, since what is
/// kept of their memory is of other sizes than a step's.
const TOKENS_AT_ONCE: usize = 2048;

/// Measures the loss of a model on a file: `loss`, `perplexity`, `tokens`.
///
/// Every document is encoded by the tokenizer's own template with the end-of-text token after it.
/// One longer than `sequence_length` is cut into pieces of that length; each piece is scored by
/// itself and its first token is not predicted. Of an example the response is scored, with the end-of-text token, and what
/// is in the same piece of the prompt is given.
///
/// # Errors
///
/// Fails when the file cannot be read or holds nothing to predict, or the loss is not finite;
/// [`TrainError::Interrupted`].
pub fn evaluate_file(
    session: &Session,
    data: PathBuf,
    read: &ReadOptions,
    sequence_length: usize,
    stop: Stop<'_>,
) -> Result<Metrics> {
    let data = (&[data][..], None);
    evaluate_resampled(session, data, read, (sequence_length, None), stop)
}

/// As [`evaluate_file`], of several files whose tokens may be in a cache, with confidence intervals if they are asked for:
/// documents are drawn again.
pub(crate) fn evaluate_resampled(
    session: &Session,
    (data, cache): (&[PathBuf], Option<Cache>),
    read: &ReadOptions,
    (sequence_length, bootstrap): (usize, Option<Bootstrap>),
    stop: Stop<'_>,
) -> Result<Metrics> {
    let dataset = Dataset::build(
        data,
        &session.tokenizer,
        &DatasetOptions {
            read: read.clone(),
            train_on_prompt: false,
            sequence_length,
            packing: match bootstrap {
                None => PackingStrategy::BestFitDecreasing,
                // A block of two documents has one loss for both.
                Some(_) => PackingStrategy::None,
            },
            // Each piece stands by itself, however the model was trained.
            streams: None,
            too_long: TooLong::Cut,
            cache,
            weights: None,
        },
        stop,
    )?;
    // The default length is nobody's wish: only what the file has counts.
    let longest = match sequence_length {
        DEFAULT_LENGTH => dataset
            .blocks
            .iter()
            .flat_map(|block| block.pieces().iter().map(Piece::len))
            .max()
            .unwrap_or(0),
        asked => asked,
    };
    let warning = beyond_positions(session.model.architecture(), longest);
    session.warnings.extend(warning);
    let runtime = &session.runtime;
    let model = &session.model;
    let metrics = runtime.run(|| match bootstrap {
        None => evaluate(model, &dataset, stop),
        Some(asked) => {
            let losses = document_losses(model, &dataset, stop)?;
            let of = |losses: &mut dyn Iterator<Item = &Loss>| {
                losses
                    .fold(Loss::default(), |sum, loss| sum.plus(*loss))
                    .metrics()
            };
            let metrics = of(&mut losses.iter());
            with_intervals(metrics, losses.len(), asked, stop, |drawn| {
                Ok(of(&mut drawn.iter().map(|document| &losses[*document])))
            })
        }
    })??;
    if !metrics.primary().is_finite() {
        return Err(TrainError::LossNotFinite);
    }
    Ok(match read.on_error {
        OnError::Stop => metrics,
        OnError::Skip => metrics.with("skipped", dataset.read.skipped.count),
    })
}

/// Measures the loss of a model on a data set: the summed negative log-likelihood of all predicted tokens divided by
/// their number, in nats, with `exp` of it and the number. Of streams, states are carried from block to block.
///
/// # Errors
///
/// [`TrainError::Interrupted`].
pub fn evaluate(model: &CausalLm, dataset: &Dataset, stop: Stop<'_>) -> Result<Metrics> {
    let total = dataset.report.labelled_tokens as u64;
    let mut sum = Loss::default();
    let (mut first, mut states) = (0, Vec::new());
    while first < dataset.blocks.len() {
        stop.check()?;
        stop.at(Phase::Evaluating, sum.tokens, total);
        let rest = &dataset.blocks[first..];
        let loss = match dataset.streams() {
            None => {
                let count = at_once(rest.iter().map(|block| block.n_tokens()));
                first += count;
                Loss::of(model, dataset, first - count..first)?
            }
            Some(streams) => {
                let count = streams.min(rest.len());
                first += count;
                Loss::of_step(model, dataset, first - count..first, &mut states)?
            }
        };
        sum = sum.plus(loss);
    }
    stop.at(Phase::Evaluating, total, total);
    Ok(sum.metrics())
}

/// Measures the loss of each document, of which every piece is a block of its own.
fn document_losses(model: &CausalLm, dataset: &Dataset, stop: Stop<'_>) -> Result<Vec<Loss>> {
    let total = dataset.report.labelled_tokens as u64;
    let document = |block: &Block| block.pieces().first().map(Piece::document);
    let mut losses = Vec::new();
    let (mut first, mut done) = (0, 0);
    for blocks in dataset.blocks.chunk_by(|a, b| document(a) == document(b)) {
        let end = first + blocks.len();
        let mut sum = Loss::default();
        while first < end {
            stop.check()?;
            stop.at(Phase::Evaluating, done, total);
            let rest = &dataset.blocks[first..end];
            let count = at_once(rest.iter().map(|block| block.n_tokens()));
            let loss = Loss::of(model, dataset, first..first + count)?;
            done += loss.tokens;
            sum = sum.plus(loss);
            first += count;
        }
        losses.push(sum);
    }
    stop.at(Phase::Evaluating, total, total);
    Ok(losses)
}

/// The summed loss of some tokens.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Loss {
    pub(crate) sum: f64,
    pub(crate) tokens: u64,
}

impl Loss {
    /// That of some blocks.
    fn of(model: &CausalLm, dataset: &Dataset, blocks: Range<usize>) -> Result<Self> {
        let batch = dataset.batch(&blocks.collect::<Vec<_>>())?;
        let context = ForwardContext::inference();
        let loss = model.loss(token_batch(&batch), &batch.labels, 1.0, &context);
        Ok(Self {
            sum: loss.into_scalar::<f32>().elem::<f64>(),
            tokens: batch.n_labelled() as u64,
        })
    }

    /// That of the blocks of a step, which go on from `states` and leave theirs there.
    fn of_step(
        model: &CausalLm,
        dataset: &Dataset,
        blocks: Range<usize>,
        states: &mut Vec<RecurrentState>,
    ) -> Result<Self> {
        let blocks: Vec<usize> = blocks.collect();
        let (before, context) = (std::mem::take(states), ForwardContext::inference());
        let (loss, left) = streams::loss(model, dataset, &blocks, (before, 1.0), &context)?;
        *states = left;
        let tokens = blocks
            .iter()
            .map(|block| dataset.blocks[*block].n_labelled());
        Ok(Self {
            sum: loss.into_scalar::<f32>().elem::<f64>(),
            tokens: tokens.sum::<usize>() as u64,
        })
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            sum: self.sum + other.sum,
            tokens: self.tokens + other.tokens,
        }
    }

    /// `loss`, `perplexity` and `tokens`.
    pub(crate) fn metrics(self) -> Metrics {
        let loss = self.sum / self.tokens as f64;
        Metrics::lower_is_better("loss", loss)
            .with("perplexity", loss.exp())
            .with("tokens", self.tokens)
    }
}

/// How many of the first sequences, of these lengths, go through the model together; at least one.
pub(crate) fn at_once(lengths: impl Iterator<Item = usize>) -> usize {
    let mut tokens = 0;
    let fitting = lengths.take_while(|length| {
        tokens += length;
        tokens <= TOKENS_AT_ONCE
    });
    fitting.count().max(1)
}

/// Returns the part of a batch that the model sees.
pub(crate) fn token_batch(batch: &Batch) -> TokenBatch<'_> {
    TokenBatch {
        input_ids: &batch.input_ids,
        position_ids: &batch.position_ids,
        bounds: &batch.bounds,
    }
}
