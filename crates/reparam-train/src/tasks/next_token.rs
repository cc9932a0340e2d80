//! Why a language model goes on as it does.

use burn::module::Module;
use burn::tensor::Tensor;
use reparam::ForwardContext;
use reparam_data::rows::softmax;
use reparam_formats::hub::HubOptions;
use reparam_models::{CausalLm, TokenBatch};

use super::causal_lm::TrainedTexts;
use crate::config::Precision;
use crate::explain::{ExplainRequest, Explanation, Input, Shown, Subject, attribute};
use crate::task::ModelRequest;
use crate::{Result, Session, Stop, TrainError};

/// Explains the tokens that come next, each by those before it: those of the target, else the most likely ones.
pub(super) fn explain(
    task: &'static str,
    request: &ExplainRequest,
    hub: &HubOptions,
    stop: Stop<'_>,
) -> Result<Vec<Explanation>> {
    request.refuse(task, &["--max-new-tokens"])?;
    // Fused operations have no vectors of tokens to vary.
    let model = ModelRequest {
        precision: Precision::F32,
        ..request.model.clone()
    };
    let session = Session::open_request(&model, hub)?;
    let tokenizer = &session.tokenizer;
    let trained = TrainedTexts::of(&model, &session, hub)?;
    let text = trained.prepared(&request.text);
    let encoded = tokenizer.encode_spans(&text, None, usize::MAX)?;
    let mut shown = Shown::of_spans(&encoded, &text, None);
    let mut ids = encoded.row.ids;
    if ids.is_empty() {
        return Err(TrainError::NothingToExplain {
            problem: "the text has no tokens".to_owned(),
        });
    }
    let wanted = match &request.target {
        Some(text) => {
            let begins = text.starts_with(char::is_whitespace);
            let text = trained.prepared(text);
            // It goes on behind the text.
            let goes_on = match begins && !text.starts_with(char::is_whitespace) {
                true => format!(" {text}"),
                false => text.into_owned(),
            };
            Some(tokenizer.encode(&goes_on, false)?)
        }
        None => None,
    };
    let asked_for = request.max_new_tokens.unwrap_or(1);
    let count = wanted.as_ref().map_or(asked_for, Vec::len);
    let most = ids.len().saturating_add(count);
    session.model.check_length(most.saturating_sub(1).max(1))?;
    if let Some(most) = request.sequence_length.filter(|most| ids.len() > *most) {
        return Err(TrainError::NothingToExplain {
            problem: format!("the text has {} tokens, more than {most}", ids.len()),
        });
    }
    let mut subject = OfNext {
        model: session.model.train(),
        token: 0,
    };
    let mut explanations = Vec::new();
    for number in 0..count {
        stop.check()?;
        let input = Input {
            types: vec![0; ids.len()],
            ids: ids.clone(),
            place: None,
        };
        let logits = subject.logits(&input);
        let token = match &wanted {
            Some(wanted) => wanted[number],
            None => largest(&logits) as u32,
        };
        subject.token = token;
        let asked = request.asked(tokenizer, &shown.words);
        let found = attribute(&subject, &input, asked, stop)?;
        let probability = softmax(&logits)[token as usize];
        let text = tokenizer.decode(&[token], false)?;
        let made = (request.method, text.clone());
        explanations.push(shown.explained((tokenizer, &input.ids), made, found, probability));
        if wanted.is_none() && session.end_of_text.contains(&token) {
            break;
        }
        ids.push(token);
        shown.push(text);
    }
    Ok(explanations)
}

/// The place of the largest number, of equal ones the first.
pub(super) fn largest<T: PartialOrd>(numbers: &[T]) -> usize {
    let better = |best: usize, place: usize| match numbers[place] > numbers[best] {
        true => place,
        false => best,
    };
    (0..numbers.len()).reduce(better).unwrap_or(0)
}

/// The logit of a token behind the last one.
struct OfNext {
    model: CausalLm,
    token: u32,
}

/// Inputs one after the other, as a model takes them.
struct Sequences {
    ids: Vec<u32>,
    positions: Vec<u32>,
    bounds: Vec<usize>,
}

impl Sequences {
    fn of(inputs: &[&Input]) -> Self {
        let mut all = Self {
            ids: Vec::new(),
            positions: Vec::new(),
            bounds: vec![0],
        };
        for input in inputs {
            all.ids.extend(&input.ids);
            all.positions.extend(0..input.ids.len() as u32);
            all.bounds.push(all.ids.len());
        }
        all
    }

    fn batch(&self) -> TokenBatch<'_> {
        TokenBatch {
            input_ids: &self.ids,
            position_ids: &self.positions,
            bounds: &self.bounds,
        }
    }
}

impl OfNext {
    /// The logits of all tokens.
    fn logits(&self, input: &Input) -> Vec<f32> {
        let sequences = Sequences::of(&[input]);
        let logits = self
            .model
            .logits(sequences.batch(), &ForwardContext::inference());
        let last = logits.narrow(0, input.ids.len() - 1, 1);
        last.into_data().iter::<f32>().collect()
    }
}

impl Subject for OfNext {
    fn vectors(&self, ids: &[u32]) -> Option<Tensor<2>> {
        self.model.token_vectors(ids)
    }

    fn scores(&self, vectors: Tensor<2>, inputs: &[&Input]) -> Tensor<1> {
        let sequences = Sequences::of(inputs);
        let (batch, context) = (sequences.batch(), ForwardContext::inference());
        let logits = self.model.last_logits_of_vectors(vectors, batch, &context);
        let own = logits.narrow(1, self.token as usize, 1);
        own.reshape([inputs.len()])
    }

    fn attention(&self, input: &Input) -> Option<Vec<Tensor<3>>> {
        let sequences = Sequences::of(&[input]);
        let context = ForwardContext::inference();
        self.model.attention_weights(sequences.batch(), &context)
    }

    fn readout(&self, input: &Input) -> Vec<f64> {
        let n = input.ids.len();
        let is_last = |token: usize| f64::from(u8::from(token + 1 == n));
        (0..n).map(is_last).collect()
    }
}
