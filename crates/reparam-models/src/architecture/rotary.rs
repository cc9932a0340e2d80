//! Rotary positions.

use std::borrow::Cow;

use reparam_formats::config::RopeScaling;

use crate::rope::{dynamic_theta, frequencies};

/// Rotary positions of one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct RotarySpec {
    /// Radians a token, one for each pair of rotated elements; the rotated elements are the first ones of a head.
    pub inverse_frequencies: Vec<f32>,
    /// The size of a head.
    pub head_dim: usize,
    /// What cosines and sines are multiplied by.
    pub attention_factor: f64,
    /// Whether the pairs that are rotated are neighbours, as in GPT-J; else half of what is rotated apart, as in Llama.
    pub interleaved: bool,
    /// What long sequences are turned by in place of `inverse_frequencies`.
    pub stretch: Option<StretchSpec>,
    /// The base that the frequencies are of.
    pub theta: f64,
    /// How they were made of it, for formats that say that.
    pub scaling: RopeScaling,
}

/// The frequencies of sequences of more than `beyond` tokens.
#[derive(Debug, Clone, PartialEq)]
pub enum StretchSpec {
    /// Those of LongRoPE.
    Fixed {
        /// The longest sequence, in tokens, that is turned as usual.
        beyond: usize,
        /// Radians a token, one for each pair.
        inverse_frequencies: Vec<f32>,
    },
    /// Those of a base that grows with the sequence.
    Dynamic {
        /// The longest sequence, in tokens, that is turned as usual.
        beyond: usize,
        /// The base of the frequencies up to there.
        theta: f64,
        /// The ratio of the new context length to the old one.
        factor: f64,
    },
}

impl RotarySpec {
    /// Returns the frequencies for a sequence of `length` tokens.
    pub fn frequencies(&self, length: usize) -> Cow<'_, [f32]> {
        match &self.stretch {
            Some(StretchSpec::Fixed {
                beyond,
                inverse_frequencies,
            }) if length > *beyond => Cow::Borrowed(inverse_frequencies),
            Some(StretchSpec::Dynamic {
                beyond,
                theta,
                factor,
            }) if length > *beyond => {
                let turned = 2 * self.inverse_frequencies.len();
                let ratio = length as f64 / *beyond as f64;
                Cow::Owned(frequencies(
                    dynamic_theta(*theta, *factor, ratio, turned),
                    turned,
                ))
            }
            _ => Cow::Borrowed(&self.inverse_frequencies),
        }
    }

    /// Whether long sequences have a length and as many frequencies.
    pub(super) fn stretch_fits(&self) -> bool {
        match &self.stretch {
            Some(StretchSpec::Fixed {
                inverse_frequencies,
                ..
            }) => inverse_frequencies.len() == self.inverse_frequencies.len(),
            Some(StretchSpec::Dynamic { beyond, .. }) => *beyond > 0,
            None => true,
        }
    }

    /// Returns whether the first tokens of a sequence are turned otherwise once it has grown from `before` to `after` tokens.
    pub fn changes(&self, before: usize, after: usize) -> bool {
        match &self.stretch {
            Some(StretchSpec::Fixed { beyond, .. }) => before <= *beyond && after > *beyond,
            Some(StretchSpec::Dynamic { beyond, .. }) => after > before && after > *beyond,
            None => false,
        }
    }
}
