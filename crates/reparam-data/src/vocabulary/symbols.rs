//! The single characters that words are made of.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;

use super::words::Counts;

/// The characters that words are made of, in the order of the symbols that `symbol` makes of a character and whether it
/// begins its word. Where there is no room for all, the most frequent stay; the number of the others is given, too.
pub(super) fn alphabet<T: Ord + Copy + Hash>(
    counts: &Counts,
    room: usize,
    symbol: impl Fn(char, bool) -> T,
) -> (Vec<(T, u64)>, usize) {
    let mut found: HashMap<T, u64> = HashMap::new();
    for (word, count) in counts {
        for (index, character) in word.chars().enumerate() {
            *found.entry(symbol(character, index == 0)).or_default() += count;
        }
    }
    let mut found: Vec<(T, u64)> = found.into_iter().collect();
    found.sort_unstable_by_key(|&(symbol, count)| (Reverse(count), symbol));
    let left_out = found.len().saturating_sub(room);
    found.truncate(room);
    found.sort_unstable_by_key(|&(symbol, _)| symbol);
    (found, left_out)
}
