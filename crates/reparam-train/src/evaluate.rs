//! The loss on data that is not trained on.

use std::path::PathBuf;

use burn::tensor::ElementConversion;
use reparam::ForwardContext;
use reparam_data::{
    Batch, Dataset, DatasetOptions, OnError, PackingStrategy, Phase, Piece, ReadOptions,
};
use reparam_models::{CausalLm, TokenBatch};

use crate::task::DEFAULT_LENGTH;
use crate::warnings::beyond_positions;
use crate::{Metrics, Result, Session, Stop, TrainError};

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
    let dataset = Dataset::build(
        &[data],
        &session.tokenizer,
        &DatasetOptions {
            read: read.clone(),
            train_on_prompt: false,
            sequence_length,
            packing: PackingStrategy::BestFitDecreasing,
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
    let metrics = runtime.run(|| evaluate(&session.model, &dataset, stop))??;
    if !metrics.primary().is_finite() {
        return Err(TrainError::LossNotFinite);
    }
    Ok(match read.on_error {
        OnError::Stop => metrics,
        OnError::Skip => metrics.with("skipped", dataset.read.skipped.count),
    })
}

/// Measures the loss of a model on a data set: the summed negative log-likelihood of all predicted tokens divided by
/// their number, in nats, with `exp` of it and the number.
///
/// # Errors
///
/// [`TrainError::Interrupted`].
pub fn evaluate(model: &CausalLm, dataset: &Dataset, stop: Stop<'_>) -> Result<Metrics> {
    let mut sum = 0.0;
    let mut tokens = 0_u64;
    let mut first = 0;
    let total = dataset.report.labelled_tokens as u64;
    while first < dataset.blocks.len() {
        stop.check()?;
        stop.at(Phase::Evaluating, tokens, total);
        let rest = &dataset.blocks[first..];
        let count = at_once(rest.iter().map(|block| block.n_tokens()));
        let blocks: Vec<usize> = (first..first + count).collect();
        let batch = dataset.batch(&blocks);
        let labels = &batch.labels;
        let loss = model.loss(
            token_batch(&batch),
            labels,
            1.0,
            &ForwardContext::inference(),
        );
        sum += loss.into_scalar::<f32>().elem::<f64>();
        tokens += batch.n_labelled() as u64;
        first += count;
    }
    stop.at(Phase::Evaluating, total, total);
    let loss = sum / tokens as f64;
    Ok(Metrics::lower_is_better("loss", loss)
        .with("perplexity", loss.exp())
        .with("tokens", tokens))
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
