//! What n-grams two texts have in common.

use std::collections::HashMap;
use std::hash::Hash;

/// The n-grams of a text, each with the number of times that it occurs.
pub(super) type Counts<'a, T> = HashMap<&'a [T], u64>;

/// Counts the n-grams of `n` tokens.
pub(super) fn ngrams<T: Hash + Eq>(tokens: &[T], n: usize) -> Counts<'_, T> {
    let mut counts = HashMap::new();
    for ngram in tokens.windows(n) {
        *counts.entry(ngram).or_default() += 1;
    }
    counts
}

/// How many n-grams a list of tokens has.
pub(super) fn n_ngrams(n_tokens: usize, n: usize) -> u64 {
    (n_tokens + 1).saturating_sub(n) as u64
}

/// The n-grams that two texts have in common, each as often as it occurs in both.
pub(super) fn matches<T: Hash + Eq>(of: &Counts<'_, T>, with: &Counts<'_, T>) -> u64 {
    let in_both = of.iter().filter_map(|(ngram, count)| {
        let other = with.get(ngram)?;
        Some(*count.min(other))
    });
    in_both.sum()
}

/// White space as Python's `str.split` understands it: that of Unicode and four separators of ASCII.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// The words between white space.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}
