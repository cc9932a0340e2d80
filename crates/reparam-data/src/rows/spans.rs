//! From answers to tokens of windows, and back from logits to answers.

use std::ops::Range;

use super::batch::{in_parallel, located};
use super::questions::QuestionRow;
use super::read::Rows;
use crate::tokenizer::{TextTokenizer, Window, WindowOptions};
use crate::watch::{Interrupted, Watch};

#[cfg(test)]
mod tests;

/// Encodes questions in parallel, each in windows; see [`TextTokenizer::encode_windows`]. `question` gives the question of a row.
///
/// A row that cannot be encoded becomes an error in its place.
///
/// # Errors
///
/// [`Interrupted`] when `watch` asks for it.
pub fn encode_questions<T: Send>(
    rows: Rows<T>,
    tokenizer: &TextTokenizer,
    options: WindowOptions,
    question: impl Fn(&T) -> &QuestionRow + Sync,
    watch: Watch<'_>,
) -> Result<Rows<(T, Vec<Window>)>, Interrupted> {
    let encode = |row: T| {
        let question = question(&row);
        let windows = tokenizer.encode_windows(&question.question, &question.context, options);
        let windows = windows.map_err(|error| located(&question.place, error))?;
        Ok((row, windows))
    };
    in_parallel(rows, encode, watch)
}

/// The tokens of each window's row that an answer begins and ends with: `(0, 0)`, the token that says that there is none, in a
/// window that does not have all of it.
///
/// The answer begins with the first token of the context that stands for one of its characters or one behind its beginning, and
/// ends with the last one that does not begin behind its end.
#[must_use]
pub fn span_targets(windows: &[Window], answer: Option<&Range<usize>>) -> Vec<(usize, usize)> {
    let tokens = windows.iter().flat_map(|window| {
        let characters = window.characters.iter();
        window.part.clone().zip(characters)
    });
    let span = answer.and_then(|answer| {
        let behind = tokens.clone().filter(|(_, token)| token.end > answer.start);
        let first = behind.map(|(index, _)| index).min()?;
        let before = tokens.filter(|(_, token)| token.start < answer.end);
        let last = before.map(|(index, _)| index).max()?;
        (first <= last).then_some((first, last))
    });
    let target = |window: &Window| match span {
        Some((first, last)) if window.part.contains(&first) && window.part.contains(&last) => {
            let in_row = |index| window.context.start + index - window.part.start;
            (in_row(first), in_row(last))
        }
        _ => (0, 0),
    };
    windows.iter().map(target).collect()
}

/// The logits of a window, one a token of its row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpanLogits<'a> {
    /// That the answer begins with the token.
    pub start: &'a [f32],
    /// That it ends with it.
    pub end: &'a [f32],
}

/// How an answer is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanOptions {
    /// The most tokens of an answer.
    pub max_tokens: usize,
    /// Whether there may be no answer.
    pub no_answer: bool,
}

impl Default for SpanOptions {
    /// Up to 30 tokens, or no answer.
    fn default() -> Self {
        Self {
            max_tokens: 30,
            no_answer: true,
        }
    }
}

/// An answer that was chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The characters of the context that it is, in code points; `None` if there is no answer.
    pub characters: Option<Range<usize>>,
    /// `p(start) p(end)`.
    pub score: f64,
}

/// Chooses the answer among those of all windows of a question.
///
/// In each window `p(start)` and `p(end)` are softmaxes over the tokens of the context and the first token of the row, which
/// says that there is no answer. A span of tokens has the score `p(start) p(end)`; the best one of all windows is the answer,
/// the first of equals. No answer has the score of its token in the window where that is lowest, for a window without the
/// answer is right to say so; it wins if it is larger than that of the best span. These are the scores of transformers'
/// pipeline for question answering with `handle_impossible_answer`.
///
/// # Panics
///
/// If a window has not one logit a token.
///
/// # Cost
///
/// `max_tokens` products a token.
#[must_use]
pub fn best_span<'a>(
    windows: impl IntoIterator<Item = (&'a Window, SpanLogits<'a>)>,
    options: SpanOptions,
) -> Span {
    let mut best: Option<(f64, Range<usize>)> = None;
    let mut none: Option<f64> = None;
    for (window, logits) in windows {
        let [of_start, of_end] = [logits.start, logits.end].map(|logits| {
            assert_eq!(logits.len(), window.row.ids.len(), "one logit a token");
            probabilities(logits, &window.context)
        });
        let first = of_start[0] * of_end[0];
        none = Some(none.map_or(first, |none| none.min(first)));
        let (starts, ends) = (&of_start[1..], &of_end[1..]);
        for (start, of_start) in starts.iter().enumerate() {
            for (end, of_end) in ends.iter().enumerate().skip(start).take(options.max_tokens) {
                let score = of_start * of_end;
                if best.as_ref().is_none_or(|(best, _)| score > *best) {
                    let begin = window.characters[start].start;
                    best = Some((score, begin..window.characters[end].end.max(begin)));
                }
            }
        }
    }
    let none = none.unwrap_or(0.0);
    match best {
        Some((score, characters)) if !(options.no_answer && none > score) => Span {
            characters: Some(characters),
            score,
        },
        _ => Span {
            characters: None,
            score: none,
        },
    }
}

/// The probabilities of no answer, which is the first token's, and of the tokens of the context.
fn probabilities(logits: &[f32], context: &Range<usize>) -> Vec<f64> {
    let none = logits.first().copied().unwrap_or(f32::NEG_INFINITY);
    let of_context = logits[context.clone()].iter().copied();
    super::softmax(&[none].into_iter().chain(of_context).collect::<Vec<f32>>())
}
