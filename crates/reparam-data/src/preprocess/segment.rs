//! Words.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use jieba_rs::Jieba;
use unicode_segmentation::UnicodeSegmentation;

use super::options::Segment;
use super::unicode::changed;

/// The longest piece that the dictionary is given, in characters. Its graph is as large as the piece.
const PIECE: usize = 1 << 16;

/// Splits texts into words.
#[derive(Clone)]
pub(super) struct Segmenter {
    segment: Segment,
    /// With the segmentations that need it; it takes a second and some 50 MB.
    dictionary: Option<Arc<Jieba>>,
}

impl Segmenter {
    pub(super) fn new(segment: Segment) -> Self {
        let dictionary = match segment {
            Segment::None | Segment::Words => None,
            Segment::Chinese | Segment::Auto => Some(Arc::new(Jieba::new())),
        };
        Self {
            segment,
            dictionary,
        }
    }

    /// Joins the words of a text by one space each. White space goes, and nothing else.
    pub(super) fn segment<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut joined = String::with_capacity(text.len() + text.len() / 4);
        match (&self.dictionary, self.segment) {
            (None, Segment::None) => return Cow::Borrowed(text),
            (None, _) => push_words(&mut joined, text),
            (Some(dictionary), Segment::Auto) => {
                for (is_han, run) in runs(text) {
                    match is_han {
                        true => push_chinese(&mut joined, dictionary, run),
                        false => push_words(&mut joined, run),
                    }
                }
            }
            (Some(dictionary), _) => push_chinese(&mut joined, dictionary, text),
        }
        changed(text, joined)
    }
}

impl fmt::Debug for Segmenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segmenter")
            .field("segment", &self.segment)
            .finish_non_exhaustive()
    }
}

fn push_words(joined: &mut String, text: &str) {
    for word in text.split_word_bounds() {
        push(joined, word);
    }
}

fn push_chinese(joined: &mut String, dictionary: &Jieba, text: &str) {
    for piece in pieces(text) {
        for token in dictionary.cut(piece, true) {
            push(joined, token.word);
        }
    }
}

/// Appends what of a word is no white space.
fn push(joined: &mut String, word: &str) {
    for part in word.split_whitespace() {
        if !joined.is_empty() {
            joined.push(' ');
        }
        joined.push_str(part);
    }
}

/// Parts a text so that no part is too long for the dictionary's graph.
fn pieces(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let end = text
            .char_indices()
            .nth(PIECE)
            .map_or(text.len(), |(at, _)| at);
        let (piece, rest) = text.split_at(end);
        text = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Parts a text where Chinese characters begin or end, and says of each part which it is.
fn runs(mut text: &str) -> impl Iterator<Item = (bool, &str)> {
    std::iter::from_fn(move || {
        let is_run_han = is_han(text.chars().next()?);
        let end = text.find(|c| is_han(c) != is_run_han);
        let (run, rest) = text.split_at(end.unwrap_or(text.len()));
        text = rest;
        Some((is_run_han, run))
    })
}

/// The unified ideographs and their extensions, the compatible ones, and the marks that stand for one (々, 〇).
pub(crate) fn is_han(character: char) -> bool {
    matches!(
        character,
        '\u{3400}'..='\u{4dbf}'
            | '\u{4e00}'..='\u{9fff}'
            | '\u{f900}'..='\u{faff}'
            | '\u{20000}'..='\u{323af}'
            | '\u{3005}'
            | '\u{3007}'
    )
}
