//! Masking tokens that a masked language model is to guess.
//!
//! Of the tokens of a text a share is chosen; of those, 8 in 10 become the mask token, 1 in 10 a random token, and 1 in 10 stay as
//! they are (Devlin et al., "BERT", arXiv 1810.04805, section 3.1 and appendix A.1). What is chosen is a function of the seed, the
//! pass and the piece alone.

use std::ops::Range;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;

use crate::error::{DataError, Result};
use crate::order::{below, unit};
use crate::source::Document;
use crate::tokenizer::{EncodedPiece, TextTokenizer};
use crate::watch::{Phase, Watch};

#[cfg(test)]
mod tests;

/// Keeps this stream apart from every other use of the same seed.
const DOMAIN: &[u8; 8] = b"masks v1";

/// The documents that are encoded between two looks at the watch.
const AT_ONCE: usize = 256;

/// Encodes documents in pieces of at most `max_length` tokens, see [`TextTokenizer::encode_pieces`].
///
/// # Errors
///
/// [`DataError::Interrupted`] when `watch` asks for it, and a document that cannot be encoded, with its place.
pub fn document_pieces(
    documents: &[Document],
    tokenizer: &TextTokenizer,
    max_length: usize,
    watch: Watch<'_>,
) -> Result<Vec<Vec<EncodedPiece>>> {
    let total = documents.len() as u64;
    let mut pieces = Vec::with_capacity(documents.len());
    for some in documents.chunks(AT_ONCE) {
        watch.check()?;
        watch.at(Phase::Tokenizing, pieces.len() as u64, total);
        let encoded = some.par_iter().map(|document| {
            let encoded = tokenizer.encode_pieces(&document.text, max_length);
            encoded.map_err(|error| DataError::Document {
                place: document.source.clone(),
                error: Box::new(error),
            })
        });
        let encoded: Vec<_> = encoded.collect::<Result<_>>()?;
        pieces.extend(encoded);
    }
    watch.at(Phase::Tokenizing, total, total);
    Ok(pieces)
}

/// What is masked, and with what.
#[derive(Debug, Clone, PartialEq)]
pub struct Masking {
    /// The share of tokens, or of words, to guess: in 0..1.
    pub probability: f64,
    /// Whether all tokens of a word are chosen together.
    pub whole_words: bool,
    /// The mask token.
    pub mask: u32,
    /// The tokens that others are replaced by: those of the vocabulary that stand for text.
    pub vocabulary: Vec<u32>,
}

/// A piece with tokens masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masked {
    /// What the model sees.
    pub ids: Vec<u32>,
    /// The places of what it has to guess, ascending.
    pub places: Vec<usize>,
    /// What stood there.
    pub stood: Vec<u32>,
}

impl Masking {
    /// Masks a piece. `key` is the seed, the pass and the piece's number, or what else makes the draw one of its own.
    ///
    /// Tokens of the template are never chosen. Where nothing is chosen, one token or word is, so that every piece teaches
    /// something.
    #[must_use]
    pub fn mask(&self, piece: &EncodedPiece, key: [u64; 3]) -> Masked {
        let mut bytes = [0; 32];
        for (to, number) in bytes.chunks_exact_mut(8).zip(key) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        bytes[24..].copy_from_slice(DOMAIN);
        let mut rng = ChaCha12Rng::from_seed(bytes);
        let units = self.units(piece);
        let mut chosen: Vec<&Range<usize>> = units
            .iter()
            .filter(|_| unit(&mut rng) < self.probability)
            .collect();
        if chosen.is_empty() && !units.is_empty() {
            chosen.push(&units[below(&mut rng, units.len() as u64) as usize]);
        }
        let places: Vec<usize> = chosen.into_iter().cloned().flatten().collect();
        let mut ids = piece.row.ids.clone();
        for place in &places {
            let draw = unit(&mut rng);
            if draw < 0.8 {
                ids[*place] = self.mask;
            } else if draw < 0.9 && !self.vocabulary.is_empty() {
                let drawn = below(&mut rng, self.vocabulary.len() as u64) as usize;
                ids[*place] = self.vocabulary[drawn];
            }
        }
        Masked {
            stood: places.iter().map(|place| piece.row.ids[*place]).collect(),
            ids,
            places,
        }
    }

    /// The places that are chosen together.
    fn units(&self, piece: &EncodedPiece) -> Vec<Range<usize>> {
        let mut units: Vec<Range<usize>> = Vec::new();
        let mut last = None;
        for (place, word) in piece.words.iter().enumerate() {
            match (word, units.last_mut()) {
                (Some(_), Some(unit)) if self.whole_words && last == Some(*word) => {
                    unit.end = place + 1;
                }
                (Some(_), _) => units.push(place..place + 1),
                (None, _) => {}
            }
            last = Some(*word);
        }
        units
    }
}
