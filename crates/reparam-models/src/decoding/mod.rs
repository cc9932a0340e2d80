//! Writing targets for a source, as transformers' `generate` does.

mod config;
mod scores;
mod search;

use burn::tensor::TensorData;

pub use config::{DecodingConfig, EarlyStopping};

use crate::cache::KvCache;
use crate::layers::Source;
use crate::{ModelError, Seq2SeqLm, TokenBatch};

/// A target that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// The tokens after the start token, with the one that ends them.
    pub tokens: Vec<u32>,
    /// The log-likelihood divided by a power of the length, of a search with several beams.
    pub score: Option<f32>,
}

impl Seq2SeqLm {
    /// Writes targets for each of several sources, one after the other: see [`generate`](Self::generate).
    ///
    /// # Errors
    ///
    /// Those of [`generate`](Self::generate), of the first source that has one.
    pub fn generate_all<'a>(
        &self,
        sources: impl IntoIterator<Item = &'a [u32]>,
        config: &DecodingConfig,
        stopped: impl Fn() -> bool,
    ) -> Result<Vec<Vec<Hypothesis>>, ModelError> {
        let sources = sources.into_iter();
        sources
            .map(|source| self.generate(source, config, &stopped))
            .collect()
    }

    /// Writes targets for a source, the best first: token by token with one beam, else by beam search. `stopped` is asked before
    /// each token.
    ///
    /// The tokens are those of `generate` in transformers for the source alone, as far as rounding does not decide between two and
    /// none is drawn; what is drawn follows from the seed, the stream and the source.
    ///
    /// # Errors
    ///
    /// [`ModelError::EmptyPrompt`] without a source, [`ModelError::TooLong`], those of [`DecodingConfig::check`],
    /// [`ModelError::NonFinite`], and [`ModelError::Stopped`].
    ///
    /// # Cost
    ///
    /// The source is read once. A token costs a pass of the decoder over one token of each beam; keys and values of all beams are
    /// kept, those of the source once; of recurrent layers their states. Additive attention makes the keys of the source again for
    /// each token. Generate from `valid()` of a model that is trained: else everything is kept for a backward pass.
    pub fn generate(
        &self,
        source: &[u32],
        config: &DecodingConfig,
        stopped: impl Fn() -> bool,
    ) -> Result<Vec<Hypothesis>, ModelError> {
        config.check(self.architecture().vocab_size)?;
        if source.is_empty() {
            return Err(ModelError::EmptyPrompt);
        }
        // The last token is never fed.
        self.check_lengths(source.len(), config.max_new_tokens)?;
        let positions: Vec<u32> = (0..source.len() as u32).collect();
        let batch = TokenBatch {
            input_ids: source,
            position_ids: &positions,
            bounds: &[0, source.len()],
        };
        let mut decoder = Decoder {
            model: self,
            source: self.read_for(batch, config.num_beams),
            cache: self.new_cache(config.num_beams, config.max_new_tokens),
            stopped: &stopped,
        };
        match config.num_beams {
            1 => Ok(vec![search::one_by_one(&mut decoder, config)?]),
            _ => search::beams(&mut decoder, config),
        }
    }
}

/// A decoder at work on the targets of one source.
struct Decoder<'a> {
    model: &'a Seq2SeqLm,
    source: Source,
    cache: KvCache,
    stopped: &'a dyn Fn() -> bool,
}

impl Decoder<'_> {
    /// Feeds the next token of each target; the logits of all, one after the other.
    fn next(&mut self, tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        if (self.stopped)() {
            return Err(ModelError::Stopped);
        }
        let position = self.cache.len();
        let logits = self
            .model
            .next_logits(tokens, &self.source, &mut self.cache);
        let logits: TensorData = logits.into_data().convert::<f32>();
        let logits = logits.as_slice::<f32>().expect("converted above").to_vec();
        match logits.iter().all(|x| x.is_finite()) {
            true => Ok(logits),
            false => Err(ModelError::NonFinite { position }),
        }
    }
}
