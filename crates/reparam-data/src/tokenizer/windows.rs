//! Encoding a question with a long context: windows that overlap.

use std::ops::Range;

use tokenizers::{
    Encoding, PostProcessor, TruncationDirection, TruncationParams, TruncationStrategy,
    truncate_encodings,
};

use super::guard::guarded;
use super::row::EncodedRow;
use super::{TextTokenizer, encode_error};
use crate::error::{DataError, Result};

/// What stands for a space in a vocabulary.
const SPACES: [char; 2] = ['Ġ', '▁'];

/// The row of a question and a part of its context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The tokens: question and part as the template for pairs says.
    pub row: EncodedRow,
    /// Which tokens of the row are of the context.
    pub context: Range<usize>,
    /// Which tokens of the whole context these are.
    pub part: Range<usize>,
    /// The characters of the context that each of them stands for, in code points, without white space at either end; none
    /// for a space that the tokenizer has put before a word.
    pub characters: Vec<Range<usize>>,
}

/// How a context is cut into windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowOptions {
    /// The most tokens of a window, those of the question and of the template included.
    pub max_length: usize,
    /// The tokens of the context that a window has in common with the next one.
    pub stride: usize,
}

impl Default for WindowOptions {
    /// 384 tokens, 128 of them in common, as by transformers' scripts for SQuAD.
    fn default() -> Self {
        Self {
            max_length: 384,
            stride: 128,
        }
    }
}

impl TextTokenizer {
    /// Encodes a question with a context in as many windows as the context needs.
    ///
    /// As transformers does with `truncation="only_second"`, `stride` and `return_overflowing_tokens=True`: the question is in
    /// every window; the parts of the context are as long as there is room for, and each begins `stride` tokens before the end
    /// of the one before. With `truncation_side = "left"` the first window has the end of the context.
    ///
    /// # Errors
    ///
    /// [`DataError::NoWindow`] if question and template leave no room for more than `stride` tokens of a context that is longer;
    /// else those of [`TextTokenizer::encode`].
    pub fn encode_windows(
        &self,
        question: &str,
        context: &str,
        options: WindowOptions,
    ) -> Result<Vec<Window>> {
        let processor = self.inner.get_post_processor();
        let of_template = processor.map_or(0, |step| step.added_tokens(true));
        let question = self.encoding(question, false)?;
        self.check_white_space(context)?;
        let whole = guarded(|| self.inner.encode_char_offsets(context, false));
        let mut whole = whole.map_err(encode_error)?;
        // The processors that have no template of their own take the type from here.
        whole.set_type_ids(vec![1; whole.len()]);
        let length = whole.len();
        let WindowOptions { max_length, stride } = options;
        let before = of_template + question.len();
        let room = max_length.saturating_sub(before);
        if before > max_length || (room < length && room <= stride) {
            return Err(DataError::NoWindow {
                max_length,
                before,
                stride,
            });
        }
        let params = TruncationParams {
            direction: self.truncation_side,
            max_length: question.len() + room,
            strategy: TruncationStrategy::OnlySecond,
            stride,
        };
        let cut = guarded(|| truncate_encodings(question, Some(whole), &params));
        let (question, second) = cut.map_err(encode_error)?;
        let mut second = second.unwrap_or_default();
        let mut encodings = second.take_overflowing();
        encodings.insert(0, second);
        let white: Vec<bool> = context.chars().map(char::is_whitespace).collect();
        let window = |(index, encoding): (usize, Encoding)| {
            // Where there are several, each begins so much behind the one before.
            let shift = index * room.saturating_sub(stride);
            let begin = match self.truncation_side {
                TruncationDirection::Right => shift,
                TruncationDirection::Left => length - shift - encoding.len(),
            };
            let part = begin..begin + encoding.len();
            let tokens = encoding.get_tokens().iter().zip(encoding.get_offsets());
            let characters =
                tokens.map(|(token, (begin, end))| trimmed(token, *begin..*end, &white));
            let characters = characters.collect();
            let question = question.clone();
            let pair = guarded(|| self.inner.post_process(question, Some(encoding), true));
            let pair = pair.map_err(encode_error)?;
            self.check_rows(pair.get_ids())?;
            let mut texts = pair.get_sequence_ids().into_iter();
            let first = texts.position(|text| text == Some(1));
            let first = first.unwrap_or(pair.len());
            Ok(Window {
                row: EncodedRow {
                    ids: pair.get_ids().to_vec(),
                    type_ids: pair.get_type_ids().to_vec(),
                    truncated: part.len() < length,
                },
                context: first..first + part.len(),
                part,
                characters,
            })
        };
        encodings.into_iter().enumerate().map(window).collect()
    }
}

/// The characters of a token without white space at either end; white space alone stays as it is.
fn trimmed(token: &str, range: Range<usize>, white: &[bool]) -> Range<usize> {
    let is_dark = |at: &usize| white.get(*at) != Some(&true);
    match (range.clone().find(is_dark), range.clone().rfind(is_dark)) {
        // A space that the tokenizer has put before a word says that it is the word's first letter.
        (Some(first), _) if token.chars().all(|character| SPACES.contains(&character)) => {
            first..first
        }
        (Some(first), Some(last)) => first..last + 1,
        _ => range,
    }
}
