//! Why a model with a head says what it says of a row.

use burn::module::Module;
use burn::tensor::Tensor;
use reparam::ForwardContext;
use reparam_data::EncodedRow;
use reparam_data::rows::{LabelKind, RowBatch, sigmoid, softmax};
use reparam_formats::hub::HubOptions;
use reparam_models::Predictor;
use reparam_models::architecture::Pooling;

use super::measure::{encoder, row_tokens};
use super::open::Opened;
use super::preprocess::preprocessor;
use super::{RowTask, Rules};
use crate::explain::{ExplainRequest, Explanation, Input, Subject, attribute};
use crate::{Result, Stop, TrainError};

/// Explains a row.
pub(super) fn explain<T: RowTask>(
    request: &ExplainRequest,
    hub: &HubOptions,
    stop: Stop<'_>,
) -> Result<Vec<Explanation>> {
    let Some(options) = T::EXPLAINED else {
        return Err(TrainError::not_for_task(T::NAME, "explained"));
    };
    request.refuse(T::NAME, options)?;
    let opened = Opened::open::<T>(&request.model, hub)?;
    let encoder = encoder::<T>(&opened, request.sequence_length, stop);
    // What is done to texts before they become tokens is done to this one.
    let mut request = request.clone();
    if let Some(steps) = preprocessor(&opened.rules.settings)? {
        let texts = [Some(&mut request.text), request.pair.as_mut()];
        for text in texts.into_iter().flatten() {
            *text = steps.apply(text).into_owned();
        }
    }
    let request = &request;
    let (row, shown, place) = T::to_explain(request, &encoder)?;
    if row.truncated {
        let most = encoder.length;
        let warnings = &request.model.warnings;
        warnings.add(format!("the text is cut to {most} tokens"));
    }
    opened.base.check_type_ids(row.type_ids.iter().copied())?;
    let input = Input {
        ids: row.ids,
        types: row.type_ids,
        place,
    };
    let (tokenizer, rules) = (&opened.base.tokenizer, &opened.rules);
    let mut subject = OfPredictor {
        model: opened.model.train(),
        class: 0,
    };
    let logits = subject.logits(&input);
    subject.class = class(request.target.as_deref(), &logits, rules)?;
    let probability = match rules.labels.kind() {
        LabelKind::One => softmax(&logits)[subject.class],
        LabelKind::Several => sigmoid(logits[subject.class]),
    };
    let asked = request.asked(tokenizer, &shown.words);
    let found = attribute(&subject, &input, asked, stop)?;
    let target = rules.labels.names()[subject.class].clone();
    let made = (request.method, target);
    let explanation = shown.explained((tokenizer, &input.ids), made, found, probability);
    Ok(vec![explanation])
}

/// The class of a name, or the one with the largest logit.
fn class(name: Option<&str>, logits: &[f32], rules: &Rules) -> Result<usize> {
    let names = rules.labels.names();
    let Some(name) = name else {
        let largest = |best: usize, class: usize| match logits[class] > logits[best] {
            true => class,
            false => best,
        };
        return Ok((0..names.len()).reduce(largest).unwrap_or(0));
    };
    let class = names.iter().position(|own| own == name);
    class.ok_or_else(|| TrainError::NoSuchLabel {
        label: name.to_owned(),
        labels: names.to_vec(),
    })
}

/// The logit of a class.
struct OfPredictor {
    model: Predictor,
    class: usize,
}

impl OfPredictor {
    /// The logits of all classes.
    fn logits(&self, input: &Input) -> Vec<f32> {
        let batch = batch(&[input]);
        let outputs = self
            .model
            .outputs(row_tokens(&batch), &ForwardContext::inference());
        let row = outputs.narrow(0, input.place.unwrap_or(0), 1);
        row.into_data().iter::<f32>().collect()
    }
}

fn batch(inputs: &[&Input]) -> RowBatch {
    let rows: Vec<EncodedRow> = inputs
        .iter()
        .map(|input| EncodedRow {
            ids: input.ids.clone(),
            type_ids: input.types.clone(),
            truncated: false,
        })
        .collect();
    RowBatch::concat(&rows)
}

impl Subject for OfPredictor {
    fn vectors(&self, ids: &[u32]) -> Option<Tensor<2>> {
        self.model.token_vectors(ids)
    }

    fn scores(&self, vectors: Tensor<2>, inputs: &[&Input]) -> Tensor<1> {
        let batch = batch(inputs);
        let (rows, context) = (row_tokens(&batch), ForwardContext::inference());
        let outputs = self.model.outputs_of_vectors(vectors, rows, &context);
        let starts = batch.bounds.iter().zip(inputs).enumerate();
        let scores = starts.map(|(row, (start, input))| {
            let row = input.place.map_or(row, |place| start + place);
            outputs
                .clone()
                .slice([row..row + 1, self.class..self.class + 1])
        });
        Tensor::cat(scores.collect(), 0).reshape([inputs.len()])
    }

    fn attention(&self, input: &Input) -> Option<Vec<Tensor<3>>> {
        let batch = batch(&[input]);
        let context = ForwardContext::inference();
        self.model.attention_weights(row_tokens(&batch), &context)
    }

    fn readout(&self, input: &Input) -> Vec<f64> {
        let n = input.ids.len();
        let at = |place: usize| {
            (0..n)
                .map(|token| f64::from(u8::from(token == place)))
                .collect()
        };
        match (self.model.spec.pooling, input.place) {
            (Pooling::Each, Some(place)) => at(place),
            (Pooling::Mean, _) => vec![1.0 / n as f64; n],
            _ => at(0),
        }
    }
}
