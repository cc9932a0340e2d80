//! BLEU: how many n-grams of generated texts are in their references.

use std::iter::Sum;
use std::ops::{Add, AddAssign};

use super::bleu_tokens::BleuTokenizer;
use super::ngrams::{Counts, matches, n_ngrams, ngrams};

#[cfg(test)]
mod tests;

/// The longest n-grams that are compared.
const ORDERS: usize = 4;

/// What BLEU counts in one text, or in several: sums over texts are the counts of the corpus. So an interval can be found by
/// drawing rows again and again, without counting anew.
///
/// ```
/// use reparam_data::rows::{BleuStats, BleuTokenizer};
///
/// let rows = [("the cat is on the mat", "the cat sat on the mat"), ("so it is", "so it is")];
/// let stats = rows.map(|(text, reference)| BleuStats::of(text, &[reference], BleuTokenizer::V13a));
/// let corpus: BleuStats = stats.iter().copied().sum();
/// assert_eq!(format!("{:.2}", corpus.score().score), "45.36");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BleuStats {
    /// By length, the n-grams of the texts that are in a reference, each as often as in the reference that has it most often.
    matches: [u64; ORDERS],
    /// By length, the n-grams of the texts.
    totals: [u64; ORDERS],
    /// The words of the texts.
    words: u64,
    /// The words of the references.
    reference_words: u64,
}

/// BLEU with what it is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bleu {
    /// From 0 to 100.
    pub score: f64,
    /// By length from 1 to 4, the share of n-grams that are in a reference, from 0 to 100.
    pub precisions: [f64; ORDERS],
    /// The factor for texts that are shorter than their references.
    pub brevity_penalty: f64,
}

impl BleuStats {
    /// Counts a text against its references. Its length is compared with that of the reference that is nearest in length, the
    /// shorter of two; without references with 0.
    #[must_use]
    pub fn of(text: &str, references: &[&str], tokenizer: BleuTokenizer) -> Self {
        let words = tokenizer.words(text);
        let references = references.iter();
        let references: Vec<_> = references.map(|text| tokenizer.words(text)).collect();
        let lengths = references.iter().map(Vec::len);
        let nearest = lengths.min_by_key(|length| (length.abs_diff(words.len()), *length));
        let mut stats = Self {
            words: words.len() as u64,
            reference_words: nearest.unwrap_or(0) as u64,
            ..Self::default()
        };
        for n in 1..=ORDERS {
            let mut of_references = Counts::new();
            for reference in &references {
                for (ngram, count) in ngrams(reference, n) {
                    let most: &mut u64 = of_references.entry(ngram).or_default();
                    *most = count.max(*most);
                }
            }
            stats.matches[n - 1] = matches(&ngrams(&words, n), &of_references);
            stats.totals[n - 1] = n_ngrams(words.len(), n);
        }
        stats
    }

    /// BLEU of all texts together, as sacreBLEU gives it with its defaults:
    ///
    /// ```text
    /// BLEU = 100 BP exp(1/4 sum_n ln p_n),  p_n = matches_n / totals_n,  BP = min(1, exp(1 - r/c))
    /// ```
    ///
    /// with `c` words and `r` words of references. The `k`-th precision without a match counts as `1 / (2^k totals_n)`
    /// (exponential smoothing); BLEU is 0 without any match, and where all texts are too short for an n-gram of four words.
    ///
    /// # References
    ///
    /// Papineni et al. 2002, <https://aclanthology.org/P02-1040>; Post 2018, <https://aclanthology.org/W18-6319>; smoothing:
    /// Chen and Cherry 2014, <https://aclanthology.org/W14-3346>, method 3.
    #[must_use]
    pub fn score(&self) -> Bleu {
        let (words, reference_words) = (self.words as f64, self.reference_words as f64);
        let brevity_penalty = match self.words {
            0 if self.reference_words > 0 => 0.0,
            _ if self.words < self.reference_words => (1.0 - reference_words / words).exp(),
            _ => 1.0,
        };
        let mut bleu = Bleu {
            score: 0.0,
            precisions: [0.0; ORDERS],
            brevity_penalty,
        };
        if self.matches == [0; ORDERS] {
            return bleu;
        }
        let mut smoothing = 1.0;
        let counts = self.matches.iter().zip(&self.totals);
        for (precision, (matches, total)) in bleu.precisions.iter_mut().zip(counts) {
            *precision = match (matches, total) {
                (_, 0) => return bleu,
                (0, total) => {
                    smoothing *= 2.0;
                    100.0 / (smoothing * *total as f64)
                }
                (matches, total) => 100.0 * *matches as f64 / *total as f64,
            };
        }
        let logarithms: f64 = bleu.precisions.iter().map(|precision| precision.ln()).sum();
        bleu.score = brevity_penalty * (logarithms / ORDERS as f64).exp();
        bleu
    }
}

impl AddAssign for BleuStats {
    fn add_assign(&mut self, other: Self) {
        for n in 0..ORDERS {
            self.matches[n] += other.matches[n];
            self.totals[n] += other.totals[n];
        }
        self.words += other.words;
        self.reference_words += other.reference_words;
    }
}

impl Add for BleuStats {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl Sum for BleuStats {
    fn sum<I: Iterator<Item = Self>>(stats: I) -> Self {
        stats.fold(Self::default(), Self::add)
    }
}
