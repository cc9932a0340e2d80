//! The parts of words that make the texts most likely.
//!
//! Each part of a word has a probability, and a word is as likely as the sum over all its segmentations of the product of their
//! parts (T. Kudo, "Subword Regularization", arXiv 1804.10959, section 3.2). Training begins with many parts and goes on in
//! rounds, as SentencePiece does:
//!
//! 1. Expectation: how often each part is used, all segmentations of all words weighted by their probability.
//! 2. Maximization: `log p = digamma(count) - digamma(total)`, the variational form with a sparse prior (P. Liang and D. Klein,
//!    "Structured Bayesian Nonparametric Models with Variational Inference", 2007); parts that are expected less than half a
//!    time go. 1 and 2 come twice.
//! 3. Pruning: the parts go without which the likelihood falls least, a quarter at a time, until there are 1.1 times as many as
//!    are wanted.
//!
//! Differs from SentencePiece: characters never go, as many as there is room for, instead of coming back at the end with a
//! made-up score; parts are counted by how often words occur from the beginning. Sums run in the order of the words.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::files::{Model, Special};
use super::symbols::alphabet;
use super::words::Counts;

mod lattice;
mod prune;
mod seeds;
#[cfg(test)]
mod tests;

use lattice::Parts;

/// The longest part, in characters.
const LONGEST: usize = 16;
/// The most parts that a training begins with.
const SEEDS: usize = 1_000_000;
/// Expectation and maximization between two prunings.
const ROUNDS: usize = 2;
/// How many more parts than wanted the last round has, to choose from.
const SURPLUS: f64 = 1.1;
/// A part that is expected less often goes.
const LEAST_EXPECTED: f64 = 0.5;

/// A word and how often it occurs.
type Word<'a> = (&'a str, f64);

/// A part and the logarithm of its probability.
type Scored = (String, f64);

/// Trains; gives also the number of characters without a token.
pub(super) fn train(
    counts: &Counts,
    room: usize,
    min_count: u64,
    special: &Special,
) -> (Model, usize) {
    let (characters, left_out) = alphabet(counts, room, |character, _| character);
    let known: HashSet<char> = characters.iter().map(|(character, _)| *character).collect();
    // Characters without a token part the words that they are in.
    let mut words: Vec<Word<'_>> = Vec::with_capacity(counts.len());
    for (word, count) in counts {
        let parts = word.split(|c| !known.contains(&c));
        let parts = parts.filter(|part| !part.is_empty());
        words.extend(parts.map(|part| (part, *count as f64)));
    }
    let mut parts = seeds::seeds(&words, &characters, min_count);
    parts.retain(|(part, _)| !special.tokens.contains(&part.as_str()));
    let wanted = (room as f64 * SURPLUS) as usize;
    loop {
        for _ in 0..ROUNDS {
            let expected = Parts::of(&parts).expected(&words);
            parts = maximized(parts, &expected);
        }
        let before = parts.len();
        if before <= wanted {
            break;
        }
        parts = prune::pruned(parts, &words, wanted);
        // Characters are never pruned.
        if parts.len() == before {
            break;
        }
    }
    (Model::Scored(finished(parts, room)), left_out)
}

/// Gives each part the probability that is the best for how often it is expected.
fn maximized(parts: Vec<Scored>, expected: &[f64]) -> Vec<Scored> {
    let mut kept: Vec<Scored> = Vec::with_capacity(parts.len());
    for ((part, _), &expected) in parts.into_iter().zip(expected) {
        if is_character(&part) {
            kept.push((part, expected.max(LEAST_EXPECTED)));
        } else if expected >= LEAST_EXPECTED {
            kept.push((part, expected));
        }
    }
    let total = digamma(kept.iter().map(|(_, expected)| expected).sum());
    for (_, score) in &mut kept {
        *score = digamma(*score) - total;
    }
    kept
}

/// All characters and the most likely other parts, the most likely first, equals by code point.
fn finished(mut parts: Vec<Scored>, room: usize) -> Vec<Scored> {
    let by_score = |a: &Scored, b: &Scored| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0));
    parts.sort_by(|a, b| {
        let is_later = |part: &Scored| Reverse(is_character(&part.0));
        is_later(a).cmp(&is_later(b)).then_with(|| by_score(a, b))
    });
    parts.truncate(room);
    parts.sort_by(by_score);
    parts
}

fn is_character(part: &str) -> bool {
    part.chars().nth(1).is_none()
}

/// The derivative of `ln(gamma(x))` for `x > 0`: the recurrence `digamma(x) = digamma(x + 1) - 1/x` up to 6, then the
/// asymptotic series (Abramowitz and Stegun, 6.3.18), whose next term is below 1e-10 there.
fn digamma(mut x: f64) -> f64 {
    let mut below = 0.0;
    while x < 6.0 {
        below += 1.0 / x;
        x += 1.0;
    }
    let square = 1.0 / (x * x);
    let series =
        square * (1.0 / 12.0 - square * (1.0 / 120.0 - square * (1.0 / 252.0 - square / 240.0)));
    x.ln() - 0.5 / x - series - below
}
