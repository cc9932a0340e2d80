//! Losses, texts that are written, and how near they come to their targets.

use std::iter;

use burn::tensor::{ElementConversion, Tensor};
use reparam::ForwardContext;
use reparam_data::rows::{BleuStats, BleuTokenizer, Chrf, ChrfStats, RougeStats, RowBatch};
use reparam_data::{Phase, TextTokenizer};
use reparam_models::{DecodingConfig, ModelError, Seq2SeqLm, TokenBatch};

use super::pairs::Pair;
use crate::evaluate::at_once;
use crate::{Metrics, Result, Stop, TrainError};

/// The scaled sum of the losses of pairs.
pub(super) fn loss(
    model: &Seq2SeqLm,
    pairs: &[&Pair],
    scale: (f32, f32),
    context: &ForwardContext,
) -> Tensor<1> {
    let source = RowBatch::concat(pairs.iter().map(|pair| &pair.source));
    let mut labels: Vec<i32> = Vec::new();
    let (mut bounds, mut positions) = (vec![0], Vec::new());
    for pair in pairs {
        labels.extend(pair.labels.iter().map(|label| *label as i32));
        positions.extend(0..pair.labels.len() as u32);
        bounds.push(labels.len());
    }
    let input = model.decoder_input(&labels, &bounds);
    let source = TokenBatch {
        input_ids: &source.input_ids,
        position_ids: &source.position_ids,
        bounds: &source.bounds,
    };
    let target = TokenBatch {
        input_ids: &input,
        position_ids: &positions,
        bounds: &bounds,
    };
    model.loss(source, target, &labels, scale, context)
}

/// Measures the mean loss of the tokens of targets.
pub(super) fn measure(model: &Seq2SeqLm, pairs: &[Pair], stop: Stop<'_>) -> Result<Metrics> {
    let context = ForwardContext::inference();
    let (mut sum, mut tokens) = (0.0, 0);
    let mut first = 0;
    while first < pairs.len() {
        stop.check()?;
        stop.at(Phase::Evaluating, first as u64, pairs.len() as u64);
        let count = at_once(pairs[first..].iter().map(Pair::n_tokens));
        let some: Vec<&Pair> = pairs[first..first + count].iter().collect();
        let one = loss(model, &some, (1.0, 0.0), &context);
        sum += one.into_scalar::<f64>().elem::<f64>();
        tokens += some.iter().map(|pair| pair.labels.len()).sum::<usize>();
        first += count;
    }
    stop.at(Phase::Evaluating, pairs.len() as u64, pairs.len() as u64);
    Ok(Metrics::lower_is_better("loss", sum / tokens as f64).with("tokens", tokens))
}

/// Writes a target for a source.
pub(super) fn write(
    model: &Seq2SeqLm,
    tokenizer: &TextTokenizer,
    (source, decoding): (&[u32], &DecodingConfig),
    stop: Stop<'_>,
) -> Result<String> {
    let found = model.generate(source, decoding, || stop.check().is_err());
    let found = found.map_err(|error| match error {
        ModelError::Stopped => TrainError::Interrupted,
        error => error.into(),
    })?;
    let best = found.into_iter().next();
    let tokens = best.map(|best| best.tokens).unwrap_or_default();
    Ok(tokenizer.decode(&tokens, true)?.trim().to_owned())
}

/// How near written texts come to their targets.
#[derive(Debug)]
pub(super) struct Written {
    tokenizer: BleuTokenizer,
    bleu: BleuStats,
    chrf: ChrfStats,
    rouge: RougeStats,
}

impl Written {
    /// Begins with nothing written. BLEU splits words as in Chinese where most targets have Chinese characters.
    pub(super) fn new(pairs: &[Pair]) -> Self {
        Self {
            tokenizer: BleuTokenizer::of_texts(pairs.iter().map(|pair| &*pair.target)),
            bleu: BleuStats::default(),
            chrf: ChrfStats::default(),
            rouge: RougeStats::default(),
        }
    }

    pub(super) fn add(&mut self, text: &str, pair: &Pair) {
        let more = pair.more_targets.iter().map(|target| &**target);
        let targets: Vec<&str> = iter::once(&*pair.target).chain(more).collect();
        self.bleu += BleuStats::of(text, &targets, self.tokenizer);
        self.chrf += ChrfStats::of(text, &targets, Chrf::Characters);
        self.rouge += RougeStats::of(text, &targets);
    }

    pub(super) fn add_to(&self, metrics: Metrics) -> Metrics {
        let rouge = self.rouge.mean();
        metrics
            .with("bleu", self.bleu.score().score)
            .with("chrf", self.chrf.score())
            .with("rouge_l", rouge.map(|rouge| rouge.rouge_l))
    }
}
