//! A merged model beside the adapter that it was made of.

use std::path::Path;

use burn::tensor::Tensor;
use reparam::ForwardContext;
use reparam_data::chat::Turns;
use reparam_data::source::{ChatOptions, ReadOptions};
use reparam_data::{Dataset, DatasetOptions, PackingStrategy, TooLong};
use reparam_formats::hub::HubOptions;
use serde::Serialize;

use super::{MergeError, MergeRequest};
use crate::config::Precision;
use crate::evaluate::{at_once, token_batch};
use crate::task::{DataRequest, ModelRequest};
use crate::{Result, Session, Stop, TrainError};

/// How close a merged model is to the base with the adapter beside it, both computed in f32.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Agreement {
    /// The mean Kullback-Leibler divergence of the merged model's next token from the adapter's, in nats.
    pub kl: f64,
    /// The largest one.
    pub max_kl: f64,
    /// The loss of the base with the adapter.
    pub loss: f64,
    /// The loss of the merged model.
    pub merged_loss: f64,
    /// The tokens that were predicted.
    pub tokens: u64,
}

/// Compares the two on texts.
pub(super) fn compare(
    request: &MergeRequest,
    data: &DataRequest,
    merged: &Path,
    hub: &HubOptions,
    stop: Stop<'_>,
) -> Result<Agreement> {
    let [(adapter, factor)] = request.adapters.as_slice() else {
        return Err(MergeError::ComparesOneAdapter.into());
    };
    if *factor != 1.0 {
        return Err(MergeError::ComparesOneAdapter.into());
    }
    let open = |model: ModelRequest| {
        let request = ModelRequest {
            precision: Precision::F32,
            ..model
        };
        Session::open_request(&request, hub)
    };
    let with_adapter = open(ModelRequest {
        adapter: Some(adapter.clone()),
        ..request.model.clone()
    })?;
    let merged = open(ModelRequest {
        model: merged.display().to_string(),
        adapter: None,
        ..request.model.clone()
    })?;
    compare_sessions(&with_adapter, &merged, data, request.sequence_length, stop)
}

/// Compares two models of one vocabulary on texts, in what they compute in.
pub(crate) fn compare_sessions(
    with_adapter: &Session,
    merged: &Session,
    data: &DataRequest,
    sequence_length: usize,
    stop: Stop<'_>,
) -> Result<Agreement> {
    let templates = with_adapter.chat_templates(data.chat_template.as_deref())?;
    let options = DatasetOptions {
        read: ReadOptions {
            chat: Some(ChatOptions {
                templates,
                turns: Turns::default(),
            }),
            ..data.text_options()?
        },
        train_on_prompt: false,
        sequence_length,
        packing: PackingStrategy::BestFitDecreasing,
        streams: None,
        too_long: TooLong::Cut,
        cache: None,
        weights: None,
    };
    let files = [data.path.clone()];
    let dataset = Dataset::build(&files, &with_adapter.tokenizer, &options, stop)?;
    let mut sums = Sums::default();
    let mut first = 0;
    while first < dataset.blocks.len() {
        stop.check()?;
        let rest = dataset.blocks[first..].iter();
        let count = at_once(rest.map(|block| block.n_tokens()));
        let batch = dataset.batch(&(first..first + count).collect::<Vec<_>>())?;
        first += count;
        let context = ForwardContext::inference();
        let logits = |session: &Session| {
            let logits = session.model.logits(token_batch(&batch), &context);
            let width = logits.dims()[1];
            (numbers(logits), width)
        };
        let (theirs, width) = logits(with_adapter);
        let (ours, _) = logits(merged);
        let rows = theirs.chunks_exact(width).zip(ours.chunks_exact(width));
        for ((theirs, ours), label) in rows.zip(&batch.labels) {
            if let Ok(label) = usize::try_from(*label) {
                sums.add(theirs, ours, label);
            }
        }
    }
    let agreement = sums.agreement();
    match agreement.kl.is_finite() && agreement.loss.is_finite() {
        true => Ok(agreement),
        false => Err(TrainError::LossNotFinite),
    }
}

fn numbers(logits: Tensor<2>) -> Vec<f32> {
    logits.into_data().iter::<f32>().collect()
}

#[derive(Debug, Default)]
struct Sums {
    kl: f64,
    most: f64,
    losses: [f64; 2],
    tokens: u64,
}

impl Sums {
    /// Adds a predicted token, in f64.
    fn add(&mut self, theirs: &[f32], ours: &[f32], label: usize) {
        let (p, q) = (log_softmax(theirs), log_softmax(ours));
        let terms = p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q));
        // What is below zero is rounding.
        let kl = terms.sum::<f64>().max(0.0);
        self.kl += kl;
        self.most = self.most.max(kl);
        for (sum, of) in self.losses.iter_mut().zip([&p, &q]) {
            *sum -= of.get(label).copied().unwrap_or(0.0);
        }
        self.tokens += 1;
    }

    fn agreement(&self) -> Agreement {
        let n = self.tokens.max(1) as f64;
        Agreement {
            kl: self.kl / n,
            max_kl: self.most,
            loss: self.losses[0] / n,
            merged_loss: self.losses[1] / n,
            tokens: self.tokens,
        }
    }
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let wide = || logits.iter().map(|logit| f64::from(*logit));
    let most = wide().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = wide().map(|logit| (logit - most).exp()).sum();
    let shift = most + sum.ln();
    wide().map(|logit| logit - shift).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_divergence_is_that_of_its_definition() {
        let mut sums = Sums::default();
        let logits = |p: [f64; 2]| p.map(|p| p.ln() as f32);
        sums.add(&logits([0.5, 0.5]), &logits([0.5, 0.5]), 0);
        sums.add(&logits([0.75, 0.25]), &logits([0.5, 0.5]), 1);
        let agreement = sums.agreement();
        let expected = 0.75 * 1.5_f64.ln() + 0.25 * 0.5_f64.ln();
        assert!((agreement.max_kl - expected).abs() < 1e-7, "{agreement:?}");
        assert!(
            (agreement.kl - expected / 2.0).abs() < 1e-7,
            "{agreement:?}"
        );
        let loss = (0.5_f64.ln() + 0.25_f64.ln()) / -2.0;
        assert!((agreement.loss - loss).abs() < 1e-7, "{agreement:?}");
        assert_eq!(agreement.tokens, 2);
    }
}
