//! Words that say little.

use std::borrow::Cow;
use std::collections::HashSet;

use super::options::StopWords;
use super::unicode::changed;

/// Articles, pronouns, prepositions, conjunctions, auxiliaries and their short forms. Negations stay, for a sentence says
/// the opposite without them.
const EN: &str = include_str!("stop_words/en.txt");
/// Particles, pronouns, prepositions, conjunctions and measure words. Negations stay, and so do marks, as in English.
const ZH: &str = include_str!("stop_words/zh.txt");

/// The words that go, in lower case.
#[derive(Debug, Clone)]
pub(super) struct StopList {
    words: HashSet<&'static str>,
}

impl StopList {
    pub(super) fn new(stop_words: StopWords) -> Self {
        let lists: &[&'static str] = match stop_words {
            StopWords::None => &[],
            StopWords::En => &[EN],
            StopWords::Zh => &[ZH],
            StopWords::Both => &[EN, ZH],
        };
        let words = lists.iter().flat_map(|list| words_of(list)).collect();
        Self { words }
    }

    /// Removes the words that are in the list, whatever their case, and says how many. Words are what stands between
    /// spaces.
    pub(super) fn remove<'a>(&self, text: &'a str) -> (Cow<'a, str>, u64) {
        let mut kept = String::with_capacity(text.len());
        let mut removed = 0;
        for word in text.split_whitespace() {
            if self.has(word) {
                removed += 1;
                continue;
            }
            if !kept.is_empty() {
                kept.push(' ');
            }
            kept.push_str(word);
        }
        match removed {
            0 => (Cow::Borrowed(text), 0),
            _ => (changed(text, kept), removed),
        }
    }

    fn has(&self, word: &str) -> bool {
        if self.words.contains(word) {
            return true;
        }
        let is_written_otherwise = |c: char| c.is_uppercase() || c == '’';
        word.contains(is_written_otherwise)
            && self
                .words
                .contains(word.to_lowercase().replace('’', "'").as_str())
    }
}

/// The words of a list: one or more a line; `#` begins a comment.
fn words_of(list: &'static str) -> impl Iterator<Item = &'static str> {
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(str::split_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_in_lower_case_without_repetition() {
        for (list, least) in [(EN, 150), (ZH, 150)] {
            let words: Vec<&str> = words_of(list).collect();
            let distinct: HashSet<&str> = words.iter().copied().collect();
            assert_eq!(words.len(), distinct.len(), "repeated");
            assert!(words.len() >= least, "{}", words.len());
            assert!(words.iter().all(|word| word.to_lowercase() == *word));
            for negation in ["not", "no", "never", "不", "没", "没有", "别", "无"] {
                assert!(!distinct.contains(negation), "{negation}");
            }
        }
    }

    #[test]
    fn words_go_whatever_their_case() {
        let list = StopList::new(StopWords::Both);
        for (text, expected, removed) in [
            ("The cat is on THE mat", "cat mat", 4),
            ("it’s It's not mine", "not mine", 2),
            ("我 的 手机 很 好", "手机 好", 3),
            ("nothing  here to see", "nothing see", 2),
            ("kept   fox it.was", "kept fox it.was", 0),
            ("the", "", 1),
            ("", "", 0),
        ] {
            let (kept, count) = list.remove(text);
            if count == 0 {
                assert!(matches!(kept, Cow::Borrowed(_)), "{text}");
                continue;
            }
            assert_eq!((kept.as_ref(), count), (expected, removed), "{text}");
        }
        assert_eq!(StopList::new(StopWords::None).remove("the").1, 0);
    }
}
