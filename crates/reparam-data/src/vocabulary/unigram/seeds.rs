//! The parts that a training begins with.

use rayon::prelude::*;

use super::{LONGEST, SEEDS, Scored, Word};

/// The characters, and the parts of two and more characters that occur at least twice and at least `min_count` times and that
/// have the most characters in the texts (occurrences times length), with the logarithms of their share.
///
/// Parts are found in the sorted list of what follows each place of a word. One that is always followed by the same character
/// is left out, for the longer part stands for it.
pub(super) fn seeds(words: &[Word<'_>], characters: &[(char, u64)], min_count: u64) -> Vec<Scored> {
    let mut suffixes: Vec<(&str, f64)> = words
        .iter()
        .flat_map(|&(word, count)| {
            word.char_indices()
                .map(move |(at, _)| (prefix(&word[at..], LONGEST).unwrap_or(&word[at..]), count))
        })
        .collect();
    suffixes.par_sort_unstable_by(|a, b| a.0.cmp(b.0).then_with(|| a.1.total_cmp(&b.1)));
    let least = min_count.max(2) as f64;
    let mut found: Vec<(&str, f64)> = Vec::new();
    for length in 2..=LONGEST {
        let mut rest = &suffixes[..];
        while let Some(&(first, _)) = rest.first() {
            let Some(part) = prefix(first, length) else {
                rest = &rest[1..];
                continue;
            };
            let same = rest.partition_point(|(suffix, _)| suffix.starts_with(part));
            let (group, others) = rest.split_at(same);
            rest = others;
            let count: f64 = group.iter().map(|(_, count)| count).sum();
            // Sorted as they are, all go on alike if the first and the last do.
            let goes_on = prefix(first, length + 1);
            let last = group.last().map(|(last, _)| prefix(last, length + 1));
            let is_whole = goes_on.is_none() || last != Some(goes_on);
            if is_whole && count >= least {
                found.push((part, count * length as f64));
            }
        }
    }
    found.par_sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    found.truncate(SEEDS);
    let characters = characters
        .iter()
        .map(|&(c, count)| (c.to_string(), count as f64));
    let parts = found
        .into_iter()
        .map(|(part, score)| (part.to_owned(), score));
    let mut seeds: Vec<Scored> = characters.chain(parts).collect();
    let total: f64 = seeds.iter().map(|(_, score)| score).sum();
    for (_, score) in &mut seeds {
        *score = (*score / total).ln();
    }
    seeds
}

/// The first `length` characters, if there are as many.
fn prefix(text: &str, length: usize) -> Option<&str> {
    let mut ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    ends.nth(length - 1).map(|end| &text[..end])
}
