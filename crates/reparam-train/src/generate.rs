//! Continuing a prompt, as text that comes piece by piece.

use std::ops::ControlFlow;
use std::time::Instant;

use reparam_data::TextTokenizer;
use reparam_models::{CausalLm, Sampling, StopReason, TextRead};
use serde::Serialize;

use crate::memory::check_fits;
use crate::warnings::beyond_positions;
use crate::{Session, Stop, TrainError};

/// How many tokens of a prompt are read before somebody may ask to stop: well below a second of a small model, and enough for
/// products of matrices to be as fast as for a whole prompt.
const PROMPT_PART: usize = 512;

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
    /// it is told to break off. The first piece is empty and comes before the prompt is read, when
    /// [`warnings`](Self::warnings) has what there is to say of it.
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
        let request = Request {
            prompt: self.tokenizer.encode(prompt, true)?,
            max_new_tokens,
            sampling,
            end_of_text: &self.end_of_text,
            closing: None,
            read: None,
        };
        Ok(self.generate_tokens(request, stop, on_text)?.0)
    }

    /// Continues tokens; returns also what was read.
    pub(crate) fn generate_tokens(
        &self,
        request: Request<'_>,
        stop: Stop<'_>,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(Generated, TextRead), TrainError> {
        let (model, tokenizer) = (&self.model, &self.tokenizer);
        let n_tokens = request.prompt.len().saturating_add(request.max_new_tokens);
        self.warnings
            .extend(beyond_positions(model.architecture(), n_tokens));
        let work = || generate_tokens(model, tokenizer, request, stop, on_text);
        self.runtime.run(work)?
    }
}

/// What is to be continued, and how.
pub(crate) struct Request<'a> {
    pub(crate) prompt: Vec<u32>,
    pub(crate) max_new_tokens: usize,
    pub(crate) sampling: Sampling,
    /// The tokens that end the text.
    pub(crate) end_of_text: &'a [u32],
    /// A text that ends the text, and is none of it.
    pub(crate) closing: Option<&'a str>,
    /// What was read before.
    pub(crate) read: Option<TextRead>,
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
    let request = Request {
        prompt: tokenizer.encode(prompt, true)?,
        max_new_tokens,
        sampling,
        end_of_text,
        closing: None,
        read: None,
    };
    Ok(generate_tokens(model, tokenizer, request, stop, on_text)?.0)
}

fn generate_tokens(
    model: &CausalLm,
    tokenizer: &TextTokenizer,
    request: Request<'_>,
    stop: Stop<'_>,
    on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<(Generated, TextRead), TrainError> {
    let Request {
        prompt,
        max_new_tokens,
        sampling,
        end_of_text,
        closing,
        read,
    } = request;
    let kept = model.cache_bytes(prompt.len().saturating_add(max_new_tokens));
    check_fits(&[("the number of new tokens", kept)])?;
    let mut generation =
        model.generate_behind(read, &prompt, max_new_tokens, sampling, end_of_text)?;
    let started = Instant::now();
    let mut first_token = None;
    let mut decoder = tokenizer.stream_decoder(true);
    decoder.skip(&prompt)?;
    let mut closing = Closing::new(closing);
    let mut text = String::new();
    let mut tokens = Vec::new();
    let mut stopped = on_text("").is_break() || stop.is_requested();
    while !stopped && generation.read_ahead(PROMPT_PART) {
        stopped = stop.is_requested();
    }
    let mut say = |piece: &str, text: &mut String| {
        if piece.is_empty() {
            return false;
        }
        text.push_str(piece);
        on_text(piece).is_break()
    };
    while !stopped
        && !closing.is_found
        && let Some(token) = generation.next().transpose()?
    {
        tokens.push(token);
        first_token.get_or_insert_with(Instant::now);
        if let Some(piece) = decoder.push(token)? {
            stopped = say(&closing.push(&piece), &mut text);
        }
        stopped |= stop.is_requested();
    }
    if !stopped {
        // What the reader says to the last pieces changes nothing.
        if let Some(piece) = decoder.finish()?.filter(|_| !closing.is_found) {
            say(&closing.push(&piece), &mut text);
        }
        say(&closing.rest(), &mut text);
    }
    let finish_reason = match generation.stop_reason() {
        _ if stopped => FinishReason::Stopped,
        _ if closing.is_found => FinishReason::EndOfText,
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
    let generated = Generated {
        tokens_per_s,
        text,
        tokens,
        prompt_tokens: prompt.len(),
        finish_reason,
    };
    Ok((generated, generation.into_read()))
}

/// Looks for a text that ends the text, which may come in pieces.
struct Closing<'a> {
    text: Option<&'a str>,
    /// What may be its beginning.
    held: String,
    is_found: bool,
}

impl<'a> Closing<'a> {
    fn new(text: Option<&'a str>) -> Self {
        Self {
            text: text.filter(|text| !text.is_empty()),
            held: String::new(),
            is_found: false,
        }
    }

    /// Takes a piece, and returns what surely comes before the end.
    fn push(&mut self, piece: &str) -> String {
        let Some(closing) = self.text else {
            return piece.to_owned();
        };
        self.held.push_str(piece);
        if let Some(at) = self.held.find(closing) {
            self.is_found = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let longest = closing.len().min(self.held.len() + 1);
        let is_beginning = |bytes: &usize| {
            closing.is_char_boundary(*bytes) && self.held.ends_with(&closing[..*bytes])
        };
        let kept = (1..longest).rev().find(is_beginning).unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - kept);
        std::mem::replace(&mut self.held, rest)
    }

    /// Returns what was held back, once there is no more to come.
    fn rest(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_ends_the_text_is_found_in_pieces() {
        for (closing, pieces, said, is_found) in [
            (None, &["a", "b"][..], &["a", "b", ""][..], false),
            (Some("<end>"), &["a<end>b"], &["a", ""], true),
            (Some("<end>"), &["a<", "en", "d>"], &["a", "", "", ""], true),
            (
                Some("<end>"),
                &["a<", "en", "x<e"],
                &["a", "", "<enx", "<e"],
                false,
            ),
            (Some("é!"), &["é", "é!"], &["", "é", ""], true),
            (Some("aab"), &["aa", "ab"], &["", "a", ""], true),
        ] {
            let mut found = Closing::new(closing);
            let mut all: Vec<String> = pieces.iter().map(|piece| found.push(piece)).collect();
            all.push(found.rest());
            assert_eq!(
                (&all[..], found.is_found),
                (
                    &said.iter().map(ToString::to_string).collect::<Vec<_>>()[..],
                    is_found
                ),
                "{closing:?}"
            );
        }
    }
}
