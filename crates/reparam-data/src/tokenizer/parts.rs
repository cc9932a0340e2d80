//! Encoding a long text in parts, to the same tokens as the whole.
//!
//! A text may be parted at a byte `p` if no token of the whole crosses `p`, and if neither side needs the other one. The
//! first is certain in two cases:
//!
//! - The pre-tokenizer has a border there. Pre-tokenizers read from left to right, so a border that they find from two
//!   different starts before it is one.
//! - The model is byte pair encoding, and no token of the vocabulary has the two characters beside `p` next to each other.
//!   A merge across `p` would make such a token, so there is none; and merges on one side do not depend on the other side,
//!   because each side's own merges happen in the same order, whatever is merged between them elsewhere.
//!
//! The second is checked at each border with the texts around it: what stands before `p` must become the same tokens by
//! itself as with what stands behind `p`. A part is encoded behind a few characters of the part before it, so that what
//! tokenizers put in front of a text (a space, a mark) is not put into its middle; the tokens of these characters are
//! taken off again. If they are not there, or no border is found, the text is encoded as a whole.

use std::collections::HashSet;
use std::ops::Range;

use rayon::prelude::*;
use tokenizers::ModelWrapper;
use tokenizers::models::bpe::BPE;

use super::guard::guarded;
use super::{TextTokenizer, encode_error};
use crate::error::Result;

/// About the bytes of a part.
pub(super) const PART: usize = 1 << 16;
/// The parts that are encoded at once.
const AT_ONCE: usize = 32;
/// The characters of the part before that a part is encoded behind. No added token may be longer.
const ANCHOR: usize = 48;
/// The bytes behind a border that it is checked with.
const BEHIND: usize = 256;
/// The places that are tried for one border.
const TRIES: usize = 64;

/// The tokens that a template puts around a text.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) before: Vec<u32>,
    pub(super) after: Vec<u32>,
}

impl Template {
    pub(super) fn len(&self) -> usize {
        self.before.len() + self.after.len()
    }
}

/// The characters that stand next to each other in a token.
#[derive(Debug, Clone)]
pub(super) struct Pairs(HashSet<(char, char)>);

impl Pairs {
    /// Reads the vocabulary of a model; `None` if borders do not follow from it.
    pub(super) fn of(model: &ModelWrapper) -> Option<Self> {
        let ModelWrapper::BPE(bpe) = model else {
            return None;
        };
        let is_empty = |affix: &Option<String>| affix.as_deref().is_none_or(str::is_empty);
        if !is_empty(&bpe.continuing_subword_prefix) || !is_empty(&bpe.end_of_word_suffix) {
            return None;
        }
        let vocabulary = bpe.get_vocab();
        let mut pairs = HashSet::new();
        for token in vocabulary.keys() {
            // One that merges bytes is made of more than characters; one this long may be found as a whole.
            let merges_bytes = bpe.byte_fallback && token.contains("<0x") && !is_byte(token);
            let is_whole = bpe.ignore_merges && token.chars().count() >= ANCHOR;
            if merges_bytes || is_whole {
                return None;
            }
            if !is_byte(token) {
                pairs.extend(token.chars().zip(token.chars().skip(1)));
            }
        }
        Some(Self(pairs))
    }

    /// Whether no merge joins the end of one token to the start of the next.
    fn part(&self, bpe: &BPE, left: &str, right: &str) -> bool {
        // Unknown characters beside each other may become one token.
        let is_unknown = |token: &str| bpe.unk_token.as_deref() == Some(token);
        if is_unknown(left) || is_unknown(right) {
            return false;
        }
        if is_byte(left) || is_byte(right) {
            return true;
        }
        match (left.chars().next_back(), right.chars().next()) {
            (Some(left), Some(right)) => !self.0.contains(&(left, right)),
            _ => false,
        }
    }
}

/// Whether a token stands for a byte: `<0x0A>`.
fn is_byte(token: &str) -> bool {
    token.len() == 6 && token.starts_with("<0x") && token.ends_with('>')
}

impl TextTokenizer {
    /// The end of what is encoded at once of a text from byte `at` on; `None` at its end. A round ends at a border.
    pub(super) fn round(&self, text: &str, at: usize) -> Option<usize> {
        (at < text.len()).then(|| {
            let target = at.saturating_add(PART * AT_ONCE);
            match self.border(text, target) {
                Some(border) => border,
                None => text.len(),
            }
        })
    }

    /// Encodes what stands in `range`, which begins and ends at borders, in parts of about `part` bytes; `None` if the text
    /// cannot be parted.
    pub(super) fn encode_parts(
        &self,
        text: &str,
        range: Range<usize>,
        part: usize,
    ) -> Result<Option<Vec<Vec<u32>>>> {
        let targets: Vec<usize> = range.clone().step_by(part).skip(1).collect();
        let borders = targets.par_iter().map(|target| self.border(text, *target));
        let mut borders: Vec<usize> = borders.collect::<Option<_>>().unwrap_or_default();
        if borders.is_empty() && range.len() > 2 * part {
            return Ok(None);
        }
        borders.retain(|border| range.contains(border) && *border > range.start);
        borders.extend([range.start, range.end]);
        borders.sort_unstable();
        borders.dedup();
        let parts = borders.par_windows(2).map(|part| {
            let (begin, end) = (part[0], part[1]);
            if begin == 0 {
                return self.text_ids(&text[..end]).map(Some);
            }
            let from = chars_before(text, begin, ANCHOR);
            let anchor = self.text_ids(&text[from..begin])?;
            let ids = self.text_ids(&text[from..end])?;
            Ok(ids.strip_prefix(&anchor[..]).map(<[u32]>::to_vec))
        });
        let parts: Vec<Result<Option<Vec<u32>>>> = parts.collect();
        parts.into_iter().collect()
    }

    /// Finds the first border at or behind `target`; the end of the text where there is no place for one; `None` if
    /// none of the places is a border.
    fn border(&self, text: &str, target: usize) -> Option<usize> {
        let longest = self.longest_added;
        if longest > ANCHOR {
            return None;
        }
        let mut tries = 0;
        for place in places(text, target) {
            if self.is_border(text, place) {
                return Some(place);
            }
            tries += 1;
            if tries == TRIES {
                return None;
            }
        }
        Some(text.len())
    }

    /// Checks a place; see the [module](self).
    fn is_border(&self, text: &str, place: usize) -> bool {
        let behind = text.floor_char_boundary(place.saturating_add(BEHIND));
        // Of two starts, one character apart, no pattern of some period finds the same border by chance.
        [ANCHOR, ANCHOR + 1].iter().all(|chars| {
            let from = chars_before(text, place, *chars);
            let alone = self.text_ids(&text[from..place]);
            let both = guarded(|| self.inner.encode(&text[from..behind], false));
            let (Ok(alone), Ok(both)) = (alone, both) else {
                return false;
            };
            let at = alone.len();
            let ids = both.get_ids();
            if at == 0 || ids.len() <= at || ids[..at] != alone[..] {
                return false;
            }
            let words = both.get_word_ids();
            let tokens = both.get_tokens();
            words[at - 1] != words[at] || self.never_joins(&tokens[at - 1], &tokens[at])
        })
    }

    fn never_joins(&self, left: &str, right: &str) -> bool {
        match (&self.pairs, self.inner.get_model()) {
            (Some(pairs), ModelWrapper::BPE(bpe)) => pairs.part(bpe, left, right),
            _ => false,
        }
    }

    fn text_ids(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = guarded(|| self.inner.encode_fast(text, false)).map_err(encode_error)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The tokens around a text.
    pub(super) fn template(&self) -> Result<Template> {
        let probe = guarded(|| self.inner.encode_fast("a", true)).map_err(encode_error)?;
        let (ids, mask) = (probe.get_ids(), probe.get_special_tokens_mask());
        let is_text = |of_template: &u32| *of_template == 0;
        let first = mask.iter().position(is_text).unwrap_or(ids.len());
        let last = mask
            .iter()
            .rposition(is_text)
            .map_or(ids.len(), |last| last + 1);
        Ok(Template {
            before: ids[..first].to_vec(),
            after: ids[last..].to_vec(),
        })
    }
}

/// Where so many characters before `place` begin.
fn chars_before(text: &str, place: usize, chars: usize) -> usize {
    let before = text[..place].char_indices().rev();
    before.take(chars).last().map_or(place, |(at, _)| at)
}

/// The places at or behind `target` where most tokenizers have a border: before white space between letters, and behind a
/// line.
fn places(text: &str, target: usize) -> impl Iterator<Item = usize> {
    let from = text.floor_char_boundary(target);
    let here = text[from..].char_indices();
    let next = text[from..].chars().skip(1);
    let before = text[..from].chars().next_back();
    let before = before.into_iter().chain(text[from..].chars());
    // Nothing stands before the first character of a text, and then no place is there either.
    let skipped = usize::from(from == 0);
    let around = before.zip(here.skip(skipped)).zip(next.skip(skipped));
    around.flat_map(move |((before, (at, here)), next)| {
        let at = from + at;
        let is_between =
            matches!(here, ' ' | '\n') && before.is_alphabetic() && next.is_alphabetic();
        let is_line = here == '\n' && !before.is_whitespace() && next.is_alphanumeric();
        [
            is_between.then_some(at),
            is_line.then_some(at + here.len_utf8()),
        ]
        .into_iter()
        .flatten()
    })
}
