//! The words that BLEU compares.

use super::ngrams::{is_space, words};
use crate::preprocess::is_han;

#[cfg(test)]
mod tests;

/// How texts become the words that BLEU compares, named as by sacreBLEU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum BleuTokenizer {
    /// WMT's `mteval-v13a`: punctuation apart from words, numbers whole. For languages that write spaces.
    #[default]
    V13a,
    /// Chinese characters each by itself, the rest as `V13a`.
    Zh,
    /// Every character.
    Char,
    /// What stands between white space.
    None,
}

/// The blocks of characters that `zh` sets apart.
///
/// Published tables give Chinese characters, their punctuation, full-width forms and symbols. The first range is wider than
/// that: sacreBLEU writes `\u20000` for U+20000, which Python reads as U+2000 and a zero, and numbers have to be comparable.
const CHINESE: [(char, char); 13] = [
    ('\u{2001}', '\u{2a6d}'),
    ('\u{2e80}', '\u{2fdf}'),
    ('\u{2ff0}', '\u{303f}'),
    ('\u{3100}', '\u{312f}'),
    ('\u{31a0}', '\u{31ef}'),
    ('\u{3200}', '\u{4db5}'),
    ('\u{4e00}', '\u{9fbb}'),
    ('\u{f900}', '\u{fa2d}'),
    ('\u{fa30}', '\u{fa6a}'),
    ('\u{fa70}', '\u{fad9}'),
    ('\u{fe10}', '\u{fe1f}'),
    ('\u{fe30}', '\u{fe4f}'),
    ('\u{ff00}', '\u{ffef}'),
];

/// What SGML writes for characters, in the order in which `mteval` replaces it.
const ENTITIES: [(&str, &str); 4] = [
    ("&quot;", "\""),
    ("&amp;", "&"),
    ("&lt;", "<"),
    ("&gt;", ">"),
];

impl BleuTokenizer {
    /// All of them, in the order in which they are listed to the user.
    pub const ALL: [Self; 4] = [Self::V13a, Self::Zh, Self::Char, Self::None];

    /// The name that sacreBLEU has for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V13a => "13a",
            Self::Zh => "zh",
            Self::Char => "char",
            Self::None => "none",
        }
    }

    /// Returns the one for texts in one language: that for Chinese where most of them have Chinese characters.
    #[must_use]
    pub fn of_texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut chinese, mut others) = (0_usize, 0_usize);
        for text in texts {
            match text.contains(is_han) {
                true => chinese += 1,
                false => others += 1,
            }
        }
        match chinese > others {
            true => Self::Zh,
            false => Self::V13a,
        }
    }

    /// The words of a text.
    pub(super) fn words(self, text: &str) -> Vec<String> {
        match self {
            Self::V13a => {
                // As in mteval, a line that ends in a hyphen goes on without it.
                let mut text = text.trim_end_matches(is_space).replace("<skipped>", "");
                text = text.replace("-\n", "").replace('\n', " ");
                for (entity, character) in ENTITIES {
                    text = text.replace(entity, character);
                }
                punctuation_apart(format!(" {text} ").chars().collect())
            }
            Self::Zh => {
                let mut apart = Vec::with_capacity(text.len());
                for character in text.trim_matches(is_space).chars() {
                    match is_chinese(character) {
                        true => apart.extend([' ', character, ' ']),
                        false => apart.push(character),
                    }
                }
                punctuation_apart(apart)
            }
            Self::Char => {
                let characters = text.chars().filter(|character| !is_space(*character));
                characters.map(String::from).collect()
            }
            Self::None => words(text).map(str::to_owned).collect(),
        }
    }
}

fn is_chinese(character: char) -> bool {
    let mut ranges = CHINESE.iter();
    ranges.any(|(first, last)| (*first..=*last).contains(&character))
}

/// Splits as `mteval-v13a` does, in four passes: ASCII punctuation is apart from what is around it, but for `'`, `-`, `,` and
/// `.`; then periods and commas that do not follow a digit, those that do not stand before one, and hyphens behind a digit.
fn punctuation_apart(mut text: Vec<char>) -> Vec<String> {
    let is_digit = |character: char| character.is_ascii_digit();
    let is_point = |character: char| matches!(character, '.' | ',');
    let mut apart = Vec::with_capacity(text.len() * 2);
    for character in text {
        match character {
            '\'' | '-' | ',' | '.' => apart.push(character),
            ' ' | '!'..='~' if !character.is_ascii_alphanumeric() => {
                apart.extend([' ', character, ' ']);
            }
            _ => apart.push(character),
        }
    }
    text = pairs(
        &apart,
        |a, b| !is_digit(a) && is_point(b),
        |a, b| [a, ' ', b, ' '],
    );
    text = pairs(
        &text,
        |a, b| is_point(a) && !is_digit(b),
        |a, b| [' ', a, ' ', b],
    );
    text = pairs(
        &text,
        |a, b| is_digit(a) && b == '-',
        |a, b| [a, ' ', b, ' '],
    );
    words(&text.into_iter().collect::<String>())
        .map(str::to_owned)
        .collect()
}

/// Replaces pairs of characters from the left. As with a regular expression, no character is of two of them, so that the second
/// of two periods may stay where it is.
fn pairs(
    text: &[char],
    is_pair: impl Fn(char, char) -> bool,
    replaced: impl Fn(char, char) -> [char; 4],
) -> Vec<char> {
    let mut out = Vec::with_capacity(text.len() * 2);
    let mut rest = text;
    loop {
        rest = match rest {
            [first, second, rest @ ..] if is_pair(*first, *second) => {
                out.extend(replaced(*first, *second));
                rest
            }
            [first, rest @ ..] => {
                out.push(*first);
                rest
            }
            [] => return out,
        };
    }
}
