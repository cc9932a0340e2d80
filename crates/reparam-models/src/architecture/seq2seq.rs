//! What an encoder-decoder has besides its decoder.

use super::{Architecture, AttentionSpec, NormsSpec};

/// An encoder-decoder: the [`Architecture`] that has this describes its decoder.
///
/// ```text
/// s      = norm(encoder(source))
/// h      = norm(decoder(target, s))
/// logits = factor * head(h) + bias
/// ```
///
/// Both stacks have one table of token vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct Seq2SeqSpec {
    /// The class of transformers, as in `architectures`.
    pub class: &'static str,
    /// The encoder. Its own table of token vectors and its head are not used.
    pub encoder: Architecture,
    /// The token that the decoder begins with.
    pub decoder_start: u32,
    /// Whether it begins with the last label of the target instead where it learns: the code of its language.
    pub last_starts: bool,
    /// The token whose vector learns nothing from where it stands in a target, as torch's `padding_idx`.
    pub unlearned: Option<u32>,
    /// The probability of the dropout behind the last norm of both stacks; `None` if the family has none there.
    pub output_dropout: Option<f64>,
    /// The name of what is added to the logits, `[1, vocab]`, in the class with the head; it is not trained, and zero where a
    /// checkpoint has none.
    pub logits_bias: Option<&'static str>,
    /// The paths, inside of the body, at which checkpoints may have copies of the table of token vectors.
    pub table_copies: Vec<&'static str>,
}

/// Attention of a decoder to the hidden states of the encoder: `h' = after(h + inside(f(before(h), source)))`.
#[derive(Debug, Clone, PartialEq)]
pub struct CrossSpec {
    /// Attention; queries are of the decoder, keys and values of the encoder. It is not causal.
    pub attention: AttentionSpec,
    /// The norms around it.
    pub norms: NormsSpec,
}

impl CrossSpec {
    pub(super) fn check(&self) -> Option<String> {
        let AttentionSpec {
            inputs,
            causal,
            window,
            rotary,
            ..
        } = &self.attention;
        let is_plain = inputs.len() == 3 && !causal && window.is_none() && rotary.is_none();
        (!is_plain).then(|| {
            "attention to the source has three inputs and neither a mask nor rotary positions"
                .to_owned()
        })
    }
}
