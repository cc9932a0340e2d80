//! Continuing a text, token by token.

use burn::tensor::TensorData;

use crate::sampling::Sampler;
use crate::{CausalLm, KvCache, ModelError, Sampling};

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The model produced an end-of-text token.
    EndOfText,
    /// The asked number of tokens was reached.
    MaxNewTokens,
}

/// A running generation: an iterator over the new tokens.
#[derive(Debug)]
pub struct Generation<'a> {
    model: &'a CausalLm,
    cache: KvCache,
    /// The tokens that the cache has seen.
    seen: Vec<u32>,
    sampler: Sampler,
    /// The tokens that the model has not seen yet.
    pending: Vec<u32>,
    remaining: usize,
    end_of_text: Vec<u32>,
    stop: Option<StopReason>,
}

/// What a model has read of a text, so that a longer one that begins alike is read from there on.
#[derive(Debug, Clone)]
pub struct TextRead {
    cache: KvCache,
    tokens: Vec<u32>,
}

impl TextRead {
    /// Returns the tokens that were read.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }
}

impl CausalLm {
    /// Starts to continue a prompt.
    ///
    /// `end_of_text` are the tokens that end the text; they are not yielded.
    ///
    /// # Errors
    ///
    /// Fails when the prompt holds no token, a sampling setting is out of range, or the model has no positions for so many
    /// tokens.
    pub fn generate(
        &self,
        prompt: &[u32],
        max_new_tokens: usize,
        sampling: Sampling,
        end_of_text: &[u32],
    ) -> Result<Generation<'_>, ModelError> {
        self.generate_behind(None, prompt, max_new_tokens, sampling, end_of_text)
    }

    /// [`generate`](Self::generate) behind what was read before: where the prompt begins with it, only the rest is read.
    ///
    /// # Errors
    ///
    /// As that.
    pub fn generate_behind(
        &self,
        read: Option<TextRead>,
        prompt: &[u32],
        max_new_tokens: usize,
        sampling: Sampling,
        end_of_text: &[u32],
    ) -> Result<Generation<'_>, ModelError> {
        sampling.check()?;
        if prompt.is_empty() {
            return Err(ModelError::EmptyPrompt);
        }
        let n_tokens = prompt.len().saturating_add(max_new_tokens);
        self.check_length(n_tokens)?;
        // One token at least has to be read, for what follows it.
        let begins =
            |read: &TextRead| read.tokens.len() < prompt.len() && prompt.starts_with(&read.tokens);
        let TextRead { mut cache, tokens } = read.filter(begins).unwrap_or_else(|| TextRead {
            cache: self.new_cache(n_tokens),
            tokens: Vec::new(),
        });
        cache.make_room(n_tokens);
        Ok(Generation {
            model: self,
            cache,
            sampler: Sampler::new(sampling),
            pending: prompt[tokens.len()..].to_vec(),
            seen: tokens,
            remaining: max_new_tokens,
            end_of_text: end_of_text.to_vec(),
            stop: None,
        })
    }
}

impl Generation<'_> {
    /// Reads at most so many tokens of what is left of the prompt, but for its last one; returns whether there were some.
    ///
    /// A long prompt is read in parts by calling this until there is nothing left, so that whoever reads it can do something else in
    /// between. The tokens that follow are those of a prompt that is read at once, up to rounding. Where a longer text turns the
    /// positions of all of it (rotary positions of the types `longrope` and `dynamic`), nothing is read ahead, for each part would be read
    /// again with the next one.
    ///
    /// # Cost
    ///
    /// As [`CausalLm::next_logits`] of that many tokens.
    pub fn read_ahead(&mut self, most: usize) -> bool {
        let rotary = &self.model.architecture().rotary;
        let left = self.pending.len().saturating_sub(1).min(most);
        if left == 0 || rotary.iter().any(|rotary| rotary.stretch.is_some()) {
            return false;
        }
        let rest = self.pending.split_off(left);
        let mut part = std::mem::replace(&mut self.pending, rest);
        let _ = self.model.next_logits(&part, &mut self.cache);
        self.seen.append(&mut part);
        true
    }

    /// Returns why the generation ended, once it has.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.stop
    }

    /// Returns what was read, for a text that goes on.
    pub fn into_read(self) -> TextRead {
        TextRead {
            cache: self.cache,
            tokens: self.seen,
        }
    }

    fn advance(&mut self) -> Result<Option<u32>, ModelError> {
        if self.stop.is_some() {
            return Ok(None);
        }
        if self.remaining == 0 {
            self.stop = Some(StopReason::MaxNewTokens);
            return Ok(None);
        }
        self.remaining -= 1;
        let logits = self.model.next_logits(&self.pending, &mut self.cache);
        self.seen.append(&mut self.pending);
        let logits: TensorData = logits.into_data().convert::<f32>();
        let logits = logits.as_slice::<f32>().unwrap_or_default();
        let position = self.cache.len() - 1;
        let token = self
            .sampler
            .choose(logits)
            .ok_or(ModelError::NonFinite { position })?;
        if self.end_of_text.contains(&token) {
            self.stop = Some(StopReason::EndOfText);
            return Ok(None);
        }
        self.pending = vec![token];
        Ok(Some(token))
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<u32, ModelError>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.advance();
        if result.is_err() {
            // An error ends the iteration; what comes after it would be meaningless.
            self.stop = Some(StopReason::MaxNewTokens);
        }
        result.transpose()
    }
}
