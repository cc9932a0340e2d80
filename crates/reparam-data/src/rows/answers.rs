//! How well answers meet those of a data set.

use crate::preprocess::is_han;
use std::collections::HashMap;

#[cfg(test)]
mod tests;

/// What [`AnswerScorer`] measures, from 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnswerMetrics {
    /// The share of questions whose answer is one of the right ones, but for what normalization takes away.
    pub exact_match: f64,
    /// The mean over questions of the F1 of words, with the right answer that has the largest.
    pub f1: f64,
    /// Questions.
    pub examples: usize,
}

/// Compares answers question by question, as the official evaluation of SQuAD 2.0 does.
///
/// Answers are compared as lists of words: in lower case, without ASCII punctuation and the articles a, an and the, parted at
/// white space. F1 is `2 common / (words of one + words of the other)`, where a word counts as often as it is in both; of an
/// answer without words it is 1 if the other one has none either, else 0. A question without right answers is answered rightly by
/// nothing.
///
/// SQuAD has nothing to say of languages without spaces. If one of two answers has a Chinese or a Japanese character, or
/// punctuation of such a text, in both each such character is a word, and such punctuation is taken away, too.
///
/// ```
/// use reparam_data::rows::AnswerScorer;
///
/// let mut scorer = AnswerScorer::new();
/// assert_eq!(scorer.add("The Beatles!", ["Beatles", "John, Paul"]), (1.0, 1.0));
/// assert_eq!(scorer.add("北京市", ["北京。"]), (0.0, 0.8));
/// assert_eq!(scorer.add("", []), (1.0, 1.0));
/// ```
#[derive(Debug, Clone, Default)]
pub struct AnswerScorer {
    exact: f64,
    f1: f64,
    examples: usize,
}

impl AnswerScorer {
    /// Starts with no questions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a question with its exact match and its F1, from 0 to 1, as [`measure`](Self::measure) returns them.
    pub fn count(&mut self, (exact, f1): (f64, f64)) {
        self.exact += exact;
        self.f1 += f1;
        self.examples += 1;
    }

    /// Adds a question: the answer that was given, which is empty for none, and the right ones. Returns its exact match and its
    /// F1, from 0 to 1.
    pub fn add<'a>(
        &mut self,
        answer: &str,
        right: impl IntoIterator<Item = &'a str>,
    ) -> (f64, f64) {
        let measured = Self::measure(answer, right);
        self.count(measured);
        measured
    }

    /// Returns the exact match and the F1 of an answer, from 0 to 1: see [`add`](Self::add).
    pub fn measure<'a>(answer: &str, right: impl IntoIterator<Item = &'a str>) -> (f64, f64) {
        let right = right
            .into_iter()
            .filter(|right| !words(right, is_eastern(right)).is_empty());
        let mut right: Vec<&str> = right.collect();
        if right.is_empty() {
            right.push("");
        }
        let (mut exact, mut f1) = (0.0_f64, 0.0_f64);
        for right in right {
            let eastern = is_eastern(answer) || is_eastern(right);
            let [answer, right] = [answer, right].map(|text| words(text, eastern));
            exact = exact.max(f64::from(u8::from(answer == right)));
            f1 = f1.max(overlap(&answer, &right));
        }
        (exact, f1)
    }

    /// Returns the measures, or `None` without questions.
    #[must_use]
    pub fn finish(&self) -> Option<AnswerMetrics> {
        let mean = |sum: f64| 100.0 * sum / self.examples as f64;
        (self.examples > 0).then(|| AnswerMetrics {
            exact_match: mean(self.exact),
            f1: mean(self.f1),
            examples: self.examples,
        })
    }
}

/// F1 of two bags of words.
fn overlap(a: &[String], b: &[String]) -> f64 {
    if a.is_empty() || b.is_empty() {
        return f64::from(u8::from(a.is_empty() && b.is_empty()));
    }
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in a {
        *left.entry(word).or_default() += 1;
    }
    let mut common = 0;
    for word in b {
        if let Some(left) = left.get_mut(word.as_str()).filter(|left| **left > 0) {
            *left -= 1;
            common += 1;
        }
    }
    (2 * common) as f64 / (a.len() + b.len()) as f64
}

/// The words of an answer after normalization.
fn words(text: &str, eastern: bool) -> Vec<String> {
    let lower = text.to_lowercase();
    let is_punctuation = |character: &char| {
        character.is_ascii_punctuation() || (eastern && is_eastern_punctuation(*character))
    };
    let kept = lower.chars().filter(|character| !is_punctuation(character));
    let text: String = kept.collect();
    let mut words = Vec::new();
    for part in text.split(is_space) {
        let mut word = String::new();
        let mut end = |word: &mut String| {
            if !word.is_empty() {
                words.push(std::mem::take(word));
            }
        };
        for run in runs(part) {
            if ["a", "an", "the"].contains(&run) {
                // As by SQuAD, what stands on both sides of an article is two words, also without spaces.
                end(&mut word);
                continue;
            }
            for character in run.chars() {
                if eastern && is_eastern_character(character) {
                    end(&mut word);
                    word.push(character);
                    end(&mut word);
                } else {
                    word.push(character);
                }
            }
        }
        end(&mut word);
    }
    words
}

/// Parts a text where letters and digits meet something else, as `\b` of a regular expression does.
fn runs(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?.is_alphanumeric();
        let end = rest.find(|character: char| character.is_alphanumeric() != first);
        let (run, behind) = rest.split_at(end.unwrap_or(rest.len()));
        rest = behind;
        Some(run)
    })
}

/// White space as Python splits at it, which knows four separators more.
fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// Whether a text is one of a language without spaces.
fn is_eastern(text: &str) -> bool {
    let is_own = |character: char| {
        is_eastern_character(character)
            || matches!(character, '\u{3000}'..='\u{303f}' | '\u{ff01}'..='\u{ff65}')
    };
    text.contains(is_own)
}

/// Chinese characters with their extensions and compatibility forms, and Japanese syllables.
fn is_eastern_character(character: char) -> bool {
    let is_syllable = matches!(
        character,
        '\u{3006}' | '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}'
    );
    is_syllable || is_han(character)
}

/// Punctuation of Chinese and Japanese texts: their own, the full-width forms, and quotation marks, dashes, dots and ellipses,
/// which other languages have, too.
fn is_eastern_punctuation(character: char) -> bool {
    matches!(
        character,
        '\u{3000}'..='\u{3004}' | '\u{3008}'..='\u{303f}' | '\u{30fb}' | '\u{ff01}'..='\u{ff0f}' | '\u{ff1a}'..='\u{ff20}'
            | '\u{ff3b}'..='\u{ff40}' | '\u{ff5b}'..='\u{ff65}' | '\u{b7}' | '\u{2010}'..='\u{2027}'
    )
}
