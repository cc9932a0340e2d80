//! chrF and chrF++: how many n-grams of characters, and of words, generated texts and their references have in common.

use std::iter::Sum;
use std::ops::{Add, AddAssign};

use super::ngrams::{is_space, matches, n_ngrams, ngrams, words};

#[cfg(test)]
mod tests;

/// The longest n-grams of characters.
const CHARACTERS: usize = 6;

/// The longest n-grams of words that can be asked for.
const WORDS: usize = 2;

/// How much more recall counts than precision.
const BETA: f64 = 2.0;

/// Which n-grams count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Chrf {
    /// chrF: up to six characters.
    #[default]
    Characters,
    /// chrF++: up to six characters, and up to two words.
    CharactersAndWords,
}

impl Chrf {
    /// The longest n-grams of words.
    const fn words(self) -> usize {
        match self {
            Self::Characters => 0,
            Self::CharactersAndWords => WORDS,
        }
    }
}

/// The n-grams of one kind and length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Order {
    of_text: u64,
    of_reference: u64,
    in_both: u64,
}

/// What chrF counts in one text, or in several: sums over texts are the counts of the corpus.
///
/// ```
/// use reparam_data::rows::{Chrf, ChrfStats};
///
/// let rows = [("the cat is on the mat", "the cat sat on the mat"), ("so it is", "so it is")];
/// let stats = rows.map(|(text, reference)| ChrfStats::of(text, &[reference], Chrf::Characters));
/// let corpus: ChrfStats = stats.iter().copied().sum();
/// assert_eq!(format!("{:.2}", corpus.score()), "67.82");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChrfStats {
    characters: [Order; CHARACTERS],
    /// All zero where words do not count, which leaves them out of the score.
    words: [Order; WORDS],
}

impl ChrfStats {
    /// Counts a text against the reference that it is most like, the first of equals. White space is left out, and of words one
    /// mark of ASCII punctuation at the end, else at the beginning, is a word of its own.
    #[must_use]
    pub fn of(text: &str, references: &[&str], chrf: Chrf) -> Self {
        let text = Parts::of(text);
        let mut best: Option<(f64, Self)> = None;
        for reference in references {
            let stats = text.against(&Parts::of(reference), chrf);
            let score = stats.score();
            if best.is_none_or(|(best, _)| score > best) {
                best = Some((score, stats));
            }
        }
        best.map_or_else(Self::default, |(_, stats)| stats)
    }

    /// The score of all texts together from 0 to 100, as sacreBLEU gives it with its defaults:
    ///
    /// ```text
    /// chrF = 100 (1 + b^2) P R / (b^2 P + R),  b = 2
    /// ```
    ///
    /// with the means `P` and `R` of precision and recall over the lengths and kinds of n-grams that texts and references have.
    ///
    /// # References
    ///
    /// Popović 2015, <https://aclanthology.org/W15-3049>, and 2017, <https://aclanthology.org/W17-4770>.
    #[must_use]
    pub fn score(&self) -> f64 {
        let orders = self.characters.iter().chain(&self.words);
        let there = orders.filter(|order| order.of_text > 0 && order.of_reference > 0);
        let (mut precision, mut recall, mut n) = (0.0, 0.0, 0.0);
        for order in there {
            precision += order.in_both as f64 / order.of_text as f64;
            recall += order.in_both as f64 / order.of_reference as f64;
            n += 1.0;
        }
        if precision + recall == 0.0 {
            return 0.0;
        }
        let (precision, recall) = (precision / n, recall / n);
        let weight = BETA * BETA;
        100.0 * (1.0 + weight) * precision * recall / (weight * precision + recall)
    }
}

/// What a text is compared by.
struct Parts<'a> {
    characters: Vec<char>,
    words: Vec<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Self {
        Self {
            characters: text
                .chars()
                .filter(|character| !is_space(*character))
                .collect(),
            words: words(text).flat_map(without_mark).collect(),
        }
    }

    fn against(&self, reference: &Parts<'_>, chrf: Chrf) -> ChrfStats {
        let mut stats = ChrfStats::default();
        for (order, n) in stats.characters.iter_mut().zip(1..) {
            *order = compared(&self.characters, &reference.characters, n);
        }
        for (order, n) in stats.words.iter_mut().zip(1..).take(chrf.words()) {
            *order = compared(&self.words, &reference.words, n);
        }
        stats
    }
}

fn compared<T: std::hash::Hash + Eq>(text: &[T], reference: &[T], n: usize) -> Order {
    let of_reference = n_ngrams(reference.len(), n);
    Order {
        // sacreBLEU does not count where there is nothing to compare with, which shows in the precision of a corpus.
        of_text: if of_reference == 0 {
            0
        } else {
            n_ngrams(text.len(), n)
        },
        of_reference,
        in_both: matches(&ngrams(text, n), &ngrams(reference, n)),
    }
}

/// A word, parted from a mark of punctuation at one end of it.
fn without_mark(word: &str) -> impl Iterator<Item = &str> {
    let is_mark = |part: &str| part.bytes().all(|byte| byte.is_ascii_punctuation());
    let mut characters = word.char_indices();
    let first_end = characters.nth(1).map_or(word.len(), |(at, _)| at);
    let last_start = characters.last().map_or(first_end, |(at, _)| at);
    let (first, behind) = word.split_at(first_end);
    let (before, last) = word.split_at(last_start);
    let parts = match behind.is_empty() {
        false if is_mark(last) => [before, last],
        false if is_mark(first) => [first, behind],
        _ => [word, ""],
    };
    parts.into_iter().filter(|part| !part.is_empty())
}

impl AddAssign for ChrfStats {
    fn add_assign(&mut self, other: Self) {
        let orders = self.characters.iter_mut().chain(&mut self.words);
        let others = other.characters.iter().chain(&other.words);
        for (order, other) in orders.zip(others) {
            order.of_text += other.of_text;
            order.of_reference += other.of_reference;
            order.in_both += other.in_both;
        }
    }
}

impl Add for ChrfStats {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl Sum for ChrfStats {
    fn sum<I: Iterator<Item = Self>>(stats: I) -> Self {
        stats.fold(Self::default(), Self::add)
    }
}
