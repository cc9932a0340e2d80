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
    /// What hidden states are multiplied by before the head.
    pub head_factor: Option<f64>,
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

/// A bias of the scores of self-attention by head and distance, which all layers of a stack share:
///
/// ```text
/// score_ij += table[bucket(j - i), head]
/// ```
///
/// Near distances have a bucket each, far ones share buckets whose widths grow with the distance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelativeSpec {
    /// The path of the table, `[buckets, heads]`.
    pub path: String,
    /// The number of buckets.
    pub buckets: usize,
    /// From this distance on, all are in the last bucket.
    pub max_distance: usize,
    /// Whether keys after the query have buckets of their own: half of them.
    pub bidirectional: bool,
}

impl RelativeSpec {
    /// Returns the bucket of a key that is `distance` after its query.
    ///
    /// # References
    ///
    /// Raffel et al., *Exploring the Limits of Transfer Learning* (arXiv 1910.10683), section 2.1; the rounding is that of
    /// transformers.
    pub fn bucket(&self, distance: isize) -> u32 {
        let (mut buckets, mut first) = (self.buckets, 0);
        if self.bidirectional {
            buckets /= 2;
            if distance > 0 {
                first = buckets;
            }
        }
        let distance = match self.bidirectional {
            true => distance.unsigned_abs(),
            false => distance.min(0).unsigned_abs(),
        };
        let exact = buckets / 2;
        let bucket = if distance < exact {
            distance
        } else {
            let share = (distance as f32 / exact as f32).ln();
            let whole = (self.max_distance as f64 / exact as f64).ln() as f32;
            let far = share / whole * (buckets - exact) as f32;
            // A distance beyond all numbers ends in the last bucket, too.
            exact
                .saturating_add(far as usize)
                .min(buckets.saturating_sub(1))
        };
        (first + bucket) as u32
    }

    pub(super) fn check(&self) -> Option<String> {
        let sides = if self.bidirectional { 2 } else { 1 };
        let exact = self.buckets / sides / 2;
        let fits = exact > 0 && self.max_distance > exact && u32::try_from(self.buckets).is_ok();
        (!fits).then(|| "the buckets of its relative positions do not fit together".to_owned())
    }
}
