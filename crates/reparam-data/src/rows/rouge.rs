//! ROUGE: which words, pairs of words and sequences of words generated texts and their references have in common.

use std::iter::Sum;
use std::ops::{Add, AddAssign};

use super::ngrams::{matches, n_ngrams, ngrams};

#[cfg(test)]
mod tests;

/// ROUGE of one text, or its sums over several.
///
/// ```
/// use reparam_data::rows::RougeStats;
///
/// let rows = [("the cat is on the mat", "the cat sat on the mat"), ("so it is", "so it is")];
/// let stats = rows.map(|(text, reference)| RougeStats::of(text, &[reference]));
/// let rouge = stats.iter().copied().sum::<RougeStats>().mean().unwrap();
/// assert_eq!(format!("{:.4} {:.4} {:.4}", rouge.rouge_1, rouge.rouge_2, rouge.rouge_l), "0.9167 0.8000 0.9167");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RougeStats {
    sums: [f64; 3],
    texts: u64,
}

/// The means of F1 over texts, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rouge {
    /// Of words.
    pub rouge_1: f64,
    /// Of pairs of words.
    pub rouge_2: f64,
    /// Of the longest common subsequence.
    pub rouge_l: f64,
}

impl RougeStats {
    /// Compares a text with its references, as Google's `rouge_score` does with `use_stemmer=False`:
    ///
    /// ```text
    /// F1 = 2 P R / (P + R),  P = in both / of the text,  R = in both / of the reference
    /// ```
    ///
    /// counted in words for ROUGE-1, in pairs of words for ROUGE-2, and in words with the longest common subsequence as what is
    /// in both for ROUGE-L; 0 where nothing is in both. Words are runs of ASCII letters and digits in lower case. Of a text in
    /// another script nothing is left, and its score is 0. Of several references each score is that of the one where it is
    /// greatest (`score_multi`); without references it is 0.
    ///
    /// # References
    ///
    /// Lin 2004, <https://aclanthology.org/W04-1013>; <https://github.com/google-research/google-research/tree/master/rouge>.
    ///
    /// # Cost
    ///
    /// The product of the numbers of words, for each reference.
    #[must_use]
    pub fn of(text: &str, references: &[&str]) -> Self {
        let mut sums = [0f64; 3];
        for reference in references {
            for (best, score) in sums.iter_mut().zip(Self::scores(text, reference)) {
                *best = best.max(score);
            }
        }
        Self { sums, texts: 1 }
    }

    fn scores(text: &str, reference: &str) -> [f64; 3] {
        let [text, reference] = [text, reference].map(str::to_lowercase);
        let [text, reference] = [&text, &reference].map(|text| ascii_words(text));
        let of_ngrams = |n| {
            let in_both = matches(&ngrams(&text, n), &ngrams(&reference, n));
            f1(
                in_both,
                n_ngrams(text.len(), n),
                n_ngrams(reference.len(), n),
            )
        };
        let longest = longest_common_subsequence(&text, &reference);
        let of_longest = f1(longest, text.len() as u64, reference.len() as u64);
        [of_ngrams(1), of_ngrams(2), of_longest]
    }

    /// Returns the means over texts, or `None` without texts.
    #[must_use]
    pub fn mean(&self) -> Option<Rouge> {
        let mean = |sum: f64| sum / self.texts as f64;
        let [rouge_1, rouge_2, rouge_l] = self.sums.map(mean);
        (self.texts > 0).then_some(Rouge {
            rouge_1,
            rouge_2,
            rouge_l,
        })
    }
}

fn ascii_words(text: &str) -> Vec<&str> {
    let words = text.split(|character: char| !character.is_ascii_alphanumeric());
    words.filter(|word| !word.is_empty()).collect()
}

/// The harmonic mean of `in_both / of_text` and `in_both / of_reference`, 0 where there is nothing in both.
fn f1(in_both: u64, of_text: u64, of_reference: u64) -> f64 {
    match in_both {
        0 => 0.0,
        in_both => 2.0 * in_both as f64 / (of_text + of_reference) as f64,
    }
}

/// How many words can be taken from both in the same order.
fn longest_common_subsequence(a: &[&str], b: &[&str]) -> u64 {
    // The lengths for the words of `a` so far, and each beginning of `b`.
    let mut lengths = vec![0; b.len() + 1];
    for word in a {
        let mut diagonal = 0;
        for (at, other) in b.iter().enumerate() {
            let above = lengths[at + 1];
            lengths[at + 1] = match word == other {
                true => diagonal + 1,
                false => above.max(lengths[at]),
            };
            diagonal = above;
        }
    }
    lengths.last().copied().unwrap_or(0)
}

impl AddAssign for RougeStats {
    fn add_assign(&mut self, other: Self) {
        for (sum, other) in self.sums.iter_mut().zip(other.sums) {
            *sum += other;
        }
        self.texts += other.texts;
    }
}

impl Add for RougeStats {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl Sum for RougeStats {
    fn sum<I: Iterator<Item = Self>>(stats: I) -> Self {
        stats.fold(Self::default(), Self::add)
    }
}
