//! Continuing a prompt, as text that comes piece by piece.

use std::ops::ControlFlow;
use std::time::Instant;

use reparam_data::TextTokenizer;
use reparam_models::{CausalLm, Sampling, StopReason};
use serde::Serialize;

use crate::memory::check_fits;
use crate::warnings::beyond_positions;
use crate::{Session, Stop, TrainError};

/// A generated text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Generated {
    /// What was added to the prompt.
    pub text: String,
    /// The ids of the added tokens.
    pub tokens: Vec<u32>,
    /// The number of tokens of the prompt.
    pub prompt_tokens: usize,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Added tokens a second after the first, which the prompt has to be read for.
    pub tokens_per_s: f64,
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model said so.
    EndOfText,
    /// It has as many tokens as were asked for.
    MaxNewTokens,
    /// The reader wanted no more, or the work was asked to stop.
    Stopped,
}

impl Session {
    /// Continues a prompt, encoded as the tokenizer's own template does, and hands the text out piece by piece until
    /// it is told to break off.
    ///
    /// # Errors
    ///
    /// Fails when the prompt encodes to nothing or a sampling setting is out of range.
    pub fn generate(
        &self,
        prompt: &str,
        max_new_tokens: usize,
        sampling: Sampling,
        stop: Stop<'_>,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generated, TrainError> {
        let (model, tokenizer) = (&self.model, &self.tokenizer);
        let n_tokens = tokenizer
            .encode(prompt, true)?
            .len()
            .saturating_add(max_new_tokens);
        self.warnings
            .extend(beyond_positions(model.architecture(), n_tokens));
        let request = (prompt, max_new_tokens, sampling);
        let work = || generate(model, tokenizer, &self.end_of_text, request, stop, on_text);
        self.runtime.run(work)?
    }
}

/// [`Session::generate`] of a model that is no session's; the prompt, the most tokens and how they are drawn.
pub(crate) fn generate(
    model: &CausalLm,
    tokenizer: &TextTokenizer,
    end_of_text: &[u32],
    (prompt, max_new_tokens, sampling): (&str, usize, Sampling),
    stop: Stop<'_>,
    on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Generated, TrainError> {
    let prompt = tokenizer.encode(prompt, true)?;
    let kept = model.cache_bytes(prompt.len().saturating_add(max_new_tokens));
    check_fits(&[("the number of new tokens", kept)])?;
    let mut generation = model.generate(&prompt, max_new_tokens, sampling, end_of_text)?;
    let started = Instant::now();
    let mut first_token = None;
    let mut decoder = tokenizer.stream_decoder(true);
    decoder.skip(&prompt)?;
    let mut text = String::new();
    let mut tokens = Vec::new();
    let mut stopped = stop.is_requested();
    while !stopped && let Some(token) = generation.next().transpose()? {
        tokens.push(token);
        first_token.get_or_insert_with(Instant::now);
        if let Some(piece) = decoder.push(token)? {
            stopped = on_text(&piece).is_break();
            text.push_str(&piece);
        }
        stopped |= stop.is_requested();
    }
    if !stopped && let Some(piece) = decoder.finish()? {
        // What the reader says to the last piece changes nothing.
        let _ = on_text(&piece);
        text.push_str(&piece);
    }
    let finish_reason = match generation.stop_reason() {
        _ if stopped => FinishReason::Stopped,
        Some(StopReason::EndOfText) => FinishReason::EndOfText,
        _ => FinishReason::MaxNewTokens,
    };
    // The first token comes with reading the prompt, which is another speed.
    let tokens_per_s = match first_token {
        Some(first) if tokens.len() > 1 => {
            (tokens.len() - 1) as f64 / first.elapsed().as_secs_f64()
        }
        _ => tokens.len() as f64 / started.elapsed().as_secs_f64(),
    };
    Ok(Generated {
        tokens_per_s,
        text,
        tokens,
        prompt_tokens: prompt.len(),
        finish_reason,
    })
}
